"""A command whose paths may begin with `~`: a shell leaves it alone behind `--output=` and in a config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
import typer.core

from blendrun.paths import at_home

# Parameters that are paths, lists of them, or texts that may be paths. A model's name is resolved elsewhere.
PATHS = (
    *("jobs", "output", "config", "hardware", "tokenizer", "trace", "metrics_textfile", "allow_media_files"),
    *("order_out", "save", "report", "run", "runs", "plan", "plot", "keep"),
)


class HomeCommand(typer.core.TyperCommand):
    """As any other, with home folders in place of `~` in all that is a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for the home folder of an unknown user."""
        rest = super().parse_args(ctx, args)
        for name in PATHS:
            if name in ctx.params:
                ctx.params[name] = _at_home(name, ctx.params[name])
        return rest


def _at_home(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_at_home(name, each) for each in value)
    if not isinstance(value, str | Path):
        return value
    if name == "hardware":
        return ",".join(map(at_home, str(value).split(",")))
    return type(value)(at_home(str(value)))
