"""What SGLang settled on where nobody told it, by the card and the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.engine.older import settled


@dataclass(frozen=True, slots=True)
class Resolved:
    """chunk: most prefill tokens of a step; None where prompts are not cut. attention: the backend that decodes, by
    SGLang's name. page: tokens of a page of the KV cache. All None where it cannot be told."""

    chunk: int | None = None
    attention: str | None = None
    page: int | None = None


def resolved(arguments: Any) -> Resolved:
    """From the `ServerArgs` of an engine that is up.

    Its fields hold what was asked for; what came of it lies beside them, and SGLang reads it through a view of its own.
    """
    try:
        view, decode = settled(arguments)
        chunk = view.chunked_prefill_size
        return Resolved(chunk if chunk and chunk > 0 else None, decode, int(view.page_size))
    except (ImportError, AttributeError, TypeError):
        # This SGLang keeps them elsewhere.
        return Resolved()
