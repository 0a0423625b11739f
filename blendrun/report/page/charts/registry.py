"""The registry of the pictures of a page: its sections, in reading order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blendrun.report.page.charts.base import Bounds, Chart
from blendrun.report.page.charts.lengths import lengths
from blendrun.report.page.charts.orders import orders
from blendrun.report.page.charts.pool import occupancy, occupancy_of_both
from blendrun.report.page.charts.prefix_tree import icicle
from blendrun.report.page.charts.strip import strip
from blendrun.report.page.charts.timeline import timeline, timeline_of_both
from blendrun.report.page.subject import Subject

Draw = Callable[[Subject, Bounds], Chart | None]
DrawBoth = Callable[[Subject, Subject, Bounds], Chart | None]


def _first(one: Subject, other: Subject, bounds: Bounds) -> Chart | None:
    """Of runs of one job the prefix tree is one."""
    return icicle(one if one.plan is not None else other, bounds)


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of picture on the page, drawn for each subject.

    heading: of the section. sentence: for those who see such a picture the first time. draw: a picture of a run or a
    plan; None where there is nothing to draw. both: one picture for two runs of one job; None where theirs stand side
    by side.
    """

    heading: str
    sentence: str
    draw: Draw
    both: DrawBoth | None = None


SECTIONS = (
    Section(
        "Orders compared",
        "Seconds of the whole job by the cost model; of a run, what it took. Dashed: the bound, the least that any "
        "order could take here.",
        orders,
    ),
    Section(
        "Time line",
        "Prefill reads prompts, decode makes answers. Shift and the wheel zoom, dragging moves.",
        timeline,
        timeline_of_both,
    ),
    Section(
        "What ran when",
        "Each row is a part of the prefix tree; the stronger the colour, the more of its requests ran.",
        strip,
    ),
    Section(
        "KV pool and prefix cache",
        "How full the pool of keys and values was, and which part of the prompts it already held.",
        occupancy,
        occupancy_of_both,
    ),
    Section(
        "Prefix tree",
        "A block is a prefix, as wide as the requests that share it or as the tokens it saves; what hangs below "
        "shares it.",
        icicle,
        _first,
    ),
    Section(
        "Lengths of answers",
        "On the solid line an answer was as long as expected. The better lengths are known, the better the plan.",
        lengths,
    ),
)
