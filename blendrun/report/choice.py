"""What a plan says of its choice in words, the same on a terminal, on the page and in a run."""

from __future__ import annotations

from blendrun.names import OrderName
from blendrun.report.schemas.plan import OrderRow, PlanReport
from blendrun.simulate.sentence import choice_sentence, time_sentence
from blendrun.text import at_price


def chosen_row(report: PlanReport) -> OrderRow:
    """The order and mode that the plan chose."""
    return next(row for row in report.orders if row.chosen)


def calibrated(report: PlanReport) -> bool:
    """Whether the predicted seconds rest on steps of this model that were measured."""
    return report.times in ("learned", "measured")


def order_told(report: PlanReport) -> str:
    """Why this order: a sentence."""
    chosen, seconds = chosen_row(report), dict[OrderName, float]()
    for row in report.orders:
        if row.eligible:
            name = OrderName(row.name)
            seconds[name] = min(row.predicted_seconds, seconds.get(name, row.predicted_seconds))
    name = OrderName(chosen.name)
    return choice_sentence(name, seconds | {name: chosen.predicted_seconds})


def time_told(report: PlanReport) -> str:
    """What the job takes, beside plain SGLang: a sentence."""
    return time_sentence(chosen_row(report).predicted_seconds, report.plain_seconds, calibrated=calibrated(report))


def cost_told(report: PlanReport) -> str | None:
    """What it costs, at which price; None where nobody gave one."""
    cost, price, gpus = chosen_row(report).cost, report.gpu_hour, report.hardware.gpus
    if cost is None or price is None:
        return None
    return at_price(cost, price, gpus)
