"""How a run stands, put together from its events: what live view, log lines and metrics show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from blendrun.events import EngineStats, Event, Expected, Note, PhaseStarted, Progress, Work
from blendrun.learned.outlook import Outlook

# Rates are of the last seconds; pictures of the last minute.
_RATE_S, _PICTURE_S = 10.0, 60.0
RUNNING = ("run", "isolate", "drain")


@dataclass(slots=True)
class PhaseTime:
    """A phase of the invocation. ended: None while it lasts. Seconds of the tracker's clock."""

    name: str
    detail: str
    begun: float
    ended: float | None = None


@dataclass(slots=True)
class ProgressTracker:
    """Takes events, answers questions. clock: seconds that only go forwards."""

    clock: Callable[[], float] = time.monotonic
    phases: list[PhaseTime] = field(default_factory=list)
    progress: Progress | None = None
    expected: Expected | None = None
    stats: EngineStats | None = None
    outlook: Outlook = field(init=False)
    begun: float = field(init=False)
    _run_begun: bool = False
    # Of the engine that is up.
    _stats: deque[tuple[float, EngineStats]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.begun, self.outlook = self.clock(), Outlook(self.clock)

    def take(self, event: Event) -> None:
        """Take in an event."""
        now = self.clock()
        self.outlook.take(event)
        if isinstance(event, PhaseStarted):
            self._begin(event, now)
        elif isinstance(event, Expected):
            self.expected = event
        elif isinstance(event, EngineStats):
            self.stats = event
            self._stats.append((now, event))
            while now - self._stats[0][0] > _PICTURE_S:
                self._stats.popleft()
        elif not isinstance(event, Note | Work):
            self.progress = event if self.phase != "load" or event.unit != "requests" else None

    @property
    def phase(self) -> str:
        return self.phases[-1].name if self.phases else ""

    @property
    def detail(self) -> str:
        return self.phases[-1].detail if self.phases else ""

    def seconds(self, phase: PhaseTime) -> float:
        """How long a phase took, or has taken so far."""
        return (self.clock() if phase.ended is None else phase.ended) - phase.begun

    def rates(self) -> tuple[float, float] | None:
        """Prefill and decode tokens/s of the last seconds; None before two figures."""
        if len(self._stats) < 2:
            return None
        last, newest = self._stats[-1]
        then, old = next((each for each in self._stats if last - each[0] <= _RATE_S), self._stats[-2])
        if then == last:
            then, old = self._stats[-2]
        if last <= then:
            return None
        passed = last - then
        return (
            (newest.prefill_tokens - old.prefill_tokens) / passed,
            (newest.decode_tokens - old.decode_tokens) / passed,
        )

    def history(self) -> list[tuple[float, float]]:
        """Prefill and decode tokens/s between the figures of the last minute."""
        found = []
        for (then, old), (now, new) in pairwise(self._stats):
            passed = max(now - then, 1e-9)
            found.append(
                ((new.prefill_tokens - old.prefill_tokens) / passed, (new.decode_tokens - old.decode_tokens) / passed)
            )
        return found

    def prefill_share(self) -> float | None:
        """Part of the steps' time that prefilled, of the last minute."""
        if len(self._stats) < 2:
            return None
        old, new = self._stats[0][1], self._stats[-1][1]
        prefill, decode = new.prefill_seconds - old.prefill_seconds, new.decode_seconds - old.decode_seconds
        return prefill / (prefill + decode) if prefill + decode > 0 else None

    def cached_share(self) -> float | None:
        """Prompt tokens of this invocation's answers that came from the cache."""
        found = self.progress
        return found.cached_tokens / found.prompt_tokens if found and found.prompt_tokens else None

    def planned_share(self) -> float | None:
        """The same, as the plan has it for the whole of the job."""
        plan = self.expected
        if plan is None or plan.hit_tokens is None or not plan.prompt_tokens:
            return None
        return plan.hit_tokens / plan.prompt_tokens

    def left(self) -> tuple[float, float] | None:
        """Least and most seconds to the end of the phase; None where nothing can be said yet."""
        return self.outlook.left()

    def _begin(self, event: PhaseStarted, now: float) -> None:
        self._run_begun = self._run_begun or event.name in RUNNING
        if event.name == "load":
            # Another engine counts from zero.
            self._stats.clear()
        if self.phases and self.phases[-1].name == event.name:
            self.phases[-1].detail = event.detail
            return
        if self.phases:
            self.phases[-1].ended = now
        self.phases.append(PhaseTime(event.name, event.detail, now))
        if event.name not in RUNNING and not self._run_begun:
            self.progress = None
