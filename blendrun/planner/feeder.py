"""Which request the engine gets next: the next of a list, or of either end of a blend's row by what is in the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Blend, Order, Turn
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.planner.cursors import DualCursor, ListCursor
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """One request to hand over now.

    row: of the Job. index: how many were handed over before. prompt: its number in `Prompts`, -1 for one without.
    side: end of the blend's row that it came from. output: expected output tokens of each choice, 0 where nobody knows.
    reuse: leading prompt tokens that a request fed later can use again. hit: those that one fed before had too.
    subtree: node of the prefix tree that its leaf hangs on, -1 for one without a prompt. tokens: of the prompt.
    turn: what its turn depends on in the engine, of a request of a blend.
    """

    row: int
    index: int
    prompt: int = -1
    side: int = LEFT
    output: int = 0
    reuse: int = 0
    hit: int = 0
    subtree: int = -1
    tokens: int = 0
    turn: Turn | None = None


# So many are left to him who has them: what is handed over next must be there when it is asked for.
_FEWEST = 2


class Feeder(Protocol):
    """Asked for the next request whenever the engine has room for one more; told when one has ended."""

    def take(self, side: int | None = None) -> QueuedRequest | None:
        """The next request; None when all were taken.

        side: of a blend, that the request is to come from where there is a choice; None for the one whose turn it is by
        what was fed and has not ended.
        """
        ...

    @property
    def sided(self) -> bool:
        """Whether there is a choice of sides."""
        ...

    @property
    def right_short(self) -> bool:
        """Whether what was taken of the right side and has not ended holds less of the pool than its part."""
        ...

    @property
    def waiting(self) -> float:
        """How many of those that were taken and have not ended the engine's pool has no room for, by what is expected.

        0 where nothing is expected of them.
        """
        ...

    def ended(self, queued: QueuedRequest) -> None:
        """A request taken from here is answered."""
        ...

    @property
    def unfed(self) -> int:
        """Requests that were not taken yet."""
        ...

    @property
    def to_come(self) -> tuple[float, float] | None:
        """Prompt tokens, and output tokens that are expected, of the requests that were not taken yet; None where
        nobody knows."""
        ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Of the Job, of the requests that were not taken yet: i64."""
        ...

    def split_off(self) -> Feeder | None:
        """About half of what was not taken yet, to be fed by somebody else; None where there is nothing to divide."""
        ...


