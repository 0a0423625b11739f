"""Traces: lines that tell how long requests were and, where known, which blocks of prompt they share. No text.

    {"id": "a-1", "prompt_tokens": 6758, "output_tokens": 500, "block_size": 512, "hash_ids": [0, 1, 2, ...]}

A trace can be planned and simulated, not run.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.errors import ErrorCode, InputInvalidError, LineError, UsageError
from blendrun.events import Listener, Progress, ignore
from blendrun.jobs.first_rows import first_rows
from blendrun.jobs.line import MAX_LINE_BYTES
from blendrun.jobs.lines import BLOCK_BYTES, RawLine, scan_lines
from blendrun.jobs.reader import SourceReader
from blendrun.jobs.source import Source
from blendrun.jobs.trace_line import TraceLine, is_trace, parse_trace_line, refuse


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that is no request of the trace. source: index into `Trace.sources`; line_number: 1-based in it."""

    source: int
    line_number: int
    error: LineError


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """N requests in input order, as columns; refused lines are left out of them.

    sources: the inputs, in the order given.
    source: u16 (N,), index into `sources`. Block ids are comparable within one source only.
    line_number: i64 (N,), 1-based within its source, blank lines counted.
    prompt_tokens, output_tokens: i32 (N,), >= 0.
    block_size: tokens of a block, 0 where no line has blocks.
    blocks: i64 (B,), block ids of all requests one after the other (ids from 2^63 to 2^64 - 1 wrap around).
    offsets: i64 (N + 1,), request i has blocks[offsets[i]:offsets[i + 1]]: ceil(prompt_tokens / block_size) of them, or
        none where its line has none.
    cluster: u64 (N,), hash of `service` and `client`; 0 where a line has neither.
    id_bytes, id_offsets: u8 and i64 (N + 1,), the ids in UTF-8, empty where a line has none; `id` reads them.
    refused: the other lines, in input order.
    """

    sources: tuple[Source, ...]
    source: NDArray[np.uint16]
    line_number: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    block_size: int
    blocks: NDArray[np.int64]
    offsets: NDArray[np.int64]
    cluster: NDArray[np.uint64]
    id_bytes: NDArray[np.uint8]
    id_offsets: NDArray[np.int64]
    refused: tuple[RefusedLine, ...]

    def __len__(self) -> int:
        return len(self.line_number)

    def id(self, row: int) -> str:
        """The request's id; of a line without one its line number, and with several sources their name before it."""
        given = self.id_bytes[self.id_offsets[row] : self.id_offsets[row + 1]].tobytes().decode()
        if given:
            return given
        name, number = self.where(row)
        return str(number) if len(self.sources) == 1 else f"{name}:{number}"

    def where(self, row: int) -> tuple[str, int]:
        """Name of the source and 1-based line number in it."""
        return self.sources[self.source[row]].name, int(self.line_number[row])


def holds_trace(sources: Sequence[Source]) -> bool:
    """Whether the first line that is not blank is a trace's. Raises as `read_trace` does where it cannot be read."""
    reader = SourceReader(sources)
    try:
        lines = chain.from_iterable(_lines(place, source, reader) for place, source in enumerate(sources))
        first = next(lines, None)
    finally:
        reader.close()
    return first is not None and first.raw is not None and is_trace(first.raw)


