"""Which engines read a prefix once a decode step for all rows that share it: the one place that says so.

A plan goes by it (`cost.capacity.EngineLimits.shared_reads`): demand, blend and simulation count such reads once.
"""

from __future__ import annotations

from typing import Any

from blendrun.engine.base import Platform

# The name of `engine.cascade` among SGLang's attention backends.
CASCADE = "blendrun_cascade"
# Shorter prefixes are read by each row: splitting them off costs more than it saves (docs/paper.md#shared-reads).
LEAST_SHARED = 256
# Of the attention of blendrun's CPU platform: None while it reads for each row.
_CPU: int | None = None


def shared_reads(platform: Platform, arguments: dict[str, Any]) -> int | None:
    """Least tokens of a prefix that decode attention reads once for all; None where each row reads it.

    arguments: of the engine. All of SGLang's own attention backends read for each row.
    """
    backend = arguments.get("decode_attention_backend") or arguments.get("attention_backend")
    if platform == "cpu":
        return _CPU if backend in (None, "torch_native") else None
    return LEAST_SHARED if backend == CASCADE else None
