"""What `bench tunnel` found, as data. Schema version 1; fields are only ever added."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blendrun.bench.tunnel import TunnelRound, TunnelRounds
from blendrun.names import SIMPLE_ORDERS

SCHEMA_VERSION = 1


class TunnelRow(msgspec.Struct, frozen=True):
    """One order on one overlap mode. engine: "blendrun" with its hooks, or "sglang" as it comes.

    seconds: the prices of all steps together; planned_seconds: the simulator's. of_plan: the former over the latter.
    steps, hit_tokens, retractions, and the same planned. hits: share of all prompt tokens, of the first kind.
    rows, peak_rows: answers that decode, on the mean of the steps that decode, and at most.
    cpu_ms: milliseconds a step of the scheduler's thread on this machine, by part.
    over_sglang: seconds of SGLang as it comes over this one's. over_best_simple: those of the fastest simple order on
    this mode over this one's; null where there is none.
    """

    order: str
    overlap: str
    engine: str
    seconds: float
    planned_seconds: float
    of_plan: float
    steps: int
    planned_steps: int
    hits: float
    planned_hits: float
    hit_tokens: int
    planned_hit_tokens: int
    retractions: int
    planned_retractions: int
    rows: float
    peak_rows: int
    cpu_ms: dict[str, float]
    over_sglang: float
    over_best_simple: float | None


class TunnelCard(msgspec.Struct, frozen=True):
    """One card. kv_tokens: of the pool. max_running: answers that SGLang decodes at once at most. chosen: by the plan.

    calibrated: whether the step model was fitted on such a device with this model.
    """

    hardware: str
    kv_tokens: int
    max_running: int
    chosen: str
    calibrated: bool
    rows: tuple[TunnelRow, ...]


class TunnelReport(msgspec.Struct, frozen=True):
    """One job through the tunnels of one card or several."""

    schema_version: int
    job: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    model: str
    versions: dict[str, str]
    cards: tuple[TunnelCard, ...]


def tunnel_report(found: Sequence[TunnelRounds], *, job: str, model: str) -> TunnelReport:
    """found: of one job, a card each; 1 or more."""
    prompts = found[0].plan.costed.structure.prompts
    return TunnelReport(
        schema_version=SCHEMA_VERSION,
        job=job,
        requests=len(prompts),
        prompt_tokens=int(prompts.prompt_tokens.sum(dtype=int)),
        output_tokens=int((found[0].plan.portfolio.outputs * prompts.choices).sum()),
        model=model,
        versions=found[0].versions,
        cards=tuple(map(_card, found)),
    )


def _card(found: TunnelRounds) -> TunnelCard:
    plan = found.plan
    chosen = plan.portfolio.chosen
    return TunnelCard(
        hardware=plan.costed.machine.card.name,
        kv_tokens=plan.costed.pool.tokens,
        max_running=found.max_running,
        chosen=f"{chosen.order} on {chosen.overlap}",
        calibrated=plan.portfolio.step.origin.get("step") == "measured",
        rows=tuple(_row(each, found) for each in found.rounds),
    )


def _row(each: TunnelRound, found: TunnelRounds) -> TunnelRow:
    tokens = max(int(found.plan.costed.structure.prompts.prompt_tokens.sum(dtype=int)), 1)
    stock = next(other for other in found.rounds if not other.ours)
    simple = [
        other.seconds
        for other in found.rounds
        if other.ours and other.order in SIMPLE_ORDERS and other.overlap is each.overlap
    ]
    planned = each.planned
    return TunnelRow(
        order=str(each.order),
        overlap=str(each.overlap),
        engine="blendrun" if each.ours else "sglang",
        seconds=each.seconds,
        planned_seconds=planned.seconds,
        of_plan=each.seconds / max(planned.seconds, 1e-9),
        steps=each.steps,
        planned_steps=planned.steps,
        hits=each.hit_tokens / tokens,
        planned_hits=planned.hit_tokens / tokens,
        hit_tokens=each.hit_tokens,
        planned_hit_tokens=planned.hit_tokens,
        retractions=each.retractions,
        planned_retractions=planned.retractions,
        rows=each.rows,
        peak_rows=each.peak_rows,
        cpu_ms={part: 1000 * seconds / max(each.steps, 1) for part, seconds in each.cpu.items()},
        over_sglang=stock.seconds / max(each.seconds, 1e-9),
        over_best_simple=min(simple) / max(each.seconds, 1e-9) if simple else None,
    )


def tunnel_json(report: TunnelReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


def tunnel_schema() -> bytes:
    """JSON schema of `tunnel_json`."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(TunnelReport)), indent=2)
