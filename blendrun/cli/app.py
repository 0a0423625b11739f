"""The application and its commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from blendrun.cli.answers import answers
from blendrun.cli.bench import bench
from blendrun.cli.calibrate import calibrate
from blendrun.cli.convert import convert
from blendrun.cli.doctor import doctor
from blendrun.cli.hardware import hardware
from blendrun.cli.home import HelpfulGroup, HomeCommand
from blendrun.cli.merge import merge
from blendrun.cli.models import models
from blendrun.cli.panels import CommandPanel
from blendrun.cli.plan import plan
from blendrun.cli.report import report
from blendrun.cli.run import run
from blendrun.cli.run_batch import run_batch
from blendrun.cli.serve import serve
from blendrun.cli.status import status
from blendrun.cli.synth import synth
from blendrun.version import __version__


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blendrun {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finish a file of LLM requests in the least time the hardware allows, and lose nothing."""


def _adds(command: Callable[..., None], panel: CommandPanel, **options: Any) -> Callable[[typer.Typer], None]:
    def add(to: typer.Typer) -> None:
        to.command(cls=HomeCommand, rich_help_panel=panel.value, **options)(command)

    return add


_PANELS: dict[CommandPanel, tuple[Callable[..., None], ...]] = {
    CommandPanel.USE: (doctor, plan, run, status, answers, report),
    CommandPanel.CLIENTS: (serve, convert),
    CommandPanel.MACHINES: (merge,),
    CommandPanel.MEASURE: (calibrate, synth),
    CommandPanel.LOOK_UP: (models, hardware),
}
# What adds each command to an application, by the command's name.
_COMMANDS: dict[str, Callable[[typer.Typer], None]] = {
    command.__name__: _adds(command, panel) for panel, commands in _PANELS.items() for command in commands
}
# All words are flags of another program: they are read there.
_COMMANDS["run-batch"] = _adds(
    run_batch,
    CommandPanel.CLIENTS,
    name="run-batch",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
_COMMANDS["bench"] = lambda to: to.add_typer(bench, name="bench", rich_help_panel=CommandPanel.MEASURE.value)


def _application(*adds: Callable[[typer.Typer], None]) -> typer.Typer:
    made = typer.Typer(
        name="blendrun",
        cls=HelpfulGroup,
        help="Finish a file of LLM requests in the least time the hardware allows, and lose nothing.",
        no_args_is_help=True,
        # Help and errors without rich: its import alone takes longer than everything else of `--help`.
        rich_markup_mode=None,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    made.callback()(_root)
    for add in adds:
        add(made)
    return made


# All commands.
app = _application(*_COMMANDS.values())


@cache
def parser(first: str) -> Any:
    """What to call with a command line whose first word this is.

    Where that names a command, it knows no other: to build the parsers of all takes as long as their imports.
    """
    add = _COMMANDS.get(first)
    return typer.main.get_command(app if add is None else _application(add))
