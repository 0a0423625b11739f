"""What answers a run: an engine of this command, servers that already run, or the replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from blendrun.blend.base import OrderName as Order
from blendrun.cli.engine_options import context_length, engine_settings, platform_of
from blendrun.cli.names import EngineName, OrderName, OverlapName
from blendrun.cli.permissions import rules_of
from blendrun.cli.ray import replay_on_node, sglang_on_node
from blendrun.cli.servers import Servers, servers_of
from blendrun.cost.detect import compute_capability
from blendrun.endpoints import Rules
from blendrun.engine.base import Engine, Platform
from blendrun.engine.child import EarlyChildren
from blendrun.engine.overlap import JobFacts, Refused, overlap_arguments
from blendrun.engine.process import SglangEngine
from blendrun.engine.replay import ReplayEngine
from blendrun.engine.settings import (
    answer_settings,
    engine_limits,
    one_scheduler,
    placed,
    runtime_versions,
    smaller,
    visible_gpus,
)
from blendrun.errors import UsageError
from blendrun.models import ResolvedModel, resolve_model
from blendrun.planner.feed import RunPlan, RunPlanner
from blendrun.runner.feeding import scheduler_settings
from blendrun.runner.replica import MakeEngine
from blendrun.runner.state import StateFolder
from blendrun.runner.strict import JobCheck
from blendrun.simulate.base import Overlap

# Without a sign of life for so long an engine is hung; one forward pass of a large model takes minutes on a CPU.
_STALL_S, _CPU_STALL_S = 600.0, 1800.0
# While it loads, weights may come slowly and nothing is said.
_LOAD_STALL_S = 1800.0
# Of a server nothing is seen but its answers: beyond what it may take for one, twice, and for coming up.
_MARGIN_S = 600.0
_SERVED = "served"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What answers, and what follows from it for the run.

    model, identity: for the manifest. decides: settings that can change an answer. planner: None where rows are fed as
    they stand. check: of prompts, for `--strict`. stall: seconds of silence that mean a hung engine; load: while it
    comes up. resolved: the model, where its tokenizer is here.
    """

    engine: str
    model: str
    identity: str
    make_engine: MakeEngine
    rules: Rules
    replicas: int
    stall: float = _STALL_S
    load: float = _LOAD_STALL_S
    decides: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    planner: RunPlanner | None = None
    check: JobCheck | None = None
    resolved: ResolvedModel | None = None


def chosen(options: dict[str, Any], arguments: dict[str, Any], progress: Any, early: EarlyChildren) -> Chosen:
    """arguments: of the engine, from `--engine-arg`. early: processes for its engines.

    Raises UsageError, InputMissingError.
    """
    servers = servers_of(options, arguments, progress)
    if servers is not None:
        return _servers(servers, options, progress)
    if options["engine"] == EngineName.REPLAY:
        return _replay(options, arguments)
    if options["model"] is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    return _sglang(options, arguments, progress, early)


def _replay(options: dict[str, Any], arguments: dict[str, Any]) -> Chosen:
    order = options["order"]
    if order not in (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.AUTO):
        raise UsageError(f"--order {order} needs the prompts in tokens, and replay has no tokenizer")
    if options["tp"] is not None:
        raise UsageError("--tp: replay uses no GPU")
    rules = rules_of(options, arguments)
    # Once now: wrong ones are refused before anything is made.
    settings = ReplayEngine.from_arguments(arguments).settings

    def make(state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        return replay_on_node(options, settings, state) if options.get("needs") else ReplayEngine(settings)

    return Chosen(
        engine=str(EngineName.REPLAY),
        model=options["model"] or "replay",
        identity="replay",
        make_engine=make,
        rules=rules,
        replicas=options["replicas"],
    )


def _servers(servers: Servers, options: dict[str, Any], progress: Any) -> Chosen:
    rules = rules_of(options, {})
    found = Chosen(
        engine="http",
        model=options["model"] or _SERVED,
        identity=_SERVED,
        make_engine=servers.make_engine,
        rules=rules,
        replicas=len(servers.addresses),
        stall=2 * servers.settings.timeout + _MARGIN_S,
        load=max(_LOAD_STALL_S, servers.settings.wait + _MARGIN_S),
        # Answers of two models must not mix unasked.
        decides={"served": servers.model},
    )
    order = str(options["order"])
    if options["model"] is None:
        return found
    # Its weights are the servers' affair.
    resolved = resolve_model(options["model"], platform="gpu", progress=progress, weights=False)
    check = None
    if options["strict"]:
        check = JobCheck(
            model=resolved.name,
            path=resolved.path,
            context_length=servers.context_length or context_length(resolved, {}),
            pool_tokens=servers.limits.pool_tokens,
            arguments={"grammar_backend": _SERVED},
        )
    return replace(
        found,
        identity=resolved.identity,
        planner=servers.planner(resolved, order),
        rules=rules_of(options, {}, resolved.card),
        check=check,
        resolved=resolved,
    )


def _sglang(options: dict[str, Any], given: dict[str, Any], progress: Any, early: EarlyChildren) -> Chosen:
    if options["tp"] is not None:
        given = given | {"tp_size": options["tp"]}
    rules_of(options, given)
    platform = platform_of(options)
    resolved = resolve_model(options["model"], platform=platform, progress=progress)
    arguments = _parsers(resolved) | given
    if not options.get("needs"):
        _refuse_too_many(platform, arguments, options["replicas"])
    return Chosen(
        engine=str(EngineName.SGLANG),
        model=options["model"],
        identity=resolved.identity,
        make_engine=_engines(resolved, platform, arguments, options, early),
        rules=rules_of(options, arguments, resolved.card),
        replicas=options["replicas"],
        stall=_CPU_STALL_S if platform == "cpu" else _STALL_S,
        # float32 on the CPU and bfloat16 on a GPU do not answer alike, so a resume must not mix them unasked.
        decides=answer_settings(arguments) | {"platform": platform},
        versions=runtime_versions(),
        planner=planner_of(resolved, platform, arguments, options),
        check=_check(resolved, platform, arguments) if options["strict"] else None,
        resolved=resolved,
    )


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


def _engines(
    model: ResolvedModel, platform: Platform, arguments: dict[str, Any], options: dict[str, Any], early: EarlyChildren
) -> MakeEngine:
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
        return SglangEngine(planned, state.engine_log, early.take)

    return make
