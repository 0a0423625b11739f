"""Options that take one name of a list, or several; the lists are those of the code (`blendrun.names`)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

import typer

from blendrun.errors import UsageError

# Of numbers that only say how much: what the engine holds them in, and more threads than any machine has.
MOST, MOST_THREADS = 2**31 - 1, 65_536
_Name = TypeVar("_Name", bound=StrEnum)


def choice(names: Iterable[str], help: str, panel: str | None = None) -> Any:  # as typer calls it
    """An option whose value is one of `names`."""
    known = [str(name) for name in names]

    def check(given: str) -> str:
        if given not in known:
            raise typer.BadParameter(f"{given}: known are {', '.join(known)}")
        return given

    return typer.Option(
        help=help, metavar="|".join(known), callback=check, autocompletion=lambda: known, rich_help_panel=panel
    )


def declared_by(engine_args: list[str] | None) -> tuple[str, ...] | None:
    """The adapters that `--engine-arg` declares for a command without an engine; None for none. Raises UsageError."""
    from blendrun.endpoints.adapters import declared_adapters
    from blendrun.engine.settings import parse_engine_args

    arguments = parse_engine_args(engine_args or [])
    if other := [name for name in arguments if name != "lora_paths"]:
        raise UsageError(f"--engine-arg {other[0]}: here only lora_paths counts, for the names of adapters")
    return declared_adapters(arguments.get("lora_paths")) or None


def names_in(option: str, given: str, known: Iterable[_Name]) -> tuple[_Name, ...]:
    """The names in a comma-separated value, each once. Raises UsageError."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    named = {str(name): name for name in known}
    if not names:
        raise UsageError(f"{option} names none; known are {', '.join(named)}")
    if wrong := [name for name in names if name not in named]:
        raise UsageError(f"{option} {wrong[0]}: known are {', '.join(named)}")
    return tuple(dict.fromkeys(named[name] for name in names))
