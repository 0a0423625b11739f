"""Several batches as one job, and its answers as those of each.

A custom_id is unique in a batch and not among batches, so a line of the job has the batch's place before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from blendrun.endpoints.apis.registry import APIS
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import ErrorCode
from blendrun.files import PRIVATE, replacing
from blendrun.service.objects import Counts
from blendrun.service.validation import lines_of

_BETWEEN = ":"


@dataclass(slots=True)
class Part:
    """What came of a batch. output, errors: where its lines are; ids: custom_ids that have one."""

    counts: Counts
    usage: dict[str, int] = field(default_factory=lambda: {"input": 0, "cached": 0, "output": 0})


def join(contents: Sequence[tuple[int, Path]], job: Path) -> None:
    """Write a job of batches: place and content of each. Raises OSError."""
    with replacing(job, PRIVATE) as file:
        for place, content in contents:
            with content.open("rb") as lines:
                for text in lines_of(lines):
                    if text.strip():
                        line = orjson.loads(text)
                        line["custom_id"] = prefix_of(place) + line["custom_id"]
                        file.write(orjson.dumps(line) + b"\n")


def prefix_of(place: int) -> str:
    """What custom_ids of a batch at this place begin with."""
    return f"{place}{_BETWEEN}"


def place_of(custom_id: object) -> int:
    """Of the batch that a line of a job belongs to; -1 for none."""
    place = custom_id.partition(_BETWEEN)[0] if isinstance(custom_id, str) else ""
    return int(place) if place.isascii() and place.isdecimal() else -1


def divide(
    lines: Iterable[bytes], targets: Mapping[int, tuple[Path, Path]], urls: Mapping[int, str]
) -> dict[int, Part]:
    """Write lines of a job's answers to the files of their batches: place to output and errors file, and to url.

    Raises OSError.
    """
    parts = {place: Part(Counts()) for place in targets}
    with ExitStack() as stack:
        files: dict[int, tuple[BinaryIO, BinaryIO]] = {
            place: (stack.enter_context(output.open("wb")), stack.enter_context(errors.open("wb")))
            for place, (output, errors) in targets.items()
        }
        for text in lines:
            line = orjson.loads(text)
            place = place_of(line["custom_id"])
            if place not in files:
                continue
            line["custom_id"] = line["custom_id"].partition(_BETWEEN)[2]
            output, errors = files[place]
            failed = line.get("error") is not None
            (errors if failed else output).write(_as_openai(line) + b"\n")
            _count(parts[place], urls[place], line, failed)
    return parts


def expire(content: Path, answered: set[str], errors: Path) -> int:
    """Add an error line for each request of a batch that has no answer. Returns how many. Raises OSError."""
    count = 0
    with content.open("rb") as lines, errors.open("ab") as file:
        for text in lines_of(lines):
            if not text.strip():
                continue
            name = orjson.loads(text)["custom_id"]
            if name in answered:
                continue
            count += 1
            message = "the batch expired before this request was answered"
            error = {"code": str(ErrorCode.BATCH_EXPIRED), "message": message}
            line = {"id": f"batch_req_{count}", "custom_id": name, "response": None, "error": error}
            file.write(orjson.dumps(line) + b"\n")
    return count


def ids_in(*paths: Path) -> set[str]:
    """custom_ids of lines. Raises OSError."""
    found = set()
    for path in paths:
        if path.exists():
            with path.open("rb") as lines:
                found |= {orjson.loads(text)["custom_id"] for text in lines}
    return found


def _as_openai(line: dict[str, Any]) -> bytes:
    """Without the number of a line in a file that nobody else sees."""
    error = line.get("error")
    if isinstance(error, dict):
        error.pop("line", None)
    return orjson.dumps(line)


def _count(part: Part, url: str, line: dict[str, Any], failed: bool) -> None:
    part.counts.total += 1
    if failed:
        part.counts.failed += 1
        return
    part.counts.completed += 1
    body = (line.get("response") or {}).get("body")
    if not isinstance(body, dict):
        return
    for name, tokens in zip(part.usage, _tokens(url, body), strict=True):
        part.usage[name] += tokens


def _tokens(url: str, body: dict[str, Any]) -> tuple[int, int, int]:
    """Of the prompt, cached ones, of the answer; 0 for what a server says otherwise."""
    if url in ENDPOINTS:
        try:
            usage = ENDPOINTS[url].usage(body)
        except ValueError:
            return 0, 0, 0
        return usage.prompt, usage.cached, usage.output
    facts = APIS[url].facts(body) if url in APIS else None
    told = (0, 0, 0) if facts is None else (facts.prompt, facts.cached, facts.output)
    prompt, cached, output = (each if type(each) is int and each > 0 else 0 for each in told)
    return prompt, cached, output
