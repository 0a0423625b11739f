"""How long the rows that run are still expected to run, and what they give back then: all of them at once.

What is known of a row from its admission on is kept with it, and one table of all is kept while the same rows run.
What changes by itself, tokens answered and expectations that the runner corrects, is read at each step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.older import steps_behind_end
from blendrun.engine.scheduler.planned import corrected_outputs, plan_of, planned_output
from blendrun.engine.sglang_names import LONGEST_RESERVED, load

# Steps that an overdue row is believed to run on: a share of what it has run, and no fewer than this.
_OVERDUE_STEPS = 16
_OVERDUE_SHARE = 4
# On a request: tokens that its admission took out of the pool, less those that it had answered by then (a row that
# answers holds one token less than it has answered); its place in the plan, -1 without one; what the plan expects of
# it, 0 for nothing; the most that it may answer.
_FACTS = "_blendrun_facts"
_facts_of, _answer_of = attrgetter(_FACTS), attrgetter("output_ids")

Ends = tuple[NDArray[np.int64], NDArray[np.int64]]


class Rows:
    """The rows of one scheduler."""

    def __init__(self) -> None:
        self._requests: list[Any] = []
        self._own, self._place, self._planned, self._most = np.empty((4, 0), dtype=np.int64)

    def admitted(self, request: Any, taken: int) -> None:
        """A request comes in. taken: tokens that its prompt takes out of the pool."""
        setattr(request, _FACTS, _facts(request, taken - len(request.output_ids) - 1))
        # It may have been among them before: sent back, and now in again.
        self._requests = []

    def ends(self, requests: list[Any]) -> Ends:
        """Of each that runs: steps to its expected end, 1 or more, and tokens that it gives back then."""
        if requests != self._requests:
            self._gather(requests)
        answered = np.fromiter(map(len, map(_answer_of, requests)), dtype=np.int64, count=len(requests))
        left = _steps_left(self._expected(), answered, self._most)
        return left, self._own + answered + left

    def _gather(self, requests: list[Any]) -> None:
        try:
            facts = list(map(_facts_of, requests))
        except AttributeError:
            facts = [_kept_facts(request) for request in requests]
        table = np.fromiter(chain.from_iterable(facts), dtype=np.int64, count=4 * len(facts)).reshape(-1, 4)
        self._own, self._place, self._planned, self._most = table.T.copy()
        self._requests = requests

    def _expected(self) -> NDArray[np.int64]:
        planned = corrected_outputs(self._place, self._planned)
        expected: NDArray[np.int64] = np.minimum(np.where(planned > 0, planned, _unplanned()), self._most)
        return expected


def running(requests: Sequence[Any]) -> list[Any]:
    """Those that have not ended."""
    return [request for request in requests if request.finished_reason is None]


def steps_left(request: Any) -> int:
    """Steps that a request is still expected to run: its tokens, at least 1 and at most what it may answer."""
    plan, most = plan_of(request), int(request.sampling_params.max_new_tokens)
    planned = planned_output(plan) if plan is not None else 0
    expected = min(planned if planned > 0 else _unplanned(), most)
    answered = len(request.output_ids)
    if expected > answered:
        return expected - answered + steps_behind_end()
    return max(min(max(answered // _OVERDUE_SHARE, _OVERDUE_STEPS), most - answered), 1) + steps_behind_end()


def _steps_left(expected: NDArray[np.int64], answered: NDArray[np.int64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same of many: i64 (N,) each."""
    left = expected - answered
    overdue = left <= 0
    if overdue.any():
        late = answered[overdue]
        run_on = np.maximum(late // _OVERDUE_SHARE, _OVERDUE_STEPS)
        left[overdue] = np.maximum(np.minimum(run_on, most[overdue] - late), 1)
    return left + steps_behind_end()


def _kept_facts(request: Any) -> tuple[int, int, int, int]:
    found: tuple[int, int, int, int] | None = getattr(request, _FACTS, None)
    if found is None:
        # It came in without being asked of: as if it had found nothing in the cache.
        found = _facts(request, len(request.origin_input_ids) - 1)
        setattr(request, _FACTS, found)
    return found


def _facts(request: Any, own: int) -> tuple[int, int, int, int]:
    plan, most = plan_of(request), int(request.sampling_params.max_new_tokens)
    return (own, -1, 0, most) if plan is None else (own, plan.index, plan.output, most)


@functools.cache
def _unplanned() -> int:
    """Tokens that a request without a plan is expected to answer: SGLang's own guess."""
    return int(load(LONGEST_RESERVED))
