"""`--engine sglang`: engines of this command, on this machine or on nodes of a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import msgspec

from blendrun.backends.adapter_folders import identities, with_folders
from blendrun.backends.base import STALL_S, Backend, Opening, Placement
from blendrun.backends.heads import unanswered
from blendrun.backends.modes import automatic_modes, mode_refused
from blendrun.backends.permissions import rules_of
from blendrun.backends.purpose import find_purpose
from blendrun.backends.ray import on_node
from blendrun.backends.same import apart_of, greedy_urls
from blendrun.backends.speed import speed_of
from blendrun.blend.orders import needs_prompts
from blendrun.cost.detect import compute_capability
from blendrun.engine.base import Engine, EngineSettings, Platform
from blendrun.engine.child import EarlyChildren
from blendrun.engine.embedding import embedding_arguments
from blendrun.engine.kept import KeptEngines
from blendrun.engine.overlap import JobFacts
from blendrun.engine.process import SglangEngine
from blendrun.engine.ray.host import Sglang
from blendrun.engine.settings import (
    answer_settings,
    devices_of,
    needs_weights,
    one_scheduler,
    runtime_versions,
    visible_gpus,
    with_devices,
)
from blendrun.engine.sizes import PlannedSize, engine_limits, limits_to_plan, shrunk_arguments, sized_arguments
from blendrun.errors import UsageError
from blendrun.events import Listener, Note
from blendrun.learned.own import OwnSpeed
from blendrun.models.resolve import ResolvedModel, resolve_model
from blendrun.names import EngineName, OrderName, Overlap, Purpose
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.run_planner import RunPlanner
from blendrun.runner.dispatch import scheduler_settings
from blendrun.runner.replica import MakeEngine
from blendrun.runner.strict import JobCheck
from blendrun.store.folder import StateFolder
from blendrun.tokens.load import own_template, template_shows_tools

# Share of a job's prompt tokens that a cache must hold to be worth its room and its steps.
_WORTH_CACHING = 0.05
# One forward pass of a large model takes minutes on a CPU.
_CPU_STALL_S = 1800.0


def open_backend(opening: Opening) -> Backend:
    """Raises UsageError, InputMissingError."""
    options, place = opening.options, opening.place
    if options.model is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    _refuse_without_runtime(place)
    given = options.engine_args if options.tp is None else options.engine_args | {"tp_size": options.tp}
    if place.needs is None:
        given = with_folders(given)
    rules_of(options, given)
    weights = needs_weights(given)
    resolved = resolve_model(options.model, platform=place.platform, listener=opening.listener, weights=weights)
    if not weights:
        opening.listener(Note("load_format=dummy: the weights are random, the answers mean nothing", warning=True))
    settings = engine_settings(resolved, place.platform, place.threads, given, options.trust_remote_code)
    arguments = settings.server_args
    if place.needs is None:
        _refuse_too_many(place, arguments)
    speed = _speed(resolved, place, arguments, opening.listener)
    return Backend(
        engine=str(EngineName.SGLANG),
        model=options.model,
        identity=resolved.identity,
        make_engine=_engines(settings, resolved, place, opening.early, opening.kept),
        rules=rules_of(options, arguments, resolved.card, unanswered(resolved, arguments)),
        replicas=place.replicas,
        devices=_devices(place, arguments),
        stall=_CPU_STALL_S if place.platform == "cpu" else STALL_S,
        # float32 on the CPU and bfloat16 on a GPU do not answer alike, so a resume must not mix them unasked.
        answer_settings=answer_settings(arguments) | {"platform": place.platform} | identities(arguments),
        versions=runtime_versions(),
        planner=planner_of(resolved, place, arguments, options.order, options.overlap, speed),
        check=_check(resolved, place.platform, arguments) if options.strict else None,
        resolved=resolved,
        shows_tools=template_shows_tools(resolved.path, arguments.get("chat_template")),
        speed=speed,
        purpose=find_purpose(resolved, arguments),
        greedy=greedy_urls(resolved.path, arguments),
        apart=apart_of(resolved.path, arguments) if options.cache is not None else (),
    )


def _refuse_without_runtime(place: Placement) -> None:
    """Before a model is fetched for it. Raises UsageError."""
    if place.needs is None and find_spec("sglang") is None:
        raise UsageError(
            "SGLang is not installed beside blendrun, so nothing can be run here; `blendrun doctor` says what installs "
            "it. Plans, reports and --engine http://HOST:PORT work without it"
        )


def _speed(model: ResolvedModel, place: Placement, arguments: dict[str, Any], listener: Listener) -> OwnSpeed | None:
    """How fast the engines are, where they are this machine's."""
    if place.needs is not None or place.hardware is not None:
        return None
    size = {"threads": place.threads, "replicas": place.replicas}
    return speed_of(model.card, model.name, place.platform, arguments, listener, **size)


def engine_settings(
    model: ResolvedModel, platform: Platform, threads: int, given: dict[str, Any], trust_remote_code: bool = False
) -> EngineSettings:
    """Settings of an engine. given: SGLang's arguments; they win over what the model's card asks for."""
    arguments = _parsers(model) | given
    return EngineSettings(
        model_path=str(model.path),
        platform=platform,
        threads=threads,
        trust_remote_code=trust_remote_code,
        server_args=arguments,
        model_name=model.name,
        identity=_identity(model, arguments),
    )


def _identity(model: ResolvedModel, arguments: dict[str, Any]) -> str:
    """Of the model, its template and its adapters: equal where an engine that has loaded them would load the same."""
    adapters = identities(arguments).get("adapters", {})
    template = own_template(model.path, arguments.get("chat_template")) or ""
    digest = blake2b(template.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return " ".join((model.identity, digest, *(f"{name}={found}" for name, found in sorted(adapters.items()))))


def _parsers(model: ResolvedModel) -> dict[str, Any]:
    """Engine arguments that the model's card asks for; what the user gives wins."""
    parsers = model.card.parsers if model.card else None
    if parsers is None:
        return {}
    named = {"tool_call_parser": parsers.tool_call, "reasoning_parser": parsers.reasoning}
    return {name: value for name, value in named.items() if value is not None}


def _check(model: ResolvedModel, platform: Platform, arguments: dict[str, Any]) -> JobCheck:
    """What checks the prompts of a job for `--strict`."""
    return JobCheck(
        model=model.name,
        path=model.path,
        context_length=context_length(model, arguments),
        pool_tokens=engine_limits(platform, arguments).pool_tokens,
        arguments=arguments,
        bidirectional=model.bidirectional,
    )


def _devices(place: Placement, arguments: dict[str, Any]) -> int:
    """GPUs of all engines; without GPUs machines, of which each engine of a cluster is taken to have its own."""
    if place.platform == "gpu":
        return place.replicas * devices_of(arguments)
    return 1 if place.needs is None else place.replicas


def _refuse_too_many(place: Placement, arguments: dict[str, Any]) -> None:
    """Raises UsageError where there are not as many devices as all replicas need."""
    each = devices_of(arguments)
    if place.platform == "gpu" and place.replicas > 1 and place.replicas * each > (there := visible_gpus()):
        raise UsageError(
            f"--replicas {place.replicas} of {each} GPU(s) each need {place.replicas * each}, and {there} are here: "
            f"ask for {max(there // each, 1)}, or fewer"
        )


def planner_of(
    model: ResolvedModel,
    place: Placement,
    arguments: dict[str, Any],
    order: OrderName | None,
    overlap: Overlap | None,
    speed: OwnSpeed | None = None,
) -> RunPlanner | None:
    """What plans the run; None where rows are fed as they stand. speed: of the engines, where it is known.

    Raises UsageError.
    """
    if order is not None and not needs_prompts(order):
        return None
    policy = arguments.get("schedule_policy", "fcfs")
    if policy != "fcfs":
        # The user wants SGLang's own order.
        if order is None:
            return None
        raise UsageError(f"schedule_policy={policy} has an order of its own: leave it out, or --order {order}")

    # Such an engine prefills whole prompts: the reserve that SGLang makes for that is larger.
    given = arguments | {"chunked_prefill_size": -1} if overlap is Overlap.PDMUX else arguments
    limits = limits_to_plan(place.platform, given)
    on_gpu = place.platform == "gpu"
    facts = JobFacts(
        compute_capability=compute_capability() if on_gpu else None,
        architecture=model.card.architecture if model.card else None,
    )

    def refusal(mode: Overlap, logprobs: bool) -> str | None:
        return mode_refused(mode, place.platform, arguments, replace(facts, any_logprobs=logprobs))

    return RunPlanner(
        model,
        order,
        overlap=overlap,
        overlaps=automatic_modes(place.platform),
        refusal=refusal,
        limits=limits,
        hardware=place.hardware,
        platform=place.platform,
        own=speed,
        arguments=arguments,
    )


def context_length(model: ResolvedModel, arguments: dict[str, Any]) -> int | None:
    """Tokens of the engine's context; None where nobody says."""
    return (
        arguments.get("context_length")
        or model.context_length
        or (model.card.context_length if model.card is not None else None)
    )


def _size_of(plan: RunPlan) -> PlannedSize:
    if plan.purpose is Purpose.EMBED:
        # Nothing decodes, and what is read ends with its step.
        return PlannedSize(fraction=None if plan.costed is None else plan.costed.pool.fraction)
    if plan.costed is None:
        return PlannedSize(plan.max_running)
    # Under pdmux every graph is captured once for each division of the device.
    graphs = None if plan.overlap is Overlap.PDMUX else plan.costed.graph_rows
    return PlannedSize(plan.max_running, graphs, plan.costed.pool.fraction)


def _shares(plan: RunPlan) -> bool:
    """Whether a prefix cache is worth it; where nobody knows, it is."""
    if not plan.prompt_tokens or plan.predicted_hit_tokens is None:
        return True
    return plan.predicted_hit_tokens > _WORTH_CACHING * plan.prompt_tokens


def _engines(
    settings: EngineSettings,
    model: ResolvedModel,
    place: Placement,
    early: EarlyChildren,
    kept: KeptEngines | None,
) -> MakeEngine:
    arguments, platform, needs = settings.server_args, place.platform, place.needs

    def make(state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        estimates = state.estimates if state.estimates.exists() and one_scheduler(arguments) else None
        # Memory that an engine elsewhere does not share.
        occupancy = state.occupancy if state.occupancy.exists() and needs is None else None
        size = _size_of(plan)
        sized = sized_arguments(arguments, platform, size)
        if plan.purpose is Purpose.EMBED:
            sized = embedding_arguments(
                sized,
                platform,
                bidirectional=model.bidirectional,
                shares=_shares(plan),
                compute_capability=compute_capability() if platform == "gpu" and needs is None else None,
            )
        fitting = shrunk_arguments(sized, platform, shrinks, context_length(model, arguments), size.fraction)
        scheduler = scheduler_settings(plan, steps=state.steps, estimates=estimates, occupancy=occupancy)
        if fitting.get("disable_radix_cache") is True:
            # Nothing that is computed is there for another: who waits for it waits in vain, and all behind him.
            scheduler = msgspec.structs.replace(scheduler, gate=False)
        planned = msgspec.structs.replace(
            settings,
            scheduler=scheduler,
            overlap=plan.overlap.value,
            # Ray shows an engine its own devices only.
            server_args=with_devices(fitting, platform, state.replica if needs is None else 1),
        )
        if needs is None:
            return SglangEngine(planned, state.engine_log, early.take, kept)
        return on_node(Sglang(planned, model.name, model.identity, str(state.engine_log)), needs, state)

    return make
