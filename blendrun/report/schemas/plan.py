"""`blendrun plan --json`: a versioned schema (docs/schemas/plan.json), made of these classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from blendrun.planner.findings import Finding
from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.series import Series
from blendrun.report.schemas.what_if import WhatIfRow

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine. pool_tokens: KV cache of one replica. rates: whether the rates are measured, from a datasheet or a
    prior; the weaker of the two rates decides. shared_reads: least tokens of a prefix that a decode step reads once for
    all rows; null where each row reads it."""

    name: str
    gpus: int
    replicas: int
    gpus_per_replica: int
    pool_tokens: int
    flops: float
    bandwidth: float
    rates: str
    shared_reads: int | None


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One order on one overlap mode, with the best step budget of those tried. Simulated: a model's numbers.

    hit_tokens: prompt tokens found in the prefix cache. predicted_seconds: makespan. bound_seconds: the least time for
    the work that this order does. step_budget: tokens a step, null where each step sets its own. policy: "constant",
    "adaptive", "turns, N %" (prefill begins when N % of the rows are left) or "crossover" (a step mixes where that
    is sooner). cost: null without a price. eligible: false where it is here for comparison, and a run would not take it
    unasked.
    """

    name: str
    overlap: str
    hit_tokens: int
    predicted_seconds: float
    bound_seconds: float
    tokens_per_second: float
    step_budget: int | None
    policy: str
    cost: float | None
    chosen: bool
    eligible: bool = True


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One answer to "which card, how many": the chosen order there. Null figures where the model does not fit: why.

    bound_seconds: the least of any order there (`PlanReport.practical_seconds`). cost: at gpu_hour, the price of an
    hour of one device; both null where nobody said.
    """

    hardware: str
    gpus: int
    replicas: int | None
    order: str | None
    overlap: str | None
    predicted_seconds: float | None
    bound_seconds: float | None
    times: str | None
    cost: float | None
    why_not: str | None
    gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """The job in parts, one a replica. kept_sharing: tokens that a cache for each part saves over what one for all
    would. compute_off, memory_off: how far the part furthest from an equal share is from it (0.02: 2 %). seconds: of
    each part, predicted."""

    kept_sharing: float
    compute_off: float
    memory_off: float
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A shared prefix. depth: tokens to its end. saved_tokens: what sharing its own segment saves. density: of the
    requests below it, null where they decode nothing. level: how many listed prefixes stand above it."""

    level: int
    depth: int
    segment_tokens: int
    requests: int
    saved_tokens: int
    density: float | None
    example: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Requests by density (compute over memory seconds, each alone with its own prompt segment). requests[i] have
    edges[i - 1] <= density < edges[i]; the last is all above, requests that decode nothing among them."""

    edges: tuple[float, ...]
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlendFacts:
    """kept_sharing: share of the infinite cache's savings that neighbours keep. units: pieces moved as a whole.
    kv_peak_tokens: most KV tokens held at once in expected time. left_share: mean share of the pool of the
    compute-heavy side."""

    kept_sharing: float
    units: int
    kv_peak_tokens: float
    left_share: float


@dataclass(frozen=True, slots=True)
class LearnedFacts:
    """Runs on this machine that the times rest on. date: of the last one. error: mean relative error of its steps, once
    they were learned from. sentence: for people."""

    runs: int
    date: str
    error: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Constant:
    """One of the constants of a step's time (`blendrun.simulate.base.StepTime`). origin: "learned", "measured", "model"
    or "prior"; those that runs could not tell apart keep what they were before, and go with the others."""

    seconds: float
    origin: str


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What `blendrun plan --json` prints. Tokens and seconds throughout.

    shared_tokens: what an infinite prefix cache saves. output_tokens: expected. density: compute over memory seconds of
    the whole job, null where nothing is decoded. step_budget: T*. bound_seconds, serial_seconds: with perfect overlap
    and with none, every shared token computed once. practical_seconds: the least of any order on the modes tried,
    longest answer, pool and reads of the weights counted (docs/paper.md#the-practical-bound); 0 where it was not kept.
    why: of the choice, and what the job takes: sentences for people. plain_seconds: the given order on SGLang as it
    comes. times: what the predicted seconds rest on: "learned" (earlier runs, on this very machine and model: `learned`
    says which), "measured" (calibrate, as well), "model" (published rates), or "prior". constants: of a step's time, by
    name. machines: every machine asked for, the first of which the rest of the plan is for. icicle: the prefix tree,
    for pictures. timeline: of the chosen order, simulated. partition: null for one replica. what_ifs: what was asked
    for of what blendrun does not turn on. copies: lines that ask the same as an earlier one; cached: requests that have
    an answer from earlier runs, null where nobody looked; neither are among `requests`. findings: what will go wrong,
    the worst first; warnings: their messages.
    gpu_hour: the price of an hour of one device, null without one.
    """

    schema_version: int
    blendrun: str
    model: str
    kind: str
    hardware: Hardware
    lines: int
    refused: int
    left_out: int
    requests: int
    prompt_tokens: int
    shared_tokens: int
    output_tokens: float
    lengths: dict[str, int]
    density: float | None
    step_budget: int
    bound_seconds: float
    serial_seconds: float
    blend: BlendFacts
    histogram: Histogram
    prefixes: tuple[Prefix, ...]
    orders: tuple[OrderRow, ...]
    why: str
    plain_seconds: float
    times: str
    machines: tuple[MachineRow, ...]
    warnings: tuple[str, ...]
    icicle: tuple[IcicleNode, ...] = ()
    timeline: Series | None = None
    partition: PartitionFacts | None = None
    learned: LearnedFacts | None = None
    constants: dict[str, Constant] = field(default_factory=dict)
    what_ifs: tuple[WhatIfRow, ...] = ()
    practical_seconds: float = 0.0
    copies: int = 0
    cached: int | None = None
    findings: tuple[Finding, ...] = ()
    gpu_hour: float | None = None


def plan_json(report: PlanReport) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(report)


def plan_schema() -> bytes:
    """The JSON Schema of `plan_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(PlanReport)), indent=2)
