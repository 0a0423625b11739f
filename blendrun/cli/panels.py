"""Headings under which `--help` lists commands and options. An option names its panel where it is declared."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from blendrun.cli.choices import choice


class CommandPanel(StrEnum):
    """Groups of commands, in the order of `blendrun --help`."""

    USE = "Use"
    CLIENTS = "From Python, clients and other tools"
    MACHINES = "Several machines"
    MEASURE = "Measure"
    LOOK_UP = "Look up"


class Panel(StrEnum):
    """Groups of options, in the order of a command's help. Options that name none stand last, under "Options"."""

    MODEL = "Model and engine"
    HARDWARE = "Hardware"
    INPUT = "Input"
    ROWS = "Input rows (tables, CSV, text)"
    WORKLOAD = "Made workload"
    OUTPUT = "Output"
    SERVER = "Server"
    ORDER = "Order"
    EQUAL = "Equal requests"
    FAILURES = "Failures"
    RESUME = "Resume"
    LIMITS = "Limits"
    MEDIA = "Media"
    MACHINES = "Several engines and machines"
    WHAT_IF = "What if"
    WATCHING = "Watching"

    def option(self, *names: str, **told: Any) -> Any:  # as typer calls it
        """An option under this heading; the rest is `typer.Option`'s."""
        return typer.Option(*names, rich_help_panel=self.value, **told)

    def choice(self, names: Iterable[str], help: str) -> Any:  # as typer calls it
        """`choices.choice` under this heading."""
        return choice(names, help, panel=self.value)


OTHERS = "Options"
# Of commands that start no engine.
AdapterArgs = Annotated[
    list[str] | None,
    Panel.MODEL.option(
        metavar="lora_paths=...", help="Adapters that lines name by `model` alone, as run is told; only names count."
    ),
]
