"""Pictures of what is counted or compared: lengths of answers, orders, densities."""

from __future__ import annotations

from blendrun.report.page.charts.base import DECODE, PLANNED, PREFILL, Chart, frame, quantity, shade
from blendrun.report.page.subject import Subject


def lengths(subject: Subject) -> Chart | None:
    """Answers by expected and real length."""
    if (requests := subject.requests) is None or not requests.lengths:
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
                    "x": quantity("x", "expected tokens", scale=scale, axis=axis),
                    "x2": {"field": "x2"},
                    "y": quantity("y", "real tokens", scale=scale, axis=axis),
                    "y2": {"field": "y2"},
                    "color": shade("answers"),
                    "tooltip": [
                        {"field": "expected", "title": "expected tokens"},
                        {"field": "real", "title": "real tokens"},
                        {"field": "n", "title": "answers", "format": ","},
                    ],
                },
            },
            {
                "data": {"values": [{"x": low, "y": low}, {"x": high, "y": high}]},
                "mark": {"type": "line", "color": PLANNED, "strokeDash": [4, 3]},
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
        "lengths", caption, frame(spec, 260, caption), ("expected, about", "real, about", "answers"), rows, note
    )


def orders(subject: Subject) -> Chart | None:
    """Predicted seconds of every order and mode, beside the bound and what was measured."""
    plan, measured = subject.plan, subject.run_seconds
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
                    "x": quantity("seconds", "seconds"),
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
                        "scale": {"domain": kinds, "range": [DECODE, PREFILL, "#8a94a6"]},
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
        frame(spec, 24 * len(values) + 40, caption),
        ("order", "what", "seconds"),
        rows,
        f"{plan.why}. Times rest on: {plan.times}.",
    )


def densities(subject: Subject) -> Chart | None:
    """Requests by density."""
    plan = subject.plan
    if plan is None:
        return None
    edges = [plan.histogram.edges[0] / 2, *plan.histogram.edges, plan.histogram.edges[-1] * 2]
    values = [
        {"x": low, "x2": high, "n": count, "shown": f"{low:.3g} to {high:.3g}"}
        for low, high, count in zip(edges[:-1], edges[1:], plan.histogram.requests, strict=True)
    ]
    spec = {
        "data": {"values": values},
        "mark": {"type": "rect", "color": PREFILL, "stroke": "var(--panel)"},
        "encoding": {
            "x": quantity(
                "x",
                "density (compute over memory seconds); the last bar is all above",
                scale={"type": "log", "base": 2, "domain": [edges[0], edges[-1]], "nice": False},
                axis={"grid": False, "format": ".2~g", "tickCount": 8},
            ),
            "x2": {"field": "x2"},
            "y": quantity("n", "requests", axis={"tickCount": 5}),
            "y2": {"datum": 0},
            "tooltip": [
                {"field": "shown", "title": "density"},
                {"field": "n", "title": "requests", "format": ","},
            ],
        },
    }
    caption = "Requests by density"
    rows = tuple((str(value["shown"]), f"{value['n']:,}") for value in values)
    return Chart("densities", caption, frame(spec, 160, caption), ("density", "requests"), rows)
