"""How long a run will still take: what the plan says of its work, at the speed that its steps turn out to have."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from blendrun.events import EngineStats, Event, Expected, PhaseStarted, Work

# So many seconds speak for the plan's own speed, until those of real steps outweigh them.
_TRUST = 3.0
# What is called recent, in seconds of steps.
_RECENT = 60.0
# A pace needs a hundredth of the work behind it.
_PACE_FROM = 0.01
# A correction is told once a tenth of the plan is done, but not before some seconds, and after two minutes in any case.
_TOLD_FROM, _TOLD_AFTER, _TOLD_BY = 0.1, 5.0, 120.0
# Of the time that the work which is left would have by its tokens: it takes so much, whatever the plan has left.
_LEAST = 0.5


@dataclass(slots=True)
class Outlook:
    """Takes a run's events, says what is left. corrected: seconds of the whole run phase as they looked when enough of
    it was seen; None before, and without a plan of all of it."""

    expected: Expected | None = None
    corrected: float | None = None
    _stats: EngineStats | None = None
    _work: Work | None = None
    # Seconds of steps, real and by the plan, at some moments of the last minute.
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def take(self, event: Event) -> None:
        """Take in an event; all but four kinds say nothing here."""
        if isinstance(event, Expected):
            self.expected, self._stats, self._work = event, None, None
            self._recent.clear()
        elif isinstance(event, PhaseStarted) and event.name == "load":
            # Another engine counts from zero.
            self._stats = self._work = None
            self._recent.clear()
        elif isinstance(event, Work):
            self._work = event
        elif isinstance(event, EngineStats):
            self._stats = event
            self._recent.append((event.paced_seconds, event.priced_seconds))
            while event.paced_seconds - self._recent[0][0] > _RECENT * self._engines:
                self._recent.popleft()
            self._tell()

    def left(self, passed: float) -> tuple[float, float] | None:
        """Least and most seconds to the end of the phase; None where neither plan nor pace says anything.

        passed: seconds since the engine began to work.
        """
        rest, stats = self._rest(), self._stats
        if rest is not None and stats is not None:
            speeds = self._speeds(stats)
            return rest * min(speeds), rest * max(speeds)
        return self._by_pace(passed)

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
        work = self._work
        if work is None:
            return None
        pairs = ((work.done_prompt, work.left_prompt), (work.done_output, work.left_output))
        paces = [passed * left / done for done, left in pairs if done > 0 and done >= _PACE_FROM * (done + left)]
        return (min(paces), max(paces)) if paces else None

    def _tell(self) -> None:
        planned, rest, stats = self.planned, self._rest(), self._stats
        if self.corrected is not None or planned is None or rest is None or stats is None:
            return
        paced = stats.paced_seconds / self._engines
        if paced >= min(max(_TOLD_FROM * planned, _TOLD_AFTER), _TOLD_BY):
            every, recent = self._speeds(stats)
            self.corrected = paced + rest * (every + recent) / 2
