"""The picture of what an engine computed when."""

from __future__ import annotations

from typing import Any

from blendrun.report.page.charts.base import (
    DECODE,
    PLANNED,
    PREFILL,
    WORRY,
    ZOOM,
    Bounds,
    Chart,
    Clock,
    frame,
    number,
    over_time,
    quantity,
    sampled,
    since,
)
from blendrun.report.page.scale import stretched
from blendrun.report.page.subject import Subject
from blendrun.report.page.tail import Tail
from blendrun.report.page.verdict import duration
from blendrun.report.schemas.series import Series

# Of two runs that lie over each other.
RUNS = ("#0072B2", "#D55E00")
_MOST_OF = 0.95
_TO_THE_END = 0.9
# A tail that is a smaller part of the run has no room for words.
_LATE = 0.4


def timeline(subject: Subject, bounds: Bounds) -> Chart | None:
    """Prefill and decode tokens over time, what was planned before them and the tail marked."""
    series, planned = subject.series, subject.planned
    shown = series or planned
    if shown is None:
        return None
    beside = ["planned, both"] if series is not None and planned is not None else []
    layers = [_areas(shown, beside, bounds)]
    factor = stretched(subject)
    if series is not None and planned is not None:
        layers.append(_planned(planned, factor, beside[0], bounds.clock))
    tail = subject.requests.tail if subject.requests is not None and series is not None else None
    if tail is not None:
        layers += _mark(tail, bounds.clock)
    finding = finding_of(shown, tail, planned=series is None)
    note = ""
    if beside and factor != 1.0:
        note = f"The plan is drawn {factor:.2g} times as long as it was, to be as long as the run"
    heads = ("from second", "prefill tokens/s", "decode tokens/s")
    rows = tuple(
        (number(start), number(prefill), number(decode))
        for (start, _), prefill, decode in sampled(zip(spans(shown), shown.prefill, shown.decode, strict=True))
    )
    return Chart("timeline", finding, frame({"layer": layers}, 220, finding), heads, rows, note)


def timeline_of_both(one: Subject, other: Subject, bounds: Bounds) -> Chart | None:
    """Tokens computed by two runs of one job, over each other."""
    if one.series is None or other.series is None:
        return None
    names, clock = [one.name, other.name], bounds.clock
    values: list[dict[str, Any]] = [
        {"t": start, "rate": prefill + decode, "run": name}
        for name, series in zip(names, (one.series, other.series), strict=True)
        for (start, _), prefill, decode in zip(
            spans(series, 1 / clock.seconds), series.prefill, series.decode, strict=True
        )
    ]
    spec = {
        "data": {"values": values},
        "params": [ZOOM],
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        "encoding": {
            "x": over_time(bounds),
            "y": quantity("rate", "tokens/s, prompts and answers"),
            "color": colour_of_runs(names),
            "tooltip": [
                {"field": "run", "title": "run"},
                since(clock),
                {"field": "rate", "title": "tokens/s", "format": ",.0f"},
            ],
        },
    }
    finding = finding_of_both(*((each.name, each.run_seconds or 0.0) for each in (one, other)))
    rows = tuple((str(value["run"]), number(value["t"]), number(value["rate"])) for value in sampled(values))
    return Chart("timeline", finding, frame(spec, 220, finding), ("run", f"from {clock.unit}", "tokens/s"), rows)


def finding_of(shown: Series, tail: Tail | None, *, planned: bool) -> str:
    """The most that there is to say: a tail, a run without answers, or when prompts were done."""
    begin, be = ("The plan: ", "are") if planned else ("", "were")
    if tail is not None:
        return f"{100 * tail.share:.0f} % of the run was its tail: {tail.words} for the last {duration(tail.seconds)}"
    total, decoded = sum(shown.prefill), sum(shown.decode)
    whole = duration(shown.seconds)
    if not total and not decoded:
        found = f"nothing is computed in {whole}"
    elif not decoded:
        found = f"all {whole} for prompts, none for answers"
    elif not total:
        found = f"all {whole} for answers, none for prompts"
    else:
        part = _when_done(shown.prefill)
        found = f"nearly all prompts {be} read in the first {duration(part * shown.seconds)} of {whole}"
        if part > _TO_THE_END:
            found = f"prompts {be} read from the beginning to the end of {whole}"
    return f"{begin}{found}" if planned else f"{found[0].upper()}{found[1:]}"


