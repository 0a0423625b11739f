"""What is wrong with a job's lines and answers, as lists: failed, cut short, out of form, about to fail."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.planner.findings import Severity
from blendrun.report.page.subject import Subject
from blendrun.report.page.verdict import counted, cut_short, promised, will_fail
from blendrun.text import plural


@dataclass(frozen=True, slots=True)
class List:
    """The first of what is wrong, as a table. label: what it lists."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of what is wrong. key: id of its section. look: "bad" or "warn". sentence: how much of it, and where all
    of it stands. names: custom_ids, where there is nothing else to say of each; more: that are not among them.
    """

    key: str
    heading: str
    look: str
    sentence: str
    lists: tuple[List, ...] = ()
    names: tuple[str, ...] = ()
    more: int = 0


def troubles(subject: Subject) -> list[Trouble]:
    """Of one subject, the worst first."""
    found = (_will_fail(subject), _may_go_wrong(subject), _failed(subject), _unkept(subject), _cut(subject))
    return [each for each in found if each is not None]


def _failed(subject: Subject) -> Trouble | None:
    counts, summary = counted(subject), subject.summary
    requests = subject.requests.failed if subject.requests is not None else ()
    if not counts.failed and not requests:
        return None
    where = f" All of them, with their errors: {summary.errors}." if summary is not None and summary.errors else ""
    failed = max(counts.failed, len(requests))
    of_all = f"{failed:,} of {plural(counts.total, 'line')}" if counts.total else plural(failed, "request")
    sentence = f"{of_all} failed.{where}"
    kinds = tuple(
        (each.code, f"{each.count:,}", f"{each.file}:{each.line}", each.message)
        for each in (summary.failures if summary is not None else ())
    )
    named = tuple((each.custom_id, f"{each.number:,}", each.error) for each in requests)
    lists = (
        List("Failed lines by kind", ("code", "lines", "first at", "message"), kinds),
        List("Requests that failed in the engine, the first of them", ("custom_id", "request no.", "error"), named),
    )
    return Trouble("failed", "What failed", "bad", sentence, tuple(each for each in lists if each.rows))


def _cut(subject: Subject) -> Trouble | None:
    count = cut_short(subject)
    if not count:
        return None
    named = subject.requests.cut_first if subject.requests is not None else ()
    sentence = (
        f"{count:,} of {plural(counted(subject).answered, 'answer')} ended at the limit of tokens (max_tokens, or the "
        'end of the context): finish_reason "length". With more room they would have gone on.'
    )
    names = tuple(each.custom_id for each in named)
    if subject.summary is not None and subject.summary.cut_short_list:
        sentence += f" All of them: {subject.summary.cut_short_list}."
    return Trouble("cut", "What was cut short", "warn", sentence, names=names, more=count - len(names))


def _unkept(subject: Subject) -> Trouble | None:
    summary = subject.summary
    if summary is None or not summary.unkept:
        return None
    where = f" All of them: {summary.unkept_list}." if summary.unkept_list else ""
    sentence = (
        f"{summary.unkept:,} of {plural(promised(subject), 'answer')} do not keep the form that their request asked "
        f"for (JSON, a schema, a tool's arguments).{where}"
    )
    found = List("Answers not in their form, the first of them", ("custom_id", "what is wrong"), subject.unkept)
    return Trouble("unkept", "Not in the form asked for", "warn", sentence, (found,) if found.rows else ())


def _will_fail(subject: Subject) -> Trouble | None:
    plan = subject.plan
    if subject.ran or plan is None or not will_fail(plan):
        return None
    said = tuple((each.message,) for each in plan.findings if each.severity is Severity.FAILS)
    sentence = f"{will_fail(plan):,} of {plan.lines:,} lines cannot be answered; a run gives them an error line each."
    lists = (List("", ("why",), said),) if said else ()
    return Trouble("willfail", "What will fail", "bad", sentence, lists)


def _may_go_wrong(subject: Subject) -> Trouble | None:
    """What else a plan warns of."""
    plan = subject.plan
    if subject.ran or plan is None:
        return None
    said = tuple((each.message,) for each in plan.findings if each.severity is not Severity.FAILS)
    return Trouble("maygowrong", "What may go wrong", "warn", "", (List("", ("warning",), said),)) if said else None


def other_notes(subject: Subject) -> tuple[str, ...]:
    """Notes of the run, and warnings of its plan, that are said nowhere else on the page."""
    if not subject.ran:
        return ()
    noted = subject.summary.notes if subject.summary is not None else ()
    warned, why = (subject.plan.warnings, subject.plan.why) if subject.plan is not None else ((), "")
    return tuple(dict.fromkeys(each for each in (*noted, *warned) if each != why))
