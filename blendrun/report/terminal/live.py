"""What `bench live` measured, for people: a table and a picture."""

from __future__ import annotations

from typing import TextIO

from rich.table import Table

from blendrun.names import SIMPLE_ORDERS
from blendrun.report.export.plot import draw
from blendrun.report.schemas.live import LiveReport, LiveRow
from blendrun.report.terminal.console import print_parts
from blendrun.store.guard import Target

_LOG_WIDTH = 130
# Okabe and Ito: told apart without red and green.
_SIMPLE_COLOUR, _OUR_COLOUR = "#56B4E9", "#D55E00"


def print_live(report: LiveReport, stream: TextIO) -> None:
    """A row for each order and overlap mode."""
    pool = "" if report.kv_tokens is None else f", {report.kv_tokens:,} KV tokens"
    tokens = f"{report.prompt_tokens:,} prompt and {report.output_tokens:,} output tokens"
    parts = (
        f"{report.job}: {report.requests:,} requests, {tokens} · {report.model} on {report.platform}{pool} · "
        + (f"median of {report.repeats}" if report.repeats > 1 else "run once"),
        _table(report),
        f"over best: how much faster than the fastest simple order ({report.best_simple or 'none was run'}), with its "
        "range over the repeats",
    )
    print_parts(parts, stream, log_width=_LOG_WIDTH)


def _table(report: LiveReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("order", "overlap"):
        table.add_column(title)
    for title in ("seconds", "spread", "output tok/s", "total tok/s", "cached", "over best", "over given", "predicted"):
        table.add_column(title, justify="right")
    for row in report.rows:
        spread = "" if report.repeats < 2 else f"{(max(row.seconds) - min(row.seconds)) / row.median:.0%}"
        table.add_row(
            row.order if row.chosen in (row.order, "given") or row.order == "gated" else f"{row.order} ({row.chosen})",
            row.overlap,
            f"{row.median:.1f}",
            spread,
            f"{row.output_per_second:.1f}",
            f"{row.total_per_second:.1f}",
            f"{row.hit_rate:.1%}",
            _ratio(row),
            "" if row.over_given is None else f"{row.over_given:.2f}x",
            ""
            if row.predicted_seconds is None
            else f"{row.predicted_seconds:.1f} s, {row.predicted_hit_rate or 0:.1%}",
        )
    return table


def _ratio(row: LiveRow) -> str:
    if row.over_best_simple is None:
        return ""
    if row.lowest is None or row.highest is None:
        return f"{row.over_best_simple:.2f}x"
    return f"{row.over_best_simple:.2f}x ({row.lowest:.2f}-{row.highest:.2f})"


def plot_live(report: LiveReport, target: Target) -> None:
    """Bars of seconds with the range of the repeats. Raises OutputUnavailableError."""
    from matplotlib.figure import Figure

    rows = report.rows
    names = [row.order if len({each.overlap for each in rows}) == 1 else f"{row.order}\n{row.overlap}" for row in rows]
    figure = Figure(figsize=(max(6.0, 1.1 * len(rows) + 1.5), 4.5), layout="constrained")
    axes = figure.subplots()
    colours = [_SIMPLE_COLOUR if row.order in SIMPLE_ORDERS else _OUR_COLOUR for row in rows]
    low = [row.median - min(row.seconds) for row in rows]
    high = [max(row.seconds) - row.median for row in rows]
    # Of one repeat there is no range; and a bar alone would fill the picture.
    ranges = [low, high] if report.repeats > 1 else None
    bars = axes.bar(names, [row.median for row in rows], 0.6, yerr=ranges, color=colours, capsize=4)
    if len(rows) < 3:
        axes.set_xlim(-1.0, len(rows))
    axes.bar_label(bars, [f"{row.median:.1f} s\n{row.hit_rate:.0%} cached" for row in rows], padding=3, fontsize=8)
    axes.set_ylabel("seconds, median and range" if report.repeats > 1 else "seconds")
    axes.set_title(f"{report.job}: {report.requests:,} requests, {report.model} on {report.platform}", fontsize=10)
    axes.margins(y=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    draw(figure, target)
