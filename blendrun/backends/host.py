"""Runs one after the other in a process of their own, on engines that stay: for `blendrun.Engine` and `blendrun serve`.

A run wants a process's main thread, its signals and an event loop, and an engine dies with the thread that started it.
Whoever calls from a notebook, a thread or a server has none of that to give, so a host has it: it runs what a command
would run, and keeps the engine for the next job.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from typing import Any, BinaryIO

import msgspec

from blendrun.backends.options import RunOptions
from blendrun.errors import EXIT_BUG, EngineUnavailableError

# How long a host may take to let go of its engines and end.
_CLOSE_S = 30.0
# A stop signal that a run has not heard of is sent again, once the first one's drain must be over.
_MARGIN_S = 2.0
_DRAIN_S = 20.0


class RunJob(msgspec.Struct, frozen=True, tag="run"):
    """To a host: run this, by the names of `RunOptions`."""

    options: dict[str, Any]


class Release(msgspec.Struct, frozen=True, tag="release"):
    """To a host: let go of the engines that have nothing to do."""


class Began(msgspec.Struct, frozen=True, tag="began"):
    """Of a host: from now on a signal stops the run."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """Of a host: how a run ended, as a command would. message: "" where all was answered."""

    exit_code: int
    message: str = ""


class Released(msgspec.Struct, frozen=True, tag="released"):
    """Of a host: no engine is left."""


@dataclass(slots=True)
class _Process:
    """A host's. file: for its lines, on `connection`. runs: whether a signal stops something."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    file: RawIOBase
    runs: bool = False

    def end(self) -> None:
        """Have it end, and wait for that; a run that is under way stops."""
        with suppress(OSError):
            # Whoever reads from it in another thread holds it open: that thread has its end of file now.
            self.connection.shutdown(socket.SHUT_RDWR)
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_CLOSE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.file.close()
            self.connection.close()


class Host:
    """A process that runs jobs. One caller at a time, from any thread; `stop_run` and `close` from any other."""

    def __init__(self) -> None:
        self._now: _Process | None = None
        self._busy = threading.Lock()
        # Of what is above; never held while anything is waited for.
        self._state = threading.Lock()
        self._closed = False
        # Whether a run was asked for, and the signal that is to stop it where it has not begun.
        self._asked, self._wanted = False, list[int]()

    @property
    def pid(self) -> int | None:
        now = self._now
        return None if now is None else now.process.pid

    def run(self, options: RunOptions) -> Ended:
        """Run a job to its end. An interrupt of the caller's drains it, as Ctrl-C drains a command, and goes on.

        Raises EngineUnavailableError where the host itself is lost, or was closed.
        """
        given = {name: value for name, value in msgspec.to_builtins(options, enc_hook=str).items() if value is not None}
        with self._busy:
            found = self._ask(RunJob(given), options.drain_timeout + _MARGIN_S)
        if not isinstance(found, Ended):
            raise EngineUnavailableError("the process that runs jobs ended; its answers so far are kept")
        return found

    def release(self) -> None:
        """Have the engines ended that have nothing to do."""
        with self._busy:
            if self._now is not None:
                self._ask(Release())

    def stop_run(self, number: int = signal.SIGTERM) -> bool:
        """Have the run that is under way end as a command does that gets this signal. Returns whether there is one."""
        with self._state:
            if self._now is not None and self._now.runs:
                self._now.process.send_signal(number)
            elif self._asked:
                # Sent as soon as it can be heard.
                self._wanted = [number]
            return self._asked

    def end_process(self) -> None:
        """End the host's process and its engines; a run that is under way stops. The next run has another process."""
        with self._state:
            now, self._now = self._now, None
        if now is not None:
            now.end()

    def close(self) -> None:
        """The same, for good: a later run raises EngineUnavailableError."""
        self._closed = True
        self.end_process()

    def _ask(self, message: RunJob | Release, again: float = _DRAIN_S + _MARGIN_S) -> Ended | Released | None:
        """The answer; None where the host has ended. again: seconds until an interrupt that stops nothing is sent
        once more."""
        now = self._started(asked=isinstance(message, RunJob))
        try:
            now.file.write(msgspec.json.encode(message) + b"\n")
            return self._answer(now, again)
        except (OSError, ValueError, EOFError):
            self._forget(now)
            return None
        finally:
            with self._state:
                now.runs = self._asked = False
                self._wanted.clear()

    def _answer(self, now: _Process, again: float) -> Ended | Released:
        """Raises OSError, ValueError, EOFError where the host has ended."""
        try:
            while (found := self._line(now)) is None:
                pass
        except KeyboardInterrupt:
            # What a signal raises can be lost where Python forgives all exceptions, in a `__del__` for one.
            self.stop_run(signal.SIGINT)
            ended = False
            while not ended:
                if _readable(now.connection, again):
                    ended = self._line(now) is not None
                else:
                    self.stop_run(signal.SIGINT)
            raise
        return found

    def _line(self, now: _Process) -> Ended | Released | None:
        """What a run or a release ended with; None where it has begun."""
        # An interrupt while this waits loses nothing of a line.
        _readable(now.connection, None)
        if not (line := now.file.readline()).endswith(b"\n"):
            raise EOFError
        found: Began | Ended | Released = msgspec.json.decode(line, type=Began | Ended | Released)
        if not isinstance(found, Began):
            return found
        with self._state:
            now.runs = True
            if self._wanted:
                now.process.send_signal(self._wanted.pop())
        return None

    def _forget(self, lost: _Process) -> None:
        with self._state:
            if self._now is lost:
                self._now = None
        lost.end()

    def _started(self, *, asked: bool) -> _Process:
        """asked: for a run, which a signal stops."""
        with self._state:
            if self._closed:
                raise EngineUnavailableError("the process that runs jobs was ended")
            if self._now is None:
                self._now = _start()
            self._asked = asked
            return self._now


def _start() -> _Process:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "blendrun.backends.host_process", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # Ctrl-C is the caller's, who says what becomes of it.
            start_new_session=True,
        )
    return _Process(process, ours, ours.makefile("rwb", buffering=0))


def _readable(connection: socket.socket, seconds: float | None) -> bool:
    """Whether there is something to read, or an end, within `seconds`. Raises OSError, ValueError for a closed one."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def serve(
    descriptor: int, run: Callable[[dict[str, Any], Callable[[], None]], Ended], release: Callable[[], None]
) -> None:
    """The host's side: answer until whoever started it closes the other end.

    run: takes the options, and what it calls as soon as a signal stops it.
    """
    with os.fdopen(descriptor, "r+b", buffering=0) as connection:
        for line in iter(connection.readline, b""):
            message = msgspec.json.decode(line, type=RunJob | Release)
            answer: Ended | Released
            if isinstance(message, RunJob):
                answer = run(message.options, lambda: _tell(connection, Began()))
            else:
                release()
                answer = Released()
            _tell(connection, answer)


def _tell(connection: BinaryIO, message: Began | Ended | Released) -> None:
    connection.write(msgspec.json.encode(message) + b"\n")


def bug(error: BaseException) -> Ended:
    """How a run ended that should not have ended so."""
    return Ended(EXIT_BUG, f"{type(error).__name__}: {error}")
