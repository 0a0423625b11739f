"""A plan for people: what will fail, then a line each for the job, the machine, the order, the time and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from blendrun.planner.findings import Finding, Severity, will_fail
from blendrun.report.choice import cost_told, order_told, time_told
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.schemas.what_if import WhatIfRow
from blendrun.report.terminal.console import print_parts
from blendrun.report.terminal.machines import machines_table, misfits
from blendrun.report.terminal.plan_details import details
from blendrun.text import in_time, plural

_STYLES = {Severity.FAILS: "bold red", Severity.RISK: "yellow", Severity.NOTE: "dim"}
# Characters of a prompt that are shown.
_PROMPT_CHARACTERS = 1200


def print_plan(
    report: PlanReport,
    stream: TextIO,
    *,
    next_command: str | None,
    verbose: bool = False,
    first_prompt: str | None = None,
) -> None:
    """A few lines, and with `verbose` all figures; no colour and a fixed width where `stream` is no terminal.

    next_command: that answers the job, None where nothing does. first_prompt: text of the user's, None for not at all.
    """
    print_parts(_sections(report, next_command, verbose, first_prompt), stream)


def _sections(
    report: PlanReport, next_command: str | None, verbose: bool, prompt: str | None
) -> Iterator[RenderableType]:
    yield from _findings(report)
    if len(report.machines) > 1:
        yield machines_table(report)
        yield from misfits(report)
        yield Text()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True, min_width=7)
    table.add_column(overflow="fold")
    for name, value in _rows(report, verbose):
        table.add_row(name, value)
    yield table
    if next_command is not None:
        # In one piece, to be copied.
        yield f"next     {next_command}"
    for row in report.what_ifs:
        yield Text(_what_if(row))
    if verbose:
        yield from details(report)
    if prompt is not None:
        yield Text()
        yield Text("first prompt", style="bold")
        yield Text(prompt[:_PROMPT_CHARACTERS] + ("…" if len(prompt) > _PROMPT_CHARACTERS else ""), style="dim")


def _findings(report: PlanReport) -> Iterator[RenderableType]:
    """What will fail, first and in red; then what may be worth little."""
    if failing := will_fail(report.findings):
        yield Text(f"{plural(failing, 'line')} of {report.lines:,} will fail", style=_STYLES[Severity.FAILS])
    for finding in report.findings:
        yield Text(f"{_word(finding)}: {finding.message}", style=_STYLES[finding.severity])
    if report.findings:
        yield Text()


def _word(finding: Finding) -> str:
    return {Severity.FAILS: "  fails", Severity.RISK: "warning", Severity.NOTE: "note"}[finding.severity]


def _rows(report: PlanReport, verbose: bool) -> Iterator[tuple[str, str]]:
    yield "job", _job(report)
    yield "machine", _machine(report)
    yield "order", order_told(report) if verbose else f"{order_told(report)} All figures: -v"
    yield "time", time_told(report)
    if (cost := cost_told(report)) is not None:
        yield "cost", cost


def _job(report: PlanReport) -> str:
    lines = f"{report.requests:,} of {plural(report.lines, 'line')}{_not_asked(report)}"
    unknown = any(each.code == "sharing_unknown" for each in report.findings)
    share = 100 * report.shared_tokens / report.prompt_tokens if report.prompt_tokens else 0.0
    shared = "sharing not known from this trace" if unknown else f"{share:.1f} % shared"
    return (
        f"{lines}; {report.prompt_tokens:,} prompt tokens, {shared}; {report.output_tokens:,.0f} output tokens expected"
    )


def _not_asked(report: PlanReport) -> str:
    """Why requests of lines need no engine."""
    found = []
    if report.copies:
        found.append(f"{plural(report.copies, 'asks', 'ask')} what another line asks")
    if report.cached is not None:
        found.append(f"{plural(report.cached, 'has', 'have')} an answer already")
    return f" ({', '.join(found)})" if found else ""


def _machine(report: PlanReport) -> str:
    hardware = report.hardware
    which = f"{hardware.gpus} x {hardware.name} with {report.model}"
    if report.learned is not None:
        return f"{which}; times {report.learned.sentence}"
    return f"{which}; times calibrated: steps of this model were measured" if report.times == "measured" else which


def _what_if(row: WhatIfRow) -> str:
    """One line: what it would take, and what turns it on."""
    compared = f"{100 * row.gain:.1f} % faster" if row.gain >= 0 else f"{-100 * row.gain:.1f} % slower"
    taken = f"with {row.setting}, {row.overlap}: {in_time(row.seconds)} ({compared} than planned)"
    if row.engine_args is None:
        return f"{taken}; {row.why_not}"
    return f"{taken}; {' '.join(f'--engine-arg {name}={value}' for name, value in row.engine_args.items())}"
