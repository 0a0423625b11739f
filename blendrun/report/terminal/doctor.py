"""What `blendrun doctor` found, for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

SCHEMA_VERSION = 1
_WIDTH = 120
_MARKS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "bad": ("!!", "red bold")}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. state: ok; missing: something less can be done without it; bad: nothing can run.

    mend: a command or a sentence that makes it ok; empty where nothing need be done.
    """

    name: str
    state: str
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """can_run: whether `blendrun run` can answer requests here; can_plan: whether jobs can be planned."""

    schema_version: int
    blendrun: str
    can_run: bool
    can_plan: bool
    checks: tuple[Check, ...]


def print_doctor(found: Checkup, stream: TextIO) -> None:
    """A table, and what to do below it."""
    terminal = stream.isatty()
    text = StringIO()
    console = Console(
        file=text,
        force_terminal=terminal,
        width=None if terminal else _WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in found.checks:
        word, style = _MARKS[check.state]
        table.add_row(Text(word, style=style), check.name, Text(check.found))
        if check.mend:
            table.add_row("", "", Text(f"-> {check.mend}", style="cyan"))
    console.print(table)
    console.print()
    console.print(_verdict(found))
    stream.write(text.getvalue())
    stream.flush()


def _verdict(found: Checkup) -> str:
    if found.can_run:
        return "Requests can be run here: blendrun run jobs.jsonl --model smollm2-135m"
    if found.can_plan:
        return "Jobs can be planned here, not run: see the lines marked !!"
    return "Neither plans nor runs are possible here: see the lines marked !!"


def doctor_json(found: Checkup) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(found)


def doctor_schema() -> bytes:
    """The JSON Schema of `doctor_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Checkup)), indent=2)
