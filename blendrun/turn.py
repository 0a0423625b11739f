"""Calls of several threads and tasks take turns, and a call that would wait for its own caller is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from blendrun.errors import UsageError

_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Caller:
    """A thread and, inside an event loop, the task in it."""

    thread: int
    task: asyncio.Task[object] | None


def this_caller() -> Caller:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return Caller(threading.get_ident(), task)


class Turn:
    """One call at a time. reader: who has a stream's answer in hand and will ask for the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reader: Caller | None = None

    @contextmanager
    def taken(self, unwanted: threading.Event | None = None, reader: Caller | None = None) -> Iterator[None]:
        """Wait for the turn and have it; it may be given back in another thread, where a stream is forgotten.

        unwanted: ends the wait. reader: as of this class, of a stream that this call is.
        Raises UsageError where this caller is the one to be waited for, and behind `unwanted`.
        """
        self._refuse(threading.get_ident(), None)
        while not self._lock.acquire(timeout=_LOOK_S):
            if unwanted is not None and unwanted.is_set():
                raise UsageError("the stream was closed before it began")
        try:
            self.reader = reader
            yield
        finally:
            self.reader = None
            self._lock.release()

    def refuse_reader(self) -> None:
        """Raises UsageError for a task, or a thread, that has a stream's answer in hand."""
        caller = this_caller()
        self._refuse(caller.thread, caller.task)

    def _refuse(self, thread: int, task: asyncio.Task[object] | None) -> None:
        reader = self.reader
        if reader is None or reader.thread != thread:
            return
        # Another task of the same loop may wait beside it; what blocks the loop's thread may not.
        if task is None or reader.task is None or reader.task is task:
            raise UsageError("a stream is not at its end: read it to its end, or close() it, before the next call")
