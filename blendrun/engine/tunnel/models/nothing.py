"""A model without weights. Its answers end where they are told to, by SGLang's own rule: an end-of-sequence token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from blendrun.engine.sglang_names import LOGITS_OUTPUT, load

_Output: Any = load(LOGITS_OUTPUT)
# The model's whole vocabulary as far as logits go: the end, and tokens that are told apart by row and place, so that
# answers behind one prompt are no shared prefix.
END_TOKEN, _VOCABULARY = 1, 64


class ComputesNothing(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Takes the place of a causal language model. `ends_at` is written by the scheduler's side of the tunnel.

    ends_at: i64 (slots,), by SGLang's request slot: tokens of the sequence behind which the answer ends.
    """

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        self.ends_at = torch.zeros(0, dtype=torch.int64)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any, **_: Any) -> Any:
        slots, length = forward_batch.req_pool_indices, forward_batch.seq_lens
        token = 2 + (slots * 7 + length) % (_VOCABULARY - 2)
        if len(self.ends_at):
            token = torch.where(length >= self.ends_at[slots], END_TOKEN, token)
        logits = torch.zeros((len(slots), _VOCABULARY))
        logits.scatter_(1, token.unsqueeze(1), 1.0)
        return _Output(next_token_logits=logits)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """There are none."""


EntryClass = ComputesNothing
