"""What older versions of SGLang lack on a CPU that is a platform of its own, as newer ones have it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from blendrun.engine.sglang_names import TOKEN_ALLOCATOR, XGRAMMAR, load, reaches


def allocator(size: int, *, page_size: int, **options: Any) -> Any:
    """A pool of `size` tokens. Before 0.5.22 SGLang asks each platform for one.

    Raises ValueError for pages of several tokens: their allocator is for GPUs before that version.
    """
    if page_size != 1:
        raise ValueError(f"page_size={page_size} on the CPU takes SGLang 0.5.22 or newer")
    return load(TOKEN_ALLOCATOR)(size, **options)


def mend_grammars() -> None:
    """Have grammars work without a GPU, which those of 0.5.17 do not: masks are pinned, and applied by Triton."""
    if reaches("0.5.18"):
        return
    import torch
    import xgrammar

    backend: Any = import_module(XGRAMMAR)

    def allocate(vocab_size: int, batch_size: int) -> torch.Tensor:
        return torch.full(xgrammar.get_bitmask_shape(batch_size, vocab_size), -1, dtype=xgrammar.bitmask_dtype)

    def apply(_: Any, logits: torch.Tensor, vocab_mask: torch.Tensor) -> None:
        xgrammar.apply_token_bitmask_inplace(logits, vocab_mask, backend="cpu")

    backend._allocate_token_bitmask = allocate
    backend.XGrammarGrammar.apply_vocab_mask = apply
