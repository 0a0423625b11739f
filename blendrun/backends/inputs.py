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


def without_answers(inputs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The inputs without those that are what runs have written, and those. Raises InputInvalidError where all are."""
    left_out = own_answers(inputs)
    if len(left_out) == len(inputs):
        # A table of answers may be the next job's input, with what was answered in its prompts.
        left_out = tuple(name for name in left_out if table_kind(Path(name)) is None)
    kept = tuple(name for name in inputs if name not in left_out)
    if not kept:
        raise InputInvalidError(f"{left_out[0]} holds what a run answered, no requests; name the file of the requests")
    return kept, left_out


def tell_left_out(left_out: Sequence[str], listener: Listener) -> None:
    """A warning for each."""
    for name in left_out:
        listener(Note(f"{name} is left out: it holds what a run answered, no requests", warning=True))


def own_answers(inputs: Sequence[str]) -> tuple[str, ...]:
    """Those of the inputs that are a run's output or errors file: its state lies beside, and they hold answers.

    What cannot be read is none of them; who reads it says so.
    """
    return tuple(name for name in inputs if name != "-" and not is_address(name) and _holds_answers(Path(name)))


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
