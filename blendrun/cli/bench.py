"""`blendrun bench`: what orders take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blendrun.cli.choices import declared_by, names_in
from blendrun.cli.home import HelpfulGroup, HomeCommand
from blendrun.cli.live import live
from blendrun.cli.panels import AdapterArgs, Panel
from blendrun.cli.tunnel import tunnel
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.synth.kinds import COMPUTE, MEMORY, SHARE

if TYPE_CHECKING:
    from blendrun.cost.base import Machine
    from blendrun.events import Listener
    from blendrun.planner.plan import Choice
    from blendrun.planner.workload import PlannedModel
    from blendrun.report.schemas.bench import BenchReport


@dataclass(frozen=True, slots=True)
class Asked:
    """What `bench simulate` is asked for, as its options have it."""

    jobs: list[str]
    model: str | None
    hardware: str | None
    gpus: str
    compute: str
    memory: str
    share: str
    rho: str
    sharing: str
    requests: int
    seed: int
    overlap: str
    orders: str
    tokenizer: Path | None
    engine_arg: list[str] | None


bench = typer.Typer(
    help="Compare orders: simulated, or on the real engine.",
    cls=HelpfulGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
)

# What only a recipe has; a file is what it is.
_RECIPE = ("compute", "memory", "share", "rho", "sharing", "requests", "seed")


@bench.callback()
def root() -> None:
    """Compare orders: simulated, or on the real engine."""


bench.command(cls=HomeCommand)(live)
bench.command(cls=HomeCommand)(tunnel)


@bench.command(cls=HomeCommand)
def simulate(
    context: typer.Context,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Request files or traces; without, a workload by the recipe.", metavar="[JOBS]", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        Panel.MODEL.option("--model", "-m", help="Alias (see `blendrun models`), hub id or folder.", metavar="MODEL"),
    ] = None,
    hardware: Annotated[
        str | None,
        Panel.HARDWARE.option(
            help="Card (see `blendrun hardware`) or YAML file. Default: this machine's.", metavar="CARD"
        ),
    ] = None,
    gpus: Annotated[
        str, Panel.HARDWARE.option(metavar="N,...", help="How many of them; several numbers compare.")
    ] = "1",
    compute: Annotated[str, Panel.WORKLOAD.choice(COMPUTE, "Compute-heavy requests.")] = "burstgpt",
    memory: Annotated[str, Panel.WORKLOAD.choice(MEMORY, "Memory-heavy requests.")] = "openvid",
    share: Annotated[str, Panel.WORKLOAD.choice(SHARE, "Requests that share prefixes.")] = "mmlu",
    rho: Annotated[
        str, Panel.WORKLOAD.option(metavar="X|A:B:STEP", help="Compute over memory seconds, at peak rates; or a grid.")
    ] = "1.4",
    sharing: Annotated[
        str, Panel.WORKLOAD.option(metavar="X|A:B:STEP", help="Share of prompt tokens that a cache saves; or a grid.")
    ] = "0.35",
    requests: Annotated[int, Panel.WORKLOAD.option(metavar="N", help="Requests of each workload.")] = 400_000,
    seed: Annotated[int, Panel.WORKLOAD.option(help="The same one gives the same workloads.", metavar="N")] = 0,
    overlap: Annotated[
        str, Panel.ORDER.option(help="How prefill and decode share a step, comma-separated.", metavar="MODE,...")
    ] = "exclusive,mixed,pdmux",
    orders: Annotated[
        str, Panel.ORDER.option(help="Orders to simulate, comma-separated.", metavar="ORDER,...")
    ] = ",".join(OrderName),
    tokenizer: Annotated[
        Path | None,
        Panel.MODEL.option(
            help="For JOBS with text: tokenizer.json or its folder, if not the model's own.", metavar="FILE"
        ),
    ] = None,
    engine_arg: AdapterArgs = None,
    json: Annotated[
        bool, Panel.OUTPUT.option("--json", help="Print one JSON object (docs/schemas/bench-simulate.json).")
    ] = False,
    plot: Annotated[
        Path | None,
        Panel.OUTPUT.option(metavar="FILE", help="Draw it: .png or .svg. Needs matplotlib (blendrun[plot])."),
    ] = None,
    overwrite: Annotated[
        bool, Panel.OUTPUT.option("--overwrite", help="Replace a picture of another program.")
    ] = False,
    quiet: Annotated[bool, Panel.WATCHING.option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Simulate every order on made workloads or on JOBS. No GPU needed.

    Every overlap mode, on a grid of workloads where asked; no engine is started. Workloads are made as by `blendrun
    synth`. A grid is first:last:step, for example --rho 0.8:1.4:0.05.
    """
    from blendrun.events import PhaseStarted
    from blendrun.report.export.plot import picture, plot_bench
    from blendrun.report.schemas.bench import bench_json
    from blendrun.report.terminal.bench import print_bench
    from blendrun.report.terminal.progress import choose_view

    _refuse_both(context, jobs)
    asked = Asked(**{each.name: context.params[each.name] for each in fields(Asked)} | {"jobs": jobs or []})
    target = None if plot is None else picture(plot, jobs or (), overwrite=overwrite)
    with choose_view(sys.stderr, quiet=quiet) as listener:
        report = _of_jobs(asked, listener) if jobs else _of_recipe(asked, listener)
        if target is not None:
            listener(PhaseStarted("plot", str(plot)))
            plot_bench(report, target)
    if json:
        sys.stdout.write(bench_json(report).decode() + "\n")
    else:
        print_bench(report, sys.stdout)


