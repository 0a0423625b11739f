"""A request waits while another one computes the prefix it could reuse.

SGLang publishes a prefix when the prefill that computes it has ended. Siblings that are admitted together, or (with the
overlapped scheduler) one step later, find nothing and compute it again. Here admission stops for one step instead: the
head of a group goes first, its siblings follow as soon as its prefix is in the cache. Order is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from blendrun.engine.older import prefix_len
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.sglang_names import ADD_REQUEST, ADD_RESULT, NEW_PREFILL_BATCH, load
from blendrun.simulate.worth import WORTH_TOKENS


class Gate:
    """Knows what the device is prefilling while the next batch is built."""

    def __init__(self) -> None:
        self._in_flight: list[Any] = []
        # The request that was held back last.
        self.held: Any = None

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
        """SGLang's `add_one_req`, unless a prefix of `request` is coming: then no more is admitted in this step."""
        if is_being_computed(request, (*adder.can_run_list, *self._in_flight)):
            self.held = request
            return load(ADD_RESULT).OTHER
        return original(adder, request, *args, **kwargs)


def _prefilled(batch: Any) -> list[Any]:
    """Those of a batch that do not decode beside its prefill: what these compute is an answer, and nobody's prefix."""
    requests: list[Any] = batch.reqs
    return requests[: len(requests) - len(getattr(batch, "decoding_reqs", None) or ())]


def is_being_computed(request: Any, others: Iterable[Any]) -> bool:
    """Whether one of `others` computes at least `WORTH_TOKENS` tokens that `request` would compute too."""
    ids, known = request.full_untruncated_fill_ids, prefix_len(request)
    # The last token of a prompt is computed in any case.
    if len(ids) - 1 - known < WORTH_TOKENS:
        return False
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
            return True
    return False
