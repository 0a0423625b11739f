"""The run's side: an engine on some node of a Ray cluster, behind the interface of every other engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec

from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.channel import AllDone, CloseInput, Phase
from blendrun.engine.ray.host import FromHost, Host, Lost, Node, Replay, Sglang, Taken, ToHost
from blendrun.engine.scheduler.log_file import torn
from blendrun.engine.threads import in_thread
from blendrun.errors import EngineUnavailableError
from blendrun.events import Listener, PhaseStarted
from blendrun.version import __version__

# An engine that is told to end does so within this; then its actor is killed, and the engine with it.
_GRACE_S = 20.0
# What Ray says where a node's memory ran out and it ended the process that holds an actor.
_MEMORY = ("running low on memory", "out-of-memory", "OutOfMemory")


class RayEngine:
    """Keeps `blendrun.engine.base.Engine`.

    needs: resources of the node that Ray is to find ("GPU", "CPU"). log_file, steps: take what the engine writes there.
    The placement group and the actor are this engine's own: the next one of the replica may come to another node.
    """

    def __init__(self, hosted: Sglang | Replay, needs: dict[str, float], log_file: Path, steps: Path) -> None:
        self._hosted, self._needs = hosted, needs
        self._files = (_Appended(log_file), _Appended(steps))
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)
        self._placing: asyncio.Task[None] | None = None
        self._group: Any = None
        self._actor: Any = None
        self._node: Node | None = None
        # Handed over and not on its way yet, the task that brings it there, and why it could not.
        self._outgoing: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None
        self._failed: EngineUnavailableError | None = None
        # Come and not used yet; asked for and not come yet, which outlives the one who waits for it.
        self._come: deque[FromHost] = deque()
        self._asked: Any = None

    @property
    def fetching(self) -> int:
        return 0

    async def start(self, listener: Listener) -> EngineInfo:
        listener(PhaseStarted("load", f"waits for a node with {describe_resources(self._needs)}"))
        self._placing = asyncio.ensure_future(in_thread(self._place))
        await asyncio.shield(self._placing)
        self._node = node = msgspec.msgpack.decode(await self._answer(self._actor.begin.remote()), type=Node)
        if node.version != __version__:
            raise EngineUnavailableError(
                f"node {node.name} has blendrun {node.version}, and this is {__version__}: install one version on all"
            )
        while True:
            message = await self._next()
            if isinstance(message, Phase):
                listener(PhaseStarted("load", f"{message.name}, node {node.name}"))
            elif isinstance(message, EngineInfo):
                return message

    def _place(self) -> None:
        """Ask Ray for a place and an actor in it; the actor's first answer will mean that it runs."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        try:
            self._group = placement_group([self._needs], strategy="STRICT_PACK")
            actor = ray.remote(Host).options(
                num_cpus=self._needs.get("CPU", 0),
                num_gpus=self._needs.get("GPU", 0),
                # The run's own recovery finds out what a death means.
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0),
            )
            self._actor = actor.remote(self._encoder.encode(self._hosted))
        except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
            raise EngineUnavailableError(f"Ray did not take the engine: {_first_line(error)}") from error

    async def submit(self, item: WorkItem) -> None:
        self._send(item)

    async def close_input(self) -> None:
        self._send(CloseInput())

    def _send(self, message: ToHost) -> None:
        """In order, and as many in a call as came meanwhile. The feeder's window bounds them."""
        self._outgoing.append(self._encoder.encode(message))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._outgoing:
                batch, self._outgoing = self._outgoing, []
                await self._answer(self._actor.submit.remote(batch))
        except EngineUnavailableError as error:
            self._failed = error

    async def results(self) -> AsyncIterator[Result]:
        while True:
            message = await self._next()
            if isinstance(message, Result):
                yield message
            elif isinstance(message, AllDone):
                return

    async def _next(self) -> FromHost:
        """What the actor has to say. Raises EngineUnavailableError when the engine or the actor is dead.

        Nothing is asked for before what has come was used: what is more waits in the actor, and then in the engine.
        """
        assert self._actor is not None, "results before start"
        while not self._come:
            if self._failed is not None:
                raise self._failed
            if self._asked is None:
                self._asked = self._actor.take.remote()
            taken = await self._answer(self._asked)
            self._asked = None
            self._take_in(taken)
        message = self._come.popleft()
        if isinstance(message, Lost):
            raise EngineUnavailableError(message.message, out_of_memory=message.out_of_memory)
        return message

    def _take_in(self, taken: Taken) -> None:
        frames, *grown = taken
        self._come.extend(self._decoder.decode(frame) for frame in frames)
        for file, added in zip(self._files, grown, strict=True):
            file.append(added)

    async def _answer(self, reference: Awaitable[Any]) -> Any:
        """Of a call. Raises EngineUnavailableError where there will be none."""
        from ray.exceptions import RayError

        try:
            return await reference
        except RayError as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> EngineUnavailableError:
        """The actor is dead. Never the engine's doing, which is a process of its own."""
        from ray.exceptions import ActorUnavailableError

        text = str(error)
        if "No module named 'blendrun'" in text:
            return EngineUnavailableError("a node of the Ray cluster has no blendrun: install it on all of them")
        where = f"node {self._node.name}" if self._node is not None else "some node"
        why = "nothing answers there" if isinstance(error, ActorUnavailableError) else _first_line(error)
        return EngineUnavailableError(
            f"the engine is lost with its actor on {where}: {why}",
            out_of_memory=any(word in text for word in _MEMORY),
            machine_lost="creation task" not in text,
        )

    async def stop(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        if self._placing is not None:
            # What is being asked for would be nobody's.
            with contextlib.suppress(EngineUnavailableError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._placing), _GRACE_S)
        if self._actor is not None and self._node is not None:
            with contextlib.suppress(EngineUnavailableError, TimeoutError):
                self._take_in(await asyncio.wait_for(self._answer(self._actor.stop.remote()), _GRACE_S))
        # Forgotten only once it is gone: a cancelled stop must leave the next one something to end.
        if self._group is not None:
            await in_thread(self._release)
            self._group = self._actor = self._node = None

    def _release(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        with contextlib.suppress(ray.exceptions.RayError, RuntimeError, ValueError):
            if self._actor is not None:
                ray.kill(self._actor)
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError, ValueError):
            remove_placement_group(self._group)


def describe_resources(needs: dict[str, float]) -> str:
    """Resources in words, the rare ones first."""
    return " and ".join(
        f"{needs[name]:g} {name}{'s' * (needs[name] > 1)}" for name in ("GPU", "CPU") if needs.get(name)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


class _Appended:
    """A file of ours that takes what grows elsewhere. What cannot be written costs the file, not the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def append(self, added: bytes) -> None:
        if not added:
            return
        with contextlib.suppress(OSError):
            # The last node may have been lost within a line.
            piece = b"\n" * (not self._begun and torn(self._path)) + added
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, piece)
            finally:
                os.close(descriptor)
        self._begun = True
