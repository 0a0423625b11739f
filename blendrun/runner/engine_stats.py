"""What several engines' step logs say, as if they were one engine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from blendrun.events import EngineStats, Work

# What only grows while an engine lives.
_TOTALS = (
    "steps",
    "prefill_tokens",
    "decode_tokens",
    "prefill_seconds",
    "decode_seconds",
    "paced_seconds",
    "priced_seconds",
)


@dataclass(slots=True)
class CombinedStats:
    """The last one of each replica, and the totals of its engines before."""

    _last: dict[int, EngineStats] = field(default_factory=dict)
    _before: dict[int, list[EngineStats]] = field(default_factory=dict)
    _work: dict[int, Work] = field(default_factory=dict)

    def combine(self, replica: int, stats: EngineStats) -> EngineStats:
        """Take in a replica's figures, and return those of all: sums; seconds are those of all engines."""
        last = self._last.get(replica)
        if last is not None and stats.steps < last.steps:
            self._before.setdefault(replica, []).append(last)
        self._last[replica] = stats
        if len(self._last) == 1:
            # One engine; those before it are not counted.
            return stats
        ended = [each for several in self._before.values() for each in several]
        sums = {
            each.name: sum(getattr(one, each.name) for one in self._last.values())
            + (sum(getattr(one, each.name) for one in ended) if each.name in _TOTALS else 0)
            for each in fields(EngineStats)
        }
        return replace(stats, **sums)

    @property
    def in_flight(self) -> tuple[float, float] | None:
        """Least and most seconds until all that engines have is answered, as it was last known."""
        return _last([one.in_flight for one in self._work.values()]) if self._work else None

    def combine_work(self, replica: int, work: Work) -> Work:
        """Take in what is behind a replica's engine and before it, and return the same of all."""
        self._work[replica] = work
        every = list(self._work.values())
        return Work(
            sum(one.done_prompt for one in every),
            sum(one.done_output for one in every),
            sum(one.left_prompt for one in every),
            sum(one.left_output for one in every),
            ahead=_last([one.ahead for one in every]),
            in_flight=_last([one.in_flight for one in every]),
        )


def _last(seconds: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Until the last one of several engines is done; None where one of them cannot say."""
    known = [each for each in seconds if each is not None]
    if len(known) < len(seconds):
        return None
    return max(low for low, _ in known), max(high for _, high in known)
