"""The end of a run, for people."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO

from rich.table import Table

from blendrun.report.terminal.console import print_parts
from blendrun.store.failures import shown
from blendrun.store.summary import Summary
from blendrun.text import plural

# A path in a log stays in one piece.
_LOG_WIDTH = 4096


def print_summary(summary: Summary, stream: TextIO) -> None:
    """A short table: what came of the job, and where it is."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(summary):
        table.add_row(name, value)
    with suppress(OSError):
        print_parts([table], stream, log_width=_LOG_WIDTH)


def _predicted(summary: Summary) -> list[tuple[str, str]]:
    """What the run phase was predicted to take, beside what it took."""
    plan, real = summary.plan, summary.seconds.get("run")
    if plan is None or plan.predicted_seconds is None or real is None or summary.status != "completed":
        return []
    corrected = f", {plan.corrected_seconds:.1f} by its first steps" if plan.corrected_seconds is not None else ""
    rests = f" ({plan.times})" if plan.times else ""
    return [("run", f"{plan.predicted_seconds:.1f} predicted{rests}{corrected}; {real:.1f} real")]


def _taken(summary: Summary) -> list[tuple[str, str]]:
    """What no engine was asked for."""
    taken = summary.taken
    parts = [f"{plural(taken.copies, 'copy', 'copies')} of other lines"] if taken.copies else []
    parts += [f"{plural(taken.cache, 'answer')} kept from other runs"] if taken.cache else []
    return [("not asked", ", ".join(parts))] if parts else []


def _rows(summary: Summary) -> list[tuple[str, str]]:
    counts, tokens = summary.counts, summary.tokens
    share = f" ({100 * tokens.cached / tokens.prompt:.1f} % from the prefix cache)" if tokens.prompt else ""
    seconds = "  ".join(f"{name} {value:.1f}" for name, value in summary.seconds.items())
    rows = [
        ("requests", f"{counts.total:,}: {counts.completed:,} answered, {counts.failed:,} failed"),
        *_taken(summary),
        ("tokens", f"{tokens.prompt:,} prompt{share}, {tokens.output:,} output"),
        ("seconds", seconds),
        *_predicted(summary),
        ("answers", summary.output),
    ]
    if summary.errors is not None:
        codes = ", ".join(f"{code} {number}" for code, number in sorted(summary.error_codes.items()))
        rows.append(("errors", f"{summary.errors} ({codes})"))
        rows += [("", text) for text in shown(summary.failures)]
    if summary.unkept:
        rows.append(("not kept", f"{summary.unkept:,} answers break the form asked for ({summary.unkept_list})"))
    if cut := summary.finish_reasons.get("length"):
        share_cut = 100 * cut / sum(summary.finish_reasons.values())
        rows.append(("cut short", f"{cut} answers ({share_cut:.0f} %) ended at their token limit"))
    return rows