def finding_of_both(one: tuple[str, float], other: tuple[str, float]) -> str:
    """Which of two runs of one job was faster: (name, seconds) each."""
    fast, slow = sorted((one, other), key=lambda each: each[1])
    if fast[1] <= 0 or slow[1] / fast[1] < 1.02:
        return f"Both took {duration(slow[1])}"
    return f"{fast[0]} took {duration(fast[1])}, {slow[0]} {duration(slow[1])}: {slow[1] / fast[1]:.2f} times as long"


def colour_of_runs(names: list[str]) -> dict[str, Any]:
    return {"field": "run", "type": "nominal", "title": None, "scale": {"domain": names, "range": list(RUNS)}}


def spans(series: Series, factor: float = 1.0) -> list[tuple[float, float]]:
    """Begin and end of each bucket in seconds. factor: that they are stretched by, or told in another unit."""
    width = series.seconds * factor / len(series.prefill)
    return [(round(place * width, 4), round((place + 1) * width, 4)) for place in range(len(series.prefill))]


def _when_done(rates: tuple[float, ...]) -> float:
    """Share of the time after which nearly all was done."""
    done, most = 0.0, _MOST_OF * sum(rates)
    for place, rate in enumerate(rates):
        done += rate
        if done >= most:
            return (place + 1) / len(rates)
    return 1.0


def _areas(shown: Series, beside: list[str], bounds: Bounds) -> dict[str, Any]:
    bars = [
        {"t": start, "t2": end, "kind": kind, "rate": rate}
        for kind, rates in (("prefill", shown.prefill), ("decode", shown.decode))
        for (start, end), rate in zip(spans(shown, 1 / bounds.clock.seconds), rates, strict=True)
    ]
    colours = {"domain": ["prefill", "decode", *beside], "range": [PREFILL, DECODE, PLANNED][: 2 + len(beside)]}
    return {
        "data": {"values": bars},
        "mark": {"type": "area", "interpolate": "step-after", "line": False, "opacity": 0.9},
        "encoding": {
            "x": over_time(bounds),
            "y": quantity("rate", "tokens/s", stack="zero", scale=bounds.domain("rate")),
            "color": {"field": "kind", "type": "nominal", "title": None, "scale": colours},
            "order": {"field": "kind", "sort": "descending"},
            "tooltip": [
                since(bounds.clock),
                {"field": "kind", "title": "work"},
                {"field": "rate", "title": "tokens/s", "format": ",.0f"},
            ],
        },
        "params": [ZOOM],
    }


def _planned(planned: Series, factor: float, kind: str, clock: Clock) -> dict[str, Any]:
    """The plan's tokens as a dashed line: stretched in time, so as much lower."""
    values = [
        {"t": start, "rate": (prefill + decode) / factor, "kind": kind}
        for (start, _), prefill, decode in zip(
            spans(planned, factor / clock.seconds), planned.prefill, planned.decode, strict=True
        )
    ]
    return {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [5, 3], "strokeWidth": 1.6, "clip": True},
        "encoding": {
            "x": {"field": "t", "type": "quantitative"},
            "y": {"field": "rate", "type": "quantitative"},
            "color": {"field": "kind", "type": "nominal"},
            "tooltip": [since(clock), {"field": "rate", "title": "tokens/s, planned", "format": ",.0f"}],
        },
    }


def _mark(tail: Tail, clock: Clock) -> list[dict[str, Any]]:
    """Where the tail begins, and what it is: in few words, for a narrow page; on the side that has room for them."""
    at = {"t": tail.begins / clock.seconds, "text": f"{tail.answers:,} ran alone"}
    late = tail.share < _LATE
    x = {"field": "t", "type": "quantitative"}
    rule = {"type": "rule", "color": WORRY, "strokeWidth": 1.5}
    text: dict[str, Any] = {"type": "text", "baseline": "top", "fontSize": 13, "color": "var(--ink)"}
    text |= {"align": "right", "dx": -6} if late else {"align": "left", "dx": 6}
    return [
        {"data": {"values": [at]}, "mark": rule, "encoding": {"x": x}},
        {"data": {"values": [at]}, "mark": text, "encoding": {"x": x, "y": {"value": 2}, "text": {"field": "text"}}},
    ]
