"""How many prefill tokens each step takes, and what decodes beside them: the policies of `blend.budget`.

SGLang has one chunk size for all steps. Here the adder of each step gets what the policy leaves beside the rows that
decode in it. Where prefill has its steps to itself (exclusive mode) nothing decodes beside it.

What a step can be is the engine's mode. Exclusive: prefill, or decoding; SGLang prefills where anything fits, and a
policy may keep that back. Mixed: besides both together; a policy may have prefill alone, because SGLang asks its flag
for mixing anew in each step, and rows that are not mixed in decode on in the next step without prefill, as they do in
exclusive mode. Pdmux: both, always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blendrun.blend.budget import Budget, TurnsBudget
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.refusal import nothing_to_run
from blendrun.engine.scheduler.rows import running
from blendrun.engine.sglang_names import NEW_ADDER, NEW_PREFILL_BATCH

# Tokens of a step that runs nothing and to which its policy would give nothing.
_LEAST = 64


class StepBudget:
    """tokens: most prefill tokens of the step that is being built; None before the first."""

    def __init__(self, policy: Budget) -> None:
        self._policy = policy
        self._turns = Turns(policy) if isinstance(policy, TurnsBudget) else None
        self.tokens: int | None = None

    def hooks(self) -> list[Hook]:
        return [
            Hook("budget", NEW_PREFILL_BATCH, self.open_step, "around"),
            Hook("budget", NEW_ADDER, self.bound, "after"),
        ]

    def open_step(
        self, original: Callable[..., Any], scheduler: Any, running_batch: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """SGLang's `get_new_batch_prefill`, or no prefill in a step whose decode rows leave no room for it."""
        self.tokens = None
        self.tokens, mixes = self.look(scheduler, running_batch)
        if self.tokens == 0:
            # A chunk of nothing would still make a batch.
            return nothing_to_run(running_batch)
        mixed, scheduler.is_mixed_chunk = scheduler.is_mixed_chunk, mixes
        try:
            plan = original(scheduler, running_batch, *args, **kwargs)
        finally:
            scheduler.is_mixed_chunk = mixed
        if self._turns is not None and plan.batch_to_run is None:
            self._turns.nothing_came(scheduler, len(running(running_batch.reqs)))
        return plan

    def look(self, scheduler: Any, running_batch: Any) -> tuple[int, bool]:
        """Prefill tokens of the step that is to be built, and whether the rows that decode share its pass."""
        page, beside = int(scheduler.page_size), running(running_batch.reqs)
        if self._turns is not None and not self._turns.is_prefill(scheduler, len(beside)):
            return 0, False
        rows, context = 0, 0
        if scheduler.is_mixed_chunk or getattr(scheduler, "enable_pdmux", False):
            rows, context = len(beside), _context(scheduler, running_batch, beside)
        mixes = bool(scheduler.is_mixed_chunk and self._policy.mixes(rows, context))
        tokens = self._policy.prefill_tokens(rows, context)
        if mixes:
            # The engine counts decode rows against its chunk, and does not expect more rows than that.
            tokens = min(tokens, int(scheduler.chunked_prefill_size) - len(running_batch.reqs))
        if not beside:
            tokens = max(tokens, page) if tokens > 0 else max(_LEAST, page)
        return max(tokens, 0) // page * page, mixes

    def bound(self, _: None, adder: Any, *args: Any, **kwargs: Any) -> None:
        """Give the adder of this step its tokens; never more than the engine's own chunk."""
        if self.tokens is None:
            return
        if adder.rem_chunk_tokens is None:
            # Without chunks the first prompt goes whole, whatever is left.
            adder.rem_input_tokens = min(adder.rem_input_tokens, self.tokens)
        else:
            adder.rem_chunk_tokens = min(adder.rem_chunk_tokens, self.tokens)


class Turns:
    """Whose turn it is, by a `TurnsBudget`: that of prefill at first, and whenever nothing decodes."""

    def __init__(self, policy: TurnsBudget) -> None:
        self._policy = policy
        self._prefill = True
        self._most = 0

    def is_prefill(self, scheduler: Any, rows: int) -> bool:
        """Whether a step may prefill. A prompt that is half in goes on in any case."""
        self._prefill = self._prefill or scheduler.chunked_req is not None or self._policy.is_due(rows, self._most)
        return self._prefill

    def nothing_came(self, scheduler: Any, rows: int) -> None:
        """A step that might have prefilled did not: the turn is over, unless a prompt is on its way that others wait
        for."""
        late = any(batch.forward_mode.is_extend() for batch, _ in getattr(scheduler, "result_queue", ()))
        if not late and scheduler.chunked_req is None:
            self._prefill, self._most = False, rows


def _context(scheduler: Any, running_batch: Any, beside: list[Any]) -> int:
    """Tokens of the prompts and answers of `beside`, as far as the scheduler knows them."""
    lengths = getattr(running_batch, "seq_lens_cpu", None)
    if lengths is None or len(lengths) != len(beside):
        return sum(len(request.origin_input_ids) + len(request.output_ids) for request in beside)
    # SGLang counts what is in the cache: not yet the last token, which is known here where results do not lag.
    return int(lengths.sum()) + (0 if scheduler.enable_overlap else len(beside))
