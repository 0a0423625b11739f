"""The runner's side of the engine process: start it, talk to it, notice its death, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from blendrun.engine.base import EngineInfo, EngineSettings, OnPhase, Result, WorkItem
from blendrun.engine.channel import AllDone, Channel, CloseInput, Configure, Died, Flush, Flushed, FromEngine, Phase
from blendrun.engine.loopback import loopback
from blendrun.engine.settings import environment
from blendrun.errors import EngineUnavailableError

_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 65_536
_LONGEST_TMPDIR = 40
# A ready engine process ends by itself when its channel closes, and Python then unlinks its semaphores; one that does
# not is killed after this long.
_GRACE_S = 5.0
# How long a killed process group may take to vanish; the kernel needs milliseconds, a GPU context some seconds.
_REAP_TIMEOUT_S = 30.0
# What CUDA, ROCm, torch's CPU allocator, SGLang and malloc say.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|not enough memory|can(?:'t|not) allocate memory|ALLOC_FAILED|MemoryError",
    re.IGNORECASE,
)
# How often the kernel has ended a process of this machine (and of this container) for want of memory.
_KILL_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))


class SglangEngine:
    """SGLang in a child process group of its own. Keeps `blendrun.engine.base.Engine`.

    log_file takes everything the engine prints; its tail is part of the error when the engine dies.
    """

    def __init__(self, settings: EngineSettings, log_file: Path) -> None:
        self._settings = settings
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[FromEngine] | None = None
        self._ready = False
        self._scratch: Path | None = None
        self._log_start = 0
        self._kills_before = 0

    @property
    def pid(self) -> int | None:
        """Process id (and group id) of the engine process while there is one."""
        return self._process.pid if self._process else None

    @property
    def fetching(self) -> int:
        return 0

    async def start(self, on_phase: OnPhase) -> EngineInfo:
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        self._kills_before = _kernel_kills()
        try:
            ours = self._spawn()
        except OSError as error:
            raise EngineUnavailableError(f"the engine process could not be started: {error}") from error
        reader, writer = await asyncio.open_connection(sock=ours)
        channel = self._channel = Channel[FromEngine](reader, writer, FromEngine)  # type: ignore[arg-type]
        try:
            await channel.send(Configure(self._settings))
        except ConnectionError as error:
            raise await self._death("the engine did not start") from error
        while (message := await channel.receive()) is not None:
            if isinstance(message, Phase):
                on_phase(message.name)
            elif isinstance(message, EngineInfo):
                self._ready = True
                return message
            elif isinstance(message, Died):
                raise await self._death(f"the engine did not start: {message.reason}")
        raise await self._death("the engine did not start")

    def _spawn(self) -> socket.socket:
        """Start the process; our end of the channel."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with contextlib.ExitStack() as opened:
            opened.callback(theirs.close)
            log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            opened.callback(os.close, log)
            # SGLang leaves socket files behind. A socket's path may have 107 bytes: no folder below a long TMPDIR.
            short = len(tempfile.gettempdir()) <= _LONGEST_TMPDIR
            self._scratch = Path(tempfile.mkdtemp(prefix="blendrun-", dir=None if short else "/tmp"))
            private = {"TMPDIR": str(self._scratch)} | loopback(self._settings, self._scratch)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "blendrun.engine.worker", str(theirs.fileno()), str(os.getpid())],
                env=os.environ | environment(self._settings) | private,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return ours

    async def submit(self, item: WorkItem) -> None:
        await self._send(item)

    async def close_input(self) -> None:
        await self._send(CloseInput())

    async def flush(self) -> None:
        """Forget the prefix cache, between two sets of requests that are to be compared.

        Raises EngineUnavailableError when the engine is dead.
        """
        assert self._channel is not None, "flush before start"
        await self._send(Flush())
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Flushed) and message.done:
                return
            if isinstance(message, Flushed):
                raise EngineUnavailableError("the engine did not forget its cache: something still runs in it")
        raise await self._death("the engine died")

    async def _send(self, message: WorkItem | CloseInput | Flush) -> None:
        # A dead engine is reported by `results`, with its log; a failed write says less. It may be on its way out now.
        if (channel := self._channel) is None:
            return
        with contextlib.suppress(ConnectionError):
            await channel.send(message)

    async def results(self) -> AsyncIterator[Result]:
        assert self._channel is not None, "results before start"
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Result):
                yield message
            elif isinstance(message, AllDone):
                return
            elif isinstance(message, Died):
                raise await self._death(f"the engine died: {message.reason}")
        raise await self._death("the engine died")

    async def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        # Forgotten only once it is gone: a cancelled stop must leave the next one something to kill.
        if (process := self._process) is not None:
            if not (self._ready and await self._gone(process, _GRACE_S)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await self._gone(process, _REAP_TIMEOUT_S)
            self._process, self._ready = None, False
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    async def _gone(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Whether the process and its group end within `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while process.poll() is None or _group_lives(process.pid):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def _death(self, what: str) -> EngineUnavailableError:
        process = self._process
        await self.stop()
        status = "" if process is None or process.returncode is None else f" (exit status {process.returncode})"
        return EngineUnavailableError(
            f"{what}{status}. The end of {self._log_file}:\n{self.log_tail()}", out_of_memory=self._out_of_memory()
        )

    def _out_of_memory(self) -> bool:
        """Whether this start of the engine died for want of memory."""
        return _kernel_kills() > self._kills_before or bool(_OUT_OF_MEMORY.search(self._last_words()))

    def log_tail(self) -> str:
        """The last lines the engine printed."""
        lines = self._last_words().splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join(f"  | {line}" for line in lines) or "(no log)"

    def _last_words(self) -> str:
        """The end of what this start of the engine printed."""
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(self._log_start, self._log_file.stat().st_size - _LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""


def _kernel_kills() -> int:
    count = 0
    for path in _KILL_COUNTERS:
        with contextlib.suppress(OSError):
            count += sum(int(number) for number in re.findall(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE))
    return count


def _group_lives(group: int) -> bool:
    """Whether a process of this group still runs; a zombie that nobody has reaped yet does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                return True
    return False
