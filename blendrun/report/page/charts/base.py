"""What every picture of a page is made of. Colours of text and lines are the page's own CSS variables, so that light,
dark and print need no second drawing; colours of data are told apart without colour vision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")
# Okabe and Ito's palette, and the page's own ink for what was planned.
PREFILL, DECODE, PLANNED = "#0072B2", "#E69F00", "var(--planned)"
ZOOM = {
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


def frame(spec: dict[str, Any], height: int, caption: str) -> dict[str, Any]:
    """A whole specification, as wide as the page has room. height: pixels. caption: for those who do not see it."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": caption,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **spec,
    }


def quantity(field: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    """An encoding of a number; more: axis, scale, format, ..."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def shade(title: str) -> dict[str, Any]:
    """An encoding of counts `n`: the darker, the more."""
    return quantity("n", title, scale={"type": "sqrt", "scheme": "blues", "domainMin": 0})


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
