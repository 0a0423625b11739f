"""The prefix tree as a picture to walk through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blendrun.report.page.charts.base import FONT, Bounds, Chart, frame, printable, quantity
from blendrun.report.page.groups import name_of
from blendrun.report.page.subject import Subject
from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.plan import PlanReport
from blendrun.text import plural

# What is denser than this stands at the end of the scale.
_DENSEST, _THINNEST = 32.0, 1 / 32
# Long answers have the colour of decoding, long prompts that of prefill (`base.DECODE`, `base.PREFILL`).
_COLOURS = ["#E69F00", "#A9C9A4", "#0072B2"]
# Above this density a block is dark enough for white letters.
_WHITE_FROM = 24.0
# Whether a block of the tree is what is searched for.
_FOUND = "needle == '' || indexof(lower(datum.label), needle) >= 0 || indexof(lower(datum.example), needle) >= 0"
_HEAVIEST = 20


def icicle(subject: Subject, bounds: Bounds) -> Chart | None:
    """The prefix tree from left to right, a level a row, coloured by density; as wide as its requests, or as what it
    saves (the page changes `by`).
    """
    plan = subject.plan
    if plan is None or not plan.icicle:
        return None
    # The root has no tokens of its own.
    nodes = [node for node in plan.icicle if node.level > 0] or list(plan.icicle)
    levels = max(node.level for node in nodes)
    total = plan.icicle[0].requests
    spec = {
        "data": {"values": _values(nodes)},
        "params": [
            {"name": "from", "value": 0},
            {"name": "to", "value": total},
            {"name": "needle", "value": ""},
            {"name": "by", "value": "requests"},
        ],
        "transform": [
            {"calculate": "by == 'requests' ? datum.x : datum.s", "as": "u"},
            {"calculate": "by == 'requests' ? datum.x2 : datum.s2", "as": "u2"},
            {"filter": "datum.u2 > datum.u"},
        ],
        "layer": [_blocks(levels), _names(levels)],
    }
    finding = finding_of(plan)
    heaviest = sorted(plan.icicle, key=lambda node: -node.saved_tokens)[:_HEAVIEST]
    rows = tuple(
        (
            printable(name_of(node)),
            f"{node.requests:,}",
            f"{node.segment_tokens:,.0f}",
            f"{node.saved_tokens:,}",
            "–" if node.density is None else f"{node.density:.3g}",
        )
        for node in heaviest
    )
    picture = frame(spec, 34 * min(levels, 12) + 4, finding)
    return Chart("icicle", finding, picture, ("prefix", "requests", "own tokens", "saved tokens", "density"), rows)


def finding_of(plan: PlanReport) -> str:
    """What the heaviest prefix is, and what sharing saves."""
    heaviest = max(plan.icicle, key=lambda node: node.saved_tokens, default=None)
    if heaviest is None or heaviest.saved_tokens <= 0:
        return f"{plural(plan.requests, 'request')} share nothing"
    share = 100 * plan.shared_tokens / max(plan.prompt_tokens, 1)
    size = f"{plural(round(heaviest.segment_tokens), 'token')}, {plural(heaviest.requests, 'request')}"
    # The template's own words are in no request.
    of_all = heaviest.requests == plan.requests and not heaviest.text
    name = "what all prompts begin with" if of_all else printable(name_of(heaviest))
    return f"Sharing saves {share:.0f} % of the prompt tokens; the heaviest prefix: {name}, {size}"


def saved_extents(nodes: Sequence[IcicleNode]) -> list[tuple[int, int]]:
    """From where to where each node lies where all are as wide as what they and those below them save, in tokens.

    nodes: in any order that has parents before children, siblings from left to right.
    """
    below = [node.saved_tokens for node in nodes]
    parents = _parents(nodes)
    for place in reversed(range(len(nodes))):
        if parents[place] >= 0:
            below[parents[place]] += below[place]
    # Where the next child of each begins, and the next of those without a parent.
    free, at = [0] * len(nodes), 0
    extents = []
    for place, parent in enumerate(parents):
        begin = at if parent < 0 else free[parent]
        extents.append((begin, begin + below[place]))
        free[place] = begin
        if parent < 0:
            at += below[place]
        else:
            free[parent] += below[place]
    return extents


def _parents(nodes: Sequence[IcicleNode]) -> list[int]:
    """The place of each node's parent; -1 without."""
    by_level: dict[int, list[int]] = {}
    for place, node in enumerate(nodes):
        by_level.setdefault(node.level, []).append(place)
    found = [-1] * len(nodes)
    for level, places in by_level.items():
        above = iter(sorted(by_level.get(level - 1, ()), key=lambda place: nodes[place].begin))
        parent = next(above, None)
        for place in sorted(places, key=lambda each: nodes[each].begin):
            while parent is not None and nodes[parent].begin + nodes[parent].requests <= nodes[place].begin:
                parent = next(above, None)
            if parent is not None and nodes[parent].begin <= nodes[place].begin:
                found[place] = parent
    return found


