"""Who answers what: the requests of a job among engines that work side by side.

Each replica begins with a part of the job (`blend.partition`). One that has handed over all of its own goes on with
what a replica that died has given back, then with half of what is left of the reserve, then with half of what the one
with most left has not handed over yet: sub-trees, in depth-first order; what was given back is planned anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.threads import in_thread
from blendrun.planner.feeder import Feeder, RowFeeder
from blendrun.planner.run_plan import RunPlan

# How soon a replica without work sees that there is some again.
_LOOK_S = 0.1


@dataclass(slots=True)
class WorkPool:
    """On one event loop. Replicas are numbered from 1.

    rows: of the job. make_plan: of some of them. unfinished: rows that have no answer yet. stopping: whether no more is
    to be handed over.
    """

    rows: int
    make_plan: Callable[[NDArray[np.int64]], RunPlan]
    unfinished: Callable[[], NDArray[np.int64]]
    stopping: Callable[[], bool]
    _owner: NDArray[np.int32] = field(init=False)
    _plans: dict[int, RunPlan] = field(default_factory=dict)
    _reserve: RunPlan | None = None
    _free: list[NDArray[np.int64]] = field(default_factory=list)
    _replicas: set[int] = field(default_factory=set)
    _up: set[int] = field(default_factory=set)
    _begun: int = 0

    def __post_init__(self) -> None:
        self._owner = np.zeros(self.rows, dtype=np.int32)

    @property
    def several(self) -> bool:
        """Whether there is, or was, anybody to take requests from."""
        return self._begun > 1

    def begin(self, plans: Sequence[RunPlan], reserve: RunPlan | None = None) -> None:
        """plans: what each replica begins with. reserve: for those who are done first."""
        self._reserve, self._begun = reserve, len(plans)
        for replica, plan in enumerate(plans, start=1):
            self._replicas.add(replica)
            self._hand(replica, plan)

    def give_back(self, replica: int, *, keep: Collection[int] = ()) -> None:
        """A replica's engine died: others may have what it has not answered, but for the rows `keep`."""
        self._plans.pop(replica, None)
        unfinished = self.unfinished()
        rows = np.setdiff1d(unfinished[self._owner[unfinished] == replica], np.array(list(keep), dtype=np.int64))
        if len(rows):
            self._owner[rows] = 0
            self._free.append(rows)

    def up(self, replica: int, ready: bool) -> None:
        """Whether a replica has an engine that takes requests now."""
        (self._up.add if ready else self._up.discard)(replica)

    def leave(self, replica: int) -> None:
        """A replica takes nothing more."""
        self._replicas.discard(replica)
        self._plans.pop(replica, None)

    def _hand(self, replica: int, plan: RunPlan) -> RunPlan:
        """The replica has the plan's requests from now on."""
        self._owner[plan.feeder.rows] = replica
        self._plans[replica] = plan
        return plan

    async def more(self, replica: int) -> RunPlan | None:
        """What a replica without work is to do next; None when there is nothing and none will come.

        Waits while others may still give something back.
        """
        while not self.stopping():
            if self._free:
                return await self._planned(replica)
            if (plan := self._steal()) is not None:
                return self._hand(replica, plan)
            if len(self._replicas) < 2 or not len(self.unfinished()):
                return None
            await asyncio.sleep(_LOOK_S)
        return None

    async def _planned(self, replica: int) -> RunPlan:
        """A fair piece of what was given back; all of it for the only one. In a thread: a signal must not wait."""
        rows = self._free.pop()
        share = -(-len(rows) // max(len(self._replicas), 1))
        if share < len(rows):
            self._free.append(rows[share:])
        # Its own before there is a plan: one that dies while it waits gives them back.
        self._owner[rows[:share]] = replica
        return self._hand(replica, await in_thread(self.make_plan, rows[:share]))

    def _steal(self) -> RunPlan | None:
        """Of the reserve, or else of whoever has most left."""
        if self._reserve is not None and self._reserve.feeder.unfed:
            if (feeder := self._reserve.feeder.split_off()) is not None:
                return _loose(self._reserve, feeder)
            # One request: nothing to divide.
            reserve, self._reserve = self._reserve, None
            return reserve
        for owner, plan in sorted(self._plans.items(), key=lambda each: each[1].feeder.unfed, reverse=True):
            found = plan.feeder.split_off() or (None if owner in self._up else _rest(plan.feeder))
            if found is not None:
                return _loose(plan, found)
        return None


def _rest(feeder: Feeder) -> RowFeeder | None:
    """All that is left of what cannot be divided."""
    rows = []
    while (queued := feeder.take()) is not None:
        feeder.ended(queued)
        rows.append(queued.row)
    return RowFeeder(np.array(rows, dtype=np.int64)) if rows else None


def _loose(plan: RunPlan, feeder: Feeder) -> RunPlan:
    """A plan's requests with another feeder; nothing is learned from what is left of a job."""
    return replace(plan, feeder=feeder, learning=None, costed=None)
