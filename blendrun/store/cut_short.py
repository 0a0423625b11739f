"""cut-short.jsonl: answers that ended at their token limit, in input order, and where their requests are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from blendrun.errors import InputMissingError, unwritable
from blendrun.files import PRIVATE, replacing
from blendrun.jobs.job import Job
from blendrun.store.folder import path_text, remove
from blendrun.store.found import NOTHING, Found
from blendrun.store.ledger import Ledger

# Where a request says how many tokens its answer may have, by API.
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_BODIES = ("body", "params")


def list_cut_short(path: Path, job: Job, ledger: Ledger) -> Found:
    """Write the list, or remove one of an earlier invocation. Raises OutputUnavailableError."""
    rows = np.flatnonzero(ledger.cut)
    if not len(rows):
        remove(path)
        return NOTHING
    try:
        with replacing(path, PRIVATE) as file:
            for row in rows.tolist():
                source = job.sources[job.source[row]]
                file.write(orjson.dumps(_entry(job, row, source.path)) + b"\n")
    except OSError as error:
        raise unwritable(path, error, "the same command resumes") from error
    return Found.of(job, rows)


def _entry(job: Job, row: int, source: Path) -> dict[str, object]:
    name, number = job.where(row)
    found: dict[str, object] = {"custom_id": job.request(row).custom_id, "line": number}
    if len(job.sources) > 1:
        found["file"] = name
    return found | {"source": path_text(source), "offset": int(job.offset[row]), "length": int(job.length[row])}


def requests_again(path: Path, max_tokens: int | None = None) -> Iterator[bytes]:
    """The request lines (no newline) of the answers on a list; of none where there is no list.

    max_tokens: what each answer may have now; None for what it could have before. Raises InputMissingError where an
    input is no longer what the run read.
    """
    try:
        entries = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputMissingError(f"cannot read {path}: {error}; the command of the run writes it again") from error
    for entry in entries:
        line = _line(entry)
        if max_tokens is not None:
            _allow(line, max_tokens)
        yield orjson.dumps(line)


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    source = entry["source"]
    try:
        with Path(source).open("rb") as file:
            file.seek(entry["offset"])
            line = orjson.loads(file.read(entry["length"]))
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputMissingError(_changed(source, entry)) from error
    if not isinstance(line, dict) or line.get("custom_id", entry["custom_id"]) != entry["custom_id"]:
        raise InputMissingError(_changed(source, entry))
    return {"custom_id": entry["custom_id"]} | line


def _changed(source: str, entry: dict[str, Any]) -> str:
    where = f"line {entry['line']}, {entry['custom_id']!r}"
    return f"{source} is not what the run read ({where}): put the input back, or choose the requests from it yourself"


def _allow(line: dict[str, Any], tokens: int) -> None:
    """Let the answer have so many tokens."""
    for name in _BODIES:
        if isinstance(body := line.get(name), dict):
            given = [limit for limit in _LIMITS if limit in body] or [_LIMITS[-1]]
            body |= dict.fromkeys(given, tokens)
