"""`blendrun plan`: what is in a job, which order is best, how long it will take."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from blendrun.cost.base import Machine
    from blendrun.planner.plan import Choice, Plan, Structure
    from blendrun.planner.workload import Workload
    from blendrun.report.plan_json import MachineRow
    from blendrun.runner.events import Watch


class LengthName(StrEnum):
    """Mirrors `blendrun.lengths.estimate.LengthMode`, which would make `--help` load NumPy."""

    AUTO = "auto"
    REFERENCE = "reference"
    PRIOR = "prior"


class OverlapName(StrEnum):
    """Mirrors `blendrun.simulate.base.Overlap`; auto: what the engine can be run in without further ado."""

    AUTO = "auto"
    EXCLUSIVE = "exclusive"
    MIXED = "mixed"
    PDMUX = "pdmux"


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
        str | None,
        typer.Option(help="Cards of configs/hardware or YAML files, comma-separated. Default: this machine's."),
    ] = None,
    gpus: Annotated[str, typer.Option(metavar="N,...", help="How many of them; several numbers compare.")] = "1",
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json or its folder, where the model's files are not here.")
    ] = None,
    lengths: Annotated[
        LengthName, typer.Option(help="What output lengths are guessed from; reference: the lines' own.")
    ] = LengthName.AUTO,
    orders: Annotated[
        str, typer.Option(help="Orders to choose from, comma-separated: given, shuffled, sorted, lof, blended.")
    ] = "given,shuffled,sorted,lof,blended",
    overlap: Annotated[
        OverlapName, typer.Option(help="How prefill and decode share a step; auto: exclusive or mixed.")
    ] = OverlapName.AUTO,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[CARD=]X", help="Price of a GPU hour, for costs; may be repeated for several cards."),
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="What the engine will be told: max_total_tokens, max_running_requests, ...; as for run."
        ),
    ] = None,
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
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as one HTML page (see `report`).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of these options; the command line wins.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Preview JOBS on MODEL: sharing, density, order, predicted time. No GPU, no engine.

    Works for request files and for traces (lines with prompt_tokens and output_tokens, no text).
    """
    from tempfile import TemporaryDirectory

    from blendrun.cli.config import apply_config
    from blendrun.report.page import make_page, plan_subject
    from blendrun.report.plan_json import plan_json, plan_report
    from blendrun.report.plan_text import print_plan
    from blendrun.report.progress import choose_view
    from blendrun.runner.events import PhaseStarted

    options: dict[str, Any] = apply_config(context, config)
    # Unpacked copies of the input are needed to the end: names are read from them.
    with (
        TemporaryDirectory(prefix="blendrun-plan-", ignore_cleanup_errors=True) as spool,
        choose_view(sys.stderr, quiet=options["quiet"]) as watch,
    ):
        workload, made, machines = _plan(options, Path(spool), watch)
        facts = plan_report(made, workload, machines)
        if options["order_out"]:
            watch(PhaseStarted("write", str(options["order_out"])))
            _write_order(Path(options["order_out"]), workload, made)
        if options["save"]:
            _save(Path(options["save"]), made, plan_json(facts))
        if options["report"]:
            watch(PhaseStarted("write", str(options["report"])))
            make_page([plan_subject(facts, " ".join(options["jobs"]))], Path(options["report"]))
    if options["json"]:
        sys.stdout.write(plan_json(facts).decode() + "\n")
    else:
        print_plan(facts, workload.first_prompt, sys.stdout)


