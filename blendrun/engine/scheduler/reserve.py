"""Admission by expected lengths: a newcomer comes in where what runs fits the pool at every step to come.

SGLang reserves a newcomer's longest answer in full and a share of that of all that runs. Here the expected output of
the plan counts, by the rule that the blend and the simulator go by. What runs longer than expected counts with some
steps more; where the pool overflows all the same, SGLang sends requests back as it always does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.lookahead import Lookahead
from blendrun.engine.scheduler.planned import plan_of, planned_output

_ADDER = "sglang.srt.managers.schedule_policy.PrefillAdder"
# Steps that an overdue row is believed to run on: a share of what it has run, and no fewer than this.
_OVERDUE_STEPS = 16
_OVERDUE_SHARE = 4
# On a request: tokens that its admission took out of the pool, less those that it had answered by then (a row that
# answers holds one token less than it has answered).
_ADMITTED = "_blendrun_admitted"
# On an adder: the lookahead of its step, and 1 where rows decode while a newcomer is prefilled, else 0.
_LOOKAHEAD = "_blendrun_lookahead"
_BESIDE = "_blendrun_beside"


class Reservation:
    """Replaces SGLang's reservation of tokens that are still to be answered; the rest of its admission stays."""

    def hooks(self) -> list[Hook]:
        return [
            Hook("reserve", f"{_ADDER}.__init__", self.drop_guess, "after"),
            Hook("reserve", f"{_ADDER}.add_one_req", self.admit, "around"),
        ]

    def drop_guess(self, _: None, adder: Any, *args: Any, **kwargs: Any) -> None:
        """Take SGLang's guess at what running requests will still answer out of the adder."""
        budget = adder.memory_budget
        # Rows that decode in the same step are all that an adder counts from the start.
        setattr(adder, _BESIDE, 1 if budget.current_offset > 0 else 0)
        budget.total_offset = budget.current_offset

    def admit(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_one_req`, where the lookahead finds room. Alone a request always comes in."""
        from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS, AddReqResult

        ahead = _lookahead(adder)
        # The first token comes with the prefill.
        steps = max(steps_left(request, expected_output(request)) - 1, 0)
        ends = steps + getattr(adder, _BESIDE, 0)
        room, own = _room(adder, request)
        if len(ahead) and not ahead.fits(room, ends):
            # Not NO_TOKEN: that would shut admission until a request ends, and time alone can make room.
            return AddReqResult.OTHER
        budget = adder.memory_budget
        # What SGLang is about to ask for on top of the prompt.
        asked = min(max(request.sampling_params.max_new_tokens - len(request.output_ids), 0), CLIP_MAX_NEW_TOKENS)
        budget.total_offset = budget.current_offset - asked
        try:
            result = original(adder, request, *args, **kwargs)
        finally:
            budget.total_offset = budget.current_offset
        if not adder.can_run_list or adder.can_run_list[-1] is not request:
            return result
        setattr(request, _ADMITTED, own - len(request.output_ids) - 1)
        ahead.add(ends, own + steps)
        return adder.budget_state()


def expected_output(request: Any) -> int:
    """Tokens that a request is expected to answer in all, at most what it may."""
    from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

    plan, most = plan_of(request), int(request.sampling_params.max_new_tokens)
    tokens = planned_output(plan) if plan is not None else 0
    return min(most, tokens if tokens > 0 else int(CLIP_MAX_NEW_TOKENS))


def steps_left(request: Any, expected: int) -> int:
    """Tokens that a request is still expected to answer, at least 1 and at most what it may."""
    answered = len(request.output_ids)
    left = expected - answered
    if left > 0:
        return left
    overdue = max(answered // _OVERDUE_SHARE, _OVERDUE_STEPS)
    return max(min(overdue, int(request.sampling_params.max_new_tokens) - answered), 1)


def _lookahead(adder: Any) -> Lookahead:
    """Of everything that runs when the step's first newcomer is looked at; kept for those behind it."""
    found: Lookahead | None = getattr(adder, _LOOKAHEAD, None)
    if found is None:
        running = adder.running_batch.reqs if adder.running_batch is not None else ()
        found = Lookahead([_end(request) for request in (*running, *adder.can_run_list) if not request.finished()])
        setattr(adder, _LOOKAHEAD, found)
    return found


def _end(request: Any) -> tuple[int, int]:
    """Steps to a request's expected end, and the tokens it gives back then."""
    own: int | None = getattr(request, _ADMITTED, None)
    if own is None:
        own = len(request.origin_input_ids) - 1
    left = steps_left(request, expected_output(request))
    return left, own + len(request.output_ids) + left


def _room(adder: Any, request: Any) -> tuple[int, int]:
    """Tokens left once a newcomer's whole prompt is in, and tokens that its prompt takes out of the pool.

    A prefix that nothing holds yet counts as taken, because locking it does; so does what is still to come of a prompt
    that is being prefilled in chunks.
    """
    free = adder.memory_budget.remaining_current
    with adder._lock_node(request.last_node):
        locked = adder.memory_budget.remaining_current
    uncached = len(request.full_untruncated_fill_ids) - request.prefix_len
    coming = sum(len(other.full_untruncated_fill_ids) - other.extend_end for other in adder.can_run_list)
    return locked - uncached - adder.page_size - coming, free - locked + uncached
