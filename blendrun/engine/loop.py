"""The event loop of the engine process: what a thread raises reaches whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own. Before Python 3.12 a future cannot hold a `StopIteration`, so who waits for a thread that raised
    one would wait for ever: as for a picture's processor where the prompt has more marks than pictures."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        return super().run_in_executor(executor, partial(_run, func, *args))


def _run(func: Callable[[*Ts], T], *args: *Ts) -> T:
    try:
        return func(*args)
    except StopIteration as error:
        raise ValueError(
            "the model's processor found fewer media than marks of media in the prompt: a text holds such a mark itself"
        ) from error
