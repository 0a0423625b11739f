"""The registry of the pictures of a page, in their order there."""

from __future__ import annotations

from collections.abc import Callable

from blendrun.report.page.charts.base import Chart
from blendrun.report.page.charts.counts import densities, lengths, orders
from blendrun.report.page.charts.over_time import occupancy, strip, timeline
from blendrun.report.page.charts.prefix_tree import icicle
from blendrun.report.page.subject import Subject

# Each draws one picture of a run or plan; None where there is nothing to draw.
CHARTS: tuple[Callable[[Subject], Chart | None], ...] = (
    timeline,
    occupancy,
    icicle,
    strip,
    lengths,
    orders,
    densities,
)


def charts_of(subject: Subject) -> dict[str, Chart]:
    """By key, those that there is something to draw of."""
    drawn = (chart(subject) for chart in CHARTS)
    return {chart.key: chart for chart in drawn if chart is not None}
