"""From the options of `blendrun run` to what the runner takes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import OrderName as Order
from blendrun.cli.engine_options import context_length, engine_settings, platform_of
from blendrun.cli.names import EngineName, OrderName, OverlapName
from blendrun.cli.permissions import rules_of, with_media
from blendrun.cli.ray import replay_on_node, sglang_on_node
from blendrun.cli.shard import parse_shard
from blendrun.cost.detect import compute_capability
from blendrun.endpoints import ENDPOINTS
from blendrun.engine.base import Engine, Platform
from blendrun.engine.overlap import JobFacts, Refused, overlap_arguments
from blendrun.engine.process import SglangEngine
from blendrun.engine.replay import ReplayEngine
from blendrun.engine.settings import (
    answer_settings,
    engine_limits,
    one_scheduler,
    parse_engine_args,
    placed,
    runtime_versions,
    smaller,
    visible_gpus,
)
from blendrun.errors import BlendrunError, UsageError
from blendrun.jobs import MAX_LINE_BYTES, Job
from blendrun.models import ResolvedModel, resolve_model
from blendrun.planner.feed import RunPlan, RunPlanner
from blendrun.planner.shards import divide_by_line, divide_by_prefix
from blendrun.planner.workload import DescribedJob
from blendrun.report.plan_json import plan_json, plan_report
from blendrun.runner.failures import ErrorLimit
from blendrun.runner.feeding import scheduler_settings
from blendrun.runner.manifest import write_atomically
from blendrun.runner.replica import MakeEngine, Patience
from blendrun.runner.settings import KeepPlan, RunSettings
from blendrun.runner.shard import Shard, shard_output
from blendrun.runner.state import StateFolder
from blendrun.runner.strict import JobCheck
from blendrun.simulate.base import Overlap

# Without a sign of life for so long an engine is hung; one forward pass of a large model takes minutes on a CPU.
_STALL_S, _CPU_STALL_S = 600.0, 1800.0
# While it loads, weights may come slowly and nothing is said.
_LOAD_STALL_S = 1800.0


def wire(options: dict[str, Any], progress: Any) -> tuple[RunSettings, MakeEngine]:
    """From options to what the runner takes. Raises UsageError, InputMissingError."""
    arguments = parse_engine_args(options["engine_arg"] or [])
    if options["tp"] is not None:
        arguments["tp_size"] = options["tp"]
    if options["endpoint"] not in (None, *ENDPOINTS):
        raise UsageError(f"--endpoint {options['endpoint']}: known are {', '.join(ENDPOINTS)}")
    replay = options["engine"] == EngineName.REPLAY
    name, identity = options["model"] or "replay", "replay"
    order, check = str(options["order"]), None
    overlap = Overlap.EXCLUSIVE if options["overlap"] == OverlapName.AUTO else Overlap(str(options["overlap"]))
    decides: dict[str, Any] = {}
    planner: RunPlanner | None = None
    versions: dict[str, str] = {}
    stall = _STALL_S
    rules = rules_of(options, arguments)
    shard = shard_of(options)
    if replay:
        if order not in (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.AUTO):
            raise UsageError(f"--order {order} needs the prompts in tokens, and replay has no tokenizer")
        make_engine = _replay(arguments, options)
    elif options["model"] is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    else:
        platform = platform_of(options)
        resolved = resolve_model(options["model"], platform=platform, progress=progress)
        identity = resolved.identity
        arguments = _parsers(resolved) | arguments
        # float32 on the CPU and bfloat16 on a GPU do not answer alike, so a resume must not mix them unasked.
        decides = answer_settings(arguments) | {"platform": platform}
        versions = runtime_versions()
        if not options.get("needs"):
            _refuse_too_many(platform, arguments, options["replicas"])
        planner = planner_of(resolved, platform, arguments, options)
        check = _check(resolved, platform, arguments) if options["strict"] else None
        make_engine = _sglang(resolved, platform, arguments, options)
        shard = shard_of(options, resolved)
        stall = _CPU_STALL_S if platform == "cpu" else _STALL_S
        rules = rules_of(options, arguments, resolved.card)
    return RunSettings(
        inputs=tuple(options["jobs"]),
        output=output_path(options),
        model=name,
        model_identity=identity,
        engine=str(options["engine"]),
        answer_settings=decides,
        versions=versions,
        order=Order.GIVEN if order == OrderName.AUTO else Order(order),
        overlap=overlap,
        planner=None if planner is None else planner.plan,
        divider=None if planner is None else planner.divide,
        replicas=options["replicas"],
        keep_plan=_keep_plan(name),
        limit=options["limit"],
        shard=shard,
        default_url=options["endpoint"],
        rules=rules,
        max_line_bytes=options["max_line_bytes"] or MAX_LINE_BYTES,
        max_errors=None if options["max_errors"] is None else ErrorLimit.parse(options["max_errors"]),
        strict=options["strict"],
        check=check,
        resume=options["resume"],
        accept_changes=options["accept_changes"],
        retry_errors=options["retry_errors"],
        overwrite=options["overwrite"],
        patience=Patience(
            restarts=options["max_restarts"],
            drain=options["drain_timeout"],
            stall=options["stall_timeout"] or stall,
            load=max(options["stall_timeout"] or 0.0, _LOAD_STALL_S),
            deadline=options["deadline_end"],
        ),
    ), with_media(make_engine, options)


def _parsers(model: ResolvedModel) -> dict[str, Any]:
    """Engine arguments that the model's card asks for; what the user gives wins."""
    parsers = model.card.parsers if model.card else None
    if parsers is None:
        return {}
    chosen = {"tool_call_parser": parsers.tool_call, "reasoning_parser": parsers.reasoning}
    return {name: value for name, value in chosen.items() if value is not None}


