"""The picture of how well the lengths of answers were known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blendrun.report.page.charts.base import HEAT, PLANNED, WORRY, Bounds, Chart, frame, printable, quantity, strength
from blendrun.report.page.requests import Dot, Requests
from blendrun.report.page.subject import Subject
from blendrun.text import plural

_EXPECTED, _REAL = "expected tokens", "real tokens"
_ENDS = ("ended by itself", "cut at its limit")


def lengths(subject: Subject, bounds: Bounds) -> Chart | None:
    """Answers by expected and real length: a dot each where there are few, else counted in octaves."""
    requests = subject.requests
    if requests is None or not requests.lengths:
        return None
    low, high = _ends(requests, bounds)
    scale = {"type": "log", "base": 2, "domain": [low, high], "nice": False}
    marks = _dots(requests.dots, scale) if requests.dots else _cells(requests.lengths, scale)
    spec = {"layer": [*_band(low, high, scale), marks]}
    finding = finding_of(requests)
    note = (
        f"Within the dashed lines an answer was between half and twice as long as expected when it was handed over; "
        f"{plural(requests.answered_tokens, 'token')} came where {requests.expected_tokens:,} were expected"
    )
    rows = tuple((f"{2**expected:,}", f"{2**real:,}", f"{count:,}") for expected, real, count in requests.lengths)
    heads = ("expected, about", "real, about", "answers")
    return Chart("lengths", finding, frame(spec, 280, finding), heads, rows, note)


def finding_of(requests: Requests) -> str:
    """How many answers were about as long as expected, and how many were cut."""
    if requests.within_two is None:
        return "No length was expected"
    cut = f"; {plural(requests.cut, 'answer was', 'answers were')} cut at the limit" if requests.cut else ""
    within = f"{100 * requests.within_two:.0f} % of the answers were between half and twice as long as expected"
    return within + cut


def _ends(requests: Requests, bounds: Bounds) -> tuple[float, float]:
    """Of both axes, in tokens."""
    least = min(min(x, y) for x, y, _ in requests.lengths)
    most = max(max(x, y) for x, y, _ in requests.lengths)
    high = max(2.0 ** (most + 0.6), bounds.tokens)
    if requests.dots:
        # Of a run with few answers the octaves are coarse.
        high = max(high, 1.1 * max(max(dot.expected, dot.real) for dot in requests.dots))
    return 2.0 ** (least - 0.6), high


def _axis() -> dict[str, Any]:
    return {"grid": False, "format": ",.0f", "tickCount": 6}


def _dots(dots: Sequence[Dot], scale: dict[str, Any]) -> dict[str, Any]:
    values = [
        {
            "x": dot.expected,
            "y": max(dot.real, 0.5),
            "id": printable(dot.custom_id),
            "end": _ENDS[dot.cut],
        }
        for dot in dots
    ]
    size = 60 if len(dots) <= 200 else 22
    colours = {"domain": list(_ENDS), "range": [HEAT, WORRY]}
    return {
        "data": {"values": values},
        "mark": {"type": "point", "size": size, "filled": False, "strokeWidth": 1.6, "opacity": 0.75},
        "encoding": {
            "x": quantity("x", _EXPECTED, scale=scale, axis=_axis()),
            "y": quantity("y", _REAL, scale=scale, axis=_axis()),
            "color": {"field": "end", "type": "nominal", "title": None, "scale": colours},
            "shape": {
                "field": "end",
                "type": "nominal",
                "title": None,
                "scale": {"domain": list(_ENDS), "range": ["circle", "cross"]},
            },
            "tooltip": [
                {"field": "id", "title": "custom_id"},
                {"field": "x", "title": "expected tokens", "format": ","},
                {"field": "y", "title": "real tokens", "format": ","},
                {"field": "end", "title": "end"},
            ],
        },
    }


def _cells(cells: Sequence[tuple[int, int, int]], scale: dict[str, Any]) -> dict[str, Any]:
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
        for expected, real, count in cells
    ]
    return {
        "data": {"values": values},
        "mark": {"type": "rect", "color": HEAT, "clip": True},
        "encoding": {
            "x": quantity("x", _EXPECTED, scale=scale, axis=_axis()),
            "x2": {"field": "x2"},
            "y": quantity("y", _REAL, scale=scale, axis=_axis()),
            "y2": {"field": "y2"},
            "opacity": strength("answers"),
            "tooltip": [
                {"field": "expected", "title": "expected tokens"},
                {"field": "real", "title": "real tokens"},
                {"field": "n", "title": "answers", "format": ","},
            ],
        },
    }


def _band(low: float, high: float, scale: dict[str, Any]) -> list[dict[str, Any]]:
    """As long as expected, half and twice of it."""
    layers = []
    for factor, width in ((0.5, 1.0), (1.0, 1.6), (2.0, 1.0)):
        ends = [{"x": x, "y": x * factor} for x in (max(low, low / factor), min(high, high / factor))]
        encoding = {
            "x": quantity("x", _EXPECTED, scale=scale, axis=_axis()),
            "y": quantity("y", _REAL, scale=scale, axis=_axis()),
        }
        dash = [1, 0] if factor == 1.0 else [4, 3]
        mark = {"type": "line", "color": PLANNED, "strokeDash": dash, "strokeWidth": width, "opacity": 0.7}
        layers.append({"data": {"values": ends}, "mark": mark, "encoding": encoding})
    return layers
