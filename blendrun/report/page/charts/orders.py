"""The picture of what each order takes, on one scale with what this run took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.report.page.charts.base import DECODE, PREFILL, Bounds, Chart, Clock, clock_for, frame, quantity
from blendrun.report.page.scale import Scale, plain_seconds, ran_row, scale_of
from blendrun.report.page.subject import Subject
from blendrun.report.page.verdict import duration
from blendrun.report.schemas.plan import OrderRow, PlanReport

PLAIN = "plain SGLang in file order"
# Orders as people call them.
_WORDS = {
    "given": "file order",
    "shuffled": "shuffled order",
    "sorted": "depth first",
    "lof": "longest answers first",
    "blended": "the blend",
}
_MEASURED, _CHOSEN, _PREDICTED, _WITHOUT = "measured", "chosen", "predicted", "without blendrun"
_BESIDE = "not open to a run here"
_KINDS = {
    _MEASURED: DECODE,
    _CHOSEN: PREFILL,
    _PREDICTED: "#8a94a6",
    _BESIDE: "var(--line)",
    _WITHOUT: "#CC79A7",
}
# Orders are as fast as each other, for a sentence.
_ALIKE = 0.02


@dataclass(frozen=True, slots=True)
class Bar:
    """An order and the seconds it takes, on the scale of what was measured."""

    name: str
    seconds: float
    kind: str


def orders(subject: Subject, bounds: Bounds) -> Chart | None:
    """Seconds of every order and mode: predicted, and scaled so that the order that ran takes what was measured."""
    plan = subject.plan
    if plan is None or not plan.orders:
        return None
    scale = scale_of(subject)
    bars = bars_of(plan, subject, scale)
    bound = (plan.practical_seconds or plan.bound_seconds) * (scale.ratio if scale else 1.0)
    clock = clock_for(max(bounds.compared, bound, *(bar.seconds for bar in bars)))
    spec = {"layer": [_bars(bars, bounds, clock), _rule(bound, clock)]}
    finding = finding_of(bars)
    rows = tuple((bar.name, bar.kind, f"{bar.seconds:,.2f}") for bar in bars)
    rows += (("bound", "the least of any order on these modes", f"{bound:,.2f}"),)
    picture = frame(spec, 26 * len(bars) + 40, finding)
    return Chart("orders", finding, picture, ("order", "what", "seconds"), rows, _note(plan, subject, scale))


def bars_of(plan: PlanReport, subject: Subject, scale: Scale | None) -> list[Bar]:
    """The order that ran (or was chosen) first, then from fast to slow."""
    ratio = scale.ratio if scale else 1.0
    ran = ran_row(plan, subject.summary) or next(row for row in plan.orders if row.chosen)
    kind = _MEASURED if scale else _CHOSEN
    # A mode that all have says nothing.
    modes = len({row.overlap for row in plan.orders}) > 1
    name = f"{_name(ran, modes)}: this run" if scale else _name(ran, modes)
    seconds = subject.run_seconds if scale else None
    first = Bar(name, ran.predicted_seconds * ratio if seconds is None else seconds, kind)
    others = [
        Bar(_name(row, modes), row.predicted_seconds * ratio, _PREDICTED if row.eligible else _BESIDE)
        for row in plan.orders
        if row is not ran
    ]
    if (plain := plain_seconds(plan)) is not None:
        others.append(Bar(PLAIN, plain * ratio, _WITHOUT))
    return [first, *sorted(others, key=lambda bar: bar.seconds)]


def finding_of(bars: list[Bar]) -> str:
    """What this order takes beside plain SGLang, or beside the best other one. bars: the order that counts first."""
    first, others = bars[0], bars[1:]
    name = first.name.removesuffix(": this run")
    plain = next((bar for bar in others if bar.kind == _WITHOUT), None)
    best = next((bar for bar in others if bar.kind == _PREDICTED), None)
    found = f"This run ({name}) took" if first.kind == _MEASURED else f"Chosen: {name},"
    found += f" {duration(first.seconds)}"
    would = "would have taken" if first.kind == _MEASURED else "would take"
    # By less than the words show nothing is faster.
    told = best is not None and duration(best.seconds) != duration(first.seconds)
    faster = best is not None and told and best.seconds < first.seconds * (1 - _ALIKE)
    if plain is not None:
        alike = abs(plain.seconds / first.seconds - 1) < _ALIKE
        found += f"; {PLAIN} {would} {'as long' if alike else f'about {duration(plain.seconds)}'}"
    elif best is not None and not faster:
        found += f"; {best.name} {would} about {duration(best.seconds)}"
    if best is not None and faster:
        found += f"; {best.name} is predicted faster: {duration(best.seconds)}"
    return found


def _note(plan: PlanReport, subject: Subject, scale: Scale | None) -> str:
    if scale is not None:
        drawn = "" if scale.right else f". All predicted bars are drawn times {scale.ratio:.2f}"
        return f"{scale.sentence}{drawn}"
    if subject.ran:
        return "The run did not end in one go, so its time is not one of these; the bars are predictions"
    return f"{plan.why.rstrip('.')}. Times rest on: {plan.times}"


def _name(row: OrderRow, modes: bool) -> str:
    """modes: whether the mode tells rows apart."""
    word = _WORDS.get(row.name, row.name)
    return f"{word}, {row.overlap}" if modes else word


def _bars(bars: list[Bar], bounds: Bounds, clock: Clock) -> dict[str, Any]:
    values = [
        {"name": bar.name, "time": bar.seconds / clock.seconds, "shown": duration(bar.seconds), "kind": bar.kind}
        for bar in bars
    ]
    kinds = [kind for kind in _KINDS if any(bar.kind == kind for bar in bars)]
    scale = {"domain": kinds, "range": [_KINDS[kind] for kind in kinds]}
    order = [bar.name for bar in bars]
    return {
        "data": {"values": values},
        "mark": {"type": "bar", "height": {"band": 0.72}},
        "encoding": {
            "x": quantity("time", clock.units, axis={"tickCount": 8}, scale=bounds.domain("compared", clock.seconds)),
            "y": {"field": "name", "type": "nominal", "title": None, "sort": order},
            "color": {"field": "kind", "type": "nominal", "title": None, "scale": scale},
            "tooltip": [
                {"field": "name", "title": "order"},
                {"field": "kind", "title": "what"},
                {"field": "shown", "title": "takes"},
            ],
        },
    }


def _rule(bound: float, clock: Clock) -> dict[str, Any]:
    return {
        "data": {"values": [{"time": bound / clock.seconds, "shown": duration(bound)}]},
        "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [4, 3]},
        "encoding": {
            "x": {"field": "time", "type": "quantitative"},
            "tooltip": [{"field": "shown", "title": "bound: the least of any order"}],
        },
    }
