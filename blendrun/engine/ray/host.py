"""The node's side: an engine in an actor of its own. Imports no Ray, which makes an actor of it.

What an engine says is kept until it is asked for; the files that it writes (its log, its steps) are handed on as they
grow, so that the run has them where it looks for them. Calls carry MessagePack, as the engine's own channel does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import tempfile
from collections import deque
from pathlib import Path

import msgspec

from blendrun.engine.base import Engine, EngineInfo, EngineSettings, Result, WorkItem
from blendrun.engine.channel import AllDone, CloseInput, Phase
from blendrun.engine.process import SglangEngine
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.engine.settings import needs_weights
from blendrun.errors import BlendrunError, EngineUnavailableError
from blendrun.events import Event, PhaseStarted
from blendrun.models.identity import file_fingerprint, folder_identity
from blendrun.models.resolve import resolve_model
from blendrun.version import __version__

# How long a call waits for something to tell, and how often the files are looked at meanwhile.
_BEAT_S, _LOOK_S = 5.0, 0.5
# Results that may wait here before the engine's own are read no further; what one call hands over at most.
_MOST_KEPT_BYTES, _MOST_HANDED_BYTES = 32 << 20, 8 << 20
_MOST_FILE_BYTES = 1 << 20


class Sglang(msgspec.Struct, frozen=True, tag="sglang"):
    """SGLang's engine. model, identity: as given to the run, and its hash; `settings.model_path`: where the run has it.

    log: what the run calls the engine's log, for messages.
    """

    settings: EngineSettings
    model: str
    identity: str
    log: str


class Replay(msgspec.Struct, frozen=True, tag="replay"):
    """The replay engine: tries a cluster without a model."""

    settings: ReplaySettings


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """The engine could not start, or died: EngineUnavailableError on its way."""

    message: str
    out_of_memory: bool = False


class Node(msgspec.Struct, frozen=True):
    """Where an actor runs. version: of blendrun there."""

    name: str
    version: str


ToHost = WorkItem | CloseInput
FromHost = Phase | EngineInfo | Result | AllDone | Lost
# Messages, and what the log and the step log have grown by.
Taken = tuple[list[bytes], bytes, bytes]


class Host:
    """The actor. `begin`, then `submit` and `take` beside each other, `stop` at the end."""

    def __init__(self, hosted: bytes) -> None:
        self._hosted: Sglang | Replay = msgspec.msgpack.decode(hosted, type=Sglang | Replay)
        self._encoder = msgspec.msgpack.Encoder()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._came, self._went = asyncio.Event(), asyncio.Event()
        self._engine: Engine | None = None
        self._dead = False
        self._work: asyncio.Task[None] | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="blendrun-"))
        self._log = _Growing(self._scratch / "engine.log")
        self._steps = _Growing(self._scratch / "steps.jsonl")

    async def begin(self) -> bytes:
        """Start the engine; `take` tells how far it is. The `Node` that this is."""
        self._work = asyncio.ensure_future(self._run())
        return self._encoder.encode(Node(platform.node(), __version__))

    async def submit(self, messages: list[bytes]) -> None:
        """Hand over work items, or that no more will come. An engine that died has said so to `take`."""
        if self._engine is None or self._dead:
            return
        for message in messages:
            item: ToHost = msgspec.msgpack.decode(message, type=ToHost)
            if isinstance(item, CloseInput):
                await self._engine.close_input()
            else:
                await self._engine.submit(item)

    async def take(self) -> Taken:
        """What has come in since the last call. Waits for it, but comes back after some seconds in any case."""
        end = asyncio.get_running_loop().time() + _BEAT_S
        while True:
            self._came.clear()
            log, steps = self._log.read(), self._steps.read()
            if self._kept or log or steps or asyncio.get_running_loop().time() > end:
                return self._handed(), log, steps
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), _LOOK_S)

    async def stop(self) -> Taken:
        """End the engine and whatever it started. What it wrote last."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
        if self._engine is not None:
            await self._engine.stop()
        last = self._handed(), self._log.read(), self._steps.read()
        shutil.rmtree(self._scratch, ignore_errors=True)
        return last

    def _handed(self) -> list[bytes]:
        handed: list[bytes] = []
        size = 0
        while self._kept and (not handed or size + len(self._kept[0]) <= _MOST_HANDED_BYTES):
            size += len(self._kept[0])
            handed.append(self._kept.popleft())
        self._kept_bytes -= size
        self._went.set()
        return handed

    def _tell(self, message: FromHost) -> None:
        frame = self._encoder.encode(message)
        self._kept.append(frame)
        self._kept_bytes += len(frame)
        self._came.set()

    def _hear(self, event: Event) -> None:
        """Of an engine that comes up, its phases."""
        if isinstance(event, PhaseStarted):
            self._tell(Phase(event.detail))

    async def _run(self) -> None:
        """The engine's life, told as it goes on."""
        try:
            self._engine = engine = await asyncio.to_thread(self._make)
            self._tell(await engine.start(self._hear))
            while True:
                async for result in engine.results():
                    self._tell(result)
                    while self._kept_bytes > _MOST_KEPT_BYTES:
                        self._went.clear()
                        await self._went.wait()
                # More may be handed over after that.
                self._tell(AllDone())
        except EngineUnavailableError as error:
            self._tell(Lost(self._named(str(error)), error.out_of_memory))
        except BlendrunError as error:
            self._tell(Lost(str(error)))
        except Exception as error:  # noqa: BLE001  # whatever it was, the run must hear of it
            self._tell(Lost(f"the engine's host failed: {error!r}"))
        finally:
            self._dead = True

    def _make(self) -> Engine:
        """Raises what `_model_path` raises."""
        if isinstance(self._hosted, Replay):
            return ReplayEngine(self._hosted.settings)
        settings = self._hosted.settings
        logged = settings.scheduler.step_log is not None
        scheduler = msgspec.structs.replace(
            settings.scheduler,
            step_log=str(self._steps.path) if logged else None,
            # Memory that is shared with the run, which is elsewhere.
            estimates=None,
            occupancy=None,
        )
        path = _model_path(self._hosted)
        return SglangEngine(
            msgspec.structs.replace(settings, model_path=str(path), scheduler=scheduler), self._log.path
        )

    def _named(self, text: str) -> str:
        """With the log's name that the reader can open."""
        return text.replace(str(self._log.path), self._hosted.log) if isinstance(self._hosted, Sglang) else text


def _model_path(hosted: Sglang) -> Path:
    """Where the model is on this node: at the same place, else wherever its name leads to.

    Raises EngineUnavailableError for another model than the run has, and what `resolve_model` raises.
    """
    path = Path(hosted.settings.model_path)
    if path.exists():
        identity = file_fingerprint(path) if path.is_file() else folder_identity(path)
    else:
        weights = needs_weights(hosted.settings.server_args)
        found = resolve_model(hosted.model, platform=hosted.settings.platform, weights=weights)
        path, identity = found.path, found.identity
    if identity != hosted.identity:
        raise EngineUnavailableError(
            f"{hosted.model} at {path} on node {platform.node()} is another model than the run has: make the two alike"
        )
    return path


class _Growing:
    """A file that somebody else writes, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def read(self) -> bytes:
        """What was added since the last call, or the first part of it; nothing where there is no file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return b""
        try:
            added = os.pread(descriptor, _MOST_FILE_BYTES, self._at)
        finally:
            os.close(descriptor)
        self._at += len(added)
        return added
