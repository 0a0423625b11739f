"""The pictures of a page, as Vega-Lite specifications. Colours of text and lines are the page's own CSS variables, so
that light, dark and print need no second drawing; colours of data are told apart without colour vision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.report.page.requests import Requests
from blendrun.report.plan_json import PlanReport
from blendrun.report.series import Series

# Okabe and Ito's palette, and the page's own ink for what was planned.
_PREFILL, _DECODE, _PLANNED = "#0072B2", "#E69F00", "var(--planned)"
_HIT, _KV = "#009E73", "#CC79A7"
# What is denser than this stands at the end of the scale.
_DENSEST, _THINNEST = 32.0, 1 / 32
# Whether a block of the tree is what is searched for.
_FOUND = "needle == '' || indexof(lower(datum.label), needle) >= 0"
_ZOOM = {
    "name": "zoom",
    "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    "bind": "scales",
}
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    # Measured before it is drawn, so a name that every system knows.
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "orient": "top",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 400,
        "titleLimit": 500,
    },
    "text": {"color": "var(--ink)"},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with what stands around it.

    key: kind of picture, the same for all subjects. caption: what it shows, also for those who do not see it.
    columns, rows: its figures as a table. note: a sentence below.
    """

    key: str
    caption: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def timeline(series: Series | None, planned: Series | None) -> Chart | None:
    """Prefill and decode tokens over time, what was planned behind them."""
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
                "x": {"field": "t", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 8}},
                "y": {"field": "rate", "type": "quantitative", "stack": "zero", "title": "tokens/s"},
                "color": {
                    "field": "kind",
                    "type": "nominal",
                    "title": None,
                    "scale": {
                        "domain": ["prefill", "decode", *beside],
                        "range": [_PREFILL, _DECODE, _PLANNED][: 2 + len(beside)],
                    },
                },
                "order": {"field": "kind", "sort": "descending"},
                "tooltip": [
                    {"field": "t", "title": "from second", "format": ",.1f"},
                    {"field": "kind", "title": "work"},
                    {"field": "rate", "title": "tokens/s", "format": ",.0f"},
                ],
            },
            "params": [_ZOOM],
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
        (_number(start), _number(prefill), _number(decode))
        for (start, _), prefill, decode in _sampled(zip(_spans(shown), shown.prefill, shown.decode, strict=True))
    )
    kind = "Tokens computed over time" if series is not None else "Tokens computed over time, as planned"
    return Chart("timeline", kind, _chart({"layer": layers}, 220, kind), heads, rows)


def occupancy(series: Series | None, planned: Series | None, pool_tokens: int | None) -> Chart | None:
    """KV pool in use and prompt tokens from the cache over time."""
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
                tables.append((_number(start), _percent(used), _percent(hit)))
    spec = {
        "data": {"values": lines},
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        "params": [_ZOOM],
        "encoding": {
            "x": {"field": "t", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 8}},
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": None,
                "axis": {"format": "%", "tickCount": 5},
                "scale": {"domain": [0, 1], "clamp": True},
            },
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
    return Chart("occupancy", caption, _chart(spec, 180, caption), heads, tuple(_sampled(tables)))


