"""What follows a death of the engine: start again, look for the request that kills it, or give up.

One death says nothing. Requests that were in flight at two deaths are suspects: they run alone, in halves, until one
request is left that ends the engine by itself; it becomes an error line. An engine that ran out of memory starts again
smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

# Each time the window is halved; an engine of an eighth of its size that runs out of memory will not fit at all.
_MOST_SHRINKS = 3


@dataclass(slots=True)
class Recovery:
    """most: restarts allowed that no request was found guilty of.

    used: of these. blamed: requests found guilty since the last answer; an engine that dies of all of them is ill
    itself. shrinks: times that the engine was made smaller. groups: rows to be run alone, one group after the other;
    the first one is running.
    """

    most: int
    used: int = 0
    blamed: int = 0
    shrinks: int = 0
    groups: deque[list[int]] = field(default_factory=deque)
    _suspects: frozenset[int] = frozenset()

    @property
    def given_up(self) -> bool:
        return self.used > self.most or self.blamed > self.most

    def answered(self) -> None:
        """A request has got its answer."""
        self.blamed = 0

    def keep(self, unfinished: Collection[int]) -> None:
        """Of the groups, what has no answer yet."""
        left = set(unfinished)
        groups = ([row for row in group if row in left] for group in self.groups)
        self.groups = deque(group for group in groups if group)

    def survived(self) -> None:
        """The first group is answered."""
        self.groups.popleft()

    def died(
        self, in_flight: Collection[int], *, out_of_memory: bool = False, machine_lost: bool = False
    ) -> int | None:
        """Take in a death with these rows in flight. Returns the row that is to blame, if that is clear now.

        machine_lost: whatever ran there, it would have died.
        """
        if machine_lost:
            self.used += 1
            return None
        if self.groups and in_flight:
            return self._narrow(sorted(in_flight))
        self.used += 1
        # It may be one request that needs too much: the search for it does not wait until nothing is left to shrink.
        self.shrinks += out_of_memory and self.shrinks < _MOST_SHRINKS
        common = self._suspects.intersection(in_flight)
        self._suspects = common or frozenset(in_flight)
        if common:
            self.groups.extend(_halves(sorted(common)))
        return None

    def _narrow(self, left: list[int]) -> int | None:
        """The first group ended the engine with `left` unanswered."""
        self.groups.popleft()
        if len(left) > 1:
            self.groups.extendleft(reversed(_halves(left)))
            return None
        # Two deaths before and this one are explained; the others are as good as any.
        self.used, self.shrinks, self._suspects = 0, 0, frozenset()
        self.blamed += 1
        self.groups.clear()
        return left[0]


def _halves(rows: list[int]) -> list[list[int]]:
    middle = len(rows) // 2
    return [half for half in (rows[:middle], rows[middle:]) if half]
