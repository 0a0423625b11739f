"""The end of a run, for people: whether it worked, what to look at, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from rich.table import Table
from rich.text import Text

from blendrun.report.terminal.console import print_parts
from blendrun.report.terminal.duration import span
from blendrun.store.failures import shown
from blendrun.store.summary import PlanSummary, Summary
from blendrun.text import at_price, in_money, plural, printable

# A path in a log stays in one piece.
_LOG_WIDTH = 4096
# Phases that took less are not worth a word.
_WORTH_A_WORD_S = 1.0
# Custom ids of answers to look at; more are in the list that is named behind them.
_NAMED = 5
_BAD, _WARN, _GOOD = "bold red", "yellow", "bold green"


def print_summary(summary: Summary, stream: TextIO, *, earlier: bool = False) -> None:
    """A sentence, then a row for each thing to know: what failed and what was cut short first.

    earlier: the summary is that of a run before, which had left nothing to do.
    """
    rows = list(_rows(summary))
    width = max(len(name) for name, _, _ in rows)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value, style in rows:
        table.add_row(name, Text(printable(value), style=style))
    # Each in one piece, to be copied.
    commands = [f"{'' if place else 'next':{width}}  {text}" for place, text in enumerate(_next(summary))]
    with suppress(OSError):
        print_parts(
            [Text(_headline(summary, earlier), style=_style(summary)), table, *commands], stream, log_width=_LOG_WIDTH
        )


def _style(summary: Summary) -> str:
    if summary.counts.failed or summary.status != "completed":
        return _BAD
    return _WARN if summary.cut_short or summary.unkept else _GOOD


def _headline(summary: Summary, earlier: bool) -> str:
    """How many, how long, how fast, and how near to what was predicted."""
    counts, seconds = summary.counts, summary.seconds
    failed = f"{counts.failed:,} failed" if counts.failed else "none failed"
    phases = [f"{name} {span(value)}" for name, value in seconds.items() if _phase(name, value)]
    took = ""
    if "wall" in seconds:
        whose = ", by an earlier run" if earlier else ""
        took = f"{whose}, in {span(seconds['wall']) if seconds['wall'] >= 1 else 'less than a second'}"
    parts = [f"{counts.completed:,} of {counts.total:,} answered, {failed}{took}"]
    parts[0] += f" ({', '.join(phases)})" if phases else ""
    if rate := summary.throughput.get("output_throughput"):
        parts.append(f"{rate:,.{int(rate < 100)}f} tokens/s")
    if (plan := _plan(summary)) is not None and plan.predicted_seconds is not None:
        parts.append(f"run predicted {span(plan.predicted_seconds)}")
    return " · ".join(parts)


def _phase(name: str, seconds: float) -> bool:
    return name != "wall" and seconds >= _WORTH_A_WORD_S


def _plan(summary: Summary) -> PlanSummary | None:
    """What was predicted of a run phase that came to its end."""
    return summary.plan if "run" in summary.seconds and summary.status == "completed" else None


def _predicted(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """What the prediction rests on, and what the run's first steps made of it."""
    if (plan := _plan(summary)) is None or plan.predicted_seconds is None:
        return
    rests = [f"{span(plan.predicted_seconds)}: {plan.times}"] if plan.times else []
    if plan.corrected_seconds is not None:
        rests.append(f"{span(plan.corrected_seconds)} by its first steps")
    if rests:
        yield "predicted", "; ".join(rests), ""


def _rows(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Name, text and style of each row."""
    yield from _failed(summary)
    yield from _to_look_at(summary)
    tokens, taken = summary.tokens, summary.taken
    share = f" ({100 * tokens.cached / tokens.prompt:.1f} % from the prefix cache)" if tokens.prompt else ""
    yield "tokens", f"{tokens.prompt:,} prompt{share}, {tokens.output:,} output", ""
    parts = [f"{plural(taken.copies, 'copy', 'copies')} of other lines"] if taken.copies else []
    parts += [f"{plural(taken.cache, 'answer')} kept from other runs"] if taken.cache else []
    if parts:
        yield "not asked", ", ".join(parts), ""
    yield from _predicted(summary)
    if (cost := _cost(summary)) is not None:
        yield "cost", cost, ""
    yield "answers", summary.output, ""


def _cost(summary: Summary) -> str | None:
    """What it cost, and at which price; None without one."""
    if (cost := summary.cost) is None:
        return None
    text = at_price(cost.amount, cost.gpu_hour, summary.devices or 1)
    if summary.resumed:
        return f"{text}, of this part of the run alone: what came before it is not counted"
    answered = summary.counts.completed
    each = f"; {in_money(1000 * cost.amount / answered)} per 1,000 answers" if answered else ""
    return f"{text}, load included{each}"


def _failed(summary: Summary) -> Iterator[tuple[str, str, str]]:
    if summary.errors is None:
        return
    codes = ", ".join(f"{code} {number}" for code, number in sorted(summary.error_codes.items()))
    yield "failed", f"{plural(summary.counts.failed, 'line')} ({codes}), listed in {summary.errors}", _BAD
    yield from (("", text, "red") for text in shown(summary.failures))


def _to_look_at(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Answers that are none of what was wanted."""
    if cut := summary.cut_short:
        share = f"{cut:,} of {plural(summary.counts.completed, 'answer')}"
        percent = 100 * cut / max(summary.counts.completed, 1)
        which = _named(summary.cut_short_ids, cut)
        yield "cut short", f"{share} ({percent:.0f} %) ended at the token limit: {which}", _WARN
    form = summary.form
    if summary.unkept:
        kept = f"{form.kept:,} of {plural(form.promised, 'answer has', 'answers have')} the form asked for"
        which = _named(summary.unkept_ids, summary.unkept)
        yield "form", f"{kept}; {summary.unkept:,} not: {which} ({summary.unkept_list})", _WARN
    elif form.promised:
        yield "form", f"{form.kept:,} of {plural(form.promised, 'answer has', 'answers have')} the form asked for", ""


def _named(ids: tuple[str, ...], count: int) -> str:
    more = f" and {count - _NAMED:,} more" if count > _NAMED and len(ids) > 1 else ""
    return ", ".join(ids[:_NAMED]) + more


def _next(summary: Summary) -> Iterator[str]:
    """Commands that a person may want now."""
    if summary.status != "completed":
        return
    output = shlex.quote(summary.output)
    yield f"blendrun report {output}"
    if summary.cut_short:
        again = "--cut-short --as-requests --max-tokens N -o again.jsonl"
        yield f"blendrun answers {output} {again}  # what was cut, to be run with room for N tokens"
