"""Admission by expected lengths: a newcomer comes in where what runs fits the pool at every step to come.

SGLang reserves a newcomer's longest answer in full and a share of that of all that runs. Here the expected output of
the plan counts, by the rule that the blend and the simulator go by. What runs longer than expected counts with some
steps more; where the pool overflows all the same, SGLang sends requests back as it always does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from blendrun.engine.older import extend_end, memory_budget, prefix_len
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.lookahead import Lookahead
from blendrun.engine.scheduler.refusal import Refusal, is_plain, keep_prefixes, nothing_to_run
from blendrun.engine.scheduler.rows import Rows, running, steps_left
from blendrun.engine.sglang_names import (
    ADD_CHUNK,
    ADD_REQUEST,
    ADD_RESULT,
    LONGEST_RESERVED,
    NEW_ADDER,
    NEW_PREFILL_BATCH,
    load,
)

# On an adder: the lookahead of its step; 1 where rows decode while a newcomer is prefilled, else 0; whether a prompt
# that is half in waits.
_LOOKAHEAD = "_blendrun_lookahead"
_BESIDE = "_blendrun_beside"
_WAITS = "_blendrun_waits"


class Reservation:
    """Replaces SGLang's reservation of tokens that are still to be answered; the rest of its admission stays."""

    def __init__(self, *, in_turn: bool = True) -> None:
        """in_turn: whether a request that does not come in keeps out all behind it. Where others decide by the step who
        is looked at next, each step has to be looked at."""
        self._in_turn = in_turn
        self._rows = Rows()
        # The last step's, and that of the step that is being built: one at most.
        self._stands: Refusal | None = None
        self._found: list[Refusal] = []

    def hooks(self) -> list[Hook]:
        found = [
            Hook("reserve", NEW_ADDER, self.drop_guess, "after"),
            Hook("reserve", ADD_REQUEST, self.admit, "around"),
            Hook("reserve", ADD_CHUNK, self.go_on, "around", warmed=False),
        ]
        if self._in_turn:
            found.append(Hook("reserve", NEW_PREFILL_BATCH, self.look_once, "around"))
        return found

    def look_once(
        self, original: Callable[..., Any], scheduler: Any, running_batch: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """SGLang's `get_new_batch_prefill`, but for a step in which it would refuse the same request once more."""
        refusal, self._stands = self._stands, None
        if refusal is not None and refusal.is_same_step(scheduler, running_batch):
            room, steps = refusal.room_now(scheduler), steps_left(refusal.request) - 1 + refusal.beside
            if not Lookahead(*self._rows.ends(refusal.rows)).fits(room, steps):
                self._stands = refusal
                keep_prefixes(scheduler)
                return nothing_to_run(running_batch)
        self._found.clear()
        plan = original(scheduler, running_batch, *args, **kwargs)
        if self._found and plan.batch_to_run is None and is_plain(scheduler):
            self._stands = self._found[0].noted(scheduler, plan.running_batch)
        return plan

    def drop_guess(self, _: None, adder: Any, *args: Any, **kwargs: Any) -> None:
        """Take SGLang's guess at what running requests will still answer out of the adder."""
        budget = memory_budget(adder)
        # Rows that decode in the same step are all that an adder counts from the start.
        setattr(adder, _BESIDE, 1 if budget.current_offset > 0 else 0)
        budget.total_offset = budget.current_offset

    def go_on(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_chunked_req`, but for a step that has no free token while others decode.

        SGLang runs a whole chunk then, for which there is no memory, and ends. Those that decode go on instead, end or
        are sent back, and nothing comes in before the prompt that is half in.
        """
        rows = adder.running_batch.reqs if adder.running_batch is not None else ()
        if len(rows) and memory_budget(adder).remaining_current <= 0:
            setattr(adder, _WAITS, True)
            return request
        return original(adder, request, *args, **kwargs)

    def admit(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_one_req`, where the lookahead finds room. Alone a request always comes in."""
        longest, other = _longest_and_other()
        if getattr(adder, _WAITS, False):
            return other
        ahead = self._lookahead(adder)
        # The first token comes with the prefill.
        steps, beside = steps_left(request) - 1, getattr(adder, _BESIDE, 0)
        room, own = _room(adder, request)
        if len(ahead) and not ahead.fits(room, steps + beside):
            if self._in_turn and not adder.can_run_list:
                self._found.append(Refusal(request, room, beside))
            # Not NO_TOKEN: that would shut admission until a request ends, and time alone can make room.
            return other
        budget = memory_budget(adder)
        # What SGLang is about to ask for on top of the prompt.
        asked = min(max(request.sampling_params.max_new_tokens - len(request.output_ids), 0), longest)
        budget.total_offset = budget.current_offset - asked
        try:
            result = original(adder, request, *args, **kwargs)
        finally:
            budget.total_offset = budget.current_offset
        if not adder.can_run_list or adder.can_run_list[-1] is not request:
            return result
        self._rows.admitted(request, own)
        ahead.add(steps + beside, own + steps)
        return adder.budget_state()

    def _lookahead(self, adder: Any) -> Lookahead:
        """Of everything that runs when the step's first newcomer is looked at; kept for those behind it."""
        found: Lookahead | None = getattr(adder, _LOOKAHEAD, None)
        if found is None:
            beside = adder.running_batch.reqs if adder.running_batch is not None else ()
            found = Lookahead(*self._rows.ends(running((*beside, *adder.can_run_list))))
            setattr(adder, _LOOKAHEAD, found)
        return found


def _room(adder: Any, request: Any) -> tuple[int, int]:
    """Tokens left once a newcomer's whole prompt is in, and tokens that its prompt takes out of the pool.

    A prefix that nothing holds yet counts as taken, because locking it does; so does what is still to come of a prompt
    that is being prefilled in chunks.
    """
    budget = memory_budget(adder)
    free = budget.remaining_current
    with adder._lock_node(request.last_node):
        locked = budget.remaining_current
    uncached = len(request.full_untruncated_fill_ids) - prefix_len(request)
    coming = sum(len(other.full_untruncated_fill_ids) - extend_end(other) for other in adder.can_run_list)
    return locked - uncached - adder.page_size - coming, free - locked + uncached


@functools.cache
def _longest_and_other() -> tuple[int, Any]:
    """SGLang's clip of what it reserves for an answer, and its word for a request that does not come in now."""
    return int(load(LONGEST_RESERVED)), load(ADD_RESULT).OTHER
