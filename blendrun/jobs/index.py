"""From sources to a Job in one pass, with memory for the columns and one block of text."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.endpoints.apis.registry import URLS
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.endpoints.spellings import url_of
from blendrun.errors import InputInvalidError, LineError, UsageError
from blendrun.events import Listener, Note, Progress, ignore
from blendrun.jobs.first_rows import first_rows
from blendrun.jobs.job import Job, Reading
from blendrun.jobs.kinds import looks_like_request, why_no_request
from blendrun.jobs.line import DIGEST_BYTES, MAX_LINE_BYTES, raw_digest
from blendrun.jobs.lines import BLOCK_BYTES, RawLine, scan_lines
from blendrun.jobs.reader import SourceReader
from blendrun.jobs.same import ALONE, Drawn, Sameness
from blendrun.jobs.source import Source
from blendrun.jobs.tables.note import notes
from blendrun.text import cut

# One row as it is gathered: packed by struct (one call a row), read back by NumPy. `owner` is the digest of
# the custom_id; it finds duplicates and is dropped.
_ROW = struct.Struct("<Hqqqb?ih16s16s16s?")
_ROW_TYPE = np.dtype(
    [
        ("source", "<u2"),
        ("offset", "<i8"),
        ("length", "<i8"),
        ("line_number", "<i8"),
        ("endpoint", "i1"),
        ("rejected", "?"),
        ("max_new_tokens", "<i4"),
        ("choices", "<i2"),
        ("content", "u1", (DIGEST_BYTES,)),
        ("owner", "<u8", (2,)),
        ("asked", "u1", (DIGEST_BYTES,)),
        ("keepable", "?"),
    ]
)
_CHUNK_BYTES = 65_536 * _ROW.size
_NO_OWNER = bytes(16)
_MAX_NEW_TOKENS = 2**31 - 1
_NAMES_COUNTED, _LONGEST_NAME = 1000, 256
_CODES = {url: code for code, url in enumerate(ENDPOINTS)}


def index_jobs(
    sources: Sequence[Source],
    *,
    limit: int | None = None,
    default_url: str | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    rules: Rules | None = None,
    same: Sameness | None = None,
    listener: Listener = ignore,
) -> Job:
    """Read every line once and keep where it is and what it asks for.

    limit: stop after this many non-blank lines of the whole job; nothing behind them is read, and the
        fingerprint covers those lines only (`Job.select` keeps the whole job's).
    default_url: what a line without `url` means.
    max_line_bytes: longer lines are rejected without being loaded.
    rules: what lines may ask for; by default no media outside the line and no adapter.
    same: which requests are equal; None: nobody asks.
    listener: told the progress in bytes about every 4 MiB, and at the end.

    Raises InputInvalidError (no line at all, or a file became shorter), InputMissingError, UsageError.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be 1 line or more, not {limit}")
    if default_url is not None and url_of(default_url) not in URLS:
        raise UsageError(f"endpoint {default_url!r} is not served; these work: {', '.join(URLS)}")
    for note in notes((source.name, source.made) for source in sources if source.made):
        listener(Note(note))
    reading = Reading(default_url, max_line_bytes, rules or Rules(), same)
    reader = SourceReader(sources)
    try:
        gatherer = _Gatherer(sources, reader, reading)
        columns = gatherer.gather(limit, listener)
        if not len(columns["rejected"]):
            names = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
            raise InputInvalidError(f"{names} holds no request; each line must be one JSON object")
    except BaseException:
        reader.close()
        raise
    duplicate_of = first_rows(columns.pop("owner"), columns["rejected"])
    columns["rejected"] |= duplicate_of >= 0
    fingerprint = blake2b(columns["content"].data, digest_size=16).hexdigest()
    return Job(
        tuple(sources),
        fingerprint,
        duplicate_of=duplicate_of,
        copy_of=reading.copies(columns["asked"], columns["rejected"]),
        reading=reading,
        reader=reader,
        models=gatherer.models,
        passed_over=gatherer.passed_over,
        with_tools=gatherer.with_tools,
        drawn=gatherer.drawn.forget(),
        **columns,
    )


class _Gatherer:
    """Collects rows in chunks of columns, so that no moment holds both all rows and all columns."""

    def __init__(self, sources: Sequence[Source], reader: SourceReader, reading: Reading) -> None:
        self.sources = sources
        self.reader = reader
        self.reading = reading
        self.buffer = bytearray()
        # Whether any line of the source that is read is a request, or was meant to be one.
        self.meant = False
        self.models: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.with_tools = 0
        self.drawn = Drawn()
        self.chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in _ROW_TYPE.fields or ()}

    def gather(self, limit: int | None, listener: Listener) -> dict[str, NDArray[Any]]:
        """All columns, each contiguous."""
        total = sum(source.size for source in self.sources)
        rows, base, report_at = 0, 0, BLOCK_BYTES
        for place, source in enumerate(self.sources):
            first: RawLine | None = None
            self.meant = False
            for line in self._lines(place):
                row = self._row(place, line)
                if row is None:
                    continue
                if first is None:
                    first = line
                    if (line.raw or b"").strip() == b"[":
                        # Its last element may look like a line; the others do not.
                        raise InputInvalidError(self._no_request(source, first))
                self.buffer += row
                if len(self.buffer) >= _CHUNK_BYTES:
                    self._flush()
                rows += 1
                done = base + line.offset + line.length
                if rows == limit:
                    listener(Progress(done, total, "bytes"))
                    return self._finish()
                if done >= report_at:
                    listener(Progress(done, total, "bytes"))
                    report_at = done + BLOCK_BYTES
            if first is not None and not self.meant:
                raise InputInvalidError(self._no_request(source, first))
            base += source.size
        listener(Progress(total, total, "bytes"))
        return self._finish()

    def _lines(self, place: int) -> Iterator[RawLine]:
        source = self.sources[place]
        with self.reader.descriptor(place) as fd:
            yield from scan_lines(fd, source.size, self.reading.max_line_bytes, source.name)

    def _row(self, place: int, line: RawLine) -> bytes | None:
        """The packed row; None where an over-long line turns out to be blank."""
        number, offset, length, raw = line
        if raw is None:
            return self._long_row(place, line)
        try:
            request = self.reading.parse(raw)
            self.meant = True
        except LineError as error:
            self.meant = self.meant or looks_like_request(raw)
            content = error.content or raw_digest([raw])
            return _ROW.pack(place, offset, length, number, -1, True, 0, 0, content, _NO_OWNER, ALONE, False)
        self._count(self.models, request.body.get("model"))
        for name in request.passed_over:
            self._count(self.passed_over, name)
        self.with_tools += bool(request.body.get("tools")) and request.body.get("tool_choice") != "none"
        demand = request.endpoint.demand(request.body)
        # A bound beyond 31 bits is beyond any context, where the answer ends anyway.
        bound = min(demand.max_new_tokens or 0, _MAX_NEW_TOKENS)
        owner = blake2b(request.custom_id.encode(), digest_size=16).digest()
        code = _CODES[request.endpoint.url]
        same = self.reading.same
        asked, keepable = (ALONE, False) if same is None else same.asked(request)
        if same is not None and same.drawn(request):
            self.drawn.add(request)
        return _ROW.pack(
            *(place, offset, length, number, code, False, bound, demand.choices, request.content, owner),
            *(asked, keepable),
        )

    def _no_request(self, source: Source, first: RawLine) -> str:
        """The sentence on a file that holds none at all. first: its first line that is not blank."""
        raw = first.raw or b""
        try:
            self.reading.parse(raw)
            detail = ""
        except LineError as error:
            detail = f". Line {first.number}: {error.message}"
        if source.name == "<stdin>" and not raw.lstrip().startswith(b"{"):
            detail = "; CSV, TSV and text are known by their names, so give a file of them"
        return f"{source.name} holds no request: {why_no_request(raw, source.size)}{detail}"

    def _count(self, names: Counter[str], name: str | None) -> None:
        # A column that holds an id by mistake must not fill the memory.
        if name is not None and ((short := cut(name, _LONGEST_NAME)) in names or len(names) < _NAMES_COUNTED):
            names[short] += 1

    def _long_row(self, place: int, line: RawLine) -> bytes | None:
        blank = True

        def pieces() -> Iterator[bytes]:
            nonlocal blank
            for piece in self.reader.pieces(place, line.offset, line.length):
                blank = blank and piece.isspace()
                yield piece

        digest = raw_digest(pieces())
        if blank:
            return None
        # What is too long to be looked at may be one.
        self.meant = True
        return _ROW.pack(place, line.offset, line.length, line.number, -1, True, 0, 0, digest, _NO_OWNER, ALONE, False)

    def _flush(self) -> None:
        rows = np.frombuffer(self.buffer, dtype=_ROW_TYPE)
        for name, parts in self.chunks.items():
            parts.append(np.ascontiguousarray(rows[name]))
        self.buffer = bytearray()

    def _finish(self) -> dict[str, NDArray[Any]]:
        self._flush()
        columns = {}
        for name in list(self.chunks):
            # Popped one by one: the chunks of a finished column are given back before the next is joined.
            columns[name] = np.concatenate(self.chunks.pop(name))
        return columns
