"""LoRA adapters on the CPU: SGLang's plain backend, whose small tensors are pinned as if a GPU were to read them.

Pinning needs a device, and raises without one. Here nothing is copied to a device, so it is left out: where LoRA is on,
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from blendrun.engine.sglang_names import LORA_LAYERS, LORA_MANAGER, LORA_PRODUCTS


def hooks() -> dict[str, Callable[..., Any]]:
    """By what they go around."""
    return {LORA_MANAGER: manage}


def manage(original: Callable[..., None], manager: Any, *arguments: Any, **named: Any) -> None:
    """The manager of all adapters is made once, before anything of theirs is."""
    torch.Tensor.pin_memory = _stay
    modules: list[Any] = [import_module(name) for name in (LORA_LAYERS, LORA_PRODUCTS)]
    for module in modules:
        if not isinstance(module.torch, Unpinned):
            module.torch = Unpinned()
    original(manager, *arguments, **named)


class Unpinned:
    """torch, whose functions that make tensors pass over `pin_memory`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def tensor(self, *data: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.tensor(*data, **options)

    def zeros(self, *size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.zeros(*size, **options)

    def empty(self, *size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.empty(*size, **options)


def _stay(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor
