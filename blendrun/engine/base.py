"""What the runner hands to an engine and gets back: the nouns and the interface every engine keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

import msgspec

from blendrun.blend.base import Turn
from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.endpoints.base import Usage
from blendrun.events import Listener

Platform = Literal["cpu", "gpu"]
# The overlap ladder of `names.Overlap`, by value.
OverlapMode = Literal["exclusive", "mixed", "pdmux"]


class Planned(msgspec.Struct, frozen=True):
    """What the plan says of one request, for the engine's scheduler.

    index: place in the plan, lower first (below 2^31). output: expected output tokens to its end, of each choice; 0
    where nobody knows. reuse: leading prompt tokens that a request fed later can use again. prompt: its tokens, 0 where
    nobody counted them.
    turn: what its turn depends on, of a request that comes from a blend; None where the place alone says it.
    """

    index: int
    output: int
    reuse: int
    prompt: int = 0
    turn: Turn | None = None


class WorkItem(msgspec.Struct, frozen=True, tag="work"):
    """One request on its way to the engine.

    row: place in the Job, the id both sides use. url: key of the endpoint registry.
    body: the request's JSON as read from the line, UTF-8.
    known_output_tokens: the answer's length where the input states one; only the replay engine may look.
    plan: what the scheduler plug-in goes by; without it the request is scheduled as SGLang does.
    """

    row: int
    url: str
    body: bytes
    known_output_tokens: int | None = None
    plan: Planned | None = None


class Result(msgspec.Struct, frozen=True, tag="result"):
    """One request's end: an answer (`error_code` None) or an error; `body` is the endpoint's JSON either way.

    body is empty where the failure has no HTTP-like form. finish_reasons: one a choice ("stop", "length", ...).
    """

    row: int
    status_code: int
    body: bytes
    usage: Usage = Usage()
    finish_reasons: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str = ""


class EngineInfo(msgspec.Struct, frozen=True, tag="ready"):
    """What a started engine says of itself.

    context_length, kv_tokens (size of the KV pool): tokens; 0 where a server does not say.
    max_running: requests decoded at once. queue: requests that it should have beside them; None for what the plan says.
    notes: sentences a person should read (a hook that did not take, say). tells_running: whether it says what runs in
    it (`SchedulerSettings.occupancy`).
    chunk: most prefill tokens of a step. attention: the backend that decodes. page: tokens of a page of its cache. None
    where it does not say; chunk also where it cuts no prompts.
    """

    engine: str
    platform: str
    context_length: int
    kv_tokens: int
    max_running: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    queue: int | None = None
    tells_running: bool = False
    chunk: int | None = None
    attention: str | None = None
    page: int | None = None


class ConstantStep(msgspec.Struct, frozen=True, tag="constant"):
    """`ConstantBudget` on its way to the scheduler process."""

    tokens: int


class AdaptiveStep(msgspec.Struct, frozen=True, tag="adaptive"):
    """`AdaptiveBudget` on its way to the scheduler process; the fields are that class's own."""

    floor: int
    most: int
    ratio: float
    weight_tokens: float
    row_tokens: float
    cached_tokens: float


class TurnsStep(msgspec.Struct, frozen=True, tag="turns"):
    """`TurnsBudget` on its way to the scheduler process; the fields are that class's own."""

    tokens: int
    drained: float


class CrossoverStep(msgspec.Struct, frozen=True, tag="crossover"):
    """`CrossoverBudget` on its way to the scheduler process; the fields are that class's own."""

    tokens: int
    alone: int
    mixed: float
    weight_tokens: float
    row_tokens: float
    cached_tokens: float


StepBudget = ConstantStep | AdaptiveStep | TurnsStep | CrossoverStep


def step_budget(budget: Budget) -> StepBudget:
    """A budget of the planner as a message."""
    fields = {name: getattr(budget, name) for name in budget.__dataclass_fields__}
    match budget:
        case ConstantBudget():
            return ConstantStep(**fields)
        case AdaptiveBudget():
            return AdaptiveStep(**fields)
        case TurnsBudget():
            return TurnsStep(**fields)
        case CrossoverBudget():
            return CrossoverStep(**fields)


def budget_policy(step: StepBudget) -> Budget:
    """The policy that a message names. Raises ValueError for one that leaves steps without work."""
    fields = msgspec.structs.asdict(step)
    match step:
        case ConstantStep():
            return ConstantBudget(**fields)
        case AdaptiveStep():
            return AdaptiveBudget(**fields)
        case TurnsStep():
            return TurnsBudget(**fields)
        case CrossoverStep():
            return CrossoverBudget(**fields)


class SchedulerSettings(msgspec.Struct, frozen=True):
    """What blendrun's plug-in does in SGLang's scheduler (`engine.scheduler`). By default the gate and dead ends.

    gate: a request waits for a prefix that is being computed. dead_ends: a grammar that allows no token ends its
    request, not the engine. budget: prefill tokens of each step, None for SGLang's
    own chunk. reserve: admission by the expected output of `Planned` at every step to come, not by SGLang's guess.
    next_use: evict first what no request to come can use. plan_order: admit, and readmit after a retraction, by
    `Planned.index` whatever the order of arrival. sides: of a blend's two sides that one admits whose turn it is
    (`Planned.turn`). occupancy: file that says what runs (`engine.scheduler.occupancy`).
    step_log: file for one JSON line a forward pass, None for none; log_every_rank: of each rank of a model, in files of
    their own, to compare them.
    estimates: file of corrected expectations (`engine.scheduler.estimates`), for one scheduler process only: several
    that share a model must decide alike, and would not read it at the same moment.
    """

    gate: bool = True
    dead_ends: bool = True
    budget: StepBudget | None = None
    reserve: bool = False
    next_use: bool = False
    plan_order: bool = False
    sides: bool = False
    occupancy: str | None = None
    step_log: str | None = None
    log_every_rank: bool = False
    estimates: str | None = None


class EngineSettings(msgspec.Struct, frozen=True):
    """Everything an engine process is started with.

    model_path: folder (or GGUF file where the platform loads one). server_args: SGLang's own arguments, which win
    over blendrun's defaults. threads: CPU threads for the arithmetic (CPU platform only). model_name: what answers call
    the model; "" for what SGLang calls it. identity: of the weights behind these paths, which may change; "" where
    nobody looked.
    overlap: what runs beside what (`engine.overlap`, which also says where a mode is refused).
    """

    model_path: str
    platform: Platform
    threads: int
    trust_remote_code: bool = False
    server_args: dict[str, Any] = {}
    scheduler: SchedulerSettings = SchedulerSettings()
    overlap: OverlapMode = "exclusive"
    model_name: str = ""
    identity: str = ""


class Engine(Protocol):
    """Takes work items in order, gives results as they come. One start, one stop.

    `results` ends after `close_input` once everything submitted has come back, and raises EngineUnavailableError when
    the engine dies; what had no result by then was not answered.
    """

    @property
    def fetching(self) -> int:
        """Requests that were submitted and whose media are still being fetched: it cannot have begun on them."""
        ...

    async def start(self, listener: Listener) -> EngineInfo:
        """Bring the engine up. Raises EngineUnavailableError with the reason.

        listener: told how far it is, in phases `load`.
        """
        ...

    async def submit(self, item: WorkItem) -> None:
        """Hand over one request; returns when it is on its way, not when it is done."""
        ...

    async def close_input(self) -> None:
        """No more work will come."""
        ...

    def results(self) -> AsyncIterator[Result]:
        """Results in order of completion."""
        ...

    async def stop(self) -> None:
        """End the engine and every process it started. Idempotent; never raises for a dead engine."""
        ...