def read_trace(sources: Sequence[Source], *, limit: int | None = None, listener: Listener = ignore) -> Trace:
    """Read every line of a trace.

    limit: stop after this many lines that are not blank, refused ones counted.
    listener: told the progress in bytes about every 4 MiB, and at the end.

    Raises InputInvalidError (no line is a request, or a file became shorter), InputMissingError, UsageError.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be 1 line or more, not {limit}")
    gathered = _Gathered()
    reader = SourceReader(sources)
    total, base, report_at, lines = sum(source.size for source in sources), 0, BLOCK_BYTES, 0
    try:
        for place, source in enumerate(sources):
            # Nothing behind the limit is read.
            for line in islice(_lines(place, source, reader), None if limit is None else limit - lines):
                gathered.take(place, line)
                lines += 1
                done = base + line.offset + line.length
                if done >= report_at:
                    listener(Progress(done, total, "bytes"))
                    report_at = done + BLOCK_BYTES
            base += source.size
    finally:
        reader.close()
    listener(Progress(total, total, "bytes"))
    return gathered.trace(tuple(sources))


def _lines(place: int, source: Source, reader: SourceReader) -> Iterator[RawLine]:
    with reader.descriptor(place) as fd:
        yield from scan_lines(fd, source.size, MAX_LINE_BYTES, source.name)


class _Gathered:
    """The columns while they grow; arrays of the standard library double in place and hold plain numbers."""

    def __init__(self) -> None:
        self.source, self.line_number = array("H"), array("q")
        self.prompt_tokens, self.output_tokens = array("i"), array("i")
        self.cluster, self.owner = array("Q"), array("Q")
        self.blocks, self.block_count, self.own = array("q"), array("q"), array("q")
        self.ids, self.id_length = bytearray(), array("q")
        self.block_size = 0
        self.refused: list[RefusedLine] = []

    def take(self, place: int, line: RawLine) -> None:
        """Add a line, to the rows or to the refused ones."""
        try:
            if line.raw is None:
                raise refuse(f"the line has {line.length:,} bytes; at most {MAX_LINE_BYTES:,} are read")
            request = parse_trace_line(line.raw)
            self._check_block_size(request)
        except LineError as error:
            self.refused.append(RefusedLine(place, line.number, error))
            return
        self.source.append(place)
        self.line_number.append(line.number)
        self.prompt_tokens.append(request.prompt_tokens)
        self.output_tokens.append(request.output_tokens)
        self.cluster.append(request.cluster)
        self.blocks.extend(request.blocks)
        count = len(request.blocks)
        if request.block_size and count * request.block_size < request.prompt_tokens:
            # Only full blocks have ids: what is left of the prompt gets one that nobody else has, when all are known.
            self.own.append(len(self.blocks))
            self.blocks.append(0)
            count += 1
        self.block_count.append(count)
        name = request.id.encode()
        self.owner.frombytes(blake2b(name, digest_size=16).digest())
        self.ids += name
        self.id_length.append(len(name))

    def _check_block_size(self, request: TraceLine) -> None:
        size = request.block_size
        if size and self.block_size and size != self.block_size:
            raise refuse(f"`block_size` is {size:,}, but {self.block_size:,} in the lines before", request.id)
        self.block_size = self.block_size or size

    def trace(self, sources: tuple[Source, ...]) -> Trace:
        """Raises InputInvalidError where no line is a request."""
        count = len(self.source)
        if not count:
            names = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
            why = f"; line {self.refused[0].line_number}: {self.refused[0].error.message}" if self.refused else ""
            raise InputInvalidError(f"{names} holds no request of a trace{why}")
        id_length, block_count = _column(self.id_length, np.int64), _column(self.block_count, np.int64)
        first = first_rows(_column(self.owner, np.uint64).reshape(count, 2), id_length == 0)
        keep = first < 0
        trace = Trace(
            sources=sources,
            source=_column(self.source, np.uint16),
            line_number=_column(self.line_number, np.int64),
            prompt_tokens=_column(self.prompt_tokens, np.int32)[keep],
            output_tokens=_column(self.output_tokens, np.int32)[keep],
            block_size=self.block_size,
            blocks=_with_own(_column(self.blocks, np.int64), _column(self.own, np.int64))[np.repeat(keep, block_count)],
            offsets=_offsets(block_count[keep]),
            cluster=_column(self.cluster, np.uint64)[keep],
            id_bytes=_column(self.ids, np.uint8),
            id_offsets=_offsets(id_length),
            refused=(),
        )
        for row in np.flatnonzero(~keep).tolist():
            self.refused.append(_second(trace, row, int(first[row])))
        return replace(
            trace,
            source=trace.source[keep],
            line_number=trace.line_number[keep],
            id_bytes=trace.id_bytes[np.repeat(keep, id_length)],
            id_offsets=_offsets(id_length[keep]),
            refused=tuple(sorted(self.refused, key=lambda line: (line.source, line.line_number))),
        )


def _second(trace: Trace, row: int, first: int) -> RefusedLine:
    """The refusal of a line whose id an earlier one has."""
    name, (source, number) = trace.id(row), trace.where(first)
    message = f"id {name!r} is already that of line {number} of {source}; the first one is kept"
    error = LineError(ErrorCode.DUPLICATE_CUSTOM_ID, message, name)
    return RefusedLine(int(trace.source[row]), int(trace.line_number[row]), error)


def _with_own(blocks: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """The blocks with ids at the places `own` that no other place has."""
    if not len(own):
        return blocks
    given = np.delete(blocks, own)
    last = int(given.max()) if len(given) else -1
    if last + len(own) >= 2**63:
        # There is no room above them: numbered anew, in their order.
        names, given = np.unique(given, return_inverse=True)
        last = len(names) - 1
    found = np.empty_like(blocks)
    rest = np.ones(len(blocks), dtype=np.bool_)
    rest[own] = False
    found[rest] = given
    found[own] = last + 1 + np.arange(len(own))
    return found


def _column(values: array[Any] | bytearray, kind: type) -> NDArray[Any]:
    return np.frombuffer(values, dtype=kind)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
