"""Makes the cascade one of SGLang's attention backends, in every process of an engine that asks for it."""

from __future__ import annotations

from typing import Any

from blendrun.engine.sglang_names import ATTENTION_CHOICES, REGISTER_ATTENTION, load
from blendrun.engine.shared_reads import CASCADE

# Set in the environment of an engine that asks for it.
CASCADE_VARIABLE = "BLENDRUN_CASCADE"


def register() -> None:
    """Twice is once. Raises ImportError or AttributeError where SGLang has no such registry."""
    from sglang.srt.arg_groups.choices import ATTENTION_BACKEND_CHOICES

    if CASCADE not in ATTENTION_BACKEND_CHOICES:
        load(ATTENTION_CHOICES)([CASCADE])
    load(REGISTER_ATTENTION)(CASCADE)(make)


def make(runner: Any) -> Any:
    """The backend of a model runner. Imports FlashInfer. Raises ValueError for one that the cascade cannot serve."""
    if runner.use_mla_backend:
        raise ValueError(f"attention_backend={CASCADE}: models with latent attention read a cache of another kind")
    from blendrun.engine.cascade.backend import CascadeAttnBackend

    return CascadeAttnBackend(runner)
