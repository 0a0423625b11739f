"""The channel between the runner and the engine process: typed messages over a Unix socket pair.

A frame is a length (4 bytes, big endian) and a MessagePack document of one of the message types below. The end of the
stream is a message too: it is how either side learns that the other has died.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Generic, TypeVar

import msgspec

from blendrun.engine.base import EngineInfo, EngineSettings, Result, SchedulerSettings, WorkItem

_LENGTH = struct.Struct(">I")
# Frames already buffered on the sending side; beyond it the sender waits (back-pressure).
_HIGH_WATER_BYTES = 4 << 20


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """First frame to the engine process: what it is to be.

    environment: variables that follow from the settings. log_file: takes all that it prints from now on.
    """

    settings: EngineSettings
    environment: dict[str, str]
    log_file: str


class CloseInput(msgspec.Struct, frozen=True, tag="close_input"):
    """No more work items will come."""


class Flush(msgspec.Struct, frozen=True, tag="flush"):
    """Forget the prefix cache; only while nothing runs."""


class NextJob(msgspec.Struct, frozen=True, tag="next_job"):
    """To an engine that is kept: what its scheduler does for the job that comes now. Answered as `Flush` is."""

    scheduler: SchedulerSettings


class Flushed(msgspec.Struct, frozen=True, tag="flushed"):
    """Whether it is forgotten, and the next job's settings are taken."""

    done: bool


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """The engine process begins a phase of its start."""

    name: str


class AllDone(msgspec.Struct, frozen=True, tag="all_done"):
    """Input is closed and every item has had its result."""


class Died(msgspec.Struct, frozen=True, tag="died"):
    """The runtime inside the engine process is lost; the process ends after this frame."""

    reason: str


ToEngine = Configure | WorkItem | CloseInput | Flush | NextJob
FromEngine = Phase | EngineInfo | Result | AllDone | Flushed | Died


Incoming = TypeVar("Incoming")


class Channel(Generic[Incoming]):
    """Sends any message, receives `Incoming`. One instance an end; not for several readers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: type[Incoming]) -> None:
        self._reader, self._writer = reader, writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(incoming)
        writer.transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    async def send(self, message: ToEngine | FromEngine) -> None:
        """Raises ConnectionError when the other side is gone."""
        payload = self._encoder.encode(message)
        self._writer.write(_LENGTH.pack(len(payload)) + payload)
        await self._writer.drain()

    async def receive(self) -> Incoming | None:
        """The next message, or None at the end of the stream (also one cut in the middle of a frame)."""
        try:
            head = await self._reader.readexactly(_LENGTH.size)
            payload = await self._reader.readexactly(_LENGTH.unpack(head)[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return self._decoder.decode(payload)

    def close(self) -> None:
        self._writer.close()
