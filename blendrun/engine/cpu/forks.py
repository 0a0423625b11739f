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
from functools import cache
from pathlib import Path
from typing import Any

from sglang.srt.entrypoints.engine import Engine


class ForkingEngine(Engine):  # type: ignore[misc]  # SGLang's class is untyped here
    """`sglang.Engine`, whose two methods that start processes are made to be overridden."""

    @classmethod
    def _launch_scheduler_processes(cls, *arguments: Any, **options: Any) -> Any:
        _remember_tokenizer()
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


def _remember_tokenizer() -> None:
    """Load the tokenizer now, once for all: SGLang's three processes load it four times otherwise, at half a second.

    Names of SGLang 0.5.23. Where they are others, or this tokenizer needs other arguments, each process loads its own.
    """
    from sglang.srt.managers import detokenizer_manager, scheduler, tokenizer_manager, tp_worker

    try:
        serving, model = scheduler.get_serving(), scheduler.get_model()
        load = cache(scheduler.get_tokenizer)
        if not serving.skip_tokenizer_init:
            load(
                serving.tokenizer_path,
                tokenizer_mode=serving.tokenizer_mode,
                trust_remote_code=model.trust_remote_code,
                revision=model.revision,
                tokenizer_backend=serving.tokenizer_backend,
            )
    except Exception:  # noqa: BLE001  # whatever it is, SGLang's own loading says it better
        return
    for module in (detokenizer_manager, scheduler, tokenizer_manager, tp_worker):
        if hasattr(module, "get_tokenizer"):
            module.get_tokenizer = load
