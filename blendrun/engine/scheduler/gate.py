"""A request waits while another one computes the prefix it could reuse.

SGLang publishes a prefix when the prefill that computes it has ended. Siblings that are admitted together, or (with the
overlapped scheduler) one step later, find nothing and compute it again. Here admission stops for one step instead: the
head of a group goes first, its siblings follow as soon as its prefix is in the cache. Order is kept.

The requests of one line, such as the items of a score, have one place in the order: while they wait for the first of
them, the lines behind it come in, or there would be a step for each line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from blendrun.engine.older import prefix_len
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.planned import plan_of
from blendrun.engine.sglang_names import ADD_REQUEST, ADD_RESULT, NEW_PREFILL_BATCH, load
from blendrun.simulate.worth import WORTH_TOKENS


class Gate:
    """Knows what the device is prefilling while the next batch is built."""

    def __init__(self) -> None:
        self._in_flight: list[Any] = []
        # The request that was held back last, and the last one that others come in before.
        self.held: Any = None
        self.passed: Any = None

    def hooks(self) -> list[Hook]:
        return [
            Hook("gate", NEW_PREFILL_BATCH, self.note_in_flight, "around"),
            Hook("gate", ADD_REQUEST, self.admit_in_turn, "around"),
        ]

    def note_in_flight(self, original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        """Remember the requests whose prefill was launched and has no result yet. Without overlap there are none."""
        results = getattr(scheduler, "result_queue", ())
        self._in_flight[:] = [
            request for batch, _ in results if batch.forward_mode.is_extend() for request in _prefilled(batch)
        ]
        return original(scheduler, *args, **kwargs)

    def admit_in_turn(self, original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `add_one_req`, unless a prefix of `request` is coming. Then no more is admitted in this step; other
        lines are, where its own computes it.
        """
        other = computing(request, (*adder.can_run_list, *self._in_flight))
        if other is not None and _of_one_line(request, other):
            self.passed = request
            return load(ADD_RESULT).CONTINUE
        if other is not None:
            self.held = request
            return load(ADD_RESULT).OTHER
        return original(adder, request, *args, **kwargs)


def _prefilled(batch: Any) -> list[Any]:
    """Those of a batch that do not decode beside its prefill: what these compute is an answer, and nobody's prefix."""
    requests: list[Any] = batch.reqs
    return requests[: len(requests) - len(getattr(batch, "decoding_reqs", None) or ())]


def _of_one_line(request: Any, other: Any) -> bool:
    """Whether two requests have one place in the plan."""
    one, two = plan_of(request), plan_of(other)
    return one is not None and two is not None and one.index == two.index


def computing(request: Any, others: Iterable[Any]) -> Any:
    """The first of `others` that computes at least `WORTH_TOKENS` tokens that `request` would compute too, or None."""
    ids, known = request.full_untruncated_fill_ids, prefix_len(request)
    # The last token of a prompt is computed in any case.
    if len(ids) - 1 - known < WORTH_TOKENS:
        return None
    wanted = ids[known : known + WORTH_TOKENS]
    for other in others:
        theirs = other.full_untruncated_fill_ids
        if (
            other is not request
            and theirs[known : known + WORTH_TOKENS] == wanted
            and other.extra_key == request.extra_key
            and other.lora_id == request.lora_id
            and theirs[:known] == ids[:known]
        ):
            return other
    return None
