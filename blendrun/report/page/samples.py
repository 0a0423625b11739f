"""A few requests of a run with their answers: found in its input and its journal by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
# What lines have between a field and its value, as this program and as others write JSON.
_SPACINGS = (":", ": ")
_BLOCK = 1 << 22


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
    names = [wish.custom_id for wish in wanted]
    prompts: dict[str, tuple[tuple[str, str], ...]] = {}
    for path in _inputs(state, manifest):
        missing = [name for name in names if name not in prompts]
        for name, line in _lines_with(path, missing, _SPACINGS):
            if name not in prompts and (turns := _prompt(line, name)):
                prompts[name] = turns
            if len(prompts) == len(names):
                break
    answers: dict[str, tuple[str, bool]] = {}
    # What failed once may have been answered later: the last one counts.
    for name, line in _lines_with(state.journal, names, _SPACINGS[:1]):
        if (answer := _answer(line, name)) is not None:
            answers[name] = answer
    return tuple(
        Sample(
            wish.custom_id,
            wish.number,
            wish.why,
            prompts.get(wish.custom_id, ()),
            *answers.get(wish.custom_id, ("", False)),
        )
        for wish in wanted
        if wish.custom_id in prompts or wish.custom_id in answers
    )


def _inputs(state: StateFolder, manifest: Manifest) -> list[Path]:
    """Files that hold the lines as text: what was unpacked or made of rows, and plain inputs."""
    spooled = [path for path in sorted(state.spool.glob("*")) if path.is_file()] if state.spool.is_dir() else []
    return [*spooled, *(Path(name) for name in manifest.inputs)]


def _prompt(line: bytes, custom_id: str) -> tuple[tuple[str, str], ...]:
    """Of a line of the input; nothing where it is another's, or no request."""
    try:
        request = parse_line(line, "/v1/chat/completions", rules=FOR_PLANNING)
    except (LineError, RecursionError):
        return ()
    if request.custom_id != custom_id:
        return ()
    turns = [(role, text) for role, text in prompt_turns(request.endpoint, request.body) if text]
    return tuple((role, _middle_left_out(text, len(turns))) for role, text in turns)


def _answer(line: bytes, custom_id: str) -> tuple[str, bool] | None:
    """Of a line of the journal, and whether it is an error; None where it is another's, or damaged."""
    try:
        # A record: checksum, meta data, tab, answer.
        record = orjson.loads(line.partition(b"\t")[2])
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or record.get("custom_id") != custom_id:
        return None
    return printable(cut(answer_text(record), _ANSWER), lines=True), isinstance(record.get("error"), dict)


def _lines_with(path: Path, names: Sequence[str], spacings: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Lines that may have one of the names as their custom_id, with it. spacings: between the field and its value."""
    forms = {
        f'"custom_id"{spacing}{json.dumps(name, ensure_ascii=ascii_only)}'.encode(errors="replace"): name
        for name in names
        for spacing in spacings
        for ascii_only in (True, False)
    }
    for block in _blocks(path) if forms else ():
        for form, name in forms.items():
            place = -1
            while (place := block.find(form, place + 1)) >= 0:
                begin, end = block.rfind(b"\n", 0, place) + 1, block.find(b"\n", place)
                yield name, block[begin : end if end >= 0 else len(block)]


def _blocks(path: Path) -> Iterator[bytes]:
    """A file in pieces of whole lines; nothing of one that cannot be read, or is packed."""
    with suppress(OSError), path.open("rb") as file:
        if packing(file.read(HEAD_BYTES)) is not None:
            return
        file.seek(0)
        while block := file.read(_BLOCK):
            yield block + file.readline()


def _middle_left_out(text: str, turns: int) -> str:
    """turns: of the prompt, which share the room."""
    room = max(_PROMPT // max(turns, 1), 160)
    if len(text) <= room + _PROMPT_END:
        return printable(text, lines=True)
    left_out = len(text) - room - _PROMPT_END
    return printable(f"{text[:room]} … [{left_out:,} characters] … {text[-_PROMPT_END:]}", lines=True)
