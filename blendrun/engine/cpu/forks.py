"""SGLang's own processes as forks of the engine process: what is imported there, they need not import again.

Its scheduler and its detokenizer each import SGLang and torch anew otherwise, which takes longer than all else of a
start. A fork is safe where nothing has touched a GPU and no other thread runs that may hold a lock or has work to do.
The first is the CPU platform's; the second is looked at each time: where there are more threads than one, they start as
SGLang starts them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sglang.srt.entrypoints.engine import Engine


class ForkingEngine(Engine):  # type: ignore[misc]  # SGLang's class is untyped here
    """`sglang.Engine`, whose two methods that start processes are made to be overridden."""

    @classmethod
    def _launch_scheduler_processes(cls, *arguments: Any, **options: Any) -> Any:
        with _forking():
            return super()._launch_scheduler_processes(*arguments, **options)

    @classmethod
    def _launch_detokenizer_subprocesses(cls, *arguments: Any, **options: Any) -> Any:
        with _forking():
            return super()._launch_detokenizer_subprocesses(*arguments, **options)


@contextmanager
def _forking() -> Iterator[None]:
    """Processes that are started inside are forks, if that is safe now."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        yield
        return
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)
