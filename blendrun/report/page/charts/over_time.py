"""Pictures over time: tokens computed, pool and cache, what ran when."""

from __future__ import annotations

from typing import Any

from blendrun.report.page.charts.base import (
    DECODE,
    PLANNED,
    PREFILL,
    ZOOM,
    Chart,
    frame,
    number,
    percent,
    printable,
    quantity,
    sampled,
    shade,
)
from blendrun.report.page.subject import Subject
from blendrun.report.schemas.series import Series

_HIT, _KV = "#009E73", "#CC79A7"


def timeline(subject: Subject) -> Chart | None:
    """Prefill and decode tokens over time, what was planned behind them."""
    series, planned = subject.series, subject.planned
    shown = series or planned
    if shown is None:
        return None
    bars = [
        {"t": start, "t2": end, "kind": kind, "rate": rate}
        for kind, rates in (("prefill", shown.prefill), ("decode", shown.decode))
        for (start, end), rate in zip(_spans(shown), rates, strict=True)
    ]
    beside = ["planned, both"] if series is not None and planned is not None else []
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": bars},
            "mark": {"type": "area", "interpolate": "step-after", "line": False, "opacity": 0.9},
            "encoding": {
                "x": quantity("t", "seconds", axis={"tickCount": 8}),
                "y": quantity("rate", "tokens/s", stack="zero"),
                "color": {
                    "field": "kind",
                    "type": "nominal",
                    "title": None,
                    "scale": {
                        "domain": ["prefill", "decode", *beside],
                        "range": [PREFILL, DECODE, PLANNED][: 2 + len(beside)],
                    },
                },
                "order": {"field": "kind", "sort": "descending"},
                "tooltip": [
                    {"field": "t", "title": "from second", "format": ",.1f"},
                    {"field": "kind", "title": "work"},
                    {"field": "rate", "title": "tokens/s", "format": ",.0f"},
                ],
            },
            "params": [ZOOM],
        }
    ]
    if series is not None and planned is not None:
        total = [
            {"t": start, "rate": prefill + decode, "kind": beside[0]}
            for (start, _), prefill, decode in zip(_spans(planned), planned.prefill, planned.decode, strict=True)
        ]
        layers.append(_line(total, "rate", "planned"))
    heads = ("from second", "prefill tokens/s", "decode tokens/s")
    rows = tuple(
        (number(start), number(prefill), number(decode))
        for (start, _), prefill, decode in sampled(zip(_spans(shown), shown.prefill, shown.decode, strict=True))
    )
    kind = "Tokens computed over time" if series is not None else "Tokens computed over time, as planned"
    return Chart("timeline", kind, frame({"layer": layers}, 220, kind), heads, rows)


def occupancy(subject: Subject) -> Chart | None:
    """KV pool in use and prompt tokens from the cache over time."""
    series, planned, plan = subject.series, subject.planned, subject.plan
    pool_tokens = plan.hardware.pool_tokens if plan else None
    shown = series or planned
    if shown is None:
        return None
    lines: list[dict[str, Any]] = []
    tables: list[tuple[str, ...]] = []
    for name, each in (("", series), (" (planned)", planned)):
        if each is None:
            continue
        cached, computed = 0.0, 0.0
        for (start, _), held, hits, prefill in zip(_spans(each), each.held, each.hits, each.prefill, strict=True):
            cached, computed = cached + hits, computed + prefill
            hit = cached / (cached + computed) if cached + computed > 0 else None
            used = held / pool_tokens if pool_tokens else None
            lines += [
                {"t": start, "share": share, "kind": f"{kind}{name}"}
                for kind, share in (("KV pool in use", used), ("prompt tokens from the cache, so far", hit))
                if share is not None
            ]
            if each is shown:
                tables.append((number(start), percent(used), percent(hit)))
    spec = {
        "data": {"values": lines},
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        "params": [ZOOM],
        "encoding": {
            "x": quantity("t", "seconds", axis={"tickCount": 8}),
            "y": quantity("share", axis={"format": "%", "tickCount": 5}, scale={"domain": [0, 1], "clamp": True}),
            "color": {
                "field": "kind",
                "type": "nominal",
                "title": None,
                "legend": {"columns": 1},
                "scale": {
                    "domain": _kinds(series, planned),
                    "range": _colours(series, planned),
                },
            },
            "strokeDash": {
                "field": "kind",
                "type": "nominal",
                "title": None,
                "scale": {"domain": _kinds(series, planned), "range": _dashes(series, planned)},
            },
            "tooltip": [
                {"field": "t", "title": "from second", "format": ",.1f"},
                {"field": "kind", "title": "what"},
                {"field": "share", "title": "share", "format": ".1%"},
            ],
        },
    }
    caption = "KV pool in use and prompt tokens from the prefix cache"
    heads = ("from second", "KV pool in use", "prompt tokens from the cache, so far")
    return Chart("occupancy", caption, frame(spec, 180, caption), heads, tuple(sampled(tables)))


