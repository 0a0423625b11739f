"""`blendrun bench live`: orders on the real runtime."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blendrun.cli.choices import MOST, MOST_THREADS, names_in
from blendrun.cli.panels import Panel
from blendrun.names import PLUGGED_ORDERS, SIMPLE_ORDERS, DeviceName, LiveOrder, OrderName, Overlap

if TYPE_CHECKING:
    from blendrun.events import Listener
    from blendrun.jobs.job import Job
    from blendrun.report.schemas.live import LiveReport


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command is asked for, as its options have it."""

    jobs: list[str]
    model: str | None
    orders: str
    overlap: str
    kv_tokens: int | None
    limit: int | None
    repeat: int
    hardware: str | None
    engine_arg: list[str]
    device: DeviceName
    threads: int | None
    keep: Path | None


def live(
    jobs: Annotated[list[str], typer.Argument(help="Request files.", metavar="JOBS...", show_default=False)],
    model: Annotated[
        str | None,
        Panel.MODEL.option(
            "--model", "-m", help="Alias (see `blendrun models`), hub id, folder or GGUF file.", metavar="MODEL"
        ),
    ] = None,
    orders: Annotated[
        str,
        Panel.ORDER.option(
            help=f"Comma-separated: {', '.join((*SIMPLE_ORDERS, *PLUGGED_ORDERS))}, gated (depth first with the gate "
            "alone) and auto.",
            metavar="ORDER,...",
        ),
    ] = "given,lpm,blended",
    overlap: Annotated[
        str, Panel.ORDER.option(help="Comma-separated: exclusive, mixed, pdmux.", metavar="MODE,...")
    ] = "exclusive",
    kv_tokens: Annotated[
        int | None,
        Panel.MODEL.option(min=1, max=MOST, metavar="K", help="Tokens of the KV pool. Default: the engine's own."),
    ] = None,
    limit: Annotated[
        int | None, Panel.INPUT.option(min=1, max=MOST, metavar="N", help="Take only the first N lines.")
    ] = None,
    repeat: Annotated[int, Panel.ORDER.option(min=1, max=MOST, metavar="R", help="Runs of each order, in turns.")] = 3,
    hardware: Annotated[
        str | None,
        Panel.HARDWARE.option(
            help="Card that plans go by. Default: this machine's, calibrated if it is.", metavar="CARD"
        ),
    ] = None,
    engine_arg: Annotated[
        list[str] | None, Panel.MODEL.option(metavar="K=V", help="Argument of SGLang's engine; may be repeated.")
    ] = None,
    device: Annotated[DeviceName, Panel.MODEL.option(help="Where it runs.")] = DeviceName.AUTO,
    threads: Annotated[
        int | None,
        Panel.MODEL.option(min=1, max=MOST_THREADS, help="CPU threads (CPU only). Default: all cores.", metavar="N"),
    ] = None,
    keep: Annotated[
        Path | None, Panel.OUTPUT.option(metavar="FOLDER", help="Keep records, step logs and engine logs there.")
    ] = None,
    json: Annotated[
        bool, Panel.OUTPUT.option("--json", help="Print one JSON object (docs/schemas/bench-live.json).")
    ] = False,
    plot: Annotated[
        Path | None,
        Panel.OUTPUT.option(metavar="FILE", help="Draw it: .png or .svg. Needs matplotlib (blendrun[plot])."),
    ] = None,
    overwrite: Annotated[
        bool,
        Panel.OUTPUT.option("--overwrite", help="Replace a picture of another program, and what a bench before kept."),
    ] = False,
    quiet: Annotated[bool, Panel.WATCHING.option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Measure orders on the real engine.

    JOBS run in one order after the other: same requests, settings and cache size. blended and auto are what `blendrun
    run` does; all others but gated run on SGLang as it comes. On a CPU all engines live at once and the repeats take
    turns (4 GB each); on a GPU one follows the other. Nothing else should run meanwhile.
    """
    from blendrun.bench.keep import kept_folder
    from blendrun.remote.address import local_paths
    from blendrun.report.export.plot import picture
    from blendrun.report.schemas.live import live_json
    from blendrun.report.terminal.live import plot_live, print_live
    from blendrun.report.terminal.progress import choose_view
    from blendrun.runner.stop import stopping_by_exception

    target = None if plot is None else picture(plot, jobs, overwrite=overwrite)
    if keep is not None:
        keep = kept_folder(keep, local_paths(jobs), overwrite=overwrite)
    asked = Asked(
        jobs, model, orders, overlap, kv_tokens, limit, repeat, hardware, engine_arg or [], device, threads, keep
    )
    with stopping_by_exception(), choose_view(sys.stderr, quiet=quiet) as listener:
        report = _measure(asked, listener)
    if target is not None:
        plot_live(report, target)
    if json:
        sys.stdout.write(live_json(report).decode() + "\n")
    else:
        print_live(report, sys.stdout)


def _measure(asked: Asked, listener: Listener) -> LiveReport:
    from blendrun.endpoints.adapters import declared_adapters
    from blendrun.endpoints.rules import Rules
    from blendrun.engine.settings import parse_engine_args
    from blendrun.jobs.index import index_jobs
    from blendrun.jobs.source import open_sources
    from blendrun.scratch import scratch_folder

    orders, overlaps = _choices(asked)
    # Names of the base are not judged: what runs is what was given.
    adapters = declared_adapters(parse_engine_args(asked.engine_arg).get("lora_paths"))
    rules = Rules(adapters=adapters, base=None if adapters else ())
    with scratch_folder("bench") as scratch:
        folder = asked.keep or scratch
        sources = open_sources(asked.jobs, scratch, listener=listener)
        with index_jobs(sources, limit=asked.limit, rules=rules) as job:
            return _of_job(job, orders, overlaps, folder, asked, listener)


def _of_job(
    job: Job,
    orders: tuple[OrderName | LiveOrder, ...],
    overlaps: tuple[Overlap, ...],
    folder: Path,
    asked: Asked,
    listener: Listener,
) -> LiveReport:
    from blendrun.backends.session import platform_of
    from blendrun.bench.live import LiveBench
    from blendrun.engine.base import EngineSettings
    from blendrun.engine.settings import (
        available_cores,
        needs_weights,
        parse_engine_args,
        runtime_versions,
    )
    from blendrun.engine.sizes import limits_to_plan
    from blendrun.errors import UsageError
    from blendrun.models.resolve import resolve_model
    from blendrun.planner.run_planner import RunPlanner
    from blendrun.remote.address import file_name, shown
    from blendrun.report.schemas.live import live_report

    if asked.model is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    if not len(job.accepted):
        raise UsageError(f"{shown(asked.jobs[0])} has no request to run")
    platform = platform_of(asked.device)
    arguments = parse_engine_args(asked.engine_arg)
    weights = needs_weights(arguments)
    model = resolve_model(asked.model, platform=platform, listener=listener, weights=weights)
    if asked.kv_tokens is not None:
        arguments["max_total_tokens"] = asked.kv_tokens
    limits = limits_to_plan(platform, arguments)
    rounds = LiveBench(
        job=job,
        planner=RunPlanner(model, None, limits=limits, hardware=asked.hardware, arguments=arguments),
        settings=EngineSettings(
            model_path=str(model.path),
            platform=platform,
            threads=asked.threads or available_cores(),
            server_args=arguments,
        ),
        orders=orders,
        overlaps=overlaps,
        repeats=asked.repeat,
        folder=folder,
        together=platform == "cpu",
    ).run(listener)
    return live_report(
        rounds,
        job=", ".join(map(file_name, asked.jobs)),
        requests=len(job.accepted),
        model=model.name,
        platform=platform,
        kv_tokens=limits.pool_tokens,
        versions=runtime_versions(),
    )


def _choices(asked: Asked) -> tuple[tuple[OrderName | LiveOrder, ...], tuple[Overlap, ...]]:
    """Raises UsageError."""
    known = (*SIMPLE_ORDERS, *PLUGGED_ORDERS)
    return names_in("--orders", asked.orders, known), names_in("--overlap", asked.overlap, Overlap)
