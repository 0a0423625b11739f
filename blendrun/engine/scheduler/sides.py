"""Which side of a blend comes in next: decided where requests come in, by the rule that the plan was simulated with.

A blend is one row that is read from both ends, and what its sides hold decides which one comes next. The runner cannot
decide that: what it hands over stands behind what waits, and one side's head that finds no room would keep the other
side out. So both sides wait in the engine, each in its own order, and here each step's admission goes by
`blend.scan.first_side`, as the simulator's does (`simulate.admission`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from blendrun.blend.base import LEFT, RIGHT, Turn
from blendrun.blend.scan import first_side
from blendrun.engine.scheduler.gate import Gate
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.scheduler.planned import plan_of

_MANAGERS = "sglang.srt.managers"
_NONE = Turn(LEFT, 0, 0)


class Sides:
    """Counts what runs by side, tells it to the runner, and admits by it."""

    def __init__(self, occupancy: Occupancy | None, choose: bool, gate: Gate | None = None) -> None:
        """choose: whether sides decide; else they are only counted. gate: what it holds back, holds back all."""
        self._occupancy, self._choose, self._gate = occupancy, choose, gate
        self._live: list[tuple[Any, Turn]] = []
        self._holding = [0.0, 0.0]
        # Decode steps so far, and the one at which a side may admit again.
        self._decoded, self._due = 0, [0.0, 0.0]
        # Sides whose head found no room in this step.
        self._blocked: set[int] = set()

    def hooks(self) -> list[Hook]:
        step, policy = f"{_MANAGERS}.scheduler.Scheduler", f"{_MANAGERS}.schedule_policy"
        found = [
            Hook("sides", f"{step}.get_new_batch_prefill", self._telling(self.open_step), "around"),
            Hook("sides", f"{policy}.PrefillAdder.add_one_req", self._telling(self.admit), "around"),
        ]
        if self._choose:
            target = f"{policy}.SchedulePolicy.calc_priority"
            found.append(Hook("sides", target, self._telling(self.put_in_turn), "after"))
        return found

    def _telling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which tells the runner when it fails: it is off from then on, and the count would be wrong."""

        @functools.wraps(function)
        def telling(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception:
                if self._occupancy is not None:
                    self._occupancy.lose()
                raise

        return telling

    def open_step(self, original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `get_new_batch_prefill`, between a look at what has ended and a word to the runner."""
        last = scheduler.last_batch
        self._decoded += last is not None and (last.forward_mode.is_decode() or bool(last.decoding_reqs))
        back = set(map(id, scheduler.waiting_queue)) if self._live else ()
        # What was sent back waits again.
        self._live = [each for each in self._live if not each[0].finished() and id(each[0]) not in back]
        self._count()
        self._blocked.clear()
        result = original(scheduler, *args, **kwargs)
        if self._occupancy is not None:
            running = [0.0, 0.0]
            for request, turn in self._live:
                running[turn.side] += _share(request)
            self._occupancy.tell(*running)
        return result

    def put_in_turn(self, _: None, policy: Any, waiting: list[Any], *args: Any, **kwargs: Any) -> None:
        """Sort what waits as the rule would take it if all found room. What may not come in stands last."""
        lanes: tuple[list[Any], list[Any]] = ([], [])
        taken = []
        for request in waiting:
            turn = _turn(request)
            if len(request.output_ids):
                # What was sent back comes first, as ever.
                taken.append(request)
            else:
                lanes[turn.side].append(request)
        holding, due, running = list(self._holding), list(self._due), bool(self._live or taken)
        at = [0, 0]
        while (side := self._next_side(_heads(lanes, at), holding, due, running)) is not None:
            request = lanes[side][at[side]]
            at[side] += 1
            turn = _turn(request)
            holding[side] += turn.holds * _share(request)
            due[side] += turn.pace * _share(request)
            running = True
            taken.append(request)
        waiting[:] = [*taken, *lanes[LEFT][at[LEFT] :], *lanes[RIGHT][at[RIGHT] :]]

    def admit(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_one_req`, where it is the turn of this request's side; else the next request is looked at."""
        from sglang.srt.managers.schedule_policy import AddReqResult

        turn, sent_back = _turn(request), len(request.output_ids) > 0
        if self._choose and not sent_back and not self._may_enter(turn):
            return AddReqResult.CONTINUE
        result = original(adder, request, *args, **kwargs)
        if adder.can_run_list and adder.can_run_list[-1] is request:
            self._live.append((request, turn))
            share = _share(request)
            self._holding[turn.side] += turn.holds * share
            if not sent_back:
                self._due[turn.side] += turn.pace * share
            return result
        gated = self._gate is not None and self._gate.held is request
        if not self._choose or sent_back or gated or turn.stays or result == AddReqResult.CONTINUE:
            return result
        self._blocked.add(turn.side)
        # The other side may find room where this one did not.
        return AddReqResult.CONTINUE

    def _count(self) -> None:
        self._holding = [0.0, 0.0]
        for request, turn in self._live:
            self._holding[turn.side] += turn.holds * _share(request)

    def _may_enter(self, turn: Turn) -> bool:
        if turn.side in self._blocked:
            return False
        if not self._live or turn.stays:
            return True
        if turn.pace and self._due[turn.side] > self._decoded:
            return False
        return turn.side == LEFT or self._holding[RIGHT] < turn.part

    def _next_side(
        self, heads: tuple[Turn | None, Turn | None], holding: list[float], due: list[float], running: bool
    ) -> int | None:
        """The side that comes next; None where neither may."""
        left, right = heads
        if left is None and right is None:
            return None
        first = first_side(
            left is not None and left.stays,
            right is not None and right.stays,
            holding[RIGHT],
            float(right.part) if right is not None else 0.0,
        )
        for side in (first, 1 - first):
            head = heads[side]
            if head is None:
                continue
            if head.stays or not running:
                return side
            if head.pace and due[side] > self._decoded:
                continue
            if side == LEFT or holding[RIGHT] < head.part:
                return side
        return None


def _heads(lanes: tuple[list[Any], list[Any]], at: list[int]) -> tuple[Turn | None, Turn | None]:
    left, right = (_turn(lane[place]) if place < len(lane) else None for lane, place in zip(lanes, at, strict=True))
    return left, right


def _turn(request: Any) -> Turn:
    plan = plan_of(request)
    return _NONE if plan is None or plan.turn is None else plan.turn


def _share(request: Any) -> float:
    """Of a request that wants several answers, each of which is a row of its own here."""
    return 1.0 / max(int(request.sampling_params.n), 1)