def strip(subject: Subject) -> Chart | None:
    """Requests in the batch, a row for each large sub-tree."""
    requests = subject.requests
    if requests is None or not requests.groups:
        return None
    count = len(requests.groups[0].running)
    width = requests.seconds / count
    values = [
        {"t": place * width, "t2": (place + 1) * width, "group": printable(group.label), "rank": rank, "n": running}
        for rank, group in enumerate(requests.groups)
        for place, running in enumerate(group.running)
        if running > 0
    ]
    spec = {
        "data": {"values": values},
        "params": [ZOOM],
        "mark": {"type": "rect", "clip": True},
        "encoding": {
            "x": quantity("t", "seconds", axis={"grid": False, "tickCount": 8}),
            "x2": {"field": "t2"},
            "y": {
                "field": "group",
                "type": "nominal",
                "title": None,
                "sort": {"field": "rank"},
                "axis": {"labelLimit": 190},
            },
            "color": shade("requests running"),
            "tooltip": [
                {"field": "group", "title": "prefix"},
                {"field": "t", "title": "from second", "format": ",.1f"},
                {"field": "n", "title": "running", "format": ",.1f"},
            ],
        },
    }
    rows = tuple((group.label, f"{group.requests:,}", *_first_last(group.running, width)) for group in requests.groups)
    caption = "What ran when, by shared prefix"
    height = 22 * len(requests.groups) + 24
    heads = ("prefix", "requests", "first running at second", "last")
    return Chart("strip", caption, frame(spec, height, caption), heads, rows)


def _line(values: list[dict[str, Any]], field: str, kind: str) -> dict[str, Any]:
    return {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [5, 3], "strokeWidth": 1.6},
        "encoding": {
            "x": {"field": "t", "type": "quantitative"},
            "y": {"field": field, "type": "quantitative"},
            "color": {"field": "kind", "type": "nominal"},
            "tooltip": [
                {"field": "t", "title": "from second", "format": ",.1f"},
                {"field": field, "title": f"tokens/s, {kind}", "format": ",.0f"},
            ],
        },
    }


def _spans(series: Series) -> list[tuple[float, float]]:
    width = series.seconds / len(series.prefill)
    return [(round(place * width, 4), round((place + 1) * width, 4)) for place in range(len(series.prefill))]


def _first_last(running: tuple[float, ...], width: float) -> tuple[str, str]:
    at = [place for place, count in enumerate(running) if count > 0]
    return (number(at[0] * width), number((at[-1] + 1) * width)) if at else ("–", "–")


def _kinds(series: Series | None, planned: Series | None) -> list[str]:
    names = [name for name, each in (("", series), (" (planned)", planned)) if each is not None]
    return [f"{kind}{name}" for name in names for kind in ("KV pool in use", "prompt tokens from the cache, so far")]


def _colours(series: Series | None, planned: Series | None) -> list[str]:
    return [_KV, _HIT] * sum(each is not None for each in (series, planned))


def _dashes(series: Series | None, planned: Series | None) -> list[list[int]]:
    return ([[1, 0]] * 2 if series is not None else []) + ([[5, 3]] * 2 if planned is not None else [])
