"""What became of a job, in a sentence and in colour: the head of a page."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.report.page.subject import Subject
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.terminal.duration import span
from blendrun.report.terminal.status import alive
from blendrun.text import plural

# Phases before the first request is handed over.
_BEFORE = ("fetch", "model", "load")
# How a mark looks: as it should be, worth a look, wrong; and what is only said.
GOOD, WARN, BAD, PLAIN = "good", "warn", "bad", "plain"
_STOPPED = {130: "stopped by Ctrl-C", 75: "stopped by a signal or its deadline", 4: "stopped: too many lines failed"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A few words in a colour (GOOD, WARN, BAD, PLAIN). link: id of the section that says more; may be empty."""

    words: str
    look: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """Lines of a run, by its summary or, without one, by its status, or by what engines ended. total: 0 where nobody
    knows.
    """

    total: int
    answered: int
    failed: int

    @property
    def left(self) -> int:
        """Lines without an end, as far as is known."""
        return max(self.total - self.answered - self.failed, 0)


def counted(subject: Subject) -> Counted:
    """Nothing where nothing is known."""
    if subject.summary is not None:
        counts = subject.summary.counts
        return Counted(counts.total, counts.completed, counts.failed)
    if subject.status is not None:
        now = subject.status.request_counts
        return Counted(now.total, now.completed, now.failed)
    if subject.requests is not None:
        return Counted(0, subject.requests.count - subject.requests.errors, len(subject.requests.failed))
    return Counted(0, 0, 0)


def cut_short(subject: Subject) -> int:
    """Answers that ended at their limit, but for limits of one token, which are meant to be reached."""
    if subject.summary is not None and subject.summary.cut_short:
        return subject.summary.cut_short
    return subject.requests.cut if subject.requests is not None else 0


def promised(subject: Subject) -> int:
    """Answers that were to have a form; all of them where an older run did not say."""
    summary = subject.summary
    return 0 if summary is None else summary.form.promised or summary.counts.completed


def will_fail(plan: PlanReport) -> int:
    """Lines that a run would answer with an error line."""
    return plan.refused + plan.left_out


def title(subject: Subject) -> str:
    """The sentence at the head of the page of one subject."""
    if not subject.ran:
        return _planned(subject.plan) if subject.plan is not None else "Nothing is known"
    counts = counted(subject)
    state = state_words(subject)
    done = f"{counts.answered:,} answered, {counts.failed:,} failed" if counts.failed else _none_failed(counts)
    if state != "completed":
        left = counts.left
        done = f"{state[0].upper()}{state[1:]}: {done}" + (f", {left:,} not done" if left > 0 else "")
    return done + _time(subject) + _tail(subject)


def marks(subject: Subject) -> list[Mark]:
    """What stands below the sentence: state, failures, what was cut, what does not keep its form."""
    if not subject.ran:
        return _marks_of_plan(subject.plan)
    counts, state = counted(subject), state_words(subject)
    wrong = subject.summary is not None and subject.summary.status == "failed"
    again = "; the same command goes on" if state.startswith("stopped") or state == "killed" else ""
    found = [Mark(state + again, BAD if wrong else GOOD if state == "completed" and not counts.failed else WARN)]
    if counts.failed:
        found.append(Mark(f"{counts.failed:,} failed", BAD, "failed"))
    elif counts.answered:
        found.append(Mark("none failed", GOOD))
    if cut := cut_short(subject):
        found.append(Mark(f"{cut:,} of {counts.answered:,} cut short", WARN, "cut"))
    elif counts.answered and subject.summary is not None and subject.summary.finish_reasons:
        found.append(Mark("none cut short", GOOD))
    if subject.summary is not None and (unkept := subject.summary.unkept):
        found.append(Mark(f"{unkept:,} of {promised(subject):,} not in the form that was asked for", WARN, "unkept"))
    elif subject.summary is not None and (kept := subject.summary.form.kept):
        found.append(Mark(f"{plural(kept, 'answer')} in the form that was asked for", GOOD))
    if subject.summary is not None and (restarts := len(subject.summary.restarts)):
        found.append(Mark(plural(restarts, "engine restart"), WARN, "settings"))
    return found


def state_words(subject: Subject) -> str:
    """completed, stopped by Ctrl-C, still running, killed, ..."""
    summary, status = subject.summary, subject.status
    if summary is not None:
        if summary.status == "completed":
            return "completed"
        return _STOPPED.get(summary.exit_code, f"{summary.status} with exit code {summary.exit_code}")
    if status is None:
        return "not ended"
    living = alive(status)
    if status.blendrun.exit_code is not None:
        return _STOPPED.get(status.blendrun.exit_code, f"{status.status}, no summary")
    return "killed" if living is False else "still running" if living else "not ended when last seen"


def _none_failed(counts: Counted) -> str:
    return f"{counts.answered:,} answered, none failed" if counts.answered else "nothing answered yet"


def _time(subject: Subject) -> str:
    seconds = subject.run_seconds
    if seconds is None:
        return ""
    phases = subject.summary.seconds if subject.summary is not None else {}
    several = subject.requests is not None and subject.requests.invocations > 1
    before = [f"{name} {duration(phases[name])}" for name in _BEFORE if phases.get(name, 0.0) >= 1]
    told = f" ({', '.join(before)} before it)" if before and not several else ""
    return f", in {duration(seconds)}{told}"


def _tail(subject: Subject) -> str:
    tail = subject.requests.tail if subject.requests is not None else None
    if tail is None or subject.summary is None or subject.summary.status != "completed":
        return ""
    return f"; {tail.words} for the last {duration(tail.seconds)}"


def _planned(plan: PlanReport) -> str:
    chosen = next((row for row in plan.orders if row.chosen), None)
    fails = f", {will_fail(plan):,} of {plural(plan.lines, 'line')} will fail" if will_fail(plan) else ""
    time = "" if chosen is None else f", about {duration(chosen.predicted_seconds)} on {plan.hardware.gpus} x "
    return f"{plural(plan.requests, 'request')} planned{fails}{time}{plan.hardware.name if time else ''}"


def _marks_of_plan(plan: PlanReport | None) -> list[Mark]:
    if plan is None:
        return []
    found = [Mark("plan", PLAIN)]
    if count := will_fail(plan):
        found.append(Mark(f"{count:,} of {plural(plan.lines, 'line')} will fail", BAD, "willfail"))
    else:
        found.append(Mark("every line can run", GOOD))
    if plan.times in ("model", "prior"):
        found.append(Mark("seconds are estimates: this machine was not measured", WARN))
    return found


def duration(seconds: float) -> str:
    """Short ones to a tenth of a second, very short ones in milliseconds."""
    if 0 < seconds < 0.95:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "less than 1 ms"
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)
