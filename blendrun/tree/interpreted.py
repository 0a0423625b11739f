"""Loops of a small job, run by the interpreter: done before the compiler would be, or Numba loaded.

    with interpreted(len(prompts) <= SMALL):
        tree = build_tree(prompts)

In there every kernel (`blendrun.tree.compiled`) is the Python function that it is written as, in this thread and those
that get its context. Records of arrays are objects meanwhile, whose fields Python reads much faster than NumPy's.
Division by zero raises ZeroDivisionError here, where compiled loops give an infinity: then do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

# Prompts of a job whose plan takes a few seconds so; compiling takes twenty, once.
SMALL = 100
_ON: ContextVar[bool] = ContextVar("interpreted", default=False)


@contextmanager
def interpreted(wanted: bool = True) -> Iterator[None]:
    """Kernels called in here are interpreted, if `wanted`."""
    before = _ON.set(wanted)
    try:
        yield
    finally:
        _ON.reset(before)


def interprets() -> bool:
    """Whether kernels are interpreted here."""
    return _ON.get()


def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a kernel's function. Arrays of records are changed in place, as by its machine code."""
    given, changed = [], []
    for argument in arguments:
        if isinstance(argument, np.ndarray) and argument.dtype.names:
            records = _records(argument)
            changed.append((argument, records))
            given.append(records)
        else:
            given.append(argument)
    result = function(*given)
    for array, records in changed:
        read = attrgetter(*array.dtype.names)
        array[:] = [read(record) for record in records]
    return result


def _records(array: np.ndarray[Any, Any]) -> list[Any]:
    names = array.dtype.names
    kind, records = _kind(names), []
    for values in array.tolist():
        record = kind()
        for name, value in zip(names, values, strict=True):
            setattr(record, name, value)
        records.append(record)
    return records


@cache
def _kind(names: tuple[str, ...]) -> type:
    return type("Record", (), {"__slots__": names})
