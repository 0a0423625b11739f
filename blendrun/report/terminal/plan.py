"""A plan for people: what is in the job, what the order does with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from blendrun.report.schemas.plan import MachineRow, OrderRow, PlanReport, Prefix
from blendrun.report.schemas.what_if import WhatIfRow
from blendrun.report.terminal.console import print_parts
from blendrun.text import plural

_BARS = "▁▂▃▄▅▆▇█"
_PROMPT_CHARACTERS = 1200
_SHOWN_PREFIXES = 12
_UNCALIBRATED = "not calibrated: real steps take longer than these rates say; runs teach it, or `blendrun calibrate`"
# What the predicted seconds rest on, by `PlanReport.times`.
_TIMES = {
    "measured": "calibrated: steps of this model were measured on this card",
    "model": _UNCALIBRATED,
    "prior": _UNCALIBRATED,
    "learned": "learned from runs on this machine",
}


def print_plan(report: PlanReport, first_prompt: str | None, stream: TextIO) -> None:
    """Sections one under the other; no colour and a fixed width where `stream` is no terminal."""
    print_parts(_sections(report, first_prompt), stream)


def _sections(report: PlanReport, first_prompt: str | None) -> Iterator[RenderableType]:
    yield _job(report)
    yield Text()
    yield _machine(report)
    yield Text()
    yield _orders(report)
    yield Text(report.why)
    for row in report.what_ifs:
        yield Text(_what_if(row))
    if len(report.machines) > 1:
        yield Text()
        yield _machines(report)
    if report.prefixes:
        yield Text()
        yield _prefixes(report)
    if first_prompt is not None:
        yield Text()
        yield Text("first prompt", style="bold")
        cut = first_prompt[:_PROMPT_CHARACTERS]
        yield Text(cut + ("…" if len(first_prompt) > len(cut) else ""), style="dim")
    for warning in report.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def _job(report: PlanReport) -> Table:
    share = 100 * report.shared_tokens / report.prompt_tokens if report.prompt_tokens else 0.0
    sources = ", ".join(f"{count:,} {name}" for name, count in report.lengths.items())
    table = _pairs()
    table.add_row("requests", f"{report.requests:,} of {report.lines:,} lines{_not_asked(report)}")
    table.add_row("prompt tokens", f"{report.prompt_tokens:,}; {report.shared_tokens:,} of them ({share:.1f} %) shared")
    table.add_row("output tokens", f"{report.output_tokens:,.0f} expected (lengths: {sources})")
    density = "nothing is decoded" if report.density is None else f"{report.density:.3g} (compute over memory seconds)"
    table.add_row("density", density)
    table.add_row("by request", _sparkline(report))
    return table


def _not_asked(report: PlanReport) -> str:
    """Why requests of lines need no engine."""
    found = []
    if report.copies:
        found.append(f"{plural(report.copies, 'asks', 'ask')} what another line asks")
    if report.cached is not None:
        found.append(f"{plural(report.cached, 'has', 'have')} an answer already")
    return f": {', '.join(found)}" if found else ""


def _sparkline(report: PlanReport) -> str:
    counts = report.histogram.requests
    most = max(counts)
    bars = "".join(_BARS[(len(_BARS) - 1) * count // most] if count else " " for count in counts)
    edges = report.histogram.edges
    return f"memory-heavy {edges[0]:.2g} │{bars}│ {edges[-1]:.0f} compute-heavy"


def _machine(report: PlanReport) -> Table:
    hardware, blend = report.hardware, report.blend
    table = _pairs()
    shape = f"{hardware.gpus} x {hardware.name}, {hardware.replicas} replica(s) of {report.model}"
    table.add_row("machine", f"{shape}, {hardware.pool_tokens:,} KV tokens each")
    rates = f"{hardware.flops / 1e12:.3g} TFLOP/s, {hardware.bandwidth / 1e12:.3g} TB/s ({hardware.rates})"
    table.add_row("rates", rates)
    table.add_row("times", report.learned.sentence if report.learned is not None else _TIMES[report.times])
    if hardware.shared_reads is not None:
        table.add_row("decoding", f"reads a shared prefix of {hardware.shared_reads:,} tokens or more once a step")
    table.add_row("step budget", f"{report.step_budget:,} tokens (T*)")
    bounds = f"{_time(report.bound_seconds)} overlapped, {_time(report.serial_seconds)} in turns"
    table.add_row("bound", f"{bounds}; {_time(report.practical_seconds)} for any order here")
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
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("order")
    table.add_column("overlap")
    priced = any(row.cost is not None for row in report.orders)
    for name in ("step", "cache hits", "of shared", f"time ({report.times})", "tokens/s", "of bound"):
        table.add_column(name, justify="right")
    if priced:
        table.add_column("cost", justify="right")
    for row in report.orders:
        share = f"{100 * row.hit_tokens / report.shared_tokens:.1f} %" if report.shared_tokens else "-"
        cells = [
            f"{row.name} *" if row.chosen else row.name,
            row.overlap,
            _step(row),
            f"{row.hit_tokens:,}",
            share,
            _time(row.predicted_seconds),
            f"{row.tokens_per_second:,.0f}",
            f"{100 * row.bound_seconds / row.predicted_seconds:.0f} %" if row.predicted_seconds else "-",
        ]
        cells += [f"{row.cost:,.2f}"] if row.cost is not None else []
        table.add_row(*cells, style="bold" if row.chosen else "")
    return table


def _what_if(row: WhatIfRow) -> str:
    """One line: what it would take, and what turns it on."""
    compared = f"{row.gain:.1%} faster" if row.gain >= 0 else f"{-row.gain:.1%} slower"
    taken = f"with {row.setting}, {row.overlap}: {_time(row.seconds)} ({compared} than planned)"
    if row.engine_args is None:
        return f"{taken}; {row.why_not}"
    return f"{taken}; {' '.join(f'--engine-arg {name}={value}' for name, value in row.engine_args.items())}"


def _step(row: OrderRow) -> str:
    """Tokens of a step, and how they are used where that is no constant mix."""
    if row.step_budget is None:
        return row.policy
    return f"{row.step_budget:,}" if row.policy == "constant" else f"{row.step_budget:,} ({row.policy})"


def _machines(report: PlanReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("machine", "order", "overlap"):
        table.add_column(name)
    for name in ("time", "times as fast", "bound", "cost"):
        table.add_column(name, justify="right")
    table.add_column("")
    # Against the fewest of the same card.
    fewest: dict[str, MachineRow] = {}
    for row in sorted(report.machines, key=lambda row: row.gpus):
        if row.predicted_seconds is not None:
            fewest.setdefault(row.hardware, row)
    for row in report.machines:
        name = f"{row.gpus} x {row.hardware}"
        if row.predicted_seconds is None or row.bound_seconds is None:
            table.add_row(name, *["-"] * 6, Text(row.why_not or "", overflow="fold"))
            continue
        cost = "-" if row.cost is None else f"{row.cost:,.2f}"
        least = fewest[row.hardware].predicted_seconds or 0.0
        faster = "-" if row is fewest[row.hardware] else f"{least / max(row.predicted_seconds, 1e-9):.2f}"
        times = (_time(row.predicted_seconds), faster, _time(row.bound_seconds))
        table.add_row(name, row.order, row.overlap, *times, cost, row.times)
    return table


def _prefixes(report: PlanReport) -> Tree:
    root = Tree(Text("heaviest shared prefixes", style="bold"), guide_style="dim")
    branches = [root]
    for prefix in report.prefixes[:_SHOWN_PREFIXES]:
        del branches[prefix.level + 1 :]
        branches.append(branches[-1].add(_prefix_line(prefix)))
    return root


def _prefix_line(prefix: Prefix) -> Text:
    density = "prefill only" if prefix.density is None else f"density {prefix.density:.3g}"
    return Text(
        f"{prefix.segment_tokens:,} tokens x {prefix.requests:,} requests, {prefix.saved_tokens:,} saved, {density} "
        f"({prefix.example}, …)"
    )


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
