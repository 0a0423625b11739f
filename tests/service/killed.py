"""A server that kills itself as its store changes for the n-th time, forked from the process of the test.

A fork has all modules: such a server is up in a tenth of a second, and so is its process that runs jobs, which is
forked before there is a thread.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from openai import OpenAI

from blendrun.backends import host, host_process
from blendrun.planner.joining import Joining
from blendrun.service import desk, serve
from blendrun.service import jobs as jobs_module
from blendrun.service.jobs import Jobs

_KEY = "key"
# What changes a folder, of all that Python tells of itself.
_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
_WAIT_S = 60.0


class ForkedServer:
    """One on a store, up or dead. run: options of runs.

    kill_at: so many changes of the store before it dies, or the status of a file or a batch behind which it does; None:
    it lives. patience: seconds that it waits for a client's words.
    """

    def __init__(
        self, store: Path, kill_at: int | str | None, run: dict[str, Any], patience: float | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._pid = os.fork()
        if self._pid == 0:
            if patience is not None:
                # The web framework need not be installed where this is only imported.
                from blendrun.service import clients

                clients.HEAD_S = clients.BODY_S = clients.ANSWER_S = patience
            _serve(store, port, kill_at, run)
        self.store, self.port = store, port
        self.client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=_KEY, max_retries=0)
        until = time.monotonic() + _WAIT_S
        while not self.gone and not _answers(port):
            assert time.monotonic() < until
            time.sleep(0.01)

    @property
    def gone(self) -> bool:
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return not self._pid

    @property
    def said(self) -> str:
        """What it has written to its stderr, and those before it beside this store."""
        return (self.store.parent / "stderr").read_text()

    def wait_until_gone(self) -> None:
        until = time.monotonic() + _WAIT_S
        while not self.gone:
            assert time.monotonic() < until
            time.sleep(0.001)

    def end(self) -> None:
        """Kill it, if it is there."""
        self.client.close()
        if not self.gone:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _serve(store: Path, port: int, kill_at: int | str | None, run: dict[str, Any]) -> None:
    """Never returns."""
    try:
        with (store.parent / "stderr").open("ab", buffering=0) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        first, start = [forked_host()], host._start
        # The next one, where the first is lost, is as any.
        host._start = lambda: first.pop() if first else start()
        desk._GATHER_S = 0.0
        joins = Joining(apart=1000.0, together=1.0, first=500.0, longest=0.1)
        # Whoever comes while a job runs is to join it.
        jobs_module.Jobs = partial(Jobs, predict=lambda *_: joins)  # type: ignore[assignment,misc]
        if kill_at is not None:
            _die_at(store, kill_at)
        serve.serve(serve.ServeOptions(store=store, run=run, port=port, keys=(_KEY,)))
    finally:
        os._exit(1)


def _die_at(store: Path, kill_at: int | str) -> None:
    left, beneath = kill_at, f"{store}/"

    def hear(event: str, words: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or not str(words[0]).startswith(beneath):
            return
        # At a look as well: behind the last change there may be no other one.
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "open" and not words[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if isinstance(left, int):
            left -= 1
        elif event == "os.rename" and _status_in(*words[:2]) == left:
            # Behind this one.
            left = 0

    sys.addaudithook(hear)


def _status_in(path: Path, becomes: Path) -> str | None:
    """What an object that is about to have its name says of itself; "joined" of a job that another batch is in now."""
    if Path(becomes).name == "run.json":
        return "joined" if len(json.loads(Path(path).read_bytes())["batches"]) > 1 else None
    if Path(becomes).suffix != ".json" or Path(becomes).parent.name not in ("files", "batches"):
        return None
    return str(json.loads(Path(path).read_bytes())["status"])


class _Forked:
    """As much of `subprocess.Popen` as a host needs of its process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def poll(self) -> int | None:
        self._ended = self._ended or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return 0 if self._ended else None

    def wait(self, seconds: float = _WAIT_S) -> int:
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("host", seconds)
            time.sleep(0.005)
        return 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def forked_host() -> host._Process:
    """A process that runs jobs, with all modules. To be called before there are threads that matter to it."""
    ours, theirs = socket.socketpair()
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            ours.close()
            os.setsid()
            sys.argv = ["host", str(theirs.detach()), str(server)]
            host_process.main()
        finally:
            os._exit(0)
    theirs.close()
    process: Any = _Forked(pid)
    return host._Process(process, ours, ours.makefile("rwb", buffering=0))
