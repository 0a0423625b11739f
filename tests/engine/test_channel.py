"""The channel between runner and engine process: frames arrive whole and in order, or the end does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from blendrun.endpoints.base import Usage
from blendrun.engine.base import EngineInfo, EngineSettings, Result, WorkItem
from blendrun.engine.channel import AllDone, Channel, CloseInput, Configure, Died, FromEngine, Phase, ToEngine

Runner = Channel[FromEngine]
Worker = Channel[ToEngine]

TO_ENGINE: list[ToEngine] = [
    Configure(
        EngineSettings("/models/ä", "cpu", 2, server_args={"max_running_requests": 3, "nested": {"a": [1, None]}}),
        {"BLENDRUN_SCHEDULER": "{}"},
        "/runs/é/engine.log",
    ),
    WorkItem(0, "/v1/completions", b'{"prompt":"\x00\xff"}'),
    WorkItem(2**40, "/v1/chat/completions", b"", 17),
    CloseInput(),
]
FROM_ENGINE: list[FromEngine] = [
    Phase("load"),
    EngineInfo("sglang", "gpu", 8192, 100, 7, {"torch": "2"}, ("a note",)),
    Result(1, 200, b"{}", Usage(1, 2, 3), ("stop", "length")),
    Result(2, 400, b"", error_code="invalid_request", error_message="no"),
    AllDone(),
    Died("why"),
]


def connected(scenario: Callable[[Runner, Worker], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ends = [await asyncio.open_connection(sock=end) for end in (ours, theirs)]
        runner: Runner = Channel(*ends[0], FromEngine)  # type: ignore[arg-type]
        worker: Worker = Channel(*ends[1], ToEngine)  # type: ignore[arg-type]
        try:
            await scenario(runner, worker)
        finally:
            runner.close()
            worker.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_every_message_arrives_as_it_was_and_in_order() -> None:
    async def scenario(runner: Runner, worker: Worker) -> None:
        for down in TO_ENGINE:
            await runner.send(down)
        for up in FROM_ENGINE:
            await worker.send(up)
        assert [await worker.receive() for _ in TO_ENGINE] == TO_ENGINE
        assert [await runner.receive() for _ in FROM_ENGINE] == FROM_ENGINE

    connected(scenario)


def test_a_frame_far_over_every_buffer_arrives_whole() -> None:
    async def scenario(runner: Runner, worker: Worker) -> None:
        big = WorkItem(1, "/v1/completions", b"x" * 30_000_000)
        _, received = await asyncio.gather(runner.send(big), worker.receive())
        assert received == big

    connected(scenario)


def test_a_sender_waits_for_a_receiver_that_does_not_read() -> None:
    async def scenario(runner: Runner, worker: Worker) -> None:
        async def flood() -> None:
            for row in range(30):
                await runner.send(WorkItem(row, "/v1/completions", b"x" * 1_000_000))

        sending = asyncio.ensure_future(flood())
        await asyncio.sleep(0.1)
        assert not sending.done(), "30 MB do not pile up in memory"
        for row in range(30):
            message = await worker.receive()
            assert isinstance(message, WorkItem) and message.row == row
        await sending

    connected(scenario)


def test_the_end_of_the_other_side_is_none_again_and_again() -> None:
    async def scenario(runner: Runner, worker: Worker) -> None:
        await worker.send(Phase("load"))
        worker.close()
        assert await runner.receive() == Phase("load")
        assert await runner.receive() is None
        assert await runner.receive() is None

    connected(scenario)


@pytest.mark.parametrize("kept", [1, 3, 4, 10])
def test_a_frame_cut_in_the_middle_is_the_end(kept: int) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        whole = bytes([0, 0, 0, 100]) + b"x" * 100
        theirs.sendall(whole[:kept])
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        runner: Runner = Channel(reader, writer, FromEngine)  # type: ignore[arg-type]
        assert await runner.receive() is None
        runner.close()

    asyncio.run(run())


def test_sending_to_a_side_that_is_gone_says_so() -> None:
    async def scenario(runner: Runner, worker: Worker) -> None:
        worker.close()
        with pytest.raises(ConnectionError):
            for _ in range(100):
                await runner.send(WorkItem(0, "/v1/completions", b"x" * 100_000))

    connected(scenario)