def _check(model: ResolvedModel, platform: Platform, arguments: dict[str, Any]) -> Any:
    """What checks the prompts of a job for `--strict`."""
    return JobCheck(
        model=model.name,
        path=model.path,
        context_length=context_length(model, arguments),
        pool_tokens=engine_limits(platform, arguments).pool_tokens,
        arguments=arguments,
    )


def _refuse_too_many(platform: Platform, arguments: dict[str, Any], replicas: int) -> None:
    """Raises UsageError where there are not as many devices as all replicas need."""
    each = int(arguments.get("tp_size", 1)) * int(arguments.get("pp_size", 1)) * int(arguments.get("dp_size", 1))
    if platform == "gpu" and replicas > 1 and replicas * each > (there := visible_gpus()):
        raise UsageError(
            f"--replicas {replicas} of {each} GPU(s) each need {replicas * each}, and {there} are here: ask for "
            f"{max(there // each, 1)}, or fewer"
        )


def planner_of(
    model: ResolvedModel, platform: Platform, arguments: dict[str, Any], options: dict[str, Any]
) -> RunPlanner | None:
    """What plans the run; None where rows are fed as they stand. Raises UsageError."""
    order, overlap = str(options["order"]), str(options["overlap"])
    if order in (OrderName.GIVEN, OrderName.SHUFFLED):
        return None
    policy = arguments.get("schedule_policy", "fcfs")
    if policy != "fcfs":
        # The user wants SGLang's own order.
        if order == OrderName.AUTO:
            return None
        raise UsageError(f"schedule_policy={policy} has an order of its own: leave it out, or --order {order}")

    facts = JobFacts(
        compute_capability=compute_capability() if platform == "gpu" else None,
        architecture=model.card.architecture if model.card else None,
    )

    def refusal(mode: Overlap, logprobs: bool) -> str | None:
        found = overlap_arguments(mode.value, platform, arguments, replace(facts, any_logprobs=logprobs))
        return found.sentence if isinstance(found, Refused) else None

    return RunPlanner(
        model,
        None if order == OrderName.AUTO else Order(order),
        overlap=None if overlap == OverlapName.AUTO else Overlap(overlap),
        # On a CPU one step's arithmetic hides under no other's reads. The split of a GPU is only for those who ask.
        overlaps=(Overlap.EXCLUSIVE, Overlap.MIXED) if platform == "gpu" else (Overlap.EXCLUSIVE,),
        refusal=refusal,
        limits=engine_limits(platform, arguments),
        hardware=options.get("hardware"),
    )


def _keep_plan(model: str) -> KeepPlan:
    def keep(plan: RunPlan, job: Job, path: Path) -> None:
        if plan.simulated is None:
            return
        described = DescribedJob(job, model, plan.simulated.costed.structure.prompts.row)
        with suppress(BlendrunError, OSError):
            write_atomically(path, plan_json(plan_report(plan.simulated, described)) + b"\n")

    return keep


def _replay(arguments: dict[str, Any], options: dict[str, Any]) -> MakeEngine:
    # Once now: wrong ones are refused before anything is made.
    engine = ReplayEngine.from_arguments(arguments)
    if options.get("needs"):
        return lambda state, *_: replay_on_node(options, engine.settings, state)
    return lambda *_: ReplayEngine.from_arguments(arguments)


def _sglang(model: ResolvedModel, platform: Platform, arguments: dict[str, Any], options: dict[str, Any]) -> MakeEngine:
    settings, context = engine_settings(model, platform, options, arguments), context_length(model, arguments)

    def make(state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        estimates = state.estimates if state.estimates.exists() and one_scheduler(arguments) else None
        scheduler = scheduler_settings(plan, steps=state.steps, estimates=estimates)
        needs = options.get("needs")
        planned = msgspec.structs.replace(
            settings,
            scheduler=scheduler,
            overlap=plan.overlap.value,
            # Ray shows an engine its own devices only.
            server_args=placed(smaller(arguments, platform, shrinks, context), platform, 1 if needs else state.replica),
        )
        if needs:
            return sglang_on_node(options, planned, model, state)
        return SglangEngine(planned, state.engine_log)

    return make


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
