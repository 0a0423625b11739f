"""Compiled loops on torch's own threads: those that its matrix products run on, so that no two pools fight for a core.

A job is an array of 64-bit integers, the first of which is a counter: each thread takes the next item of work from it
(`instructions.fetch_add`) until none is left, so it does not matter how many threads come, nor how fast each is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch


@cache
def starter() -> Callable[[int, int, int, int], None] | None:
    """OpenMP's function that has all its threads call (address of a function, its argument, threads, 0).

    None where torch does not run on an OpenMP that has it: no Linux, or a build of somebody's own.
    """
    try:
        # Found in what torch is linked to: other OpenMP libraries in the process have other threads.
        start = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    start.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    start.restype = None
    return start


def run(loop: int, job: ctypes.Array[ctypes.c_int64], threads: int) -> None:
    """Have so many threads, or fewer, call the loop at this address with the address of the job, and wait for them.

    Raises TypeError where there is no `starter`.
    """
    job[0] = 0
    starter()(loop, ctypes.addressof(job), threads, 0)  # type: ignore[misc]


def run_alone(loop: int, job: ctypes.Array[ctypes.c_int64]) -> None:
    """The same in this thread."""
    job[0] = 0
    _callable(loop)(ctypes.addressof(job))


@cache
def _callable(loop: int) -> Callable[[int], int]:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loop)


def new_job(size: int) -> ctypes.Array[ctypes.c_int64]:
    """Of so many integers, all 0."""
    return (ctypes.c_int64 * size)()
