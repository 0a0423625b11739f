"""A job's prompts: rendered and encoded in a two-stage pipeline into a token store, or opened from an earlier one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.events import Listener, Progress, ignore
from blendrun.jobs.job import Job
from blendrun.models.resolve import cache_folder
from blendrun.tokens.base import Parts, Prompts
from blendrun.tokens.store import StoreWriter, open_store, prune
from blendrun.tokens.template import RenderError
from blendrun.tokens.tokenizer import EncodedPrompt, PromptTokenizer, RenderedPrompt
from blendrun.tokens.traits import traits

# Part of every store's key: raise it whenever rendering, columns or layout change.
_FORMAT = 7
# Characters of rendered text, or rows, in one batch of the tokenizer. Encodings take about 100 bytes a token while
# they live, and there are two batches at once: 120 MB in all.
_BATCH_CHARACTERS = 2 << 20
_BATCH_ROWS = 1024
# Failures kept with their message; of the others only the row is kept.
MAX_MESSAGES = 100
# Arrays of a store that are `Parts`.
_PARTS = ("parts", "first", "common")
# row, root, cluster, schema, reference, fixed, logprobs, estimated: one call a row, read back by NumPy.
_ROW = struct.Struct("<qQQQi???")
_ROW_TYPE = np.dtype(
    [
        ("row", "<i8"),
        ("root", "<u8"),
        ("cluster", "<u8"),
        ("schema", "<u8"),
        ("reference", "<i4"),
        ("fixed", "?"),
        ("logprobs", "?"),
        ("estimated", "?"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedJob:
    """The prompts of a job, and the rows that have no place among them. All arrays are memory-mapped.

    prompts: M prompts; about 60 bytes a prompt besides its tokens.
    schema: u64 (M,), hash of the form an answer must have (JSON schema, regex, grammar), 0 for none; engines compile
        each distinct one.
    logprobs: bool (M,), where the answer is to come with log probabilities.
    estimated: bool (M,), where the tokens of media may be others.
    longest: i32 (M,), tokens of the longest part of a line, which the context must hold; of most lines all of it.
    over_context: i64, rows whose prompt leaves no room for an answer.
    empty: i64, rows whose prompt has no token.
    failed: i64, rows that cannot be rendered.
    messages: (row, reason) of the first MAX_MESSAGES failed rows.
    reused: whether an earlier token store was opened.
    """

    prompts: Prompts
    schema: NDArray[np.uint64]
    logprobs: NDArray[np.bool_]
    estimated: NDArray[np.bool_]
    longest: NDArray[np.int32]
    over_context: NDArray[np.int64]
    empty: NDArray[np.int64]
    failed: NDArray[np.int64]
    messages: tuple[tuple[int, str], ...]
    reused: bool


def build_prompts(
    job: Job,
    tokenizer: PromptTokenizer,
    *,
    context_length: int,
    rows: NDArray[np.int64] | None = None,
    store_folder: Path | None = None,
    listener: Listener = ignore,
) -> TokenizedJob:
    """The prompts of `rows` (default: all accepted rows but copies of others) in tokens.

    context_length: tokens of prompt and answer together.
    store_folder: where token stores are kept; default `cache_folder() / "tokens"`.
    listener: told the progress in requests after each batch; nothing where a store is opened.

    Memory while building is about 150 bytes a row and 200 MB, whatever the length of the prompts.
    Raises what `Job.request` raises, and OutputUnavailableError where the store cannot be written.
    """
    rows = job.distinct if rows is None else np.sort(rows)
    folder = store_folder or cache_folder() / "tokens"
    key = _store_key(job, tokenizer, rows, context_length)
    reused = True
    if (stored := open_store(folder, key)) is None:
        reused = False
        _build(job, tokenizer, rows, context_length, folder, key, listener)
        prune(folder, key)
        stored = open_store(folder, key)
        if stored is None:
            raise RuntimeError(f"the token store {key} in {folder} was removed as soon as it was written")
    found = _tokenized(*stored, reused)
    if tokenizer.shares:
        return found
    apart = replace(found.prompts, root=np.arange(len(found.prompts), dtype=np.uint64))
    return replace(found, prompts=apart)


def render_text(job: Job, row: int, tokenizer: PromptTokenizer) -> str:
    """The prompt of an accepted row as the model will see it, special tokens included, for display.

    Raises RenderError, and what `Job.request` raises.
    """
    request = job.request(row)
    prompt = tokenizer.render(request.endpoint, request.body, job.reading.rules.media_folder)
    return "\n".join(_shown(part, tokenizer) for part in prompt.parts or (prompt,))


def _shown(prompt: RenderedPrompt, tokenizer: PromptTokenizer) -> str:
    if prompt.ids is not None:
        return tokenizer.decode(prompt.ids)
    return f"{prompt.text}\n{prompt.pair}" if prompt.pair else prompt.text + prompt.prefix


@dataclass(slots=True)
class _Batch:
    """Rendered prompts on their way to the tokenizer, and their packed rows."""

    prompts: list[RenderedPrompt] = field(default_factory=list)
    rows: bytearray = field(default_factory=bytearray)
    characters: int = 0

    @property
    def full(self) -> bool:
        return self.characters >= _BATCH_CHARACTERS or len(self.prompts) >= _BATCH_ROWS


class _Builder:
    """One pass over the rows."""

    def __init__(self, job: Job, tokenizer: PromptTokenizer, context_length: int) -> None:
        self.job = job
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.failed: list[int] = []
        self.messages: list[tuple[int, str]] = []
        self.rows: list[NDArray[Any]] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.longest: list[NDArray[np.int64]] = []
        self.parts: list[NDArray[np.int32]] = []

    def batches(self, rows: NDArray[np.int64]) -> Iterator[_Batch]:
        """Rendered rows, a batch at a time. The last may be empty."""
        batch, rules = _Batch(), self.job.reading.rules
        for row in rows.tolist():
            request = self.job.request(row)
            try:
                prompt = self.tokenizer.render(request.endpoint, request.body, rules.media_folder)
                own = traits(request, int(self.job.max_new_tokens[row]), prompt.media, rules.adapters)
            except RenderError as error:
                self._fail(row, str(error))
                continue
            except Exception as error:  # noqa: BLE001  # one odd request must not cost the job its plan
                self._fail(row, f"{type(error).__name__}: {str(error)[:300]}")
                continue
            batch.rows += _ROW.pack(row, *own, prompt.estimated)
            batch.prompts.append(prompt)
            batch.characters += sum(len(part.text) for part in prompt.parts or (prompt,))
            if batch.full:
                yield batch
                batch = _Batch()
        yield batch

    def add(self, batch: _Batch, encoded: list[EncodedPrompt], writer: StoreWriter) -> None:
        """Keep a batch's columns, and write the ids that fit the context.

        What a line's parts have together may be more than a plan can place: it is planned with as much as fits.
        """
        most = self.context_length - 1
        self.rows.append(np.frombuffer(batch.rows, dtype=_ROW_TYPE))
        self.longest.append(np.array([each.longest for each in encoded], dtype=np.int64))
        parts = [(each.parts, each.first, each.common) for each in encoded]
        self.parts.append(np.array(parts, dtype=np.int32).reshape(-1, len(_PARTS)))
        fitting = [each.ids[:most] for each in encoded if each.longest <= most]
        lengths = [min(len(each.ids), most) if each.longest <= most else each.longest for each in encoded]
        self.lengths.append(np.array(lengths, dtype=np.int64))
        if fitting:
            writer.extend(np.concatenate(fitting))

    def finish(self, writer: StoreWriter) -> None:
        rows, tokens = np.concatenate(self.rows), np.concatenate(self.lengths)
        longest = np.concatenate(self.longest)
        over, empty = longest >= self.context_length, tokens == 0
        kept = ~over & ~empty
        arrays = _columns(self.job, rows[kept], tokens[kept], self.context_length)
        arrays["longest"] = longest[kept].astype(np.int32)
        arrays |= dict(zip(_PARTS, np.concatenate(self.parts)[kept].T.copy(), strict=True))
        arrays["over_context"] = rows["row"][over]
        arrays["empty"] = rows["row"][empty]
        arrays["failed"] = np.array(self.failed, dtype=np.int64)
        writer.finish(arrays, self.messages)

    def _fail(self, row: int, message: str) -> None:
        self.failed.append(row)
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append((row, message))


def _build(
    job: Job,
    tokenizer: PromptTokenizer,
    rows: NDArray[np.int64],
    context_length: int,
    folder: Path,
    key: str,
    listener: Listener,
) -> None:
    # Without a setting of its own, tokenizers warns on stderr of every later fork of a process that used its threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    builder = _Builder(job, tokenizer, context_length)
    done = 0

    def finish(batch: _Batch, encoded: Future[list[EncodedPrompt]]) -> None:
        nonlocal done
        builder.add(batch, encoded.result(), writer)
        done += len(batch.prompts)
        listener(Progress(done + len(builder.failed), len(rows), "requests"))

    # The tokenizer works on one batch, with its own threads and without the GIL, while the next one is rendered and
    # the one before is written.
    with StoreWriter(folder, key) as writer, ThreadPoolExecutor(1, thread_name_prefix="encode") as encoder:
        before: tuple[_Batch, Future[list[EncodedPrompt]]] | None = None
        for batch in builder.batches(rows):
            encoding = encoder.submit(tokenizer.encode_all, batch.prompts)
            if before is not None:
                finish(*before)
            before = batch, encoding
        if before is not None:
            finish(*before)
        builder.finish(writer)


def _columns(job: Job, rows: NDArray[Any], tokens: NDArray[np.int64], context_length: int) -> dict[str, NDArray[Any]]:
    """The arrays of `Prompts` but for its units, and `schema`, `logprobs` and `estimated`."""
    row = rows["row"]
    asked, left = job.max_new_tokens[row].astype(np.int64), context_length - tokens
    bound = np.where(asked > 0, np.minimum(asked, left), left)
    # One more than the published answer has, for the token that ends it.
    reference = np.where(rows["reference"] >= 0, np.minimum(rows["reference"].astype(np.int64) + 1, bound), -1)
    reference = np.where(rows["fixed"], bound, reference)
    return {
        "row": row,
        "offsets": np.concatenate(([0], np.cumsum(tokens))).astype(np.int64),
        "prompt_tokens": tokens.astype(np.int32),
        "root": rows["root"],
        "cluster": rows["cluster"],
        "bound": bound.astype(np.int32),
        "choices": job.choices[row].astype(np.int32),
        "reference": reference.astype(np.int32),
        # A text job's other references are somebody else's answers, not this model's.
        "known": rows["fixed"],
        "schema": rows["schema"],
        "logprobs": rows["logprobs"],
        "estimated": rows["estimated"],
    }


def _tokenized(arrays: dict[str, NDArray[Any]], messages: list[tuple[int, str]], reused: bool) -> TokenizedJob:
    names = ("schema", "logprobs", "estimated", "longest", "over_context", "empty", "failed")
    own = {name: arrays.pop(name) for name in names}
    parts = Parts(*(arrays.pop(name) for name in _PARTS))
    several = parts if parts.count.max(initial=1) > 1 else None
    reasons = tuple((row, message) for row, message in messages)
    return TokenizedJob(Prompts(unit_tokens=1, parts=several, **arrays), messages=reasons, reused=reused, **own)


def _store_key(job: Job, tokenizer: PromptTokenizer, rows: NDArray[np.int64], context_length: int) -> str:
    """32 hex digits of all that decides the store's content.

    The sources' bytes are hashed too (a second a GB): metadata is in a store, but not in the job's fingerprint.
    """
    digest = blake2b(digest_size=16)
    for place in np.unique(job.source[rows]).tolist():
        own = rows[job.source[rows] == place]
        end = int((job.offset[own] + job.length[own]).max())
        for piece in job.reader.pieces(place, 0, end):
            digest.update(piece)
    digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
    # Some templates write the date into the prompt.
    today = date.today().isoformat() if tokenizer.template and tokenizer.template.uses_today else ""
    reading = job.reading
    parts = [_FORMAT, job.fingerprint, reading.default_url, tokenizer.identity, context_length, today]
    # A file that lines name, and that changes, is not noticed: its count may be that of the old one.
    parts += [reading.rules.adapters, str(reading.rules.media_folder)]
    digest.update(orjson.dumps(parts))
    return digest.hexdigest()
