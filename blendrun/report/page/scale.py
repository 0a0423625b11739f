"""How a plan's predictions stand to what was measured, so that both can be drawn on one scale."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.report.page.subject import Subject
from blendrun.report.schemas.plan import OrderRow, PlanReport
from blendrun.store.summary import Summary

# As near as that a prediction is right, for a sentence and for a picture.
_NEAR = 0.1
# Where predictions rest on no measurement of this machine, `blendrun calibrate` mends them.
_UNCALIBRATED = ("model", "prior")


@dataclass(frozen=True, slots=True)
class Scale:
    """ratio: measured seconds over predicted ones, of the order that ran. predicted: seconds of the whole job. times,
    rest: what they rest on, a word (`PlanReport.times`) and a sentence; empty where nobody said.
    """

    ratio: float
    predicted: float
    times: str = ""
    rest: str = ""

    @property
    def right(self) -> bool:
        return 1 / (1 + _NEAR) <= self.ratio <= 1 + _NEAR

    @property
    def shown(self) -> str:
        """The ratio, never below 1: "4.0 times", "6 %"."""
        larger = max(self.ratio, 1 / self.ratio)
        return f"{larger:.1f} times" if larger >= 1.5 else f"{100 * (larger - 1):.0f} %"

    @property
    def sentence(self) -> str:
        """Whether the plan was right, and what to do where it was not."""
        if self.right:
            return f"The prediction was right within {self.shown}"
        side = "low" if self.ratio > 1 else "high"
        if self.times in _UNCALIBRATED:
            mend = "uncalibrated, they rest on published rates; `blendrun calibrate` measures this machine"
        else:
            mend = f"they were {self.rest}" if self.rest else ""
        return f"Predictions were {self.shown} too {side}" + (f" ({mend})" if mend else "")


def scale_of(subject: Subject) -> Scale | None:
    """None where nothing was predicted of the whole job, or it has not ended."""
    summary, seconds = subject.summary, subject.run_seconds
    if summary is None or summary.plan is None or not seconds:
        return None
    predicted = summary.plan.predicted_seconds
    # Of a job that was stopped, or that several invocations shared, no time is that of the plan.
    whole = summary.status == "completed" and subject.requests is not None and subject.requests.invocations == 1
    if not predicted or predicted <= 0 or not whole:
        return None
    kind = subject.plan.times if subject.plan is not None else ""
    return Scale(seconds / predicted, predicted, kind, summary.plan.times)


def ran_row(plan: PlanReport, summary: Summary | None) -> OrderRow | None:
    """The order and mode that a run went by, of those that its plan simulated; None where it is not among them."""
    ran = summary.plan if summary is not None else None
    if ran is None:
        return None
    return next((row for row in plan.orders if (row.name, row.overlap) == (ran.order, ran.overlap)), None)


def stretched(subject: Subject) -> float:
    """What a plan's seconds are multiplied with to be drawn beside the run's; 1 where they need no stretching."""
    scale = scale_of(subject)
    return 1.0 if scale is None or scale.right else scale.ratio


def plain_seconds(plan: PlanReport) -> float | None:
    """What the job would take in file order on the engine as it comes; None where that was not simulated."""
    return plan.plain_seconds if plan.plain_seconds > 0 else None