def _plan(options: dict[str, Any], spool: Path, watch: Watch) -> tuple[Workload, Plan, tuple[MachineRow, ...]]:
    """The plan for the first machine asked for, and a row for each. Raises UsageError, InputInvalidError, ..."""
    from blendrun.cli.machines import machines_of
    from blendrun.endpoints import ENDPOINTS
    from blendrun.errors import UsageError
    from blendrun.jobs import open_sources
    from blendrun.lengths.estimate import LengthMode
    from blendrun.planner.plan import make_structure
    from blendrun.planner.workload import Wanted, load_workload
    from blendrun.report.plan_json import machine_row, unfit_row
    from blendrun.runner.events import Note, PhaseStarted, Progress

    def phase(name: str, detail: str) -> None:
        watch(PhaseStarted(name, detail))

    if options["model"] is None:
        raise UsageError("which model? Give --model, for example --model llama-3-8b")
    if options["endpoint"] not in (None, *ENDPOINTS):
        raise UsageError(f"--endpoint {options['endpoint']}: known are {', '.join(ENDPOINTS)}")
    machines, choices = machines_of(options["hardware"], options["gpus"]), _choices(options)
    wanted = Wanted(options["model"], options["tokenizer"], options["limit"], options["endpoint"])
    workload = load_workload(
        open_sources(options["jobs"], spool),
        wanted,
        phase,
        lambda done, total, unit: watch(Progress(done, total, unit)),
    )
    mode = LengthMode(str(options["lengths"]))
    structure = make_structure(
        workload.prompts, workload.model, mode, phase, lambda text: watch(Note(text, warning=True))
    )
    plans, rows = [], []
    for on in machines:
        phase("simulate", f"{on.gpus} x {on.card.title}")
        try:
            made = _on_machine(structure, workload, on, choices(on.card.name), options, watch)
        except UsageError as error:
            if len(machines) == 1:
                raise
            rows.append(unfit_row(on.card.name, on.gpus, str(error)))
            continue
        plans.append(made)
        rows.append(machine_row(made))
    if not plans:
        raise UsageError(f"the job runs on none of these machines; the first: {rows[0].why_not}")
    return workload, plans[0], tuple(rows)


def _on_machine(
    structure: Structure, workload: Workload, on: Machine, choice: Choice, options: dict[str, Any], watch: Watch
) -> Plan:
    from blendrun.engine.settings import engine_limits, parse_engine_args
    from blendrun.planner.plan import cost_structure, make_plan
    from blendrun.runner.events import Progress

    limits = engine_limits("cpu" if on.card.kind == "cpu" else "gpu", parse_engine_args(options["engine_arg"] or []))
    costed = cost_structure(structure, workload.model.card, on, keep=options["keep_sharing"], limits=limits)
    return make_plan(costed, choice, lambda done, total: watch(Progress(done, total, "simulations")))


def _choices(options: dict[str, Any]) -> Callable[[str], Choice]:
    """What may be chosen on a card, by its name. Raises UsageError."""
    from blendrun.blend.base import OrderName
    from blendrun.errors import UsageError
    from blendrun.planner.plan import Choice
    from blendrun.simulate.base import Overlap

    try:
        orders = tuple(OrderName(name.strip()) for name in options["orders"].split(",") if name.strip())
    except ValueError as error:
        raise UsageError(f"--orders {options['orders']}: known are {', '.join(OrderName)}") from error
    if not orders:
        raise UsageError(f"--orders names none; known are {', '.join(OrderName)}")
    overlap = str(options["overlap"])
    overlaps = (Overlap.EXCLUSIVE, Overlap.MIXED) if overlap == OverlapName.AUTO else (Overlap(overlap),)
    prices: dict[str, float] = {}
    for given in options["price"] or []:
        name, _, price = given.rpartition("=")
        try:
            prices[name.strip()] = float(price)
        except ValueError as error:
            raise UsageError(f"--price takes X or CARD=X, for example h100-sxm=2.5, not {given!r}") from error
    return lambda card: Choice(orders, overlaps, prices.get(card, prices.get("")))


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

    prompts, order = made.costed.structure.prompts, made.order
    try:
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                row=prompts.row[order.prompt],
                side=order.side,
                prompt_tokens=prompts.prompt_tokens[order.prompt],
                expected_tokens=made.costed.structure.lengths.mean[order.prompt],
                report=np.frombuffer(report, dtype=np.uint8),
            )
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another --save") from error
