"""The registry of the pictures of a page: its sections, in reading order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blendrun.report.page.charts.base import Chart
from blendrun.report.page.charts.counts import densities, lengths, orders
from blendrun.report.page.charts.over_time import occupancy, strip, timeline
from blendrun.report.page.charts.prefix_tree import icicle
from blendrun.report.page.subject import Subject


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of picture on the page, drawn for each subject.

    heading: of the section. sentence: for those who see such a picture the first time. draw: a picture of a run or a
    plan; None where there is nothing to draw.
    """

    heading: str
    sentence: str
    draw: Callable[[Subject], Chart | None]


SECTIONS = (
    Section(
        "Time line",
        "Prefill computes prompts, decode makes answers. Shift and the wheel zoom, dragging moves.",
        timeline,
    ),
    Section(
        "KV pool and prefix cache",
        "How full the pool was, and which part of the prompts it already held.",
        occupancy,
    ),
    Section(
        "Prefix tree",
        "A block is a prefix, as wide as the requests that share it; what hangs below shares it. Dark blocks are heavy "
        "in memory (long answers), light ones in compute (long prompts).",
        icicle,
    ),
    Section(
        "What ran when",
        "Each row is a part of the prefix tree; the darker, the more of its requests ran.",
        strip,
    ),
    Section("Lengths of answers", "On the dashed line an answer was as long as expected.", lengths),
    Section("Orders compared", "Simulated by the cost model before the run, the measured time beside it.", orders),
    Section("Requests by density", "Left of 1 a request is heavy in memory, right of it in compute.", densities),
)
