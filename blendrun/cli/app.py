"""The application and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from blendrun.cli.answers import answers
from blendrun.cli.bench import bench
from blendrun.cli.calibrate import calibrate
from blendrun.cli.convert import convert
from blendrun.cli.doctor import doctor
from blendrun.cli.home import HomeCommand
from blendrun.cli.merge import merge
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
    help="Finish a file of LLM requests in the least time the hardware allows, and lose nothing.",
    no_args_is_help=True,
    # Help without rich: its import alone takes longer than everything else of `--help`.
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


for command in (run, status, answers, merge, convert, report, serve, doctor, calibrate, plan, synth):
    app.command(cls=HomeCommand)(command)
# All words are flags of another program: they are read there.
app.command(
    "run-batch", cls=HomeCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(run_batch)
app.add_typer(bench, name="bench")
