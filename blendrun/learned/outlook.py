"""How long a run will still take: by what runs and waits, or by the plan at the speed that its steps turn out to have.

One object for all who show it, so that the live view, log lines, status file and metrics say the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from blendrun.events import EngineStats, Event, Expected, PhaseStarted, Progress, Work

# So many seconds speak for the plan's own speed, until those of real steps outweigh them.
_TRUST = 3.0
# What is called recent, in seconds of steps.
_RECENT = 60.0
# A pace of answers needs a twentieth of the work behind it.
_PACE_FROM = 0.05
# A correction is told once a tenth of the plan is done, but not before some seconds, and after two minutes in any case.
_TOLD_FROM, _TOLD_AFTER, _TOLD_BY = 0.1, 5.0, 120.0
# Of the time that the work which is left would have by its tokens: it takes so much, whatever the plan has left.
_LEAST = 0.5
# What a plan's time, and a pace of tokens, is off by.
_PLAN_OFF = 0.15
# So many steps, and what comes in so many seconds, say nothing yet.
_FIRST_STEPS, _FIRST_S = 10, 3.0
_RUNNING = ("run", "isolate", "drain")


@dataclass(slots=True)
class Outlook:
    """Takes a run's events, says what is left. clock: seconds that only go forwards. corrected: seconds of the whole
    run phase as they looked when enough of it was seen; None before, and without a plan of all of it."""

    clock: Callable[[], float] = time.monotonic
    expected: Expected | None = None
    corrected: float | None = None
    _stats: EngineStats | None = None
    _work: Work | None = None
    _worked: float = 0.0
    _running: bool = False
    # When the engine that is up began to work, and when what drains will be stopped.
    _begun: float | None = None
    _stopped: float | None = None
    _first: Progress | None = None
    _progress: Progress | None = None
    # Seconds of steps, real and by the plan, at some moments of the last minute.
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def take(self, event: Event) -> None:
        """Take in an event; notes say nothing here."""
        if isinstance(event, Expected):
            self.expected, self._stats, self._work = event, None, None
            self._recent.clear()
        elif isinstance(event, PhaseStarted):
            self._begin(event)
        elif isinstance(event, Work):
            self._work, self._worked = event, self.clock()
        elif isinstance(event, EngineStats):
            self._stats = event
            self._recent.append((event.paced_seconds, event.priced_seconds))
            while event.paced_seconds - self._recent[0][0] > _RECENT * self._engines:
                self._recent.popleft()
            self._tell()
        elif isinstance(event, Progress) and self._running:
            self._progress, self._first = event, self._first or event

    def left(self) -> tuple[float, float] | None:
        """Least and most seconds to the end of the phase; None where neither plan nor pace says anything."""
        if self._begun is None:
            return None
        if self._stopped is not None:
            return self._of_drain(self._stopped - self.clock())
        if self._work is not None and self._work.ahead is not None:
            return self._since(self._work.ahead)
        passed = self.clock() - self._begun
        rest, stats = self._rest(), self._stats
        if rest is not None and stats is not None:
            speeds = self._speeds(stats)
            return rest * min(speeds) / (1 + _PLAN_OFF), rest * max(speeds) * (1 + _PLAN_OFF)
        return self._by_pace(passed) or self._by_answers(passed)

    def _begin(self, event: PhaseStarted) -> None:
        self._running = event.name in _RUNNING
        if event.name == "load":
            # Another engine counts from zero.
            self._stats = self._work = self._begun = self._first = None
            self._recent.clear()
        elif self._running and self._begun is None:
            self._begun = self.clock()
        elif not self._running:
            self._begun = None
        if event.name == "drain" and event.most is not None:
            self._stopped = self.clock() + event.most

    def _since(self, seconds: tuple[float, float]) -> tuple[float, float]:
        """What is left now of what was left when the work was last looked at."""
        passed = self.clock() - self._worked
        return max(seconds[0] - passed, 0.0), max(seconds[1] - passed, 0.0)

    def _of_drain(self, most: float) -> tuple[float, float]:
        """Of what is in flight, which ends by itself or is stopped."""
        most = max(most, 0.0)
        found = None if self._work is None else self._work.in_flight
        low, high = (0.0, most) if found is None else self._since(found)
        return min(low, most), min(high, most)

    @property
    def planned(self) -> float | None:
        """Seconds of the whole phase by the plan, with the lengths that are expected now."""
        expected = self.expected
        if expected is None or expected.seconds is None:
            return None
        work, decode = self._work, expected.decode_share
        if work is None or self._engines > 1:
            return expected.seconds
        prompt, output = work.done_prompt + work.left_prompt, work.done_output + work.left_output
        parts = [(1 - decode, prompt, expected.prompt_tokens), (decode, output, expected.output_tokens)]
        return expected.seconds * sum(part * (now / first if first else 1.0) for part, now, first in parts)

    @property
    def _engines(self) -> int:
        return self.expected.engines if self.expected is not None else 1

    def _rest(self) -> float | None:
        """Seconds that are left by the plan; None where no step was seen that it could be compared with."""
        planned, stats = self.planned, self._stats
        if planned is None or stats is None or stats.priced_seconds <= 0:
            return None
        least = _LEAST * planned * self._share_left()
        return max(planned - stats.priced_seconds / self._engines, least)

    def _share_left(self) -> float:
        """Part of the work that is left, by tokens; 0 where nobody knows."""
        work, expected = self._work, self.expected
        if work is None or expected is None:
            return 0.0
        decode = expected.decode_share
        pairs = ((1 - decode, work.done_prompt, work.left_prompt), (decode, work.done_output, work.left_output))
        return sum(part * left / (done + left) for part, done, left in pairs if done + left > 0)

    def _speeds(self, stats: EngineStats) -> tuple[float, float]:
        """Real seconds of a planned one: of all steps so far, and of the last ones."""
        paced, priced = self._recent[0]
        trust = _TRUST * self._engines
        every = (stats.paced_seconds + trust) / (stats.priced_seconds + trust)
        seen = stats.priced_seconds - priced
        return every, (stats.paced_seconds - paced + trust * every) / (seen + trust)

    def _by_pace(self, passed: float) -> tuple[float, float] | None:
        """By how fast prompts and answers went so far."""
        work, stats = self._work, self._stats
        # Prompts that have begun count as done: at first that is no pace.
        if work is None or passed < _FIRST_S or (stats is not None and stats.steps < _FIRST_STEPS):
            return None
        pairs = ((work.done_prompt, work.left_prompt), (work.done_output, work.left_output))
        paces = [passed * left / done for done, left in pairs if done > 0 and done >= _PACE_FROM * (done + left)]
        return (min(paces) / (1 + _PLAN_OFF), max(paces) * (1 + _PLAN_OFF)) if paces else None

    def _by_answers(self, passed: float) -> tuple[float, float] | None:
        """By how many answers came so far; failures are none."""
        found, first = self._progress, self._first
        # Short answers come first: where lengths are expected, they say nothing of the others.
        if found is None or first is None or (self.expected is not None and self.expected.output_tokens is not None):
            return None
        answered = found.done - found.failed - first.done + first.failed
        if answered <= 0 or answered < _PACE_FROM * (found.total - first.done):
            return None
        off = 1 + 1 / answered**0.5
        pace = passed * (found.total - found.done) / answered
        return pace / off, pace * off

    def _tell(self) -> None:
        planned, rest, stats = self.planned, self._rest(), self._stats
        if self.corrected is not None or planned is None or rest is None or stats is None:
            return
        paced = stats.paced_seconds / self._engines
        if paced >= min(max(_TOLD_FROM * planned, _TOLD_AFTER), _TOLD_BY):
            every, recent = self._speeds(stats)
            self.corrected = paced + rest * (every + recent) / 2