def model_of(name: str | None) -> PlannedModel:
    """A model by its dimensions alone. Raises UsageError, InputMissingError."""
    from blendrun.errors import UsageError
    from blendrun.planner.workload import Wanted, planned_model

    if name is None:
        raise UsageError("which model? Give --model, for example --model llama-3-8b")
    return planned_model(Wanted(name), text=False)


def machine_of(name: str | None, gpus: int) -> tuple[Machine, Machine]:
    """The machine at achieved and at peak rates. Raises UsageError, InputMissingError."""
    from blendrun.cost.detect import own_hardware
    from blendrun.cost.hardware import load_hardware, machine

    card = load_hardware(name or own_hardware())
    return machine(card, gpus), machine(card, gpus, "peak")


def _machines(asked: Asked) -> list[Machine]:
    """One card with every number of devices. Raises UsageError, InputMissingError."""
    from blendrun.backends.machines import machines_of
    from blendrun.errors import UsageError

    found = machines_of(asked.hardware, asked.gpus)
    if len({on.card.name for on in found}) > 1:
        raise UsageError(f"--hardware {asked.hardware}: one card at a time; `blendrun plan` compares several")
    return found


def _refuse_both(context: typer.Context, jobs: list[str] | None) -> None:
    from blendrun.errors import UsageError

    for name in _RECIPE if jobs else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
            raise UsageError(f"--{name} is for made workloads, and a file is given: leave one of them out")


def _of_recipe(asked: Asked, listener: Listener) -> BenchReport:
    from blendrun.bench.grid import parse_values
    from blendrun.bench.simulate import cells_of_recipe
    from blendrun.report.schemas.bench import bench_report
    from blendrun.synth.recipe import Recipe

    rhos, sharings = parse_values(asked.rho, "--rho"), parse_values(asked.sharing, "--sharing")
    kinds = [asked.compute, asked.memory, asked.share]
    # All are made, so that a value that makes no sense is refused before any is simulated.
    recipe, *_ = [
        Recipe.of(*kinds, rho=rho, sharing=sharing, requests=asked.requests, seed=asked.seed)
        for sharing in sharings
        for rho in rhos
    ]
    choice = _choice(asked)
    planned, machines = model_of(asked.model), _machines(asked)
    cells, refused = cells_of_recipe(
        recipe,
        rhos,
        sharings,
        planned.card,
        machines,
        choice,
        listener,
    )
    return bench_report(" + ".join(kinds), planned.name, machines, recipe.seed, cells, refused)


def _of_jobs(asked: Asked, listener: Listener) -> BenchReport:
    from blendrun.bench.simulate import cells_of_file
    from blendrun.errors import UsageError
    from blendrun.events import Note
    from blendrun.jobs.source import open_sources
    from blendrun.planner.plan import make_structure
    from blendrun.planner.workload import Wanted, load_workload
    from blendrun.remote.address import shown
    from blendrun.report.schemas.bench import bench_report
    from blendrun.scratch import scratch_folder

    if asked.model is None:
        raise UsageError("which model? Give --model, for example --model llama-3-8b")
    choice, machines = _choice(asked), _machines(asked)
    wanted = Wanted(asked.model, asked.tokenizer, adapters=declared_by(asked.engine_arg))
    with scratch_folder("bench") as spool:
        workload = load_workload(
            open_sources(asked.jobs, spool, listener=listener),
            wanted,
            listener,
        )
    for finding in workload.findings:
        listener(Note(finding.message, warning=True))
    structure = make_structure(workload.prompts, workload.model, LengthMode.AUTO, listener)
    cells = cells_of_file(workload, structure, machines, choice, listener)
    return bench_report(", ".join(map(shown, asked.jobs)), workload.model.name, machines, None, cells, ())


def _choice(asked: Asked) -> Choice:
    """Raises UsageError."""
    from blendrun.planner.plan import Choice

    orders = names_in("--orders", asked.orders, OrderName)
    return Choice(orders, names_in("--overlap", asked.overlap, Overlap))
