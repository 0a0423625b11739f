"""What several engines' step logs say, as if they were one engine's."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from blendrun.events import Pulse

# What only grows while an engine lives.
_TOTALS = ("steps", "prefill_tokens", "decode_tokens", "prefill_seconds", "decode_seconds")


@dataclass(slots=True)
class Pulses:
    """The last one of each replica, and the totals of its engines before."""

    _last: dict[int, Pulse] = field(default_factory=dict)
    _before: dict[int, list[Pulse]] = field(default_factory=dict)

    def together(self, replica: int, pulse: Pulse) -> Pulse:
        """Take in a replica's pulse. All of them: sums; seconds are those of all engines."""
        last = self._last.get(replica)
        if last is not None and pulse.steps < last.steps:
            self._before.setdefault(replica, []).append(last)
        self._last[replica] = pulse
        if len(self._last) == 1:
            # One engine; those before it are not counted.
            return pulse
        ended = [each for several in self._before.values() for each in several]
        sums = {
            each.name: sum(getattr(one, each.name) for one in self._last.values())
            + (sum(getattr(one, each.name) for one in ended) if each.name in _TOTALS else 0)
            for each in fields(Pulse)
        }
        return replace(pulse, **sums)