def icicle(plan: PlanReport | None) -> Chart | None:
    """The prefix tree from left to right, a level a row, coloured by density."""
    if plan is None or not plan.icicle:
        return None
    # The root has no tokens of its own.
    nodes = [node for node in plan.icicle if node.level > 0] or list(plan.icicle)
    values = [
        {
            "x": node.begin,
            "x2": node.begin + node.requests,
            "y": node.level - 1,
            "y2": node.level - 0.06,
            "density": min(max(_DENSEST if node.density is None else node.density, _THINNEST), _DENSEST),
            "shown": "nothing is decoded" if node.density is None else f"{node.density:.3g}",
            "label": _prefix(node.merged, node.example),
            "requests": node.requests,
            "tokens": node.segment_tokens,
            "depth": node.depth,
            "saved": node.saved_tokens,
        }
        for node in nodes
    ]
    levels = max(node.level for node in nodes)
    total = plan.icicle[0].requests
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "requests, prefixes side by side",
        "scale": {"domainMin": {"expr": "from"}, "domainMax": {"expr": "to"}, "nice": False, "zero": False},
        "axis": {"grid": False, "tickCount": 6, "tickMinStep": 1},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "levels of shared prefix",
        "scale": {"reverse": True, "domain": [0, levels], "nice": False},
        "axis": {"grid": False, "labels": False, "ticks": False, "domain": False},
    }
    blocks = {
        "mark": {"type": "rect", "clip": True, "stroke": "var(--panel)", "strokeWidth": 0.6, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "x2": {"field": "x2"},
            "y": y,
            "y2": {"field": "y2"},
            "color": {
                "field": "density",
                "type": "quantitative",
                "title": "density: memory-heavy (below 1) to compute-heavy",
                "scale": {"type": "log", "scheme": "cividis", "domain": [_THINNEST, _DENSEST]},
                "legend": {"gradientLength": 220, "values": [1 / 32, 1 / 4, 1, 4, 32], "format": ".2~g"},
            },
            "opacity": {
                "condition": {"test": _FOUND, "value": 1},
                "value": 0.18,
            },
            "tooltip": [
                {"field": "label", "title": "prefix of"},
                {"field": "requests", "title": "requests", "format": ","},
                {"field": "tokens", "title": "own tokens", "format": ",.0f"},
                {"field": "depth", "title": "tokens to its end", "format": ",.0f"},
                {"field": "saved", "title": "saved tokens", "format": ","},
                {"field": "shown", "title": "density"},
            ],
        },
    }
    names = {
        "transform": [
            {"calculate": "max(datum.x, from)", "as": "left"},
            {"calculate": "width * (min(datum.x2, to) - datum.left) / (to - from)", "as": "room"},
            {"calculate": f"datum.room > 40 && ({_FOUND}) ? datum.label : ''", "as": "name"},
        ],
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "middle",
            "dx": 4,
            "dy": 16,
            "fontSize": 11,
            # 0 would be no limit.
            "limit": {"expr": "max(datum.room - 8, 1)"},
            "aria": False,
            "tooltip": None,
            "clip": True,
        },
        "encoding": {
            "x": {"field": "left", "type": "quantitative"},
            "y": y,
            "text": {"field": "name"},
            "color": {"condition": {"test": "datum.density < 1.5", "value": "#ffffff"}, "value": "#111111"},
        },
    }
    spec = {
        "data": {"values": values},
        "params": [{"name": "from", "value": 0}, {"name": "to", "value": total}, {"name": "needle", "value": ""}],
        "layer": [blocks, names],
    }
    heaviest = sorted(plan.icicle, key=lambda node: -node.saved_tokens)[:20]
    rows = tuple(
        (
            _prefix(node.merged, node.example),
            f"{node.requests:,}",
            f"{node.segment_tokens:,.0f}",
            f"{node.saved_tokens:,}",
            "–" if node.density is None else f"{node.density:.3g}",
        )
        for node in heaviest
    )
    caption = f"Prefix tree of {total:,} requests, coloured by density"
    heads = ("prefix of", "requests", "own tokens", "saved tokens", "density")
    return Chart("icicle", caption, _chart(spec, 34 * min(levels, 12) + 4, caption), heads, rows)


