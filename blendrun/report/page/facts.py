"""Figures and tables of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blendrun.report.page.requests import Failed, Slow
from blendrun.report.page.subject import Subject
from blendrun.report.terminal.duration import span
from blendrun.text import plural


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure at the head of the page. beside: what it is compared with."""

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands in words of one subject."""

    name: str
    state: str
    bad: bool
    tiles: tuple[Tile, ...]
    slowest: tuple[Slow, ...]
    failed: tuple[Failed, ...]
    failures: tuple[tuple[str, int, str, str], ...]
    settings: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def of(subject: Subject) -> Facts:
    summary, requests = subject.summary, subject.requests
    return Facts(
        name=subject.name,
        state=_state(subject),
        bad=summary is not None and summary.status != "completed",
        tiles=tuple(_run_tiles(subject) if subject.ran else _plan_tiles(subject)),
        slowest=requests.slowest if requests else (),
        failed=requests.failed if requests else (),
        failures=tuple(
            (each.code, each.count, f"{each.file}:{each.line}", each.message)
            for each in (summary.failures if summary else ())
        ),
        settings=tuple(_settings(subject)),
        notes=(*(summary.notes if summary else ()), *(subject.plan.warnings if subject.plan else ())),
    )


def comparison(subjects: Sequence[Subject]) -> tuple[tuple[str, ...], ...]:
    """A row a figure, a column a subject; empty for one subject alone."""
    if len(subjects) < 2:
        return ()
    tiles = [of(subject).tiles for subject in subjects]
    names = list(dict.fromkeys(tile.name for each in tiles for tile in each))
    found = [{tile.name: tile.value for tile in each} for each in tiles]
    return tuple((name, *(each.get(name, "–") for each in found)) for name in names)


def _state(subject: Subject) -> str:
    if not subject.ran:
        return "plan"
    if subject.summary is not None:
        return f"{subject.summary.status}, exit code {subject.summary.exit_code}"
    return f"{subject.status.status} when last seen" if subject.status else "not ended"


def _run_tiles(subject: Subject) -> list[Tile]:
    plan, summary, requests = subject.plan, subject.summary, subject.requests
    tiles = []
    if summary is not None:
        counts = summary.counts
        failed = f"{counts.failed:,} failed" if counts.failed else "none failed"
        tiles.append(Tile("answered", f"{counts.completed:,} of {counts.total:,}", failed))
        if without := summary.taken.copies + summary.taken.cache:
            tiles.append(
                Tile(
                    "not asked",
                    f"{without:,}",
                    f"{plural(summary.taken.copies, 'copy', 'copies')} of other lines",
                )
            )
    elif subject.status is not None:
        counts_now = subject.status.request_counts
        tiles.append(Tile("answered", f"{counts_now.completed:,} of {counts_now.total:,}"))
    seconds = subject.run_seconds
    if seconds is not None:
        predicted = _predicted(subject)
        beside = f"predicted {duration(predicted)}" if predicted else ""
        if (corrected := _corrected(subject)) is not None:
            beside += f", {duration(corrected)} by its first steps"
        tiles.append(Tile("run time", duration(seconds), beside))
        if plan is not None and plan.bound_seconds > 0 and seconds > 0:
            tiles.append(
                Tile(
                    "of what is possible",
                    f"{100 * plan.bound_seconds / seconds:.0f} %",
                    f"bound {duration(plan.bound_seconds)}",
                )
            )
    tokens = summary.tokens if summary is not None else None
    if tokens is not None and seconds:
        tiles.append(Tile("output", f"{tokens.output / seconds:,.0f} tokens/s", f"{tokens.output:,} tokens"))
        tiles.append(Tile("prompts", f"{tokens.prompt / seconds:,.0f} tokens/s", f"{tokens.prompt:,} tokens"))
    if tokens is not None and tokens.prompt:
        planned = summary.plan.predicted_hit_tokens if summary is not None and summary.plan else None
        total = plan.prompt_tokens if plan else 0
        beside = f"planned {100 * planned / total:.1f} %" if planned is not None and total else ""
        tiles.append(Tile("from the cache", f"{100 * tokens.cached / tokens.prompt:.1f} %", beside))
    if requests is not None and requests.within_two is not None:
        tiles.append(Tile("lengths within 2x", f"{100 * requests.within_two:.0f} %", "of what was expected"))
    if summary is not None and summary.restarts:
        tiles.append(Tile("engine restarts", f"{len(summary.restarts)}", summary.restarts[-1].reason[:60]))
    if summary is not None and summary.plan is not None:
        tiles.append(Tile("order", summary.plan.order, f"overlap {summary.plan.overlap}"))
    elif summary is not None:
        tiles.append(Tile("order", summary.order))
    return tiles


def _predicted(subject: Subject) -> float | None:
    summary = subject.summary
    return summary.plan.predicted_seconds if summary is not None and summary.plan is not None else None


def _corrected(subject: Subject) -> float | None:
    summary = subject.summary
    return summary.plan.corrected_seconds if summary is not None and summary.plan is not None else None


def _plan_tiles(subject: Subject) -> list[Tile]:
    plan = subject.plan
    if plan is None:
        return []
    chosen = next(row for row in plan.orders if row.chosen)
    given = next((row for row in plan.orders if row.name == "given" and row.overlap == chosen.overlap), None)
    tiles = [
        Tile("requests", f"{plan.requests:,}", f"of {plan.lines:,} lines"),
        Tile("predicted", duration(chosen.predicted_seconds), f"bound {duration(plan.bound_seconds)}"),
        Tile("order", chosen.name, f"overlap {chosen.overlap}"),
    ]
    if given is not None and given is not chosen:
        tiles.append(Tile("over file order", f"{given.predicted_seconds / chosen.predicted_seconds:.2f}x"))
    shared = 100 * plan.shared_tokens / max(plan.prompt_tokens, 1)
    tiles += [
        Tile("prompt tokens", f"{plan.prompt_tokens:,}", f"{shared:.1f} % shared"),
        Tile("output tokens", f"{plan.output_tokens:,.0f}", "expected"),
        Tile("density", "–" if plan.density is None else f"{plan.density:.3g}", "compute over memory"),
    ]
    if chosen.cost is not None:
        tiles.append(Tile("cost", f"{chosen.cost:,.2f}"))
    return tiles


def _settings(subject: Subject) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    plan, summary, manifest = subject.plan, subject.summary, subject.manifest
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
            ("KV pool", f"{hardware.pool_tokens:,} tokens"),
            ("times", plan.learned.sentence if plan.learned is not None else plan.times),
        ]
    if manifest is not None:
        rows += [(name, str(value)) for name, value in sorted(manifest.answer_settings.items())]
    if summary is not None:
        rows += [(f"seconds, {name}", f"{value:,.1f}") for name, value in summary.seconds.items()]
        rows += [("answers", summary.output)] + ([("errors", summary.errors)] if summary.errors else [])
        rows += [(f"ended by {name}", f"{count:,}") for name, count in sorted(summary.finish_reasons.items())]
    if subject.steps is not None and subject.steps.steps:
        steps = subject.steps
        rows.append(("engine steps", f"{steps.steps:,} of {steps.starts} engine{'s' * (steps.starts != 1)}"))
        rows.append(("sent back for want of room", f"{steps.retracted:,}"))
        if steps.budget_share is not None:
            rows.append(("prefill tokens of a step, of its budget", f"{100 * steps.budget_share:.0f} % on the mean"))
    if subject.status is not None:
        begun = datetime.fromtimestamp(subject.status.created_at, UTC)
        rows.append(("first begun", begun.strftime("%Y-%m-%d %H:%M UTC")))
    versions = summary.versions if summary is not None else manifest.versions if manifest is not None else {}
    return rows + [(f"version of {name}", version) for name, version in versions.items()]


def duration(seconds: float) -> str:
    """Short ones to a tenth of a second."""
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)
