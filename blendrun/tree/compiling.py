"""Kernels compiled into the cache for another process: `python -m blendrun.tree.compiling MODULE:NAME ...`, started by
`blendrun.tree.compiled`."""

from __future__ import annotations

import sys
from importlib import import_module


def main(names: list[str]) -> None:
    for name in names:
        module, _, function = name.partition(":")
        getattr(import_module(module), function).load()


if __name__ == "__main__":
    main(sys.argv[1:])
