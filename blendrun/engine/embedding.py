"""SGLang's arguments for an engine that decodes nothing."""

from __future__ import annotations

from typing import Any

from blendrun.engine.base import Platform

# Prompts are read whole, and nothing that was computed of one is kept for another.
_WHOLE_PROMPTS = {"disable_radix_cache": True, "chunked_prefill_size": -1}
# Without chunks SGLang keeps so many gigabytes free for a step that a machine without a GPU has none left for a pool.
_CPU_FRACTION = {"mem_fraction_static": 0.5}
# Without a KV pool keys and values are attended as they are computed. SGLang does that with FlashAttention alone
# (0.5.23, arg_groups/kv_cache_hook.py), its own choice on GPUs of compute capability 9.
_WITHOUT_POOL = {**_WHOLE_PROMPTS, "attention_backend": "fa3", "prefill_only_disable_kv_cache": True}
_FLASH_CAPABILITY = 9
_BACKENDS = ("prefill_attention_backend", "decode_attention_backend", "kv_cache_dtype")


def embedding_arguments(
    arguments: dict[str, Any],
    platform: Platform,
    *,
    bidirectional: bool,
    shares: bool,
    compute_capability: tuple[int, int] | None,
) -> dict[str, Any]:
    """arguments: the user's own, which win. shares: whether prompts have enough in common for a cache to be of use."""
    chosen: dict[str, Any] = {"is_embedding": True}
    if bidirectional:
        chosen |= _WHOLE_PROMPTS | (_CPU_FRACTION if platform == "cpu" else {})
    flash = platform == "gpu" and compute_capability is not None and compute_capability[0] == _FLASH_CAPABILITY
    own = any(arguments.get(name) is not None for name in (*_WITHOUT_POOL, *_BACKENDS))
    if flash and not own and (bidirectional or not shares):
        chosen |= _WITHOUT_POOL
    return chosen | arguments
