"""The prefix tree as a picture to walk through."""

from __future__ import annotations

from blendrun.report.page.charts.base import Chart, frame, printable, quantity
from blendrun.report.page.subject import Subject

# What is denser than this stands at the end of the scale.
_DENSEST, _THINNEST = 32.0, 1 / 32
# Whether a block of the tree is what is searched for.
_FOUND = "needle == '' || indexof(lower(datum.label), needle) >= 0"


def icicle(subject: Subject) -> Chart | None:
    """The prefix tree from left to right, a level a row, coloured by density."""
    plan = subject.plan
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
    x = quantity(
        "x",
        "requests, prefixes side by side",
        scale={"domainMin": {"expr": "from"}, "domainMax": {"expr": "to"}, "nice": False, "zero": False},
        axis={"grid": False, "tickCount": 6, "tickMinStep": 1},
    )
    y = quantity(
        "y",
        "levels of shared prefix",
        scale={"reverse": True, "domain": [0, levels], "nice": False},
        axis={"grid": False, "labels": False, "ticks": False, "domain": False},
    )
    blocks = {
        "mark": {"type": "rect", "clip": True, "stroke": "var(--panel)", "strokeWidth": 0.6, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "x2": {"field": "x2"},
            "y": y,
            "y2": {"field": "y2"},
            "color": quantity(
                "density",
                "density: memory-heavy (below 1) to compute-heavy",
                scale={"type": "log", "scheme": "cividis", "domain": [_THINNEST, _DENSEST]},
                legend={"gradientLength": 220, "values": [1 / 32, 1 / 4, 1, 4, 32], "format": ".2~g"},
            ),
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
    return Chart("icicle", caption, frame(spec, 34 * min(levels, 12) + 4, caption), heads, rows)


def _prefix(merged: int, example: str) -> str:
    return f"{merged:,} smaller ones, the first of {printable(example)}" if merged else printable(example)
