"""What `blendrun doctor` found, for people."""

from __future__ import annotations

from typing import TextIO

from rich.table import Table
from rich.text import Text

from blendrun.report.schemas.doctor import Checkup
from blendrun.report.terminal.console import print_parts

_MARKS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "bad": ("!!", "red bold")}


def print_doctor(found: Checkup, stream: TextIO) -> None:
    """A table, and what to do below it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in found.checks:
        word, style = _MARKS[check.state]
        table.add_row(Text(word, style=style), check.name, Text(check.found))
    print_parts([table, "", *_fixes(found), _verdict(found)], stream)


def _fixes(found: Checkup) -> list[str]:
    """Each fix once, on a line of its own that is never broken, so that it can be copied."""
    names: dict[str, list[str]] = {}
    for check in found.checks:
        if check.fix:
            names.setdefault(check.fix, []).append(check.name)
    lines = [line for fix, listed in names.items() for line in (f"{', '.join(listed)}:", f"  {fix}")]
    return ["To fix:", *lines, ""] if lines else []


def _verdict(found: Checkup) -> str:
    if found.can_run:
        return "Requests can be run here: blendrun run jobs.jsonl --model smollm2-135m"
    if found.can_plan:
        return "Jobs can be planned here, not run: see the lines marked !!"
    return "Neither plans nor runs are possible here: see the lines marked !!"
