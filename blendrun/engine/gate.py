"""SGLang plug-in: a request waits while another one computes the prefix it could reuse.

SGLang publishes a prefix when the prefill that computes it has ended. Siblings that are admitted together, or (with the
overlapped scheduler) one step later, find nothing and compute it again. Here admission stops for one step instead: the
head of a group goes first, its siblings follow as soon as its prefix is in the cache. Order is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

GATE_VARIABLE = "BLENDRUN_GATE"
# Left by the first pass through the gate: a hook whose target moved is only logged by SGLang.
PROOF_VARIABLE = "BLENDRUN_GATE_PROOF"
# Tokens that must be won to wait for them: SGLang's own thresholds for the same question (lpm's in-batch rule).
_WORTH_TOKENS = 32

# Requests whose prefill was launched and whose result is not processed yet, refreshed before each batch is built.
_in_flight: list[Any] = []


def register() -> None:
    """Entry point of group `sglang.srt.plugins`. Does nothing unless blendrun asks for the gate."""
    if os.environ.get(GATE_VARIABLE) != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    managers = "sglang.srt.managers"
    HookRegistry.register(f"{managers}.scheduler.Scheduler.get_new_batch_prefill", note_in_flight, HookType.BEFORE)
    HookRegistry.register(f"{managers}.schedule_policy.PrefillAdder.add_one_req", admit_in_turn, HookType.AROUND)


def note_in_flight(scheduler: Any, *args: Any, **kwargs: Any) -> None:
    """Remember what the device is prefilling while the next batch is built. Without overlap that is nothing."""
    results = getattr(scheduler, "result_queue", ())
    _in_flight[:] = [request for batch, _ in results if batch.forward_mode.is_extend() for request in batch.reqs]


def admit_in_turn(original: Callable[..., Any], adder: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """SGLang's `add_one_req`, unless a prefix of `request` is being computed: then no more is admitted in this step."""
    if path := os.environ.pop(PROOF_VARIABLE, None):
        Path(path).touch()
    if is_being_computed(request, (*adder.can_run_list, *_in_flight)):
        from sglang.srt.managers.schedule_policy import AddReqResult

        return AddReqResult.OTHER
    return original(adder, request, *args, **kwargs)


def is_being_computed(request: Any, others: Iterable[Any]) -> bool:
    """Whether one of `others` computes at least `_WORTH_TOKENS` tokens that `request` would compute too."""
    ids, known = request.full_untruncated_fill_ids, request.prefix_len
    # The last token of a prompt is computed in any case.
    if len(ids) - 1 - known < _WORTH_TOKENS:
        return False
    wanted = ids[known : known + _WORTH_TOKENS]
    for other in others:
        theirs = other.full_untruncated_fill_ids
        if (
            other is not request
            and theirs[known : known + _WORTH_TOKENS] == wanted
            and other.extra_key == request.extra_key
            and other.lora_id == request.lora_id
            and theirs[:known] == ids[:known]
        ):
            return True
    return False
