"""A simulated grid, and a synthetic workload, for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table

from blendrun.report.schemas.bench import BenchReport, CellRow
from blendrun.report.schemas.synth import SynthReport
from blendrun.report.terminal.console import print_parts


def print_bench(report: BenchReport, stream: TextIO) -> None:
    """A row for each cell and overlap mode; what was left out below."""
    gpus = f"{report.gpus[0]} x " if report.gpus != (1,) and len(report.gpus) == 1 else ""
    lines: list[RenderableType] = [
        f"{report.workload} · {report.model} on {gpus}{report.hardware} · simulated seconds of each order",
        _table(report),
        "blended/sorted, blended/best: how much faster the blend is than depth first, and than the best other order.\n"
        "at least: no order takes less in this mode.",
    ]
    if len(report.gpus) > 1:
        lines.append(
            "times as fast: the fastest order against the fastest one on the fewest GPUs. parts: sharing that is kept "
            "by a cache\nfor each replica."
        )
    lines += [f"left out: {each.why}" for each in report.refused]
    print_parts(lines, stream)


def print_synth(report: SynthReport, path: str, stream: TextIO) -> None:
    """What was written, kind by kind, and how near it is to what was asked for."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("kind")
    for title in ("requests", "mean prompt", "mean output", "prompt tokens", "output tokens"):
        table.add_column(title, justify="right")
    for row in report.kinds:
        totals = (row.prompt_tokens, row.output_tokens)
        means = (f"{total / max(row.requests, 1):,.1f}" for total in totals)
        table.add_row(row.name, f"{row.requests:,}", *means, *(f"{total:,}" for total in totals))
    density = "none" if report.density is None else f"{report.density:.3f}"
    lines: list[RenderableType] = [
        table,
        f"rho {report.rho:.4f} (asked {report.target_rho:g}), sharing {report.sharing:.4f} "
        f"(asked {report.target_sharing:g}); {report.memory} answers stretched by {report.stretch:.4f}",
        f"density {density} by `blendrun plan --model {report.model} --hardware {report.hardware}`, at achieved rates",
        f"{report.requests:,} requests in {path}",
    ]
    print_parts(lines, stream)


def _table(report: BenchReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    orders = list(report.cells[0].seconds)
    for title in ("rho", "sharing"):
        table.add_column(title, justify="right")
    table.add_column("overlap")
    several = ("gpus", "times as fast", "parts") if len(report.gpus) > 1 else ()
    for title in (*several, "at least", *orders, "blended/sorted", "blended/best"):
        table.add_column(title, justify="right")
    fewest: dict[tuple[float | None, float, str], CellRow] = {}
    for row in sorted(report.cells, key=lambda row: row.gpus):
        fewest.setdefault((row.rho, row.sharing, row.overlap), row)
    for row in report.cells:
        name, *figures = _figures(row, orders)
        first = fewest[row.rho, row.sharing, row.overlap]
        scaling = [str(row.gpus), f"{first.best_seconds / row.best_seconds:.2f}", _share(row.parts_sharing)]
        table.add_row(name, *figures[:2], *(scaling if several else []), *figures[2:])
    return table


def _figures(row: CellRow, orders: Iterable[str]) -> list[str]:
    seconds = [_seconds(row.practical_seconds), *(_seconds(row.seconds[order]) for order in orders)]
    shares = [_gain(row.over_sorted), _gain(row.gain)]
    return ["-" if row.rho is None else f"{row.rho:.4g}", f"{row.sharing:.4g}", row.overlap, *seconds, *shares]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"
