"""The engine process for the operating system: started before anybody knows its settings, ended with its group."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blendrun.engine.base import Platform
from blendrun.engine.settings import process_environment

# Bytes. SGLang leaves socket files behind, and a socket's path may have 107.
_LONGEST_TMPDIR = 40
_PREFIX, _OWNER = "blendrun-", "owner"
# How long a killed process group may take to vanish; the kernel needs milliseconds, a GPU context some seconds.
REAP_TIMEOUT_S = 30.0


@dataclass(slots=True, frozen=True)
class Child:
    """A process that imports SGLang and then waits for `channel.Configure` on `connection`.

    scratch: a folder of its own for what it and SGLang leave behind. Until it is configured it prints to `early_log`.
    owner: a file there, locked as long as whoever started the process lives.
    """

    platform: Platform
    threads: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    scratch: Path
    owner: BinaryIO

    @property
    def early_log(self) -> Path:
        return self.scratch / "early.log"

    @property
    def lives(self) -> bool:
        """Whether the process, or one that it started, still runs."""
        return self.process.poll() is None or _group_lives(self.process.pid)

    def kill(self) -> None:
        """End it and all that it started, at once; whoever calls waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def clear(self) -> None:
        """Remove what it left; for one that is gone."""
        _remove(self.scratch)
        self.owner.close()

    def end(self) -> None:
        """Kill it, wait until it is gone and clear up."""
        self.connection.close()
        self.kill()
        deadline = time.monotonic() + REAP_TIMEOUT_S
        # An impatient second signal may come while this waits.
        try:
            while self.lives and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            self.clear()


def start_child(platform: Platform, threads: int) -> Child:
    """Start an engine process. Raises OSError.

    Call it from the main thread: the kernel ends the process with the thread that started it.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with contextlib.ExitStack() as on_error, theirs:
        on_error.callback(ours.close)
        short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TMPDIR
        folder = Path(tempfile.gettempdir() if short else "/tmp")
        _sweep(folder)
        scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        on_error.callback(shutil.rmtree, scratch, ignore_errors=True)
        owner = _owner(scratch)
        on_error.callback(owner.close)
        with (scratch / "early.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "blendrun.engine.worker", str(theirs.fileno()), str(os.getpid())],
                env=os.environ | process_environment(platform, threads) | {"TMPDIR": str(scratch)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        on_error.pop_all()
    return Child(platform, threads, process, ours, scratch, owner)


class EarlyChildren:
    """Engine processes that import SGLang while a job is indexed, tokenised and planned. None before `start`."""

    def __init__(self) -> None:
        self._waiting: list[Child] = []

    def start(self, platform: Platform, threads: int, count: int) -> None:
        """Start so many. A signal may end this: what it has begun, `close` ends."""
        # Too early to complain: the engine that needs one tries again, and says why it cannot be had.
        with contextlib.suppress(OSError):
            for _ in range(count):
                self._waiting.append(start_child(platform, threads))

    def take(self) -> Child | None:
        """One that nobody has yet; None where there is none. Whoever takes it ends it."""
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        """End those that nobody wanted."""
        while (child := self.take()) is not None:
            child.end()


def _owner(scratch: Path) -> BinaryIO:
    """The locked file of a new scratch folder. It gets its name when it is locked: see `_sweep`."""
    file = (scratch / f".{_OWNER}").open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Path(file.name).rename(scratch / _OWNER)
    return file


def _sweep(folder: Path) -> None:
    """Remove what runs have left in `folder` that were killed by force: their files are locked by nobody."""
    for owner in folder.glob(f"{_PREFIX}*/{_OWNER}"):
        # The folder is everybody's: what others have put there is left alone, and no link is followed.
        with contextlib.suppress(OSError):
            if owner.parent.lstat().st_uid != os.geteuid():
                continue
            descriptor = os.open(owner, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(owner.parent)


def _remove(scratch: Path) -> None:
    """Remove a scratch folder, and SGLang's files in shared memory that are named after its sockets there."""
    with contextlib.suppress(OSError):
        for socket_file in list(scratch.iterdir()):
            for shared in Path("/dev/shm").glob(f"sglang_loads_{socket_file.name}_*.shm"):
                shared.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _group_lives(group: int) -> bool:
    """Whether a process of this group still runs; a zombie that nobody has reaped yet does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                return True
    return False
