"""The runner's side of the engine process: start it, talk to it, notice its death, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from blendrun.engine.base import EngineInfo, EngineSettings, Result, WorkItem
from blendrun.engine.channel import (
    AllDone,
    Channel,
    CloseInput,
    Configure,
    Died,
    Flush,
    Flushed,
    FromEngine,
    NextJob,
    Phase,
)
from blendrun.engine.child import REAP_TIMEOUT_S, Child, start_child
from blendrun.engine.kept import Kept, KeptEngines, for_any_plan
from blendrun.engine.log_copy import LogCopy
from blendrun.engine.loopback import loopback
from blendrun.engine.scheduler.plugin import NEXT_VARIABLE
from blendrun.engine.settings import settings_environment
from blendrun.engine.threads import in_thread
from blendrun.errors import EngineUnavailableError
from blendrun.events import Listener, PhaseStarted
from blendrun.text import cut, printable

_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 65_536
_LONGEST_LINE = 1000
# A ready engine process ends by itself when its channel closes, and Python then unlinks its semaphores; one that does
# not is killed after this long.
_GRACE_S = 5.0
# What CUDA, ROCm, torch's CPU allocator, SGLang and malloc say.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|not enough memory|can(?:'t|not) allocate memory|ALLOC_FAILED|MemoryError",
    re.IGNORECASE,
)
# How often the kernel has ended a process of this machine (and of this container) for want of memory.
_KILL_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))


class SglangEngine:
    """SGLang in a child process group of its own. Keeps `blendrun.engine.base.Engine`.

    log_file takes everything the engine prints as long as this has it; its tail is part of the error when the engine
    dies. early: gives a process that has been started before, or None. kept: where it may come from, and is left once
    it has nothing to do; None: it is ended then.
    """

    def __init__(
        self,
        settings: EngineSettings,
        log_file: Path,
        early: Callable[[], Child | None] = lambda: None,
        kept: KeptEngines | None = None,
    ) -> None:
        self._settings = settings if kept is None else for_any_plan(settings)
        # What a plan asks for now, of an engine that is made for all of them.
        self._scheduler = settings.scheduler
        self._log_file = log_file
        self._early = early
        self._kept = kept
        self._info: EngineInfo | None = None
        # Requests that have no result yet, and whether the engine said that it has nothing to do.
        self._open, self._idle = 0, False
        self._child: Child | None = None
        self._channel: Channel[FromEngine] | None = None
        self._ready = False
        self._log_start = 0
        self._copy: LogCopy | None = None
        self._kills_before = 0

    @property
    def pid(self) -> int | None:
        """Process id (and group id) of the engine process while there is one."""
        return self._child.process.pid if self._child else None

    @property
    def fetching(self) -> int:
        return 0

    async def start(self, listener: Listener) -> EngineInfo:
        if self._kept is not None:
            if (kept := self._kept.take(self._settings)) is not None:
                if (info := await self._taken_over(kept)) is not None:
                    return info
                await self.stop()
            # Not here: signals, and all else that this loop looks after, would wait until they are gone.
            await in_thread(self._kept.close)
        self._begin_log()
        try:
            child = self._child = self._started()
        except OSError as error:
            raise EngineUnavailableError(f"the engine process could not be started: {error}") from error
        listener(PhaseStarted("load", "import"))
        channel = self._channel = await self._connected(child)
        variables, log = settings_environment(self._settings) | loopback(self._settings, child.scratch), self._log_file
        if self._kept is not None:
            log, self._copy = child.kept_log, LogCopy(child.kept_log, self._log_file)
            variables[NEXT_VARIABLE] = str(child.scratch / "next-job.json")
        try:
            await channel.send(Configure(self._settings, variables, str(log.absolute())))
        except ConnectionError as error:
            raise await self._death("the engine did not start") from error
        while (message := await channel.receive()) is not None:
            child.note_shared()
            if isinstance(message, Phase):
                listener(PhaseStarted("load", message.name))
            elif isinstance(message, EngineInfo):
                self._ready, self._info = True, message
                return message
            elif isinstance(message, Died):
                raise await self._death(f"the engine did not start: {message.reason}")
        raise await self._death("the engine did not start")

    async def _connected(self, child: Child) -> Channel[FromEngine]:
        # One that may be kept is spoken to from another event loop next time.
        connection = child.connection if self._kept is None else child.connection.dup()
        reader, writer = await asyncio.open_connection(sock=connection)
        return Channel[FromEngine](reader, writer, FromEngine)  # type: ignore[arg-type]

    async def _taken_over(self, kept: Kept) -> EngineInfo | None:
        """What an engine that was kept says of itself; None for one that cannot go on."""
        self._child, self._info = kept.child, kept.info
        self._begin_log()
        with contextlib.suppress(OSError):
            self._make_log()
        self._copy = LogCopy(kept.child.kept_log, self._log_file)
        self._channel = await self._connected(kept.child)
        await self._send(NextJob(self._scheduler))
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Flushed) and message.done:
                self._ready = True
                # Its notes were told when it was started.
                return msgspec.structs.replace(kept.info, notes=())
            if isinstance(message, Flushed | Died):
                break
        return None

    def _begin_log(self) -> None:
        """What is there already was said by others."""
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        self._kills_before = _kernel_kills()

    def _make_log(self) -> None:
        os.close(os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def _started(self) -> Child:
        """A process that waits for its settings: one that was started early and fits, or a new one."""
        # Where it cannot be written, that is said before anything is started for it.
        self._make_log()
        wanted = (self._settings.platform, self._settings.threads)
        while (child := self._early()) is not None:
            if child.lives and (child.platform, child.threads) == wanted:
                return child
            child.kill()
            self._keep_early_log(child)
            child.end()
        return start_child(*wanted)

    async def submit(self, item: WorkItem) -> None:
        self._open += 1
        self._idle = False
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

    async def _send(self, message: WorkItem | CloseInput | Flush | NextJob) -> None:
        # A dead engine is reported by `results`, with its log; a failed write says less. It may be on its way out now.
        if (channel := self._channel) is None:
            return
        with contextlib.suppress(ConnectionError):
            await channel.send(message)

    async def results(self) -> AsyncIterator[Result]:
        assert self._channel is not None, "results before start"
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Result):
                self._open -= 1
                yield message
            elif isinstance(message, AllDone):
                self._idle = self._open == 0
                return
            elif isinstance(message, Died):
                raise await self._death(f"the engine died: {message.reason}")
        raise await self._death("the engine died")

    async def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._is_kept():
            self._end_copy()
            return
        # Forgotten only once it is gone: a cancelled stop must leave the next one something to kill.
        if (child := self._child) is not None:
            if self._kept is not None:
                # What was spoken to was a copy.
                child.connection.close()
            if not (self._ready and await self._gone(child, _GRACE_S)):
                child.kill()
                await self._gone(child, REAP_TIMEOUT_S)
            child.connection.close()
            self._keep_early_log(child)
            self._end_copy()
            child.clear()
            self._child, self._ready = None, False

    def _end_copy(self) -> None:
        """The job's log has all of it then."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def _is_kept(self) -> bool:
        """Whether it was left for the next job."""
        child, info = self._child, self._info
        if self._kept is None or child is None or info is None or not (self._ready and self._idle and child.lives):
            return False
        self._kept.leave(self._settings, Kept(child, info))
        self._child, self._ready = None, False
        return True

    async def _gone(self, child: Child, seconds: float) -> bool:
        """Whether the process and its group end within `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while child.lives:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _keep_early_log(self, child: Child) -> None:
        """What a process said that died before it was told where to say it."""
        with contextlib.suppress(OSError):
            said = child.early_log.read_bytes()
            with self._log_file.open("ab") as log:
                log.write(said)

    async def _death(self, what: str) -> EngineUnavailableError:
        process = self._child.process if self._child else None
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
        return "\n".join(f"  | {printable(cut(line, _LONGEST_LINE))}" for line in lines) or "(no log)"

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
