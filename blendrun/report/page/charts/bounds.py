"""The scales that the pictures of all subjects of a page share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blendrun.report.page.charts.base import Bounds
from blendrun.report.page.charts.orders import bars_of
from blendrun.report.page.scale import scale_of, stretched
from blendrun.report.page.subject import Subject
from blendrun.report.schemas.series import Series

# A plan's peak that is higher, in peaks of the run, is cut off.
_HIGHEST_PLAN = 1.5


def bounds_of(subjects: Sequence[Subject]) -> Bounds:
    """Nothing is shared by one alone, but that what is drawn over each other has the same scale."""
    return Bounds(
        seconds=_most(series.seconds * factor for series, factor in _series(subjects)),
        rate=1.05 * _most(_rate(subject) for subject in subjects),
        running=_most(
            running
            for subject in subjects
            for group in (subject.requests.groups if subject.requests else ())
            for running in group.running
        ),
        tokens=_most(
            2.0 ** (max(expected, real) + 0.6)
            for subject in subjects
            for expected, real, _ in (subject.requests.lengths if subject.requests else ())
        ),
        compared=1.02
        * _most(
            bar.seconds
            for subject in subjects
            if subject.plan is not None and subject.plan.orders
            for bar in bars_of(subject.plan, subject, scale_of(subject))
        ),
    )


def _series(subjects: Sequence[Subject]) -> Iterator[tuple[Series, float]]:
    """All that is drawn over time, and what the plan's part of it is stretched by."""
    for subject in subjects:
        if subject.series is not None:
            yield subject.series, 1.0
        if subject.planned is not None:
            yield subject.planned, stretched(subject)


def _rate(subject: Subject) -> float:
    """Tokens/s at most: of the run, and of its plan as far as that does not press the run to the ground."""
    measured = _peak(subject.series, 1.0) if subject.series is not None else 0.0
    planned = _peak(subject.planned, stretched(subject)) if subject.planned is not None else 0.0
    return max(measured, min(planned, _HIGHEST_PLAN * measured)) if measured else planned


def _peak(series: Series, factor: float) -> float:
    return _most((prefill + decode) / factor for prefill, decode in zip(series.prefill, series.decode, strict=True))


def _most(values: Iterator[float]) -> float:
    return max(values, default=0.0)
