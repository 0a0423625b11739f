"""Small jobs: nobody waits for a compiler that would take longer than the work.

    plan = run_small(len(prompts), lambda: make_plan(prompts))

The first time a process plans so few prompts, Python interprets the loops (`blendrun.tree.interpreted`). A process that
plans more than once is a server or a notebook: from the second plan on the loops are loaded beside it, and once they
are there, nothing is interpreted any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from blendrun.tree.ahead import begin_loading
from blendrun.tree.compiled import kernels_loaded
from blendrun.tree.interpreted import SMALL, interpreted

_T = TypeVar("_T")
_planned = 0


def is_small(prompts: int) -> bool:
    """Whether work on so many prompts does without compiled loops, here and now."""
    return prompts <= SMALL and not kernels_loaded()


def begin_loading_for(prompts: int) -> None:
    """Begin to load the loops, which a plan of so many prompts will want; of few, only if it is not the first one."""
    global _planned  # of the process, as the loops are
    _planned += 1
    if prompts > SMALL or _planned > 1:
        begin_loading()


def run_small(prompts: int, work: Callable[[], _T]) -> _T:
    """What `work` gives, which is on so many prompts: interpreted where they are few and the loops are not loaded."""
    small = is_small(prompts)
    try:
        with interpreted(small):
            return work()
    except ZeroDivisionError:
        # Compiled loops have an infinity there.
        if not small:
            raise
        return work()
