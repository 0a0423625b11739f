"""What all commands are: paths may begin with `~`, which a shell leaves alone behind `--output=` and in a config file;
flags of other tools are told apart; a value that an option does not take is told with one that it does
(`blendrun.cli.values`); help is that of `blendrun.cli.help`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
import typer.core

from blendrun.cli.foreign_flags import hint
from blendrun.cli.help import write_help
from blendrun.cli.values import is_suspect, no_value, wrong_value
from blendrun.errors import UsageError
from blendrun.paths import at_home, scheme

# Parameters that are paths, lists of them, or texts that may be paths. A model's name is resolved elsewhere.
PATHS = (
    *("jobs", "output", "config", "hardware", "tokenizer", "trace", "metrics_textfile", "allow_media_files"),
    *("order_out", "save", "report", "run", "runs", "plan", "plot", "keep", "cache", "partial"),
)
# Of those, what a run has left.
_RUNS = ("output", "run", "runs")
# What typer raises for any words that it cannot take; its own name for it is private.
_WRONG_WORDS: type[Exception] = typer.BadParameter.__mro__[1]


class HomeCommand(typer.core.TyperCommand):
    """As any other, with home folders in place of `~` in all that is a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for the home of an unknown user, for wrong values, and for flags of other tools, with what
        to write.
        """
        words = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if (sentence := wrong_value(error, self._given(ctx, words))) is None:
                raise
            raise UsageError(sentence) from None
        except _WRONG_WORDS as error:
            unknown = getattr(error, "option_name", None)
            if self.name == "run" and unknown is not None and (instead := hint(unknown)) is not None:
                raise UsageError(f"{unknown} is no option of blendrun run; here it is {instead}") from None
            raise
        if any(map(is_suspect, ctx.params.values())):
            sentence = no_value(self.get_params(ctx), ctx.params, self._given(ctx, words))
            if sentence is not None:
                raise UsageError(sentence)
        for name in PATHS:
            if name in ctx.params:
                ctx.params[name] = _at_home(name, ctx.params[name])
        return rest

    def _given(self, ctx: Any, words: list[str]) -> dict[str, Any]:
        """Texts of the command line by parameter name. Words that typer has understood before."""
        found: dict[str, Any] = self.make_parser(ctx).parse_args(list(words))[0]
        return found

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)


class HelpfulGroup(typer.core.TyperGroup):
    """A group whose help lists its commands by panel."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)


def _at_home(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_at_home(name, each) for each in value)
    if not isinstance(value, str | Path):
        return value
    if name in _RUNS and isinstance(value, Path) and (kind := scheme(str(value))) is not None:
        raise UsageError(f"{kind}://… is an address; give the file here that was sent there")
    if name == "hardware":
        return ",".join(map(at_home, str(value).split(",")))
    return type(value)(at_home(str(value)))
