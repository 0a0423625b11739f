"""Several machines for one job, side by side."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from blendrun.report.schemas.plan import MachineRow, PlanReport
from blendrun.text import in_money, in_one_unit


def machines_table(report: PlanReport) -> Table:
    """A row a machine, the first of which the rest of the plan is for. One unit of time for all."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("machine")
    priced = any(row.cost is not None for row in report.machines)
    for name in ("time", "at least", "speed-up", *(("cost", "an hour") if priced else ())):
        table.add_column(name, justify="right")
    table.add_column("order")
    # What is said of some rows alone stands last, where there is room: a row has 80 characters.
    table.add_column("")
    fitting = [row for row in report.machines if row.predicted_seconds is not None]
    times = dict(zip(map(id, fitting), in_one_unit(row.predicted_seconds or 0.0 for row in fitting), strict=True))
    bounds = dict(zip(map(id, fitting), in_one_unit(row.bound_seconds or 0.0 for row in fitting), strict=True))
    fewest = _fewest(fitting)
    fastest, cheapest = _least(fitting, "predicted_seconds"), _least(fitting, "cost")
    rest = {row.times in ("learned", "measured") for row in fitting}
    for row in report.machines:
        name = f"{row.gpus} x {row.hardware}"
        if row.predicted_seconds is None:
            table.add_row(name, "does not fit", style="dim")
            continue
        least = fewest[row.hardware]
        faster = "-" if row is least else f"{(least.predicted_seconds or 0.0) / max(row.predicted_seconds, 1e-9):.2f}"
        praise = [word for word, first in (("fastest", fastest), ("cheapest", cheapest)) if row is first]
        best = bool(praise)
        if len(rest) > 1 and row.times not in ("learned", "measured"):
            praise.append("not calibrated")
        cells = [name, times[id(row)], bounds[id(row)], faster, *(_cost(row) if priced else ())]
        table.add_row(*cells, f"{row.order}, {row.overlap}", ", ".join(praise), style="bold" if best else "")
    return table


def misfits(report: PlanReport) -> Iterator[Text]:
    """Yields why, of each machine that the job does not run on."""
    for row in report.machines:
        if row.why_not is not None:
            yield Text(f"{row.gpus} x {row.hardware} does not fit: {row.why_not}", style="yellow")


def _fewest(rows: list[MachineRow]) -> dict[str, MachineRow]:
    """Of each card the row with the fewest devices, which others are compared with."""
    found: dict[str, MachineRow] = {}
    for row in sorted(rows, key=lambda row: row.gpus):
        found.setdefault(row.hardware, row)
    return found


def _least(rows: list[MachineRow], name: str) -> MachineRow | None:
    priced = [row for row in rows if getattr(row, name) is not None]
    return min(priced, key=lambda row: float(getattr(row, name))) if priced else None


def _cost(row: MachineRow) -> tuple[str, str]:
    """And the price of an hour of one device."""
    return ("-", "-") if row.cost is None or row.gpu_hour is None else (in_money(row.cost), f"{row.gpu_hour:g}")
