"""What every picture of a page is made of. Colours of text and lines are the page's own CSS variables, so that light,
dark and print need no second drawing. Colours of data are told apart without colour vision and stand out on light and
dark ground alike: an amount is how strong one colour is (`strength`), not how dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")
_FEW = 5
# Okabe and Ito's palette, and the page's own ink for what was planned.
PREFILL, DECODE, PLANNED = "#0072B2", "#E69F00", "var(--planned)"
HEAT, WORRY = "var(--heat)", "var(--warn)"
# The page's own, so that what is measured here is what is drawn.
FONT = "system-ui, sans-serif"
_SIZE = 13
ZOOM = {
    "name": "zoom",
    "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    "bind": "scales",
}
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
        "labelFontSize": _SIZE,
        "titleFontSize": _SIZE,
    },
    "axisX": {"labelOverlap": "greedy", "labelSeparation": 6},
    "axisY": {"labelLimit": 380},
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "orient": "top",
        "labelFontSize": _SIZE,
        "titleFontSize": _SIZE,
        "titleFontWeight": "normal",
        "labelLimit": 400,
        "titleLimit": 500,
    },
    "text": {"color": "var(--ink)"},
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the scales of all pictures of a page go, so that those side by side can be compared. 0: nothing there.

    seconds: the longest run or plan. rate: tokens/s. running: requests of a row at once. tokens: of an answer.
    compared: seconds of the slowest order.
    """

    seconds: float = 0.0
    rate: float = 0.0
    running: float = 0.0
    tokens: float = 0.0
    compared: float = 0.0

    @property
    def clock(self) -> Clock:
        """Of what is drawn over time."""
        return clock_for(self.seconds)

    def domain(self, name: str, per: float = 1.0) -> dict[str, Any]:
        """A scale from 0 to what is the most. per: what it is measured in."""
        most = getattr(self, name) / per
        return {"domain": [0, most], "nice": False} if most > 0 else {}


@dataclass(frozen=True, slots=True)
class Clock:
    """What times are shown in. unit: one of it, "hour". seconds: in one of it."""

    unit: str
    seconds: float

    @property
    def units(self) -> str:
        return f"{self.unit}s"


def clock_for(longest: float) -> Clock:
    """The unit in which so many seconds are no long number."""
    if longest >= 3 * 3600:
        return Clock("hour", 3600.0)
    return Clock("minute", 60.0) if longest >= 600 else Clock("second", 1.0)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with what stands around it.

    key: kind of picture, the same for all subjects. finding: what it shows here, a sentence without its full stop; also
    for those who do not see it. columns, rows: its figures as a table. note: sentences below.
    """

    key: str
    finding: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def frame(spec: dict[str, Any], height: int, finding: str) -> dict[str, Any]:
    """A whole specification, as wide as the page has room. height: pixels. finding: for those who do not see it."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": finding,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **spec,
    }


def quantity(field: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    """An encoding of a number; more: axis, scale, format, ..."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def over_time(bounds: Bounds, **axis: Any) -> dict[str, Any]:
    """An encoding of a time `t`, which is told in the bounds' clock."""
    scale = bounds.domain("seconds", bounds.clock.seconds)
    return quantity("t", bounds.clock.units, axis={"tickCount": 8, **axis}, scale=scale)


def since(clock: Clock) -> dict[str, Any]:
    """When a bucket begins, for the figures that stand beside the pointer."""
    return {"field": "t", "title": f"from {clock.unit}", "format": ",.2~f"}


def strength(title: str, most: float = 0.0) -> dict[str, Any]:
    """An encoding of counts `n` by how strong a colour is. most: at the end of the scale; 0 for what there is."""
    end = {"domainMax": most} if most > 0 else {}
    # Nobody counts in fractions: up to five there is a mark for each.
    marks: dict[str, Any] = (
        {"values": list(range(math.ceil(most) + 1)), "format": "d"} if 0 < most <= _FEW else {"tickCount": 5}
    )
    return quantity(
        "n",
        title,
        scale={"type": "sqrt", "domainMin": 0, **end, "range": [0.08, 1]},
        legend={"symbolType": "square", "symbolFillColor": HEAT, "symbolStrokeColor": "transparent", **marks},
    )


def sampled(rows: Iterable[_T]) -> list[_T]:
    """At most about twenty rows of a table."""
    every = list(rows)
    return every[:: max(len(every) // 20, 1)]


def printable(name: str) -> str:
    """A name with nothing in it that Vega's expressions cannot hold, such as line separators."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def number(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f} %"