def _values(nodes: Sequence[IcicleNode]) -> list[dict[str, Any]]:
    return [
        {
            "x": node.begin,
            "x2": node.begin + node.requests,
            "s": begin,
            "s2": end,
            "y": node.level - 1,
            "y2": node.level - 0.06,
            "density": min(max(_DENSEST if node.density is None else node.density, _THINNEST), _DENSEST),
            "shown": "nothing is decoded" if node.density is None else f"{node.density:.3g}",
            "label": printable(name_of(node)),
            "example": printable(node.example),
            "requests": node.requests,
            "tokens": node.segment_tokens,
            "depth": node.depth,
            "saved": node.saved_tokens,
        }
        for node, (begin, end) in zip(nodes, saved_extents(nodes), strict=True)
    ]


def _y(levels: int) -> dict[str, Any]:
    return quantity(
        "y",
        "levels of shared prefix",
        scale={"reverse": True, "domain": [0, levels], "nice": False},
        axis={"grid": False, "labels": False, "ticks": False, "domain": False},
    )


def _blocks(levels: int) -> dict[str, Any]:
    x = quantity(
        "u",
        "prefixes side by side",
        scale={"domainMin": {"expr": "from"}, "domainMax": {"expr": "to"}, "nice": False, "zero": False},
        axis={"grid": False, "tickCount": 6, "tickMinStep": 1},
    )
    density = quantity(
        "density",
        "density: long answers to long prompts",
        scale={"type": "log", "range": _COLOURS, "domain": [_THINNEST, 1, _DENSEST], "interpolate": "rgb"},
        legend={"gradientLength": 220, "values": [1 / 32, 1 / 4, 1, 4, 32], "format": ".2~g"},
    )
    return {
        "mark": {"type": "rect", "clip": True, "stroke": "var(--panel)", "strokeWidth": 0.6, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "x2": {"field": "u2"},
            "y": _y(levels),
            "y2": {"field": "y2"},
            "color": density,
            "opacity": {"condition": {"test": _FOUND, "value": 1}, "value": 0.18},
            "tooltip": [
                {"field": "label", "title": "prefix"},
                {"field": "example", "title": "first request"},
                {"field": "requests", "title": "requests", "format": ","},
                {"field": "tokens", "title": "own tokens", "format": ",.0f"},
                {"field": "depth", "title": "tokens to its end", "format": ",.0f"},
                {"field": "saved", "title": "saved tokens", "format": ","},
                {"field": "shown", "title": "density"},
            ],
        },
    }


def _names(levels: int) -> dict[str, Any]:
    white = {"test": f"datum.density > {_WHITE_FROM}", "value": "#ffffff"}
    return {
        "transform": [
            {"calculate": "max(datum.u, from)", "as": "left"},
            {"calculate": "width * (min(datum.u2, to) - datum.left) / (to - from)", "as": "room"},
            {"calculate": f"datum.room > 40 && ({_FOUND}) ? datum.label : ''", "as": "name"},
        ],
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "middle",
            "dx": 4,
            "dy": 16,
            "font": FONT,
            "fontSize": 12,
            # 0 would be no limit.
            "limit": {"expr": "max(datum.room - 8, 1)"},
            "aria": False,
            "tooltip": None,
            "clip": True,
        },
        "encoding": {
            "x": {"field": "left", "type": "quantitative"},
            "y": _y(levels),
            "text": {"field": "name"},
            "color": {"condition": white, "value": "#111111"},
        },
    }
