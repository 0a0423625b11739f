"""What stands on a page in words, of one subject: its head, its lists, its settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from blendrun.report.page.cards import Card, cards
from blendrun.report.page.requests import Slow
from blendrun.report.page.samples import Sample
from blendrun.report.page.subject import Subject
from blendrun.report.page.troubles import Trouble, other_notes, troubles
from blendrun.report.page.verdict import Mark, marks, title
from blendrun.text import plural


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands in words of one subject."""

    name: str
    title: str
    marks: tuple[Mark, ...]
    cards: tuple[Card, ...]
    troubles: tuple[Trouble, ...]
    samples: tuple[Sample, ...]
    slowest: tuple[Slow, ...]
    settings: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def of(subject: Subject) -> Facts:
    return Facts(
        name=subject.name,
        title=title(subject),
        marks=tuple(marks(subject)),
        cards=tuple(cards(subject)),
        troubles=tuple(troubles(subject)),
        samples=subject.samples,
        slowest=subject.requests.slowest if subject.requests else (),
        settings=tuple(_settings(subject)),
        notes=other_notes(subject),
    )


def _settings(subject: Subject) -> list[tuple[str, str]]:
    summary, manifest = subject.summary, subject.manifest
    versions = summary.versions if summary is not None else manifest.versions if manifest is not None else {}
    rows = [*_of_job(subject), *_of_run(subject), *_of_engine(subject)]
    return rows + [(f"version of {name}", version) for name, version in versions.items()]


def _of_job(subject: Subject) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    plan, manifest = subject.plan, subject.manifest
    if manifest is not None:
        rows += [("model", manifest.model), ("engine", manifest.engine), ("input", ", ".join(manifest.inputs))]
        if manifest.limit is not None:
            rows.append(("lines taken", f"{manifest.limit:,}"))
    elif plan is not None:
        rows.append(("model", plan.model))
    if plan is not None:
        hardware = plan.hardware
        rows += [
            ("machine", f"{hardware.gpus} x {hardware.name} (rates: {hardware.rates})"),
            ("KV pool", plural(hardware.pool_tokens, "token")),
            ("times rest on", plan.learned.sentence if plan.learned is not None else plan.times),
            ("choice of the order", plan.why),
        ]
    if manifest is not None:
        rows += [(name, str(value)) for name, value in sorted(manifest.answer_settings.items())]
    return rows


def _of_run(subject: Subject) -> list[tuple[str, str]]:
    summary = subject.summary
    if summary is None:
        return []
    order = summary.order if summary.plan is None else f"{summary.plan.order}, overlap {summary.plan.overlap}"
    rows = [("order", order)]
    rows += [(f"seconds, {name}", f"{value:,.1f}") for name, value in summary.seconds.items()]
    rows += [("answers", summary.output)] + ([("errors", summary.errors)] if summary.errors else [])
    rows += [(f"ended by {name}", f"{count:,}") for name, count in sorted(summary.finish_reasons.items())]
    rows += [
        (
            f"engine restart after {each.seconds:,.0f} s",
            f"{each.reason}; in flight: {plural(each.in_flight, 'request')}",
        )
        for each in summary.restarts
    ]
    if summary.taken.copies:
        rows.append(("copies of other lines", f"{summary.taken.copies:,}"))
    if summary.taken.cache:
        rows.append(("answers kept from earlier runs", f"{summary.taken.cache:,}"))
    return rows


def _of_engine(subject: Subject) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if subject.steps is not None and subject.steps.steps:
        steps = subject.steps
        rows.append(("engine steps", f"{steps.steps:,} of {plural(steps.starts, 'engine')}"))
        rows.append(("retracted (the KV pool was full)", f"{steps.retracted:,}"))
        if steps.budget_share is not None:
            rows.append(("prefill tokens of a step, of its budget", f"{100 * steps.budget_share:.0f} % on the mean"))
    if subject.status is not None:
        begun = datetime.fromtimestamp(subject.status.created_at, UTC)
        rows.append(("first begun", begun.strftime("%Y-%m-%d %H:%M UTC")))
    return rows
