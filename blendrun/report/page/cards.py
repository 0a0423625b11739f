"""The figures at the head of a page: eight at most, each one number and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blendrun.report.page.scale import scale_of
from blendrun.report.page.subject import Subject, same_job
from blendrun.report.page.verdict import BAD, GOOD, PLAIN, WARN, counted, cut_short, duration, will_fail
from blendrun.report.schemas.plan import PlanReport
from blendrun.store.summary import cost_of
from blendrun.text import in_money, plural

# Of the wall time those that people can do something about.
_PHASES = ("start", "fetch", "model", "plan", "load", "run")
# Slower than predicted by this, a run is worth a look.
_FAR = 1.5


@dataclass(frozen=True, slots=True)
class Card:
    """A figure. beside: what it is compared with. look: as of a `Mark`. amount: the same as a number, to be compared
    with another run's; None for what cannot be. points: whether a difference is one of points, not of percent.
    """

    name: str
    value: str
    beside: str = ""
    look: str = PLAIN
    amount: float | None = None
    points: bool = False


def cards(subject: Subject) -> list[Card]:
    """Of a run or of a plan."""
    if subject.ran:
        found = (_answered, _wall, _when, _cost, _near, _cut, _output, _cached)
        return [card for each in found if (card := each(subject)) is not None]
    return _of_plan(subject.plan) if subject.plan is not None else []


def comparison(subjects: Sequence[Subject]) -> tuple[tuple[str, ...], ...]:
    """A row a figure, a column a subject, and of two runs of one job how much more the second is; empty for one subject
    alone.
    """
    if len(subjects) < 2:
        return ()
    found = [{card.name: card for card in _compared(subject)} for subject in subjects]
    names = dict.fromkeys(name for each in found for name in each)
    rows = []
    for name in names:
        row = [name, *(each[name].value if name in each else "–" for each in found)]
        if two_of_one_job(subjects):
            row.append(_difference(*(each.get(name) for each in found)))
        rows.append(tuple(row))
    return tuple(rows)


def two_of_one_job(subjects: Sequence[Subject]) -> bool:
    """Whether these are two runs that were given the same lines, so that one can lie over the other."""
    return len(subjects) == 2 and same_job(subjects[0].manifest, subjects[1].manifest)


def _difference(one: Card | None, other: Card | None) -> str:
    if one is None or other is None or one.amount is None or other.amount is None:
        return ""
    more = other.amount - one.amount
    if not more:
        return "same"
    if one.points:
        return _signed(f"{more:+.1f} points")
    return _signed(f"{100 * more / one.amount:+.0f} %" if one.amount else f"{more:+,.4g}")


def _signed(text: str) -> str:
    return text.replace("-", "\u2212")


def _compared(subject: Subject) -> list[Card]:
    """The cards, and the time that counts between two runs: without the load, which other work may have slowed."""
    run = subject.run_seconds
    return [*([Card("answering", duration(run), amount=run)] if run is not None else []), *cards(subject)]


def _answered(subject: Subject) -> Card:
    counts = counted(subject)
    beside = f"{counts.failed:,} failed" if counts.failed else "none failed"
    taken = subject.summary.taken if subject.summary is not None else None
    if taken is not None and (without := taken.copies + taken.cache):
        beside += f"; {without:,} needed no engine"
    whole = counts.total > 0 and counts.answered == counts.total
    look = BAD if counts.failed else GOOD if whole else WARN
    of_all = f" of {counts.total:,}" if counts.total else ""
    return Card("answered", f"{counts.answered:,}{of_all}", beside, look, counts.answered)


def _wall(subject: Subject) -> Card | None:
    seconds = subject.summary.seconds if subject.summary is not None else {}
    wall, run = seconds.get("wall"), subject.run_seconds
    if wall is None:
        return None if run is None else Card("time so far", duration(run), "of answering", amount=run)
    several = subject.requests.invocations if subject.requests is not None else 0
    if several > 1 and run is not None:
        return Card("answering", duration(run), f"in {several} goes; the last took {duration(wall)}", amount=run)
    parts = [f"{name} {duration(seconds[name])}" for name in _PHASES if seconds.get(name, 0.0) >= 0.1]
    return Card("wall time", duration(wall), ", ".join(parts), amount=wall)


def _when(subject: Subject) -> Card | None:
    status = subject.status
    if status is None:
        return None
    begun = datetime.fromtimestamp(status.created_at, UTC)
    ended_at = None if status.blendrun.exit_code is None else int(status.blendrun.updated_at)
    if ended_at is None:
        return Card("started", begun.strftime("%H:%M:%S"), begun.strftime("%-d %B %Y, UTC"))
    ended = datetime.fromtimestamp(ended_at, UTC)
    until = ended.strftime("%H:%M:%S UTC" if ended.date() == begun.date() else "%-d %B, %H:%M:%S UTC")
    return Card("started", begun.strftime("%H:%M:%S"), f"{begun.strftime('%-d %B %Y')}, ended {until}")


def _cost(subject: Subject) -> Card | None:
    """Of all that the invocation took: the machine is paid for while it loads, too."""
    summary = subject.summary
    if summary is None or "wall" not in summary.seconds:
        return None
    # Runs of versions before did not say how many devices they had.
    devices = summary.devices or (subject.plan.hardware.gpus if subject.plan is not None else 1)
    found = cost_of(summary.seconds["wall"], devices, subject.price) or summary.cost
    if found is None:
        return None
    cost, answered = found.amount, max(counted(subject).answered, 1)
    several = subject.requests is not None and subject.requests.invocations > 1
    if several or summary.resumed:
        return Card("cost", in_money(cost), "of the last part of the run alone", amount=cost)
    each = in_money(1000 * cost / answered)
    return Card("cost", in_money(cost), f"{each} per 1,000 answers, load included", amount=cost)


def _near(subject: Subject) -> Card | None:
    summary, scale, run = subject.summary, scale_of(subject), subject.run_seconds
    if scale is None or run is None or summary is None or summary.plan is None:
        return None
    beside = f"predicted {duration(scale.predicted)}, took {duration(run)}"
    if (corrected := summary.plan.corrected_seconds) is not None:
        beside += f"; {duration(corrected)} by its first steps"
    look = WARN if not 1 / _FAR <= scale.ratio <= _FAR else GOOD
    value = "as predicted" if scale.right else f"{scale.ratio:.1f}x the plan"
    return Card("near the plan?", value, beside, look, scale.ratio)


def _cut(subject: Subject) -> Card | None:
    counts, count = counted(subject), cut_short(subject)
    if not counts.answered:
        return None
    beside = f"{100 * count / counts.answered:.0f} % ended at their limit" if count else "all ended by themselves"
    return Card("cut short", f"{count:,} of {counts.answered:,}", beside, WARN if count else GOOD, count)


def _output(subject: Subject) -> Card | None:
    summary, seconds = subject.summary, subject.run_seconds
    if summary is None or not seconds:
        return None
    tokens = summary.tokens
    if not tokens.output:
        return Card("prompts", f"{tokens.prompt / seconds:,.0f}\u00a0tok/s", plural(tokens.prompt, "token"))
    rate = tokens.output / seconds
    beside = f"{plural(tokens.output, 'token')}; prompts {tokens.prompt / seconds:,.0f} tok/s"
    return Card("answers", f"{rate:,.0f}\u00a0tok/s", beside, amount=rate)


def _cached(subject: Subject) -> Card | None:
    summary, plan = subject.summary, subject.plan
    if summary is None or not summary.tokens.prompt:
        return None
    planned = summary.plan.predicted_hit_tokens if summary.plan else None
    total = plan.prompt_tokens if plan else 0
    beside = f"of prompt tokens; planned {100 * planned / total:.0f} %" if planned is not None and total else ""
    share = 100 * summary.tokens.cached / summary.tokens.prompt
    return Card("from the cache", f"{share:.0f}\u00a0%", beside or "of prompt tokens", amount=share, points=True)


def _of_plan(plan: PlanReport) -> list[Card]:
    chosen = next(row for row in plan.orders if row.chosen)
    failing = will_fail(plan)
    shared = 100 * plan.shared_tokens / max(plan.prompt_tokens, 1)
    found = [
        Card("can run", f"{plan.requests:,}", f"of {plural(plan.lines, 'line')}", BAD if failing else GOOD),
        Card("predicted", duration(chosen.predicted_seconds), f"on {plan.hardware.gpus} x {plan.hardware.name}"),
    ]
    if plan.plain_seconds > 0:
        beside = "file order, engine as it comes"
        found.append(Card("without blendrun", duration(plan.plain_seconds), beside))
    if chosen.cost is not None:
        found.append(Card("cost", in_money(chosen.cost), "at the price given"))
    found += [
        Card("prompt tokens", f"{plan.prompt_tokens:,}", f"{shared:.0f} % shared with other requests"),
        Card("answer tokens", f"{plan.output_tokens:,.0f}", "expected"),
        Card("order", chosen.name, f"overlap {chosen.overlap}"),
    ]
    return found
