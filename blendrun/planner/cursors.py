"""Where a feeder takes its next prompt from: the front of a list, or either end of a blend's row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, RIGHT, Blend, Turn
from blendrun.blend.scan import first_side, left_share


class ListCursor:
    """Prompts in a fixed order."""

    # Shares of what is left between which half of it lies that comes last.
    last_half = (0.5, 1.0)
    right_short = False

    def __init__(self, prompt: NDArray[np.int64]) -> None:
        self._prompt, self._at = prompt, 0

    def left(self, left_to_feed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Prompts that are left, in their order."""
        rest = self._prompt[self._at :]
        return rest[left_to_feed[rest]]

    def drop(self, prompt: NDArray[np.int64], left_to_feed: NDArray[np.bool_]) -> None:
        """What is not left is passed over."""

    def next(self, left_to_feed: NDArray[np.bool_], side: int | None = None) -> tuple[int, int]:
        while self._at < len(self._prompt):
            prompt = int(self._prompt[self._at])
            self._at += 1
            if left_to_feed[prompt]:
                return prompt, LEFT
        return -1, LEFT

    def turn(self, prompt: int, side: int, paced: bool) -> None:
        """The place says it all."""

    def note(self, prompt: int, side: int) -> None:
        """Nothing is counted."""

    def ended(self, prompt: int, side: int) -> None:
        """Nothing is counted."""


class DualCursor:
    """A blend's row, read from both ends."""

    # Between both ends.
    last_half = (0.25, 0.75)

    def __init__(self, plan: Blend, left_to_feed: NDArray[np.bool_], pool: float, running: dict[int, int]) -> None:
        row, held = plan.row, plan.row.held
        self._row, self._prompt, self._pool = row, plan.row_prompt, pool
        self._place = np.empty(len(self._prompt), dtype=np.int64)
        self._place[self._prompt] = np.arange(len(self._prompt))
        self._left, self._right = 0, len(self._prompt) - 1
        rest = left_to_feed[self._prompt]
        self._compute, self._memory = float(held.compute[rest].sum()), float(held.memory[rest].sum())
        # Tokens of each at its end.
        self._size = row.size
        self._size_left = float(self._size[rest].sum())
        self._size_running = 0.0
        self._tail: list[int] | None = None
        self._holding = [0.0, 0.0]
        for prompt, side in running.items():
            # One that will be longer than it was thought to be may belong to the other side now.
            place = self._place[prompt]
            rho = self._compute / max(self._memory, 1e-30)
            running[prompt] = side = side if rho <= 0 else LEFT if row.density[row.unit[place]] >= rho else RIGHT
            self._holding[side] += self._mean(place, side)
            self._size_running += float(self._size[place])

    def next(self, left_to_feed: NDArray[np.bool_], side: int | None = None) -> tuple[int, int]:
        """Prompt and side; -1 when none is left. side: to take from; None for the one whose turn it is."""
        while self._left <= self._right and not left_to_feed[self._prompt[self._left]]:
            self._left += 1
        while self._left <= self._right and not left_to_feed[self._prompt[self._right]]:
            self._right -= 1
        if self._left > self._right:
            return -1, LEFT
        # Together with what runs: else prefixes that one of the rest wants would have to make room for another.
        if self._tail is None and self._size_left + self._size_running <= self._pool:
            rest = np.arange(self._left, self._right + 1)
            rest = rest[left_to_feed[self._prompt[rest]]]
            # Of equal ones, those at the front first; the list is taken from its end.
            self._tail = rest[np.argsort(-self._row.held.reach[rest], kind="stable")][::-1].tolist()
        if self._tail is not None:
            place, side = self._tail.pop(), LEFT
        else:
            side = self._side() if side is None else side
            place = self._left if side == LEFT else self._right
        return int(self._prompt[place]), side

    def left(self, left_to_feed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Prompts that are left, in the row's order."""
        rest = self._prompt[self._left : self._right + 1]
        return rest[left_to_feed[rest]]

    def drop(self, prompt: NDArray[np.int64], left_to_feed: NDArray[np.bool_]) -> None:
        """Prompts that somebody else will feed."""
        place = self._place[prompt]
        self._compute -= float(self._row.held.compute[place].sum())
        self._memory -= float(self._row.held.memory[place].sum())
        self._size_left -= float(self._size[place].sum())
        if self._tail is not None:
            self._tail = [each for each in self._tail if left_to_feed[self._prompt[each]]]

    def note(self, prompt: int, side: int) -> None:
        """Count what was fed."""
        place = self._place[prompt]
        self._compute -= float(self._row.held.compute[place])
        self._memory -= float(self._row.held.memory[place])
        self._size_left -= float(self._size[place])
        self._size_running += float(self._size[place])
        self._holding[side] += self._mean(place, side)

    def ended(self, prompt: int, side: int) -> None:
        place = self._place[prompt]
        self._holding[side] -= self._mean(place, side)
        self._size_running -= float(self._size[place])

    @property
    def right_short(self) -> bool:
        """Whether the right side holds less than its part, by what was fed and has not ended."""
        if self._left > self._right or self._tail is not None:
            return False
        return self._holding[RIGHT] < (1 - self._share()) * self._pool

    def _side(self) -> int:
        """By the rule that the simulator goes by, so that what it predicts is what is fed."""
        row = self._row
        keep_left, keep_right = bool(row.keep_left[self._left]), bool(row.keep_right[self._right])
        return first_side(keep_left, keep_right, self._holding[RIGHT], (1 - self._share()) * self._pool)

    def _share(self) -> float:
        """Of the pool, the left side's, by the units at both ends and what is left of the job."""
        row, left, right = self._row, self._row.unit[self._left], self._row.unit[self._right]
        rho = self._compute / max(self._memory, 1e-30)
        return left_share(row.density[left], row.density[right], rho, row.reads[left], row.reads[right])

    def turn(self, prompt: int, side: int, paced: bool) -> Turn:
        """Of the prompt that was noted last. paced: whether a side admits at an even pace.

        A side that holds its part on the mean admits a request's tokens times its steps every so many steps, as
        `simulate.admission` has it.
        """
        row, place = self._row, int(self._place[prompt])
        held, unit = row.held, row.unit[place]
        steps = float(held.steps[place]) - 1
        area = steps * float(held.prompt[place] + held.rows[place] * steps / 2)
        keep = row.keep_right if side == RIGHT else row.keep_left
        return Turn(
            side=side,
            holds=self._mean(place, side),
            area=area if paced and self._tail is None else 0.0,
            stays=bool(keep[place]) and self._tail is None,
            unit=int(unit),
            density=float(row.density[unit]),
            reads=float(row.reads[unit]),
            compute=float(held.compute[place]),
            memory=float(held.memory[place]),
            rest_compute=self._compute,
            rest_memory=self._memory,
            size=float(self._size[place]),
            rest_size=self._size_left,
            reach=float(held.reach[place]),
        )

    def _mean(self, place: int, side: int) -> float:
        """Tokens of the pool that a request holds on the mean of its stay."""
        own = self._row.own_left[place] if side == LEFT else self._row.own_right[place]
        return float(own + self._row.held.rows[place] * self._row.held.steps[place] / 2)
