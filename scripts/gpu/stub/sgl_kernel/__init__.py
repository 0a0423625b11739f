"""Stands in for SGLang's compiled kernels where they do not load: two norms in Triton, all else raises when called.

A dense Llama on Triton's attention and torch's sampling calls nothing else of them. Its times are those of these two
kernels, which are a small part of a step; FlashAttention 3 and what pdmux needs are not here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sgl_kernel.norms import fused_add_rmsnorm as fused_add_rmsnorm
from sgl_kernel.norms import rmsnorm as rmsnorm

__version__ = "0.4.10"


class Missing:
    """A name of the compiled package; raises when it is called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: object, **__: object) -> Any:
        raise NotImplementedError(f"{self.name} is a compiled kernel that was not carried to this machine")


def _missing(module: str, name: str) -> Missing:
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing(f"{module}.{name}")


def __getattr__(name: str) -> Missing:
    return _missing(__name__, name)


class _Empty(Loader):
    """Submodules of which every name is there and nothing can be called."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: _missing(spec.name, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


class _Submodules(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        return importlib.util.spec_from_loader(fullname, _Empty(), is_package=True)


# Last: files of this folder come first.
sys.meta_path.append(_Submodules())
