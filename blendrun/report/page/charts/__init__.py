"""The pictures of a page, as Vega-Lite specifications."""

from blendrun.report.page.charts.base import Chart
from blendrun.report.page.charts.counts import densities, lengths, orders
from blendrun.report.page.charts.over_time import occupancy, strip, timeline
from blendrun.report.page.charts.prefix_tree import icicle

__all__ = ["Chart", "densities", "icicle", "lengths", "occupancy", "orders", "strip", "timeline"]
