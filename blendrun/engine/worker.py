"""The engine process: `python -m blendrun.engine.worker FD PARENT`, started by `blendrun.engine.child`.

It holds SGLang's Engine, whose failure handler kills its whole process tree, so that the runner that owns the user's
files survives it. It is the head of a session of its own: whoever dies first, the rest of the group goes too.

It is started with the command, before anybody knows what it shall be: it imports SGLang while the job is planned, and
then waits for its settings.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import blendrun.engine.cpu.lean  # noqa: F401  # first of all: it decides what sglang imports
from blendrun.endpoints.adapters import declared_adapters
from blendrun.engine import sglang_names
from blendrun.engine.base import EngineInfo, EngineSettings, Result, WorkItem
from blendrun.engine.channel import (
    AllDone,
    Channel,
    CloseInput,
    Configure,
    Died,
    Flush,
    Flushed,
    NextJob,
    Phase,
    ToEngine,
)
from blendrun.engine.loop import Loop
from blendrun.engine.orphans import end_with_parent
from blendrun.engine.resolved import resolved
from blendrun.engine.scheduler import plugin
from blendrun.engine.scheduler.planned import WARM_UP_ID
from blendrun.engine.settings import CPU_PLATFORM, runtime_versions, server_args
from blendrun.errors import BlendrunError, ErrorCode
from blendrun.tree.compiled import compile_beside, load_kernels


def main() -> None:
    die_with_parent(int(sys.argv[2]))
    os.environ["BLENDRUN_ENGINE_PID"] = str(os.getpid())
    # Ctrl-C, and what Slurm sends to every process of a step, are the runner's to answer: it drains, then closes the
    # channel. Spawned processes inherit what is ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    # Before SGLang, which would have it be another kind of loop.
    loop = Loop()
    asyncio.set_event_loop(loop)
    import_runtime()
    _prepare_forks(connection.fileno())
    loop.run_until_complete(_Worker(loop).serve(connection))


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the runner dies (a channel's end can go unread while a model loads)."""
    end_with_parent()
    if os.getppid() != parent:
        end_group()


def import_runtime() -> None:
    """Import what the engine's processes need and no setting decides."""
    # Modules are no garbage. To look for some among 6,000 of them takes a third of this, and of all that comes later.
    gc.disable()
    on_cpu = os.environ.get("SGLANG_PLATFORM") == CPU_PLATFORM
    if on_cpu:
        # Its loops, too, loaded in a second. The first time on a machine they are compiled (8 s): most of them beside
        # this, those that need no torch.
        import_module("blendrun.engine.cpu.attention_plan")
        wait = compile_beside("blendrun.engine.cpu")
    import_module("sglang.srt.entrypoints.engine")
    import_module("blendrun.engine.serving")
    if on_cpu:
        import_module("blendrun.engine.cpu.attention")
        wait()
        load_kernels("blendrun.engine.cpu")
    gc.freeze()
    gc.enable()


def _prepare_forks(channel: int) -> None:
    """See to it that processes forked from here, or from one of these, leave `channel` alone and die with it."""
    parent = os.getpid()

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: _in_forked_child(channel, parent))


def _in_forked_child(channel: int, parent: int) -> None:
    """One of SGLang's processes, forked below this one: what it has inherited and must not use."""
    die_with_parent(parent)
    # What it starts itself, as SGLang means it: it may have threads by then.
    multiprocessing.set_start_method("spawn", force=True)
    os.environ["BLENDRUN_ENGINE_PID"] = str(os.getpid())
    # The number stays taken: the objects that hold it are here too, and would close another file of that number.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), channel)
    # SGLang's handler would kill this process's children, not the engine.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    asyncio.set_event_loop(None)


