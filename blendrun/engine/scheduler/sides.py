"""Which side of a blend comes in next: decided where requests come in, by the rule that the plan was simulated with.

A blend is one row that is read from both ends, and what its sides hold decides which one comes next. The runner cannot
decide that: what it hands over stands behind what waits, and one side's head that finds no room would keep the other
side out. So both sides wait in the engine, each in its own order, and here each step's admission goes by
`blend.scan.first_side`, as the simulator's does (`simulate.admission`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any

from blendrun.blend.base import LEFT, RIGHT, Turn
from blendrun.blend.scan import first_side, left_share
from blendrun.engine.scheduler.gate import Gate
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.scheduler.planned import plan_of
from blendrun.engine.sglang_names import (
    ADD_REQUEST,
    ADD_RESULT,
    NEW_PREFILL_BATCH,
    RETRACT,
    RUN_BATCH,
    SORT_WAITING,
    load,
)

_NONE = Turn(LEFT)


class Sides:
    """Counts what runs by side, tells it to the runner, and admits by it."""

    def __init__(self, occupancy: Occupancy | None, choose: bool, gate: Gate | None = None) -> None:
        """choose: whether sides decide; else they are only counted. gate: what it holds back, holds back all."""
        self._occupancy, self._choose, self._gate = occupancy, choose, gate
        # What runs: a request, its own side, the part of it that this is, the side that it came in for, and the tokens
        # that it holds there on the mean.
        self._live: list[tuple[Any, int, float, int, float]] = []
        self._running, self._holding, self._pool = [0.0, 0.0], [0.0, 0.0], 0.0
        # Decode steps so far, and the one at which a side may admit again.
        self._decoded, self._due = 0, [0.0, 0.0]
        # The queue of this step, the side that is looked at last in it, and the one whose head did not come in.
        self._waiting: list[Any] = []
        self._last, self._passed = LEFT, -1
        # Whether any was ever sent back.
        self._sent_back = False
        # The left side's share of the pool, for the units at both heads.
        self._share, self._units = 1.0, (-1, -1)
        # Whether one side has nothing left and nothing is to come: both read what the other has then, each from its own
        # end. The side that reads now, and whether the other one has read before in this step.
        self._shared, self._facing, self._turned = False, LEFT, False
        # What was handed over last, and its place in the plan: it knows best what is still to come.
        self._newest, self._newest_at = _NONE, -1
        # Whether all that has not ended fits the pool: it comes in longest first from then on, whatever its side.
        self._tail = False

    def hooks(self) -> list[Hook]:
        found = [
            Hook("sides", RUN_BATCH, self._telling(self.count_decode), "after"),
            Hook("sides", NEW_PREFILL_BATCH, self._telling(self.open_step), "around"),
            Hook("sides", ADD_REQUEST, self._telling(self.admit), "around"),
            Hook("sides", RETRACT, self._telling(self.let_go), "after", warmed=False),
        ]
        if self._choose:
            found.append(Hook("sides", SORT_WAITING, self._telling(self.put_in_turn), "after"))
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

    def count_decode(self, _: Any, scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
        """A step was launched: the clock of a side's pace, which every loop of SGLang's goes by, that of pdmux too."""
        self._decoded += batch.forward_mode.is_decode() or bool(getattr(batch, "decoding_reqs", None))

    def open_step(self, original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `get_new_batch_prefill`, between a look at what has ended and a word to the runner."""
        self._pool = float(scheduler.max_total_num_tokens)
        live = [each for each in self._live if each[0].finished_reason is None]
        if len(live) < len(self._live):
            self._count(live)
        if self._gate is not None:
            self._gate.held = self._gate.passed = None
        result = original(scheduler, *args, **kwargs)
        if self._occupancy is not None:
            self._occupancy.tell(*self._running)
        return result

    def let_go(self, result: Any, *args: Any, **kwargs: Any) -> None:
        """What was sent back waits again."""
        self._sent_back = True
        back = {id(request) for request in result[0]}
        self._count([each for each in self._live if id(each[0]) not in back])

    def _count(self, live: list[tuple[Any, int, float, int, float]]) -> None:
        self._live = live
        self._running, self._holding = [0.0, 0.0], [0.0, 0.0]
        for _, own, share, side, held in live:
            self._running[own] += share
            self._holding[side] += held

    def put_in_turn(self, _: None, policy: Any, waiting: list[Any], *args: Any, **kwargs: Any) -> None:
        """Sort what waits by whose turn it is now; where a side's head does not come in, `admit` puts it last."""
        self._waiting, self._passed = waiting, -1
        lanes: tuple[list[Any], list[Any]] = ([], [])
        for request, turn in zip(waiting, map(_turn, waiting), strict=True):
            lanes[turn.side].append(request)
        # What was sent back comes first, as ever.
        back = [request for request in waiting if len(request.output_ids)] if self._sent_back else []
        left, right = lanes
        if back:
            left, right = ([request for request in lane if not len(request.output_ids)] for lane in lanes)
        for lane in (left, right):
            if lane and (plan := plan_of(lane[-1])) is not None and plan.index > self._newest_at:
                self._newest, self._newest_at = _turn(lane[-1]), plan.index
        if self._is_tail(left, right):
            # Of equal ones, those at the row's front first, as the simulator has it.
            waiting[:] = [*back, *sorted((*left, *reversed(right)), key=_longest_first)]
            return
        self._shared = bool(left) != bool(right) and self._newest.rest_size < 1.0
        if self._shared:
            row = left or right[::-1]
            self._find_share(row[:1], row[-1:], row)
            self._facing, self._turned = first_side(False, False, self._holding[RIGHT], self._part(RIGHT)), False
            waiting[:] = [*back, *(row if self._facing == LEFT else row[::-1])]
            return
        self._find_share(left, right, [*left, *right])
        begun = list(takewhile(lambda request: _turn(request).stays, left))
        keeps_right = bool(right) and _turn(right[0]).stays
        first = first_side(bool(begun), keeps_right, self._holding[RIGHT], self._part(RIGHT))
        if first == LEFT and not begun:
            waiting[:] = [*back, *left, *right]
            self._last = RIGHT if right else LEFT
            return
        if first == RIGHT:
            begun = []
        waiting[:] = [*back, *begun, *right, *left[len(begun) :]]
        self._last = LEFT if len(left) > len(begun) else RIGHT

    def admit(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_one_req`, where it is the turn of this request's side; else the next request is looked at."""
        if not self._choose or len(request.output_ids):
            result = original(adder, request, *args, **kwargs)
            self._note(adder, request, _turn(request))
            return result
        turn = own = _turn(request)
        if self._tail:
            result = original(adder, request, *args, **kwargs)
            self._note(adder, request, turn)
            return result
        if own.side == self._passed:
            return _words()[1]
        if self._shared:
            turn = replace(turn, side=self._facing, stays=False)
        if self._may_enter(turn):
            result = original(adder, request, *args, **kwargs)
            if self._note(adder, request, turn) or (self._gate is not None and self._gate.passed is request):
                return result
            gated = self._gate is not None and self._gate.held is request
            if gated or turn.stays:
                return result
        return self._turn_round(request) if self._shared else self._pass_over(request, own.side)

    def _turn_round(self, request: Any) -> Any:
        """The end that is read now gives nothing more: the other one is next, if it was not looked at yet."""
        go_on, stop = _words()
        if self._turned:
            return stop
        self._turned, self._facing = True, LEFT if self._facing == RIGHT else RIGHT
        begin = self._waiting.index(request) + 1
        self._waiting[begin:] = self._waiting[begin:][::-1]
        return go_on

    def _pass_over(self, request: Any, side: int) -> Any:
        """A side's head does not come in, so nothing of it does: the other side is next, if it was not looked at yet.

        SGLang walks the queue and would look into the cache for each that stands between.
        """
        go_on, stop = _words()
        if side == self._last:
            return stop
        self._passed = side
        begin = self._waiting.index(request) + 1
        rest = self._waiting[begin:]
        ahead = sum(1 for _ in takewhile(lambda other: _turn(other).side == side, rest))
        self._waiting[begin:] = rest[ahead:] + rest[:ahead]
        return go_on

    def _note(self, adder: Any, request: Any, turn: Turn) -> bool:
        """Count a request that was admitted. Returns whether it was."""
        if not adder.can_run_list or adder.can_run_list[-1] is not request:
            return False
        # Its own side is what the runner knows it by.
        side, share = _turn(request).side, _part_of(request)
        self._live.append((request, side, share, turn.side, turn.holds * share))
        self._running[side] += share
        self._holding[turn.side] += turn.holds * share
        if turn.area and not len(request.output_ids):
            self._due[turn.side] += turn.area * share / max(self._part(turn.side), 1.0)
        return True

    def _may_enter(self, turn: Turn) -> bool:
        if not self._live or turn.stays:
            return True
        if turn.area and self._due[turn.side] > self._decoded:
            return False
        # The left side borrows: what it brings is soon gone, so it does not keep the right side out.
        return turn.side == LEFT or self._holding[RIGHT] < self._part(RIGHT)

    def _is_tail(self, left: list[Any], right: list[Any]) -> bool:
        """Whether all that has not ended, handed over or not, fits the pool (`simulate.admission`)."""
        if self._tail or not (left or right):
            return self._tail
        rest = self._newest.rest_size
        if rest <= self._pool:
            held = [*left, *right, *(each[0] for each in self._live)]
            held_size = sum(_turn(request).size * _part_of(request) for request in held)
            self._tail = rest + held_size <= self._pool
        return self._tail

    def _part(self, side: int) -> float:
        """Tokens of the pool that are a side's."""
        return (self._share if side == LEFT else 1.0 - self._share) * self._pool

    def _find_share(self, left: list[Any], right: list[Any], waiting: list[Any]) -> None:
        """By the units at both heads and what is left of the job, what waits included; kept until a unit changes."""
        if not left or not right:
            return
        first, last = _turn(left[0]), _turn(right[0])
        if (first.unit, last.unit) == self._units:
            return
        self._units = first.unit, last.unit
        turns = [_turn(request) for request in waiting]
        compute = self._newest.rest_compute + sum(turn.compute for turn in turns)
        memory = self._newest.rest_memory + sum(turn.memory for turn in turns)
        rho = compute / max(memory, 1e-30)
        self._share = left_share(first.density, last.density, rho, first.reads, last.reads)


def _turn(request: Any) -> Turn:
    try:
        # For all that wait, at each step.
        turn: Turn = request._blendrun_turn
    except AttributeError:
        plan = plan_of(request)
        turn = request._blendrun_turn = _NONE if plan is None or plan.turn is None else plan.turn
    return turn


def _longest_first(request: Any) -> float:
    return -_turn(request).reach


def _part_of(request: Any) -> float:
    """Of a request that wants several answers, each of which is a row of its own here."""
    return 1.0 / max(int(request.sampling_params.n), 1)


@functools.cache
def _words() -> tuple[Any, Any]:
    """SGLang's words for going on to the next request, and for looking no further in this step."""
    result = load(ADD_RESULT)
    return result.CONTINUE, result.OTHER
