"""Whether a file can become a batch: what OpenAI looks at before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from blendrun.jobs.line import MAX_CUSTOM_ID_CHARACTERS
from blendrun.service.objects import BatchError

# Errors that are told; a file of another kind has one on each line.
_MOST_TOLD = 100
# A line of a job has its batch's place before its id.
_LONGEST_ID = MAX_CUSTOM_ID_CHARACTERS - 16
# Of a model's name, what is told.
_LONGEST_MODEL = 128
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """lines: of a batch, at most. bytes: of a file. line_bytes: of a line."""

    lines: int = 50_000
    bytes: int = 200 << 20
    line_bytes: int = 16 << 20


@dataclass(slots=True)
class Checked:
    """lines: that are requests. models: how many of them name which, in the order of the file."""

    lines: int = 0
    models: Counter[str] = field(default_factory=Counter)
    errors: list[BatchError] = field(default_factory=list)


def check(path: Path, endpoint: str, limits: Limits) -> Checked:
    """Read a file line by line. Raises OSError."""
    found, seen = Checked(), set[str]()
    with path.open("rb") as file:
        for number, text in enumerate(lines_of(file), 1):
            if not text.strip():
                continue
            found.lines += 1
            if found.lines > limits.lines:
                what = f"the file has more than {limits.lines:,} requests"
                found.errors.append(BatchError(code="too_many_tasks", message=what))
                break
            if len(text) > limits.line_bytes:
                what = f"the line has {len(text):,} bytes, and {limits.line_bytes:,} is the most"
                error: BatchError | str | None = BatchError(code="line_too_long", message=what)
            else:
                error = _line_error(text, endpoint, seen)
            if isinstance(error, BatchError):
                error.line = number
                found.errors.append(error)
                if len(found.errors) >= _MOST_TOLD:
                    break
            elif error is not None:
                found.models[error] += 1
    if not found.lines:
        found.errors.append(BatchError(code="empty_file", message="the file has no requests"))
    return found


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, without the mark of order that some programs put before the first."""
    for place, text in enumerate(file):
        yield text if place else text.removeprefix(_BOM)


def _line_error(text: bytes, endpoint: str, seen: set[str]) -> BatchError | str | None:
    """What is wrong with a line; else the model that it names."""
    try:
        line: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return BatchError(code="invalid_json_line", message=f"the line is no JSON: {error}")
    if not isinstance(line, dict):
        return BatchError(code="invalid_json_line", message="the line is no JSON object")
    try:
        # What can be read may be nested too deeply to be written, as a part of a job or of an answer.
        orjson.dumps([[line]])
    except orjson.JSONEncodeError as error:
        return BatchError(code="invalid_json_line", message=f"the line is nested too deeply: {error}")
    name = line.get("custom_id")
    if not isinstance(name, str) or not name:
        what = "`custom_id` is missing" if name is None else "`custom_id` must be a text"
        return BatchError(code="missing_required_parameter", message=what, param="custom_id")
    if len(name) > _LONGEST_ID:
        what = f"`custom_id` has {len(name):,} characters, and {_LONGEST_ID} is the most"
        return BatchError(code="invalid_custom_id", message=what, param="custom_id")
    if name in seen:
        return BatchError(
            code="duplicate_custom_id", message=f"{name[:80]!r} was used on a line before", param="custom_id"
        )
    seen.add(name)
    if line.get("url") is None:
        return BatchError(code="missing_required_parameter", message="`url` is missing", param="url")
    if line["url"] != endpoint:
        what = f"`url` is {str(line['url'])[:80]!r}, and the batch is for {endpoint}"
        return BatchError(code="mismatched_endpoint", message=what, param="url")
    if line.get("method", "POST") != "POST":
        return BatchError(code="invalid_method", message="`method` must be POST", param="method")
    body = line.get("body")
    if not isinstance(body, dict):
        return BatchError(code="missing_required_parameter", message="`body` must be an object", param="body")
    model = body.get("model")
    return model[:_LONGEST_MODEL] if isinstance(model, str) and model else None