def end_group() -> None:
    """End this process and everything it started, at once."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


class _Worker:
    """One engine, one channel, one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()
        # Referenced here only so that the loop does not lose them.
        self._background: set[asyncio.Task[None]] = set()
        self._dead = asyncio.Event()

    async def serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        channel: Channel[ToEngine] = Channel(reader, writer, ToEngine)  # type: ignore[arg-type]
        first = await channel.receive()
        if not isinstance(first, Configure):
            return
        os.environ |= first.environment
        _log_to(Path(first.log_file))
        serving, info = await self._start(first.settings, channel)
        await channel.send(info)
        while (message := await channel.receive()) is not None:
            if isinstance(message, WorkItem):
                task = asyncio.ensure_future(self._answer(message, serving, channel))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            elif isinstance(message, Flush | NextJob):
                await channel.send(Flushed(await _flushed(message, serving)))
            elif isinstance(message, CloseInput):
                self._background.add(asyncio.ensure_future(self._finish(channel)))
        # The runner closed the channel, or is gone. SGLang's processes die with this one (parent-death signal); only
        # Python's resource tracker stays a moment longer, to unlink the semaphores.
        os._exit(0)

    async def _finish(self, channel: Channel[ToEngine]) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)
        await channel.send(AllDone())

    async def _answer(self, item: WorkItem, serving: Any, channel: Channel[ToEngine]) -> None:
        try:
            result = await serving.run(item)
        except Exception as error:  # noqa: BLE001  # whatever it was, the request must have a result
            message = repr(error).encode("utf-8", "replace").decode()
            result = Result(item.row, 500, b"", error_code=str(ErrorCode.ENGINE_ERROR), error_message=message)
        if not self._dead.is_set():
            await channel.send(result)

    async def _report_death(self, channel: Channel[ToEngine]) -> None:
        await self._dead.wait()
        await channel.send(Died("SGLang's scheduler process ended"))
        end_group()

    async def _start(self, settings: EngineSettings, channel: Channel[ToEngine]) -> tuple[Any, EngineInfo]:
        from blendrun.engine import seeds
        from blendrun.engine.serving import Limits, Serving

        proofs = {ATTENTION_PROOF: _proof("attention"), plugin.PROOFS_VARIABLE: _proof("scheduler")}
        os.environ |= proofs
        await channel.send(Phase("load"))
        made_by = _engine_class(settings)
        engine = made_by(**server_args(settings))
        self._watch_scheduler(engine)
        # Before the first forward pass: the one that shows a broken set-up.
        self._background.add(asyncio.ensure_future(self._report_death(channel)))
        model = engine.tokenizer_manager.model_config
        scheduler = engine._scheduler_init_result.scheduler_infos[0]
        server = engine.tokenizer_manager.server_args
        limits = Limits(
            context_length=model.context_len,
            # SGLang refuses a prompt of `max_req_input_len` tokens or more (managers/utils.py).
            longest_prompt=int(scheduler["max_req_input_len"]) - 1,
            vocabulary=model.vocab_size,
            honours_seed=server.enable_deterministic_inference
            or (settings.platform == "cpu" and server.sampling_backend == "pytorch" and seeds.can_be_honoured()),
            adapters=declared_adapters(settings.server_args.get("lora_paths")),
        )
        await channel.send(Phase("warm up"))
        await self._warm_up(engine)
        missing = plugin.missing(settings.scheduler, proofs[plugin.PROOFS_VARIABLE])
        found = resolved(server)
        info = EngineInfo(
            engine="sglang",
            platform=settings.platform,
            context_length=model.context_len,
            kv_tokens=int(scheduler["max_total_num_tokens"]),
            max_running=await self._max_running(engine),
            versions=runtime_versions(),
            notes=(*_notes(settings, proofs), *plugin.notes(settings.scheduler, missing), *_note_of(made_by)),
            # Data-parallel ranks would each tell of their own.
            tells_running=settings.scheduler.occupancy is not None and "sides" not in missing and server.dp_size == 1,
            chunk=found.chunk,
            attention=found.attention,
            page=found.page,
        )
        return Serving(engine, limits, settings.model_name), info

    def _watch_scheduler(self, engine: Any) -> None:
        """Replace SGLang's handler that would kill this process before it could say why."""
        loop, dead = self._loop, self._dead
        handler: Any = sglang_names.load(sglang_names.SIGNAL_HANDLER)

        class RecordDeath(handler):  # type: ignore[misc]  # SGLang's class is untyped here
            def running_phase_sigquit_handler(self, signum: Any = None, frame: Any = None) -> None:
                loop.call_soon_threadsafe(dead.set)

            def sigterm_handler(self, signum: Any = None, frame: Any = None) -> None:
                """SGLang would drain and leave by itself."""

        engine.tokenizer_manager.signal_handler_class = RecordDeath

    async def _max_running(self, engine: Any) -> int:
        """Requests decoded at once over all replicas; SGLang settles it in the scheduler when the user left it open."""
        states = await engine.tokenizer_manager.get_internal_state()
        return sum(int(state["effective_max_running_requests_per_dp"]) for state in states)

    async def _warm_up(self, engine: Any) -> None:
        """One token through everything: a broken engine shows here, not in the first request."""
        if not engine.tokenizer_manager.is_generation:
            await engine.async_encode(prompt="a", rid=WARM_UP_ID)
            return
        params = {"max_new_tokens": 1, "temperature": 0}
        await engine.async_generate(input_ids=[1], sampling_params=params, rid=WARM_UP_ID)


async def _flushed(message: Flush | NextJob, serving: Any) -> bool:
    """Whether the cache is forgotten and, where another job comes, the scheduler does what that asks for."""
    if isinstance(message, Flush):
        done: bool = await serving.flush()
        return done
    try:
        plugin.leave_next(message.scheduler)
    except (OSError, BlendrunError):
        return False
    return await serving.flush() and plugin.next_taken()


def _engine_class(settings: EngineSettings) -> Any:
    """SGLang's Engine. Its processes are forks of this one on the CPU; elsewhere a fork of a process that may have
    talked to a GPU's driver would be broken, and they start and import anew."""
    from sglang.srt.entrypoints.engine import Engine

    if settings.platform != "cpu":
        return Engine
    from blendrun.engine.cpu.engine import ForkingEngine

    return ForkingEngine


def _note_of(made_by: Any) -> tuple[str, ...]:
    note = made_by.note() if hasattr(made_by, "note") else None
    return () if note is None else (note,)


def _log_to(log_file: Path) -> None:
    """Print to `log_file` from now on, what has been said so far first."""
    early = Path(gettempdir()) / "early.log"
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(log, early.read_bytes())
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    early.unlink()


# A hook whose target moved is only logged by SGLang; each leaves a file of the name it is told once it ran.
ATTENTION_PROOF = "BLENDRUN_ATTENTION_PROOF"


def _proof(name: str) -> str:
    return str(Path(gettempdir()) / f"blendrun-{name}-{os.getpid()}")


def _notes(settings: EngineSettings, proofs: dict[str, str]) -> tuple[str, ...]:
    """A sentence for a version of SGLang that nobody tried, and for a hook of the CPU platform without a proof."""
    untried = sglang_names.untried()
    found = [] if untried is None else [untried]
    attention = Path(proofs[ATTENTION_PROOF])
    if settings.platform == "cpu" and not attention.exists():
        found.append("the CPU attention hook did not take: answers are right, prefix hits save no time")
    attention.unlink(missing_ok=True)
    return tuple(found)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A process spawned below the engine process imports this module first. SGLang asks to die with its parent only once
    # it has imported everything, and a parent that is gone by then is never noticed.
    die_with_parent(int(os.environ["BLENDRUN_ENGINE_PID"]))
    os.environ["BLENDRUN_ENGINE_PID"] = str(os.getpid())
