"""Runs one after the other in a process of their own, on engines that stay: for `blendrun.Engine` and `blendrun serve`.

A run wants a process's main thread, its signals and an event loop, and an engine dies with the thread that started it.
Whoever calls from a notebook, a thread or a server has none of that to give, so a host has it: it runs what a command
would run, and keeps the engine for the next job.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from typing import Any

import msgspec

from blendrun.backends.options import RunOptions
from blendrun.errors import EXIT_BUG, EngineUnavailableError

# How long a host may take to let go of its engines and end.
_CLOSE_S = 30.0


class RunJob(msgspec.Struct, frozen=True, tag="run"):
    """To a host: run this, by the names of `RunOptions`."""

    options: dict[str, Any]


class Release(msgspec.Struct, frozen=True, tag="release"):
    """To a host: let go of the engines that have nothing to do."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """Of a host: how a run ended, as a command would. message: "" where all was answered."""

    exit_code: int
    message: str = ""


class Released(msgspec.Struct, frozen=True, tag="released"):
    """Of a host: no engine is left."""


class Host:
    """A process that runs jobs. One caller at a time, from any thread; `stop_run` from any other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._file: RawIOBase | None = None
        self._busy = threading.Lock()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def run(self, options: RunOptions) -> Ended:
        """Run a job to its end. An interrupt of the caller's drains it, as Ctrl-C drains a command, and goes on.

        Raises EngineUnavailableError where the host itself is lost.
        """
        given = {name: value for name, value in msgspec.to_builtins(options, enc_hook=str).items() if value is not None}
        with self._busy:
            found = self._ask(RunJob(given))
        if not isinstance(found, Ended):
            raise EngineUnavailableError("the process that runs jobs ended; its answers so far are kept")
        return found

    def release(self) -> None:
        """Have the engines ended that have nothing to do."""
        with self._busy:
            if self._process is not None:
                self._ask(Release())

    def stop_run(self, number: int = signal.SIGTERM) -> None:
        """Have the run that is under way end as a command does that gets this signal."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def close(self) -> None:
        """End the host and its engines; a run that is under way stops."""
        process, file = self._process, self._file
        self._process = self._file = None
        if process is None or file is None:
            return
        with suppress(OSError):
            file.close()
        try:
            process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, message: RunJob | Release) -> Ended | Released | None:
        """The answer; None where the host has ended."""
        file = self._started()
        try:
            file.write(msgspec.json.encode(message) + b"\n")
            file.flush()
            line = self._answer(file)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self.close()
            return None
        return msgspec.json.decode(line, type=Ended | Released)

    def _answer(self, file: RawIOBase) -> bytes:
        try:
            return file.readline()
        except KeyboardInterrupt:
            self.stop_run(signal.SIGINT)
            file.readline()
            raise

    def _started(self) -> RawIOBase:
        if self._file is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "blendrun.backends.host_process", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C is the caller's, who says what becomes of it.
                    start_new_session=True,
                )
            with ours:
                self._file = ours.makefile("rwb", buffering=0)
        return self._file


def serve(descriptor: int, run: Callable[[dict[str, Any]], Ended], release: Callable[[], None]) -> None:
    """The host's side: answer until whoever started it closes the other end."""
    with os.fdopen(descriptor, "r+b", buffering=0) as connection:
        for line in iter(connection.readline, b""):
            message = msgspec.json.decode(line, type=RunJob | Release)
            answer: Ended | Released
            if isinstance(message, RunJob):
                answer = run(message.options)
            else:
                release()
                answer = Released()
            connection.write(msgspec.json.encode(answer) + b"\n")


def bug(error: BaseException) -> Ended:
    """How a run ended that should not have ended so."""
    return Ended(EXIT_BUG, f"{type(error).__name__}: {error}")
