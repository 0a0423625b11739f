"""Inputs that are what runs have written: the same command with `*.jsonl` finds its own answers beside the requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from blendrun.errors import InputInvalidError
from blendrun.events import Listener, Note
from blendrun.jobs.kinds import is_answer
from blendrun.remote.address import is_address
from blendrun.store.guard import run_of
from blendrun.store.tables.kind import table_kind


def without_answers(
    inputs: Sequence[str], *, rows: bool, output: Path | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The inputs without those that are what runs have written, and those.

    A table of answers may be the next job's input, with what was answered in its prompts: it stays where it is alone,
    or where it was said how rows become requests (`rows`). output: of this run, which is no input of it.

    Raises InputInvalidError where all are left out, or where nobody knows what a table is there for.
    """
    left_out = own_answers(inputs)
    tables = [name for name in left_out if table_kind(Path(name)) is not None and not _same(Path(name), output)]
    if tables and not rows and len(left_out) < len(inputs):
        raise InputInvalidError(
            f"{tables[0]} is the output of a run; give --prompt-template (or another option that says how rows become "
            "requests) to use it, or leave it out"
        )
    left_out = tuple(name for name in left_out if name not in tables)
    kept = tuple(name for name in inputs if name not in left_out)
    if not kept:
        raise InputInvalidError(f"{left_out[0]} holds what a run answered, no requests; name the file of the requests")
    return kept, left_out


def tell_left_out(left_out: Sequence[str], listener: Listener) -> None:
    """A warning for each."""
    for name in left_out:
        listener(Note(f"{name} is left out: it holds what a run answered, no requests", warning=True))


def own_answers(inputs: Sequence[str], *, tables: bool = True) -> tuple[str, ...]:
    """Those of the inputs that are a run's output or errors file: its state lies beside, and they hold answers.

    What cannot be read is none of them; who reads it says so. tables: also those that are tables.
    """
    paths = {name: Path(name) for name in inputs if name != "-" and not is_address(name)}
    return tuple(name for name, path in paths.items() if (tables or table_kind(path) is None) and _holds_answers(path))


def _same(path: Path, output: Path | None) -> bool:
    return output is not None and output.exists() and path.samefile(output)


def _holds_answers(path: Path) -> bool:
    try:
        if not path.is_file() or (run := run_of(path.resolve())) is None:
            return False
        if table_kind(path) is not None and run.output.name == path.resolve().name:
            return True
        with path.open("rb") as file:
            # An answer may be long; all of it is one line.
            first = file.readline()
    except (OSError, ValueError):
        return False
    if not first:
        return True
    try:
        line = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(line, dict) and is_answer(line)