class RowFeeder:
    """Rows of a job one after the other, of which nothing is planned."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        """rows: i64, in feed order."""
        self._rows = rows
        self._taken = 0

    @property
    def unfed(self) -> int:
        return len(self._rows) - self._taken

    @property
    def to_come(self) -> tuple[float, float] | None:
        return None

    @property
    def rows(self) -> NDArray[np.int64]:
        return self._rows[self._taken :]

    def split_off(self) -> RowFeeder | None:
        if self.unfed < _FEWEST:
            return None
        cut = self._taken + (self.unfed + 1) // 2
        given, self._rows = self._rows[cut:], self._rows[:cut]
        return RowFeeder(given)

    @property
    def sided(self) -> bool:
        return False

    @property
    def right_short(self) -> bool:
        return False

    @property
    def waiting(self) -> float:
        return 0.0

    def take(self, side: int | None = None) -> QueuedRequest | None:
        if self._taken == len(self._rows):
            return None
        self._taken += 1
        return QueuedRequest(int(self._rows[self._taken - 1]), self._taken - 1)

    def ended(self, queued: QueuedRequest) -> None:
        """Nothing depends on it."""


def parents(tree: PrefixTree) -> NDArray[np.int64]:
    """The node above the leaf of each prompt: i64 (M,)."""
    found = np.empty(tree.prompts, dtype=np.int64)
    found[tree.prompt] = tree.parent[tree.leaf]
    return found


class Waiting:
    """What is still to be fed below each node of the tree: says how much of a prompt will be wanted again."""

    def __init__(self, tree: PrefixTree, wanted: NDArray[np.bool_]) -> None:
        """wanted: bool (M,), the prompts to be fed."""
        self._parent, self._depth = tree.parent, tree.depth
        self._leaf = np.empty(tree.prompts, dtype=np.int64)
        self._leaf[tree.prompt] = tree.leaf
        own = np.bincount(self._leaf[wanted], minlength=len(tree)).astype(np.float64)
        self._below = tree.subtree_sum(own).astype(np.int64)
        self._all = self._below.copy()

    def drop(self, prompt: int) -> None:
        """A prompt will be fed by somebody else."""
        node = int(self._leaf[prompt])
        while node > 0:
            self._below[node] -= 1
            self._all[node] -= 1
            node = int(self._parent[node])

    def take(self, prompt: int) -> tuple[int, int]:
        """Count a prompt as fed.

        Returns its leading tokens that one still to be fed begins with, and those that one fed before began with.
        """
        node, reuse, hit = int(self._leaf[prompt]), 0, 0
        while node > 0:
            below = self._below[node] = self._below[node] - 1
            if reuse == 0 and below > 0:
                reuse = int(self._depth[node])
            if hit == 0 and below + 1 < self._all[node]:
                hit = int(self._depth[node])
            node = int(self._parent[node])
        return reuse, hit


class PlanFeeder:
    """The wanted prompts of a plan: first `sample`, in its order, then by an order's list or from both ends of a blend.

    From a blend, the side comes next that holds less of the pool than its share (docs/paper.md#the-dual-scan,
    `blend.scan`), by what was fed and has not ended; shares follow the units at both ends and what is left of the job.
    When all that is left fits the pool beside what runs, the longest comes first, as nothing behind it will fill the
    machine.
    """

    def __init__(
        self,
        prompts: Prompts,
        tree: PrefixTree,
        lengths: Lengths,
        plan: Order | Blend,
        *,
        wanted: NDArray[np.bool_],
        pool_tokens: int,
        unplanned: NDArray[np.int64] | None = None,
        sample: NDArray[np.int64] | None = None,
        subtree: NDArray[np.int64] | None = None,
        paced: bool = False,
    ) -> None:
        """wanted: bool (M,), prompts to be fed. pool_tokens: of the engine. paced: see `SimulatedEngine`.

        subtree: i64 (M,), where each `QueuedRequest` hangs; None for the tree's own nodes, where it is not that of the
        whole job.
        unplanned: i64, rows of the Job without a prompt, fed last of all: nobody knows what they take, and most are
        refused. sample: i64, prompts to be fed first.
        """
        self._unplanned = [] if unplanned is None else unplanned.tolist()[::-1]
        self._prompts, self._tree, self._pool = prompts, tree, float(pool_tokens)
        self._waiting = Waiting(tree, wanted)
        self._subtree = parents(tree) if subtree is None else subtree
        self._left_to_feed = wanted.copy()
        self._sample = [] if sample is None else sample[wanted[sample]].tolist()[::-1]
        self._count, self._paced = 0, paced
        # Prompt to side, of what was fed and has not ended; and the tokens of the pool that all of it holds on the mean
        # of its stay.
        self._running: dict[int, int] = {}
        self._held = 0.0
        self.replan(lengths, plan)

    @property
    def unfed(self) -> int:
        """Requests that were not taken yet, those without a prompt included."""
        return int(self._left_to_feed.sum()) + len(self._unplanned)

    @property
    def to_come(self) -> tuple[float, float] | None:
        left, prompts = self._left_to_feed, self._prompts
        output = (self._expected[left] * prompts.choices[left]).sum()
        return float(prompts.prompt_tokens[left].sum(dtype=np.int64)), float(output)

    @property
    def rows(self) -> NDArray[np.int64]:
        unplanned = np.array(self._unplanned, dtype=np.int64)
        return np.concatenate((self._prompts.row[self._left_to_feed], unplanned))

    def split_off(self) -> PlanFeeder | None:
        """Sub-trees from where this feeder would come last: half of the tokens that are left, in depth-first order."""
        left = self._cursor.left(self._left_to_feed)
        if len(left) < _FEWEST:
            return None
        tokens = np.cumsum(self._prompts.prompt_tokens[left] + self._prompts.choices[left] * self._expected[left])
        begin, end = (int(np.searchsorted(tokens, share * tokens[-1])) for share in self._cursor.last_half)
        begin = self._border(left, max(begin, 1))
        # One prompt at least, where a single one has most of the tokens.
        end = max(self._border(left, min(end + 1, len(left))), begin + 1)
        given = left[begin:end]
        self._left_to_feed[given] = False
        for prompt in given.tolist():
            self._waiting.drop(prompt)
        self._cursor.drop(given, self._left_to_feed)
        mine = np.zeros(len(self._left_to_feed), dtype=np.bool_)
        mine[given] = True
        depth_first = given[np.argsort(self._tree.position[given], kind="stable")]
        order = Order(OrderName.SORTED, depth_first, np.full(len(given), LEFT, dtype=np.uint8))
        return PlanFeeder(
            self._prompts,
            self._tree,
            self._lengths,
            order,
            wanted=mine,
            pool_tokens=int(self._pool),
            subtree=self._subtree,
        )

    def _border(self, left: NDArray[np.int64], place: int) -> int:
        """The first place from `place` on where another sub-tree begins; `place` where none does nearby."""
        for other in range(place, min(place + len(left) // 8, len(left))):
            if self._subtree[left[other]] != self._subtree[left[other - 1]]:
                return other
        return place

    def expected(self, prompt: int) -> int:
        """Output tokens of each choice that are expected now."""
        return int(self._expected[prompt])

    def expect(self, lengths: Lengths) -> None:
        """From now on expect other lengths, and feed as before."""
        self._lengths = lengths
        self._expected = np.maximum(np.rint(lengths.mean), 1).astype(np.int64)

    def lengths_of(self, prompts: NDArray[np.int64]) -> Lengths:
        """What is expected now of each choice of some prompts, i64 (n,), as often as each wants choices."""
        return self._lengths.take(np.repeat(prompts, self._prompts.choices[prompts]))

    def for_choices(self, prompts: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """A value of each prompt, (n,), as often as it wants choices."""
        return np.repeat(values, self._prompts.choices[prompts])

    def tokens_of(self, prompts: NDArray[np.int64]) -> float:
        """Prompt tokens of some prompts, together."""
        return float(self._prompts.prompt_tokens[prompts].sum(dtype=np.int64))

    def next_up(self, most: int) -> NDArray[np.int64] | None:
        """Prompts that were not taken yet, the longest first: i64; None where they are more than `most`."""
        if int(self._left_to_feed.sum()) > most:
            return None
        left = np.flatnonzero(self._left_to_feed)
        return left[np.argsort(-self._lengths.mean[left], kind="stable")]

    def replan(self, lengths: Lengths, plan: Order | Blend) -> None:
        """From now on expect other lengths, and feed what is left by another plan of the same prompts."""
        self.expect(lengths)
        self._cursor: ListCursor | DualCursor
        if isinstance(plan, Blend):
            self._cursor = DualCursor(plan, self._left_to_feed, self._pool, self._running)
        else:
            self._cursor = ListCursor(plan.prompt)

    def fit_pool(self, tokens: int, lengths: Lengths, plan: Order | Blend) -> None:
        """From now on feed what is left to a pool of so many tokens, by a plan made for that."""
        self._pool = float(tokens)
        self.replan(lengths, plan)

    @property
    def sided(self) -> bool:
        return isinstance(self._cursor, DualCursor)

    @property
    def right_short(self) -> bool:
        return self._cursor.right_short

    @property
    def waiting(self) -> float:
        if not self._running:
            return 0.0
        return max(self._held - self._pool, 0.0) * len(self._running) / self._held

    def take(self, side: int | None = None) -> QueuedRequest | None:
        prompt, side = self._next(side)
        if prompt < 0:
            if not self._unplanned:
                return None
            self._count += 1
            return QueuedRequest(self._unplanned.pop(), self._count - 1)
        self._cursor.note(prompt, side)
        turn = self._cursor.turn(prompt, side, self._paced)
        self._left_to_feed[prompt] = False
        self._running[prompt] = side
        self._count += 1
        reuse, hit = self._waiting.take(prompt)
        # The last token of a prompt is computed in any case.
        hit = min(hit, int(self._prompts.prompt_tokens[prompt]) - 1)
        queued = QueuedRequest(
            row=int(self._prompts.row[prompt]),
            index=self._count - 1,
            prompt=prompt,
            side=side,
            output=int(self._expected[prompt]),
            reuse=reuse,
            hit=hit,
            subtree=int(self._subtree[prompt]),
            tokens=int(self._prompts.prompt_tokens[prompt]),
            turn=turn,
        )
        self._held += self._holds(queued)
        return queued

    def ended(self, queued: QueuedRequest) -> None:
        side = self._running.pop(queued.prompt, None)
        if side is not None:
            self._held -= self._holds(queued)
            self._cursor.ended(queued.prompt, side)

    def _holds(self, queued: QueuedRequest) -> float:
        """Tokens of the pool that are a request's alone, on the mean of its stay."""
        return queued.tokens - queued.hit + float(self._prompts.choices[queued.prompt]) * queued.output / 2

    def _next(self, side: int | None) -> tuple[int, int]:
        """Prompt and side; -1 when none is left."""
        while self._sample:
            prompt = self._sample.pop()
            if self._left_to_feed[prompt]:
                return prompt, LEFT
        return self._cursor.next(self._left_to_feed, side)
