"""All figures of a plan, for those who ask with `-v`: the machine, every order, the heaviest prefixes."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from blendrun.report.schemas.plan import OrderRow, PlanReport, Prefix
from blendrun.text import in_money, in_one_unit, in_time, plural

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_PREFIXES = 12
_UNCALIBRATED = "not calibrated: real steps take longer than these rates say; runs teach it, or `blendrun calibrate`"
# What the predicted seconds rest on, by `PlanReport.times`.
_TIMES = {
    "measured": "calibrated: steps of this model were measured on this card",
    "model": _UNCALIBRATED,
    "prior": _UNCALIBRATED,
    "learned": "learned from runs on this machine",
}


def details(report: PlanReport) -> Iterator[RenderableType]:
    """Yields section after section."""
    yield Text()
    yield _job(report)
    yield Text()
    yield _machine(report)
    yield Text()
    yield _orders(report)
    if report.prefixes:
        yield Text()
        yield _prefixes(report)


def _job(report: PlanReport) -> Table:
    sources = ", ".join(f"{count:,} {name}" for name, count in report.lengths.items())
    table = _pairs()
    table.add_row("shared tokens", f"{report.shared_tokens:,} of {report.prompt_tokens:,}")
    table.add_row("lengths", f"{sources} (requests by what their expected output rests on)")
    density = "nothing is decoded" if report.density is None else f"{report.density:.3g} (compute over memory seconds)"
    table.add_row("density", density)
    table.add_row("by request", _sparkline(report))
    return table


def _sparkline(report: PlanReport) -> str:
    counts = report.histogram.requests
    most = max(counts)
    bars = "".join(_BARS[(len(_BARS) - 1) * count // most] if count else " " for count in counts)
    edges = report.histogram.edges
    return f"memory-heavy {edges[0]:.2g} │{bars}│ {edges[-1]:.0f} compute-heavy"


def _machine(report: PlanReport) -> Table:
    hardware, blend = report.hardware, report.blend
    table = _pairs()
    shape = f"{hardware.gpus} x {hardware.name}, {plural(hardware.replicas, 'replica')} of {report.model}"
    table.add_row("machine", f"{shape}, {hardware.pool_tokens:,} KV tokens each")
    rates = f"{hardware.flops / 1e12:.3g} TFLOP/s, {hardware.bandwidth / 1e12:.3g} TB/s ({hardware.rates})"
    table.add_row("rates", rates)
    table.add_row("times", report.learned.sentence if report.learned is not None else _TIMES[report.times])
    if hardware.shared_reads is not None:
        table.add_row("decoding", f"reads a shared prefix of {hardware.shared_reads:,} tokens or more once a step")
    table.add_row("step budget", f"{report.step_budget:,} tokens (T*)")
    table.add_row("at least", f"{in_time(report.practical_seconds)}: no order takes less here")
    table.add_row("blend", f"{100 * blend.kept_sharing:.1f} % of the sharing kept, in {blend.units:,} units")
    peak = 100 * blend.kv_peak_tokens / hardware.pool_tokens
    if (parts := report.partition) is not None:
        table.add_row(
            "parts",
            f"{len(parts.seconds)}, {100 * parts.kept_sharing:.1f} % of the sharing kept; compute within "
            f"{100 * parts.compute_off:.1f} %, memory within {100 * parts.memory_off:.1f} % of an equal share",
        )
    table.add_row("KV pool", f"peak {peak:.0f} %; compute-heavy side holds {100 * blend.left_share:.1f} % on average")
    return table


def _orders(report: PlanReport) -> Table:
    priced = any(row.cost is not None for row in report.orders)
    # In 80 characters only the headings of the hits may break.
    table = Table(box=None, padding=(0, 1 if priced else 2, 0, 0), header_style="bold")
    table.add_column("order", no_wrap=True)
    table.add_column("overlap", no_wrap=True)
    for name in ("step", "cache hits", "of shared", "time", "tokens/s", *(["cost"] if priced else [])):
        table.add_column(name, justify="right", no_wrap=name not in ("cache hits", "of shared"))
    table.add_column("", no_wrap=True)
    times = in_one_unit(row.predicted_seconds for row in report.orders)
    for row, time in zip(report.orders, times, strict=True):
        share = f"{100 * row.hit_tokens / report.shared_tokens:.1f} %" if report.shared_tokens else "-"
        cells = [row.name, row.overlap, _step(row), f"{row.hit_tokens:,}", share, time, f"{row.tokens_per_second:,.0f}"]
        cells += [in_money(row.cost)] if row.cost is not None else []
        told = "chosen" if row.chosen else "" if row.eligible else "compared"
        table.add_row(*cells, told, style="bold" if row.chosen else "" if row.eligible else "dim")
    return table


def _step(row: OrderRow) -> str:
    """Tokens of a step, and how they are used where that is no constant mix."""
    if row.step_budget is None:
        return row.policy
    return f"{row.step_budget:,}" if row.policy == "constant" else f"{row.step_budget:,} ({row.policy})"


def _prefixes(report: PlanReport) -> Tree:
    root = Tree(Text("heaviest shared prefixes", style="bold"), guide_style="dim")
    branches = [root]
    for prefix in report.prefixes[:_SHOWN_PREFIXES]:
        del branches[prefix.level + 1 :]
        branches.append(branches[-1].add(_prefix_line(prefix)))
    return root


def _prefix_line(prefix: Prefix) -> Text:
    density = "prefill only" if prefix.density is None else f"density {prefix.density:.3g}"
    size = f"{plural(prefix.segment_tokens, 'token')} x {plural(prefix.requests, 'request')}"
    return Text(f"{size}, {prefix.saved_tokens:,} saved, {density} ({prefix.example}, …)")


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