def strip(requests: Requests | None) -> Chart | None:
    """Requests in the batch, a row for each large sub-tree."""
    if requests is None or not requests.groups:
        return None
    count = len(requests.groups[0].running)
    width = requests.seconds / count
    values = [
        {"t": place * width, "t2": (place + 1) * width, "group": _shown(group.label), "rank": rank, "n": running}
        for rank, group in enumerate(requests.groups)
        for place, running in enumerate(group.running)
        if running > 0
    ]
    spec = {
        "data": {"values": values},
        "params": [_ZOOM],
        "mark": {"type": "rect", "clip": True},
        "encoding": {
            "x": {"field": "t", "type": "quantitative", "title": "seconds", "axis": {"grid": False, "tickCount": 8}},
            "x2": {"field": "t2"},
            "y": {
                "field": "group",
                "type": "nominal",
                "title": None,
                "sort": {"field": "rank"},
                "axis": {"labelLimit": 190},
            },
            "color": {
                "field": "n",
                "type": "quantitative",
                "title": "requests running",
                "scale": {"type": "sqrt", "scheme": "blues", "domainMin": 0},
            },
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
    return Chart("strip", caption, _chart(spec, height, caption), heads, rows)


def lengths(requests: Requests | None) -> Chart | None:
    """Answers by expected and real length."""
    if requests is None or not requests.lengths:
        return None
    values = [
        {
            "x": 2.0 ** (expected - 0.5),
            "x2": 2.0 ** (expected + 0.5),
            "y": 2.0 ** (real - 0.5),
            "y2": 2.0 ** (real + 0.5),
            "n": count,
            "expected": f"about {2**expected:,}",
            "real": f"about {2**real:,}",
        }
        for expected, real, count in requests.lengths
    ]
    low = 2.0 ** (min(min(x, y) for x, y, _ in requests.lengths) - 0.5)
    high = 2.0 ** (max(max(x, y) for x, y, _ in requests.lengths) + 0.5)
    scale = {"type": "log", "base": 2, "domain": [low, high], "nice": False}
    axis = {"grid": False, "format": ",.0f", "tickCount": 6}
    spec = {
        "layer": [
            {
                "data": {"values": values},
                "mark": {"type": "rect"},
                "encoding": {
                    "x": {
                        "field": "x",
                        "type": "quantitative",
                        "scale": scale,
                        "axis": axis,
                        "title": "expected tokens",
                    },
                    "x2": {"field": "x2"},
                    "y": {"field": "y", "type": "quantitative", "scale": scale, "axis": axis, "title": "real tokens"},
                    "y2": {"field": "y2"},
                    "color": {
                        "field": "n",
                        "type": "quantitative",
                        "title": "answers",
                        "scale": {"type": "sqrt", "scheme": "blues", "domainMin": 0},
                    },
                    "tooltip": [
                        {"field": "expected", "title": "expected tokens"},
                        {"field": "real", "title": "real tokens"},
                        {"field": "n", "title": "answers", "format": ","},
                    ],
                },
            },
            {
                "data": {"values": [{"x": low, "y": low}, {"x": high, "y": high}]},
                "mark": {"type": "line", "color": _PLANNED, "strokeDash": [4, 3]},
                "encoding": {
                    "x": {"field": "x", "type": "quantitative"},
                    "y": {"field": "y", "type": "quantitative"},
                },
            },
        ]
    }
    rows = tuple((f"{2**expected:,}", f"{2**real:,}", f"{count:,}") for expected, real, count in requests.lengths)
    note = ""
    if requests.within_two is not None:
        note = (
            f"{100 * requests.within_two:.0f} % of the answers are between half and twice of what was expected when "
            f"they were handed over; {requests.answered_tokens:,} tokens came for "
            f"{requests.expected_tokens:,} expected."
        )
    caption = "Length of answers, expected and real"
    return Chart(
        "lengths", caption, _chart(spec, 260, caption), ("expected, about", "real, about", "answers"), rows, note
    )


def orders(plan: PlanReport | None, measured: float | None) -> Chart | None:
    """Predicted seconds of every order and mode, beside the bound and what was measured."""
    if plan is None or not plan.orders:
        return None
    values = [
        {
            "name": f"{row.name}, {row.overlap}",
            "seconds": row.predicted_seconds,
            "kind": "chosen" if row.chosen else "predicted",
        }
        for row in sorted(plan.orders, key=lambda row: row.predicted_seconds)
    ]
    if measured is not None:
        values.insert(0, {"name": "this run", "seconds": measured, "kind": "measured"})
    kinds = ["measured", "chosen", "predicted"]
    spec = {
        "layer": [
            {
                "data": {"values": values},
                "mark": {"type": "bar", "height": {"band": 0.72}},
                "encoding": {
                    "x": {"field": "seconds", "type": "quantitative", "title": "seconds"},
                    "y": {
                        "field": "name",
                        "type": "nominal",
                        "title": None,
                        "sort": [value["name"] for value in values],
                        "axis": {"labelLimit": 190},
                    },
                    "color": {
                        "field": "kind",
                        "type": "nominal",
                        "title": None,
                        "scale": {"domain": kinds, "range": [_DECODE, _PREFILL, "#8a94a6"]},
                    },
                    "tooltip": [
                        {"field": "name", "title": "order"},
                        {"field": "kind", "title": "what"},
                        {"field": "seconds", "title": "seconds", "format": ",.2f"},
                    ],
                },
            },
            {
                "data": {"values": [{"seconds": plan.bound_seconds, "text": "bound"}]},
                "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [4, 3]},
                "encoding": {
                    "x": {"field": "seconds", "type": "quantitative"},
                    "tooltip": [{"field": "seconds", "title": "bound, seconds", "format": ",.2f"}],
                },
            },
        ]
    }
    rows = tuple((str(value["name"]), str(value["kind"]), f"{value['seconds']:,.2f}") for value in values)
    rows += (("bound", "least time for this work, all overlapped", f"{plan.bound_seconds:,.2f}"),)
    caption = "Orders compared, with the bound (dashed)"
    return Chart(
        "orders",
        caption,
        _chart(spec, 24 * len(values) + 40, caption),
        ("order", "what", "seconds"),
        rows,
        f"{plan.why}. Times rest on: {plan.times}.",
    )


def densities(plan: PlanReport | None) -> Chart | None:
    """Requests by density."""
    if plan is None:
        return None
    edges = [plan.histogram.edges[0] / 2, *plan.histogram.edges, plan.histogram.edges[-1] * 2]
    values = [
        {"x": low, "x2": high, "n": count, "shown": f"{low:.3g} to {high:.3g}"}
        for low, high, count in zip(edges[:-1], edges[1:], plan.histogram.requests, strict=True)
    ]
    spec = {
        "data": {"values": values},
        "mark": {"type": "rect", "color": _PREFILL, "stroke": "var(--panel)"},
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": "density (compute over memory seconds); the last bar is all above",
                "scale": {"type": "log", "base": 2, "domain": [edges[0], edges[-1]], "nice": False},
                "axis": {"grid": False, "format": ".2~g", "tickCount": 8},
            },
            "x2": {"field": "x2"},
            "y": {"field": "n", "type": "quantitative", "title": "requests", "axis": {"tickCount": 5}},
            "y2": {"datum": 0},
            "tooltip": [
                {"field": "shown", "title": "density"},
                {"field": "n", "title": "requests", "format": ","},
            ],
        },
    }
    caption = "Requests by density"
    rows = tuple((str(value["shown"]), f"{value['n']:,}") for value in values)
    return Chart("densities", caption, _chart(spec, 160, caption), ("density", "requests"), rows)


