"""What steps take just now: seconds of a prompt token, of a step that decodes and of a row in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# What is called recent, and a moment of it, in seconds of steps of a kind.
_RECENT, _MOMENT = 60.0, 4.0
# So many seconds of steps of one kind count as much as what all steps say of their speed.
_TRUST = 1.0
# Without a model: part of a decoding step that does not depend on its rows.
_BASE_SHARE = 0.5

# Of what lies between two steps, so many times the first one counts at most.
_LONGEST_STALL = 10.0

# What the plan's model says of a step: see `simulate.price`, which has the columns.
Price = Callable[[float, float, float, float, float], float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. prefill: of a prompt token. base, row: of a step that decodes, and of each row in it.

    prefill_seen, decode_seen: of the steps that these figures are of. wall: seconds that pass in a second of steps,
    with what lies between them: 1 or more. fastest, slowest: how often as long steps
    that decode took at some moments of the last minute.
    """

    prefill: float
    base: float
    row: float
    prefill_seen: float
    decode_seen: float
    wall: float = 1.0
    fastest: float = 1.0
    slowest: float = 1.0


@dataclass(slots=True)
class _Recent:
    """Steps of one kind: seconds, seconds by the model, tokens or rows."""

    kept: deque[tuple[float, float, float]] = field(default_factory=deque)
    seconds: float = 0.0
    priced: float = 0.0
    size: float = 0.0

    def add(self, seconds: float, priced: float, size: float) -> None:
        self.kept.append((seconds, priced, size))
        self._count(seconds, priced, size)
        while len(self.kept) > 1 and self.seconds - self.kept[0][0] >= _RECENT:
            self._count(*(-each for each in self.kept.popleft()))

    def _count(self, seconds: float, priced: float, size: float) -> None:
        self.seconds, self.priced, self.size = self.seconds + seconds, self.priced + priced, self.size + size


@dataclass(slots=True)
class PaceKeeper:
    """Takes steps one after the other, says what the next ones will take. price: of the plan's model, if it has one."""

    price: Price | None = None
    _prefill: _Recent = field(default_factory=_Recent)
    _decode: _Recent = field(default_factory=_Recent)
    _moment: _Recent = field(default_factory=_Recent)
    # Seconds of a step, or of a second by the model, at each moment of the last minute.
    _moments: deque[float] = field(default_factory=lambda: deque(maxlen=int(_RECENT / _MOMENT)))
    _wall: _Recent = field(default_factory=_Recent)

    def add(
        self, step: tuple[float, float, float, float, float], seconds: float, priced: float, wall: float | None = None
    ) -> None:
        """step: prefill tokens, their square, rows, context and requests that begin. priced: by the model, else 0.

        wall: seconds until the next step began; None where there is none.
        """
        if wall is not None:
            # An engine that had nothing to do for long says nothing of its steps.
            self._wall.add(seconds, 0.0, min(max(wall, seconds), _LONGEST_STALL * seconds))
        prefill, square, rows, _, new = step
        share = 1.0
        if prefill and rows:
            # One step for both: divided as the model has it, else by tokens.
            share = self.price(prefill, square, 0, 0, new) / priced if self.price and priced else 0.0
            share = min(max(share, prefill / (prefill + rows)), 1.0)
        if prefill:
            self._prefill.add(seconds * share, priced * share, prefill)
        if rows:
            share = 1.0 - share if prefill else 1.0
            self._decode.add(seconds * share, priced * share, rows)
            self._moment.add(seconds * share, priced * share, rows)
            if self._moment.seconds >= _MOMENT:
                self._moments.append(_unit(self._moment))
                self._moment = _Recent()

    def pace(self, rows: int, context: float) -> Pace | None:
        """Of steps with up to so many rows of so many tokens each; None before any step says it."""
        rows, prefill, decode = max(rows, 1), self._prefill, self._decode
        if self.price is not None and prefill.priced + decode.priced > 0:
            speed = (prefill.seconds + decode.seconds) / (prefill.priced + decode.priced)
            one, all_rows = (self.price(0, 0, each, each * context, 0) for each in (1, rows))
            slope = max(all_rows - one, 0.0) / max(rows - 1, 1)
            by_decode = (decode.seconds + _TRUST * speed) / (decode.priced + _TRUST)
            base, row = max(one - slope, 0.0) * by_decode, slope * by_decode
        elif decode.size:
            step = decode.seconds / len(decode.kept)
            base, row = _BASE_SHARE * step, (1 - _BASE_SHARE) * step * len(decode.kept) / decode.size
        else:
            return None
        # What decoding a row takes is more than what reading a token takes.
        token = prefill.seconds / prefill.size if prefill.size else row
        wall = self._wall.size / self._wall.seconds if self._wall.seconds else 1.0
        return Pace(token, base, row, prefill.seconds, decode.seconds, wall, *self._extremes())

    def _extremes(self) -> tuple[float, float]:
        """How fast and how slow the machine was for a moment, as times of its mean over the last minute."""
        if not self._moments:
            return 1.0, 1.0
        mean = _unit(self._decode)
        return min(*self._moments, mean) / mean, max(*self._moments, mean) / mean


def _unit(steps: _Recent) -> float:
    """Seconds of a step; of what the model says to be one, where there is a model, as steps differ."""
    return steps.seconds / (steps.priced or len(steps.kept))
