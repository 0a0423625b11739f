"""The picture of what ran when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from blendrun.report.page.charts.base import (
    HEAT,
    ZOOM,
    Bounds,
    Chart,
    frame,
    number,
    over_time,
    printable,
    since,
    strength,
)
from blendrun.report.page.groups import Group
from blendrun.report.page.subject import Subject
from blendrun.report.page.verdict import counted
from blendrun.text import plural


def strip(subject: Subject, bounds: Bounds) -> Chart | None:
    """Requests in the batch, a row for each large sub-tree."""
    requests = subject.requests
    if requests is None or not requests.groups:
        return None
    width = requests.seconds / len(requests.groups[0].running)
    shown = width / bounds.clock.seconds
    values = [
        {"t": place * shown, "t2": (place + 1) * shown, "group": printable(group.label), "rank": rank, "n": running}
        for rank, group in enumerate(requests.groups)
        for place, running in enumerate(group.running)
        if running > 0
    ]
    spec = {
        "data": {"values": values},
        "params": [ZOOM],
        "mark": {"type": "rect", "clip": True, "color": HEAT},
        "encoding": {
            "x": over_time(bounds, grid=False),
            "x2": {"field": "t2"},
            "y": {"field": "group", "type": "nominal", "title": None, "sort": {"field": "rank"}},
            "opacity": strength("requests running", bounds.running),
            "tooltip": [
                {"field": "group", "title": "prefix"},
                since(bounds.clock),
                {"field": "n", "title": "running", "format": ",.1f"},
            ],
        },
    }
    # Of what was in flight when a run was stopped there is no record.
    finding = finding_of(requests.groups, all_ended=not counted(subject).left)
    rows = tuple((group.label, f"{group.requests:,}", *_first_last(group.running, width)) for group in requests.groups)
    height = 24 * len(requests.groups) + 24
    heads = ("prefix", "requests", "first running at second", "last")
    return Chart("strip", finding, frame(spec, height, finding), heads, rows)


def finding_of(groups: Sequence[Group], *, all_ended: bool = True) -> str:
    """How many ran at once at most, and in half of the time. all_ended: whether it is of every request of the job."""
    at_once = [sum(each) for each in zip(*(group.running for group in groups), strict=True)]
    most, half = max(at_once), sorted(at_once)[len(at_once) // 2]
    found = f"At most {_whole(most)} ran at once"
    if not all_ended:
        found = f"Of those that have ended, at most {max(math.ceil(most), 1):,} ran at once"
    if half <= 0:
        return f"{found}, and for half of the time none"
    if half < most / 2:
        return f"{found}, and for half of the time no more than {max(math.ceil(half), 1):,}"
    return f"{found}, and for half of the time {max(math.floor(half), 1):,} or more"


def _whole(count: float) -> str:
    return plural(max(math.ceil(count), 1), "request")


def _first_last(running: tuple[float, ...], width: float) -> tuple[str, str]:
    at = [place for place, count in enumerate(running) if count > 0]
    return (number(at[0] * width), number((at[-1] + 1) * width)) if at else ("–", "–")
