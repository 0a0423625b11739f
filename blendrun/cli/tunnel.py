"""`blendrun bench tunnel`: orders on SGLang's own scheduler at a GPU's size, without a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blendrun.cli.choices import MOST, declared_by, names_in
from blendrun.cli.panels import AdapterArgs, Panel
from blendrun.names import LengthMode, OrderName, Overlap

if TYPE_CHECKING:
    from blendrun.events import Listener
    from blendrun.report.schemas.tunnel import TunnelReport

_ORDERS = (OrderName.GIVEN, OrderName.SORTED, OrderName.BLENDED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command is asked for, as its options have it."""

    jobs: list[str]
    model: str | None
    hardware: str | None
    orders: str
    overlap: str
    kv_tokens: int | None
    max_running: int | None
    limit: int | None
    lengths: LengthMode
    tokenizer: Path | None
    engine_arg: list[str] | None


def tunnel(
    jobs: Annotated[list[str], typer.Argument(help="Request files or traces.", metavar="JOBS...", show_default=False)],
    model: Annotated[
        str | None,
        Panel.MODEL.option("--model", "-m", help="Alias (see `blendrun models`), hub id or folder.", metavar="MODEL"),
    ] = None,
    hardware: Annotated[
        str | None, Panel.HARDWARE.option(metavar="CARD,...", help="Cards (see `blendrun hardware`), or YAML files.")
    ] = None,
    orders: Annotated[str, Panel.ORDER.option(help="Comma-separated.", metavar="ORDER,...")] = ",".join(_ORDERS),
    overlap: Annotated[
        str, Panel.ORDER.option(help="Comma-separated: exclusive, mixed.", metavar="MODE,...")
    ] = "exclusive,mixed",
    kv_tokens: Annotated[
        int | None,
        Panel.MODEL.option(
            min=1, max=MOST, metavar="K", help="Tokens of the KV pool. Default: what the card has room for."
        ),
    ] = None,
    max_running: Annotated[
        int | None,
        Panel.MODEL.option(
            min=1, max=MOST, metavar="N", help="Answers decoded at once at most. Default: SGLang's own."
        ),
    ] = None,
    limit: Annotated[
        int | None, Panel.INPUT.option(min=1, max=MOST, metavar="N", help="Take only the first N lines.")
    ] = None,
    lengths: Annotated[
        LengthMode, Panel.ORDER.option(help="Where expected answer lengths come from.")
    ] = LengthMode.AUTO,
    tokenizer: Annotated[
        Path | None,
        Panel.MODEL.option(
            help="For JOBS with text: tokenizer.json or its folder, if not the model's own.", metavar="FILE"
        ),
    ] = None,
    engine_arg: AdapterArgs = None,
    json: Annotated[
        bool, Panel.OUTPUT.option("--json", help="Print one JSON object (docs/schemas/bench-tunnel.json).")
    ] = False,
    quiet: Annotated[bool, Panel.WATCHING.option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Run SGLang's own scheduler at a GPU's size, without a GPU.

    JOBS go through it as on a GPU, with a model that computes nothing. The feeder, the hooks, the scheduler, its radix
    cache and its KV allocator are real, at the card's size; what each step would take on the card is worked out by the
    step model. Beside it stands what the simulator promised. Answers end at the lengths that the plan was simulated
    with.
    """
    from blendrun.report.schemas.tunnel import tunnel_json
    from blendrun.report.terminal.progress import choose_view
    from blendrun.report.terminal.tunnel import print_tunnel
    from blendrun.runner.stop import stopping_by_exception

    asked = Asked(jobs, model, hardware, orders, overlap, kv_tokens, max_running, limit, lengths, tokenizer, engine_arg)
    with stopping_by_exception(), choose_view(sys.stderr, quiet=quiet) as listener:
        report = _measure(asked, listener)
    if json:
        sys.stdout.write(tunnel_json(report).decode() + "\n")
    else:
        print_tunnel(report, sys.stdout)


def _measure(asked: Asked, listener: Listener) -> TunnelReport:
    from blendrun.backends.machines import machines_of
    from blendrun.bench.tunnel import run_tunnels
    from blendrun.cost.capacity import EngineLimits
    from blendrun.engine.tunnel.process import TunnelProcesses
    from blendrun.errors import UsageError
    from blendrun.events import Note, PhaseStarted
    from blendrun.jobs.source import open_sources
    from blendrun.planner.plan import Choice, cost_structure, make_plan, make_structure
    from blendrun.planner.workload import Wanted, load_workload
    from blendrun.remote.address import file_name
    from blendrun.report.schemas.tunnel import tunnel_report
    from blendrun.scratch import scratch_folder

    if asked.model is None:
        raise UsageError("which model? Give --model, for example --model llama-3-8b")
    choice = Choice(
        names_in("--orders", asked.orders, OrderName),
        names_in("--overlap", asked.overlap, (Overlap.EXCLUSIVE, Overlap.MIXED)),
    )
    machines = machines_of(asked.hardware, "1")
    wanted = Wanted(asked.model, asked.tokenizer, asked.limit, adapters=declared_by(asked.engine_arg))
    limits = EngineLimits(pool_tokens=asked.kv_tokens, max_running=asked.max_running)
    with scratch_folder("bench") as scratch:
        sources = open_sources(asked.jobs, scratch, listener=listener)
        workload = load_workload(sources, wanted, listener)
        for finding in workload.findings:
            listener(Note(finding.message, warning=True))
        # A tunnel has a request a line.
        prompts = replace(workload.prompts, parts=None)
        structure = make_structure(prompts, workload.model, asked.lengths, listener)
        processes, found = TunnelProcesses(), []
        for on in machines:
            listener(PhaseStarted("simulate", f"{len(structure.prompts):,} requests on {on.card.name}"))
            plan = make_plan(cost_structure(structure, workload.model.card, on, limits=limits), choice, listener)
            found.append(run_tunnels(plan, processes, scratch, listener))
    job = ", ".join(map(file_name, asked.jobs))
    return tunnel_report(found, job=job, model=workload.model.name)
