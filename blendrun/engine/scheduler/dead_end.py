"""A grammar that allows no token ends its request, not the engine.

Some grammars compile and yet have no way on: `root ::= root`, a schema that refers to itself alone, a rule that no text
can satisfy. All logits of such a row are masked away, and drawing from what is left raises in the scheduler, which ends
the engine. Here the mask of a row without a way on is opened: SGLang draws some token, its grammar refuses it, and
SGLang aborts this one request (batch_result_processor.py).
"""

from __future__ import annotations

from typing import Any

from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.sglang_names import FILL_MASK


def open_dead_end(_: None, grammar: Any, vocab_mask: Any, idx: int) -> None:
    """vocab_mask: i32 (rows, vocabulary / 32), a bit a token; idx: the row that was filled."""
    row = vocab_mask[idx]
    if not row.any():
        row.fill_(-1)


def hooks() -> list[Hook]:
    return [Hook("dead_end", FILL_MASK, open_dead_end, "after", warmed=False)]
