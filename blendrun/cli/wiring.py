"""From the options of `blendrun run` to what the runner takes."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import OrderName as Order
from blendrun.cli.engine_options import platform_of, threads_of
from blendrun.cli.engines import chosen
from blendrun.cli.names import EngineName, OrderName, OverlapName
from blendrun.cli.permissions import with_media
from blendrun.cli.shard import parse_shard
from blendrun.endpoints import ENDPOINTS
from blendrun.engine.child import EarlyChildren
from blendrun.engine.settings import parse_engine_args
from blendrun.errors import BlendrunError, UsageError
from blendrun.jobs import MAX_LINE_BYTES, Job
from blendrun.models import ResolvedModel
from blendrun.planner.feed import RunPlan
from blendrun.planner.shards import divide_by_line, divide_by_prefix
from blendrun.planner.workload import DescribedJob
from blendrun.report.plan_json import plan_json, plan_report
from blendrun.runner import summary as summaries
from blendrun.runner.failures import ErrorLimit
from blendrun.runner.manifest import write_atomically
from blendrun.runner.replica import MakeEngine, Patience
from blendrun.runner.settings import KeepPlan, RunSettings
from blendrun.runner.shard import Shard, shard_output
from blendrun.runner.state import StateFolder
from blendrun.simulate.base import Overlap


def wire(options: dict[str, Any], progress: Any, later: ExitStack) -> tuple[RunSettings, MakeEngine]:
    """From options to what the runner takes. later: closed when the run has ended.

    Raises UsageError, InputMissingError.
    """
    arguments = parse_engine_args(options["engine_arg"] or [])
    if options["endpoint"] not in (None, *ENDPOINTS):
        raise UsageError(f"--endpoint {options['endpoint']}: known are {', '.join(ENDPOINTS)}")
    shard = shard_of(options)
    early = later.enter_context(closing(EarlyChildren()))
    early.start(platform_of(options), threads_of(options), _early(options))
    found = chosen(options, arguments, progress, early)
    if shard is not None and found.resolved is not None:
        shard = shard_of(options, found.resolved)
    order = str(options["order"])
    overlap = Overlap.EXCLUSIVE if options["overlap"] == OverlapName.AUTO else Overlap(str(options["overlap"]))
    return RunSettings(
        inputs=tuple(options["jobs"]),
        output=output_path(options),
        model=found.model,
        model_identity=found.identity,
        engine=found.engine,
        answer_settings=found.decides,
        versions=found.versions,
        order=Order.GIVEN if order == OrderName.AUTO else Order(order),
        overlap=overlap,
        planner=None if found.planner is None else found.planner.plan,
        divider=None if found.planner is None else found.planner.divide,
        replicas=found.replicas,
        keep_plan=_keep_plan(found.model),
        limit=options["limit"],
        shard=shard,
        default_url=options["endpoint"],
        rules=found.rules,
        max_line_bytes=options["max_line_bytes"] or MAX_LINE_BYTES,
        max_errors=None if options["max_errors"] is None else ErrorLimit.parse(options["max_errors"]),
        strict=options["strict"],
        check=found.check,
        resume=options["resume"],
        accept_changes=options["accept_changes"],
        retry_errors=options["retry_errors"],
        overwrite=options["overwrite"],
        patience=Patience(
            restarts=options["max_restarts"],
            drain=options["drain_timeout"],
            stall=options["stall_timeout"] or found.stall,
            load=max(options["stall_timeout"] or 0.0, found.load),
            deadline=options["deadline_end"],
        ),
    ), with_media(found.make_engine, options)


def _early(options: dict[str, Any]) -> int:
    """How many engine processes to start before the job is even read: none where there may be nothing to do."""
    if options["engine"] != EngineName.SGLANG or options["model"] is None or options.get("needs"):
        return 0
    summary = summaries.read(StateFolder(output_path(options)).summary)
    again = not options["resume"] or options["retry_errors"] or options["accept_changes"]
    return 0 if summary is not None and summary.status == "completed" and not again else int(options["replicas"])


def _keep_plan(model: str) -> KeepPlan:
    def keep(plan: RunPlan, job: Job, path: Path) -> None:
        if plan.simulated is None:
            return
        described = DescribedJob(job, model, plan.simulated.costed.structure.prompts.row)
        with suppress(BlendrunError, OSError):
            write_atomically(path, plan_json(plan_report(plan.simulated, described)) + b"\n")

    return keep


def shard_of(options: dict[str, Any], model: ResolvedModel | None = None) -> Shard | None:
    """The part of the job that was asked for. model: whose tokens tell what requests share; None: by lines."""
    if options["shard"] is None:
        return None

    def by(job: Job, shards: int, phase: Any, progress: Any) -> NDArray[np.int32]:
        if model is None:
            return divide_by_line(job, shards)
        return divide_by_prefix(job, shards, model, phase, progress)

    return Shard(*parse_shard(options["shard"]), by)


def output_path(options: dict[str, Any]) -> Path:
    """Where the answers go; beside the run's state for `-o -` too. A shard has a file of its own.

    Raises UsageError for stdin without a name.
    """
    whole = _whole_output(options)
    return whole if options["shard"] is None else shard_output(whole, *parse_shard(options["shard"]))


def _whole_output(options: dict[str, Any]) -> Path:
    if options["output"] not in (None, "-"):
        return Path(options["output"])
    first = options["jobs"][0]
    if first == "-":
        if options["output"] is None:
            raise UsageError("where do the answers go? With stdin as input, give -o FILE, or -o - for stdout")
        return Path("stdin.answers.jsonl")
    stem = Path(first).name
    for suffix in (".gz", ".zst", ".jsonl", ".ndjson", ".json"):
        stem = stem.removesuffix(suffix)
    return Path(f"{stem}.answers.jsonl")