def _chart(spec: dict[str, Any], height: int, caption: str) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": caption,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **spec,
    }


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


def _sampled(rows: Any) -> list[Any]:
    """At most about twenty rows of a table."""
    every = list(rows)
    return every[:: max(len(every) // 20, 1)]


def _first_last(running: tuple[float, ...], width: float) -> tuple[str, str]:
    at = [place for place, count in enumerate(running) if count > 0]
    return (_number(at[0] * width), _number((at[-1] + 1) * width)) if at else ("–", "–")


def _kinds(series: Series | None, planned: Series | None) -> list[str]:
    names = [name for name, each in (("", series), (" (planned)", planned)) if each is not None]
    return [f"{kind}{name}" for name in names for kind in ("KV pool in use", "prompt tokens from the cache, so far")]


def _colours(series: Series | None, planned: Series | None) -> list[str]:
    return [_KV, _HIT] * sum(each is not None for each in (series, planned))


def _dashes(series: Series | None, planned: Series | None) -> list[list[int]]:
    return ([[1, 0]] * 2 if series is not None else []) + ([[5, 3]] * 2 if planned is not None else [])


def _prefix(merged: int, example: str) -> str:
    return f"{merged:,} smaller ones, the first of {_shown(example)}" if merged else _shown(example)


def _shown(name: str) -> str:
    """A name with nothing in it that Vega's expressions cannot hold, such as line separators."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
