"""`blendrun calibrate`: measure this machine."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blendrun.cli.choices import MOST_THREADS
from blendrun.names import DeviceName

if TYPE_CHECKING:
    from blendrun.calibrate.base import Calibration
    from blendrun.calibrate.measure import Task
    from blendrun.cost.base import HardwareCard
    from blendrun.events import Listener


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command is asked for, as its options have it."""

    model: str | None
    device: DeviceName
    engine_arg: list[str]
    threads: int | None
    trust_remote_code: bool
    quick: bool
    quiet: bool
    overwrite: bool
    keep: bool


def calibrate(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Alias (see `blendrun models`), hub id, folder or GGUF file.", metavar="MODEL"
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the hardware card.", metavar="NAME")] = "this-machine",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Card file. Default: <name>.yaml in the user's config folder.", metavar="FILE"
        ),
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="Argument of SGLang's engine; may be repeated."),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="What is measured.")] = DeviceName.AUTO,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="CPU threads (CPU only). Default: all cores.", metavar="N"),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code of the model's folder."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A rough answer from few batches, each once: less than a minute of them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that no calibration wrote.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Store a card whose times are more than 10 % off, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Measure how fast this machine runs MODEL.

    The result is stored as a hardware card. Starts the engine as a run does, with the same arguments, and times
    batches of known size: a few minutes, on a machine that does nothing else. Plans take the card by its name.
    """
    from blendrun.calibrate.measure import off
    from blendrun.errors import BlendrunError

    asked = Asked(model, device, engine_arg or [], threads, trust_remote_code, quick, quiet, overwrite, keep)
    command = shlex.join(["blendrun", *context.find_root().obj])
    found, card, path, stored = _execute(asked, name, output, command)
    _show(found, card, path if stored else None, as_json=as_json, quiet=quiet)
    if not stored:
        raise BlendrunError(
            f"nothing was stored: times are {off(found.step.fit_error)} off on average. Calibrate again with "
            "nothing else running, or give --keep to store it all the same"
        )


def _execute(
    asked: Asked, name: str, output: Path | None, command: str
) -> tuple[Calibration, HardwareCard, Path, bool]:
    """What was found, its card, the card's file, and whether it was written. command: as it was typed, for the card."""
    from blendrun.calibrate.card import card_path, check_writable, make_card, write_card
    from blendrun.calibrate.measure import POOR_FIT
    from blendrun.calibrate.measure import calibrate as measure
    from blendrun.engine.process import SglangEngine
    from blendrun.events import Note
    from blendrun.report.terminal.progress import choose_view
    from blendrun.runner.stop import stopping_by_exception
    from blendrun.scratch import scratch_folder

    path = card_path(name, output)
    with stopping_by_exception(), choose_view(sys.stderr, quiet=asked.quiet) as listener:
        task = _task(asked, listener)
        check_writable(path, overwrite=asked.overwrite)
        with scratch_folder("calibrate") as folder:
            found = measure(task, SglangEngine(task.settings, folder / "engine.log"), listener)
        for note in found.notes:
            listener(Note(note, warning=True))
        card = make_card(path.stem, found, _shipped_card(task), command)
    stored = asked.keep or found.step.fit_error <= POOR_FIT or _wanted_all_the_same(found)
    if stored:
        write_card(card, path, found)
    return found, card, path, stored


def _wanted_all_the_same(found: Calibration) -> bool:
    """Asks on a terminal; no where nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    from blendrun.calibrate.measure import off

    return typer.confirm(f"Times are {off(found.step.fit_error)} off on average. Store them?", err=True)


def _task(asked: Asked, listener: Listener) -> Task:
    """From options to what is measured. Raises UsageError, InputMissingError."""
    from blendrun.backends.session import platform_of
    from blendrun.calibrate.measure import Task
    from blendrun.engine.base import EngineSettings
    from blendrun.engine.settings import available_cores, needs_weights, parse_engine_args
    from blendrun.errors import UsageError
    from blendrun.models.resolve import resolve_model

    arguments = parse_engine_args(asked.engine_arg)
    if asked.model is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    platform = platform_of(asked.device)
    weights = needs_weights(arguments)
    resolved = resolve_model(asked.model, platform=platform, listener=listener, weights=weights)
    if resolved.card is None:
        raise UsageError(f"the dimensions of {asked.model} are not known: give a model folder with a config.json")
    settings = EngineSettings(
        model_path=str(resolved.path),
        platform=platform,
        threads=asked.threads or available_cores(),
        trust_remote_code=asked.trust_remote_code,
        server_args=arguments,
    )
    return Task(resolved.card.alias, resolved.card, settings, quick=asked.quick)


def _shipped_card(task: Task) -> HardwareCard | None:
    """The card of this device as far as one is known: it has the peaks."""
    from blendrun.cost.detect import detect_hardware
    from blendrun.cost.hardware import load_hardware
    from blendrun.errors import UsageError

    if task.settings.platform == "cpu":
        return load_hardware("cpu")
    try:
        return load_hardware(detect_hardware("gpu"))
    except UsageError:
        return None


def _show(found: Calibration, card: HardwareCard, path: Path | None, *, as_json: bool, quiet: bool) -> None:
    """A table, or all of it as JSON; either is data and goes to stdout. path: of the card, None where none is there."""
    from blendrun.report.terminal.calibration import calibration_json, print_calibration

    if as_json:
        import orjson

        typer.echo(orjson.dumps(calibration_json(found, card.name, path), option=orjson.OPT_INDENT_2).decode())
    elif not quiet:
        print_calibration(found, card.name, path, sys.stdout)
