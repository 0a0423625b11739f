"""How many prefill tokens each step takes: the policies of `blend.budget`, as the simulator applies them.

SGLang has one chunk size for all steps. Here the adder of each step gets what the policy leaves beside the rows that
decode in it. Where prefill has its steps to itself (exclusive mode) nothing decodes beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blendrun.blend.budget import Budget
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.refusal import nothing_to_run
from blendrun.engine.scheduler.rows import running

_MANAGERS = "sglang.srt.managers"
# Tokens of a step that runs nothing and to which its policy would give nothing.
_LEAST = 64


class StepBudget:
    """tokens: most prefill tokens of the step that is being built; None before the first."""

    def __init__(self, policy: Budget) -> None:
        self._policy = policy
        self.tokens: int | None = None

    def hooks(self) -> list[Hook]:
        return [
            Hook("budget", f"{_MANAGERS}.scheduler.Scheduler.get_new_batch_prefill", self.open_step, "around"),
            Hook("budget", f"{_MANAGERS}.schedule_policy.PrefillAdder.__init__", self.bound, "after"),
        ]

    def open_step(
        self, original: Callable[..., Any], scheduler: Any, running_batch: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """SGLang's `get_new_batch_prefill`, or no prefill in a step whose decode rows leave no room for it."""
        self.tokens = None
        self.tokens = self._tokens(scheduler, running_batch)
        if self.tokens == 0:
            # A chunk of nothing would still make a batch.
            return nothing_to_run(running_batch)
        return original(scheduler, running_batch, *args, **kwargs)

    def bound(self, _: None, adder: Any, *args: Any, **kwargs: Any) -> None:
        """Give the adder of this step its tokens; never more than the engine's own chunk."""
        if self.tokens is None:
            return
        if adder.rem_chunk_tokens is None:
            # Without chunks the first prompt goes whole, whatever is left.
            adder.rem_input_tokens = min(adder.rem_input_tokens, self.tokens)
        else:
            adder.rem_chunk_tokens = min(adder.rem_chunk_tokens, self.tokens)

    def _tokens(self, scheduler: Any, running_batch: Any) -> int:
        page = int(scheduler.page_size)
        beside = running(running_batch.reqs)
        mixed = scheduler.is_mixed_chunk
        rows, context = 0, 0
        if mixed or getattr(scheduler, "enable_pdmux", False):
            rows = len(beside)
            context = _context(scheduler, running_batch, beside)
        tokens = self._policy.prefill_tokens(rows, context)
        if mixed:
            # The engine counts decode rows against its chunk, and does not expect more rows than that.
            tokens = min(tokens, int(scheduler.chunked_prefill_size) - len(running_batch.reqs))
        if not beside:
            tokens = max(tokens, page) if tokens > 0 else max(_LEAST, page)
        return max(tokens, 0) // page * page


def _context(scheduler: Any, running_batch: Any, beside: list[Any]) -> int:
    """Tokens of the prompts and answers of `beside`, as far as the scheduler knows them."""
    lengths = getattr(running_batch, "seq_lens_cpu", None)
    if lengths is None or len(lengths) != len(beside):
        return sum(len(request.origin_input_ids) + len(request.output_ids) for request in beside)
    # SGLang counts what is in the cache: not yet the last token, which is known here where results do not lag.
    return int(lengths.sum()) + (0 if scheduler.enable_overlap else len(beside))
