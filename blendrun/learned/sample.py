"""Steps of a run that stand for all of them: a few of each kind, however long the run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from blendrun.learned.base import Evidence

# Of one kind, before every second one is dropped.
_MOST = 24


class StepSample:
    """Takes the steps of an engine one after the other. Kinds are powers of two of tokens, rows and context, so that
    rare steps are not lost among many alike; at most some thousand steps are kept.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, int, int], _Kind] = {}

    def add(self, prefill: int, square: float, rows: int, context: int, new: int, seconds: float) -> None:
        """A step as `blendrun.simulate.price.step_prices` has it, and the seconds that it took."""
        # A context of four times the size is another kind: there are few of those in one run.
        key = prefill.bit_length(), rows.bit_length(), context.bit_length() // 2
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
        kind.add((prefill, square, rows, context, new, seconds))

    @property
    def evidence(self) -> Evidence:
        """What was taken so far."""
        return joined((self,))

    @property
    def kinds(self) -> tuple[_Kind, ...]:
        return tuple(self._kinds.values())


class _Kind:
    """Every n-th step of one kind, n doubled whenever they are too many."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, ...]] = []
        self.seen = 0
        self._every = 1

    def add(self, step: tuple[float, ...]) -> None:
        if self.seen % self._every == 0:
            self.steps.append(step)
        self.seen += 1
        if len(self.steps) > _MOST:
            self.steps = self.steps[::2]
            self._every *= 2


def joined(samples: Iterable[StepSample]) -> Evidence:
    """The steps of several engines of one run."""
    kinds = [kind for sample in samples for kind in sample.kinds]
    rows = np.array([step for kind in kinds for step in kind.steps], dtype=np.float64).reshape(-1, 6)
    weight = [np.full(len(kind.steps), kind.seen / len(kind.steps)) for kind in kinds]
    return Evidence(rows[:, :5], rows[:, 5], np.concatenate(weight) if weight else np.zeros(0))
