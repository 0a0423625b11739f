"""The application and its commands."""

from __future__ import annotations

from typing import Annotated

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

app = typer.Typer(
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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blendrun {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finish a file of LLM requests in the least time the hardware allows, and lose nothing."""


_COMMANDS = {
    CommandPanel.USE: (doctor, plan, run, status, answers, report),
    CommandPanel.CLIENTS: (serve, convert),
    CommandPanel.MACHINES: (merge,),
    CommandPanel.MEASURE: (calibrate, synth),
    CommandPanel.LOOK_UP: (models, hardware),
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(cls=HomeCommand, rich_help_panel=panel.value)(command)
# All words are flags of another program: they are read there.
app.command(
    "run-batch",
    cls=HomeCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    rich_help_panel=CommandPanel.CLIENTS.value,
)(run_batch)
app.add_typer(bench, name="bench", rich_help_panel=CommandPanel.MEASURE.value)
