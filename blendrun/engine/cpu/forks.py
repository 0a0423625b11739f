"""Processes as forks of the engine process: what is imported and loaded there, they need not import and load again.

SGLang's scheduler and detokenizer each import SGLang and torch anew otherwise, which takes longer than all else of a
start. A fork is safe where nothing has touched a GPU and no other thread runs that may hold a lock or has work to do.
The first is the CPU platform's; the second is looked at each time: where there are more threads than one, processes
start as SGLang starts them, and a note says so.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def forking() -> Iterator[bool]:
    """What `multiprocessing` starts inside are forks, if that is safe now; whether it is."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        yield False
        return
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield True
    finally:
        multiprocessing.set_start_method(before, force=True)
