"""A few requests of a run with their answers: found in its input and its journal by their names."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from blendrun.endpoints.rules import FOR_PLANNING
from blendrun.endpoints.words import answer_text, prompt_turns
from blendrun.errors import LineError
from blendrun.jobs.line import parse_line
from blendrun.jobs.spool import HEAD_BYTES, packing
from blendrun.report.page.requests import Requests
from blendrun.store.folder import StateFolder
from blendrun.store.manifest import Manifest
from blendrun.text import cut, printable

# Characters of a prompt and of an answer that are shown; a prompt's end is shown, too: the question stands there.
_PROMPT, _ANSWER = 600, 500
_PROMPT_END = 300
# Where a name stands in several places of a file, so many are looked at.
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that is to be shown. why: what it is an example of."""

    custom_id: str
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A request and its answer. prompt: (role, text) of each message; empty where its line is not found. answer: what
    was answered, or the error; empty where it is not found.
    """

    custom_id: str
    number: int
    why: str
    prompt: tuple[tuple[str, str], ...]
    answer: str
    failed: bool = False


def wishes(requests: Requests) -> list[Wish]:
    """The first answer, one that was cut, one that failed, the longest: each request once, with all its reasons."""
    found: dict[str, Wish] = {}
    chosen = (
        (requests.first, "the first"),
        (requests.cut_first[0] if requests.cut_first else None, "cut short"),
        (requests.failed[0] if requests.failed else None, "failed"),
        (requests.longest, "the longest"),
    )
    for named, why in chosen:
        if named is not None:
            before = found.get(named.custom_id)
            whole = f"{before.why}, {why}" if before else why
            found[named.custom_id] = Wish(named.custom_id, named.number, whole)
    return list(found.values())


def read_samples(wanted: Sequence[Wish], state: StateFolder, manifest: Manifest) -> tuple[Sample, ...]:
    """In the order of `wanted`; those of which nothing is found are left out. What cannot be read is not found."""
    with ExitStack() as stack:
        inputs = [file for path in _inputs(state, manifest) if (file := _mapped(path, stack)) is not None]
        journal = _mapped(state.journal, stack)
        found = []
        for wish in wanted:
            prompt = next((turns for file in inputs if (turns := _prompt(file, wish.custom_id))), ())
            answer, failed = _answer(journal, wish.custom_id) if journal is not None else ("", False)
            if prompt or answer:
                found.append(Sample(wish.custom_id, wish.number, wish.why, prompt, answer, failed))
        return tuple(found)


def _inputs(state: StateFolder, manifest: Manifest) -> list[Path]:
    """Files that hold the lines as text: what was unpacked or made of rows, and plain inputs."""
    spooled = [path for path in sorted(state.spool.glob("*")) if path.is_file()] if state.spool.is_dir() else []
    return [*spooled, *(Path(name) for name in manifest.inputs)]


def _mapped(path: Path, stack: ExitStack) -> mmap.mmap | None:
    """A file's bytes; None where there are none, or they are packed."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        if packing(file.read(HEAD_BYTES)) is not None:
            return None
        return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return None


def _prompt(file: mmap.mmap, custom_id: str) -> tuple[tuple[str, str], ...]:
    for line in _lines_with(file, custom_id):
        try:
            request = parse_line(line, "/v1/chat/completions", rules=FOR_PLANNING)
        except (LineError, RecursionError):
            continue
        if request.custom_id == custom_id:
            turns = [(role, text) for role, text in prompt_turns(request.endpoint, request.body) if text]
            return tuple((role, _middle_left_out(text, len(turns))) for role, text in turns)
    return ()


def _answer(journal: mmap.mmap, custom_id: str) -> tuple[str, bool]:
    """The last one: what failed once may have been answered later."""
    text, failed = "", False
    for line in _lines_with(journal, custom_id):
        # A record: checksum, meta data, tab, answer.
        record: Any = None
        with suppress(orjson.JSONDecodeError):
            record = orjson.loads(line.partition(b"\t")[2])
        if isinstance(record, dict) and record.get("custom_id") == custom_id:
            text, failed = answer_text(record), isinstance(record.get("error"), dict)
    return printable(cut(text, _ANSWER), lines=True), failed


def _lines_with(file: mmap.mmap, custom_id: str) -> Iterator[bytes]:
    """Lines that hold the name as a JSON text, however that writes it."""
    forms = {json.dumps(custom_id).encode(), json.dumps(custom_id, ensure_ascii=False).encode(errors="replace")}
    for form in forms:
        place = -1
        for _ in range(_TRIES):
            if (place := file.find(form, place + 1)) < 0:
                break
            begin = file.rfind(b"\n", 0, place) + 1
            end = file.find(b"\n", place)
            place = end if end >= 0 else len(file)
            yield file[begin:place]


def _middle_left_out(text: str, turns: int) -> str:
    """turns: of the prompt, which share the room."""
    room = max(_PROMPT // max(turns, 1), 160)
    if len(text) <= room + _PROMPT_END:
        return printable(text, lines=True)
    left_out = len(text) - room - _PROMPT_END
    return printable(f"{text[:room]} … [{left_out:,} characters] … {text[-_PROMPT_END:]}", lines=True)
