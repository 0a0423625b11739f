"""`blendrun plan`: what is in a job, which order is best, how long it will take."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from blendrun.planner.plan import Plan
    from blendrun.planner.workload import Workload


class LengthName(StrEnum):
    """Mirrors `blendrun.lengths.estimate.LengthMode`, which would make `--help` load NumPy."""

    AUTO = "auto"
    REFERENCE = "reference"
    PRIOR = "prior"


class PlanOrderName(StrEnum):
    """Mirrors `blendrun.blend.base.OrderName`."""

    AUTO = "auto"
    GIVEN = "given"
    SHUFFLED = "shuffled"
    SORTED = "sorted"
    LOF = "lof"
    BLENDED = "blended"


def plan(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(help="Request files or traces (.jsonl, .gz, .zst), or - for stdin.", metavar="JOBS"),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Alias (see configs/models), hub id or folder.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(help="Card of configs/hardware or a YAML file. Default: this machine's.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json or its folder, where the model's files are not here.")
    ] = None,
    lengths: Annotated[
        LengthName, typer.Option(help="What output lengths are guessed from; reference: the lines' own.")
    ] = LengthName.AUTO,
    order: Annotated[PlanOrderName, typer.Option(help="Order to choose.")] = PlanOrderName.AUTO,
    keep_sharing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the prefix sharing that the blend keeps.")
    ] = 0.99,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N lines.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Url of lines that have none.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/plan.json).")] = False,
    order_out: Annotated[
        Path | None, typer.Option(help="Write custom_ids (trace ids) in feed order, one a line.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan: a .npz of arrays with the JSON.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of these options; the command line wins.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Preview JOBS on MODEL: sharing, density, order, predicted time. No GPU, no engine.

    Works for request files and for traces (lines with prompt_tokens and output_tokens, no text).
    """
    from tempfile import TemporaryDirectory

    from blendrun.cli.config import apply_config
    from blendrun.report.plan_json import plan_json, plan_report
    from blendrun.report.plan_text import print_plan
    from blendrun.report.progress import choose_view
    from blendrun.runner.events import Note, PhaseStarted, Progress

    options: dict[str, Any] = apply_config(context, config)
    # Unpacked copies of the input are needed to the end: names are read from them.
    with (
        TemporaryDirectory(prefix="blendrun-plan-", ignore_cleanup_errors=True) as spool,
        choose_view(sys.stderr, quiet=options["quiet"]) as watch,
    ):
        workload, made = _plan(
            options,
            Path(spool),
            lambda name, detail: watch(PhaseStarted(name, detail)),
            lambda done, total, unit: watch(Progress(done, total, unit)),
            lambda text: watch(Note(text, warning=True)),
        )
        report = plan_report(made, workload)
        if options["order_out"]:
            watch(PhaseStarted("write", str(options["order_out"])))
            _write_order(Path(options["order_out"]), workload, made)
        if options["save"]:
            _save(Path(options["save"]), made, plan_json(report))
    if options["json"]:
        sys.stdout.write(plan_json(report).decode() + "\n")
    else:
        print_plan(report, workload.first_prompt, sys.stdout)


def _plan(
    options: dict[str, Any],
    spool: Path,
    phase: Callable[[str, str], None],
    progress: Callable[[int, int, str], None],
    warn: Callable[[str], None],
) -> tuple[Workload, Plan]:
    """From options to the plan. Raises UsageError, InputInvalidError, InputMissingError."""
    from blendrun.blend.base import OrderName
    from blendrun.cost.detect import detect_hardware
    from blendrun.cost.hardware import load_hardware, machine
    from blendrun.endpoints import ENDPOINTS
    from blendrun.errors import UsageError
    from blendrun.jobs import open_sources
    from blendrun.lengths.estimate import LengthMode
    from blendrun.planner.plan import make_plan, make_structure
    from blendrun.planner.workload import Wanted, load_workload

    if options["model"] is None:
        raise UsageError("which model? Give --model, for example --model llama-3-8b")
    if options["endpoint"] not in (None, *ENDPOINTS):
        raise UsageError(f"--endpoint {options['endpoint']}: known are {', '.join(ENDPOINTS)}")
    on = machine(load_hardware(options["hardware"] or detect_hardware()), options["gpus"])
    wanted = Wanted(options["model"], options["tokenizer"], options["limit"], options["endpoint"])
    workload = load_workload(open_sources(options["jobs"], spool), wanted, phase, progress)
    structure = make_structure(workload.prompts, workload.model, LengthMode(str(options["lengths"])), phase, warn)
    phase("blend", on.card.title)
    order = None if options["order"] == PlanOrderName.AUTO else OrderName(str(options["order"]))
    return workload, make_plan(structure, workload.model.card, on, keep=options["keep_sharing"], order=order)


def _write_order(path: Path, workload: Workload, made: Plan) -> None:
    """Raises OutputUnavailableError."""
    from blendrun.errors import OutputUnavailableError

    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{workload.name(number)}\n" for number in made.order.prompt.tolist())
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another --order-out") from error


def _save(path: Path, made: Plan, report: bytes) -> None:
    """Arrays by name, no pickle. Raises OutputUnavailableError."""
    import numpy as np

    from blendrun.errors import OutputUnavailableError

    prompts, order = made.structure.prompts, made.order
    try:
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                row=prompts.row[order.prompt],
                side=order.side,
                prompt_tokens=prompts.prompt_tokens[order.prompt],
                expected_tokens=made.structure.lengths.mean[order.prompt],
                report=np.frombuffer(report, dtype=np.uint8),
            )
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another --save") from error
