"""Engines that outlive a job: which one the next job gets, and hooks that another job's take the place of."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blendrun.engine.base import ConstantStep, EngineInfo, EngineSettings, SchedulerSettings
from blendrun.engine.channel import Channel, Flushed, NextJob, ToEngine
from blendrun.engine.child import Child
from blendrun.engine.kept import Kept, KeptEngines, for_any_plan
from blendrun.engine.process import SglangEngine
from blendrun.engine.scheduler.hooks import Hook, Switchboard
from blendrun.engine.scheduler.plugin import NEXT_VARIABLE, Jobs, leave_next, next_taken
from blendrun.engine.sglang_names import FLUSH
from blendrun.errors import EngineUnavailableError
from blendrun.events import ignore
from blendrun.scratch import Scratch

SETTINGS = EngineSettings("model", "cpu", threads=1, scheduler=SchedulerSettings(step_log="one.jsonl"))


@pytest.fixture
def engines() -> Iterator[KeptEngines]:
    found = KeptEngines()
    yield found
    found.close()


def waiting(folder: Path, connection: socket.socket | None = None) -> Kept:
    """A process that waits as an engine does. connection: to talk to in its place."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    if connection is None:
        connection, theirs = socket.socketpair()
        theirs.close()
    child = Child("cpu", 1, process, connection, Scratch.make(folder))
    return Kept(child, EngineInfo("sglang", "cpu", 1, 1, 1, {}))


class TestTake:
    @pytest.mark.parametrize(
        "changed",
        [
            {"scheduler": SchedulerSettings(step_log="two.jsonl", reserve=True, next_use=True, plan_order=True)},
            {"scheduler": SchedulerSettings(budget=ConstantStep(256))},
            {"server_args": {"max_running_requests": 8}},
        ],
    )
    def test_what_a_plan_asks_for_is_told_to_it(self, engines: KeptEngines, tmp_path: Path, changed: Any) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        assert engines.take(msgspec.structs.replace(SETTINGS, **changed)) is kept
        assert len(engines) == 0
        engines.leave(SETTINGS, kept)

    @pytest.mark.parametrize(
        "changed",
        [
            {"model_path": "other"},
            {"threads": 2},
            {"model_name": "other"},
            {"identity": "other"},
            {"trust_remote_code": True},
            {"server_args": {"max_total_tokens": 1000}},
            {"server_args": {"lora_paths": ["a=b"]}},
        ],
    )
    def test_another_engine_takes_its_place(self, engines: KeptEngines, tmp_path: Path, changed: Any) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        assert engines.take(msgspec.structs.replace(SETTINGS, **changed)) is None
        assert len(engines) == 1
        engines.close()
        assert not kept.child.lives
        assert not kept.child.scratch.exists()

    def test_one_that_has_died_is_not_given_out(self, engines: KeptEngines, tmp_path: Path) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        kept.child.kill()
        kept.child.process.wait()
        assert engines.take(SETTINGS) is None

    def test_another_one_ends_before_it_begins_and_beside_the_loop(self, engines: KeptEngines, tmp_path: Path) -> None:
        goes_on, order = threading.Event(), list[str]()

        class Waits(Child):
            def end(self) -> None:
                # Set by the loop, which cannot wait for this, then.
                order.append("goes on" if goes_on.wait(30) else "stands still")
                super().end()

        kept = waiting(tmp_path)
        slow = Waits(*(getattr(kept.child, each.name) for each in dataclasses.fields(Child)))
        engines.leave(SETTINGS, Kept(slow, kept.info))

        def early() -> None:
            order.append("begins")
            raise OSError("no more processes")

        other = msgspec.structs.replace(SETTINGS, model_path="other")
        engine = SglangEngine(other, tmp_path / "engine.log", early=early, kept=engines)

        async def start() -> None:
            asyncio.get_running_loop().call_soon(goes_on.set)
            with pytest.raises(EngineUnavailableError, match="could not be started"):
                await engine.start(ignore)

        asyncio.run(start())
        assert order == ["goes on", "begins"]
        assert not slow.lives

    def test_it_is_made_for_all_that_a_plan_may_ask(self) -> None:
        made = for_any_plan(SETTINGS).scheduler
        assert (made.next_use, made.plan_order, made.step_log) == (True, True, "one.jsonl")


class TestTakeover:
    async def taken_over(self, engine: SglangEngine, theirs: socket.socket, *, done: bool) -> None:
        """The end of the channel that is the engine process's: prints something, answers, and ends."""
        reader, writer = await asyncio.open_connection(sock=theirs)
        channel: Channel[ToEngine] = Channel(reader, writer, ToEngine)  # type: ignore[arg-type]
        starting = asyncio.ensure_future(engine.start(ignore))
        assert isinstance(await channel.receive(), NextJob)
        assert engine._child is not None
        with engine._child.kept_log.open("a") as log:
            log.write("CUDA out of memory\n")
        await channel.send(Flushed(done))
        try:
            await starting
            engine._child.kill()
            channel.close()
            assert [each async for each in engine.results()] == []
        finally:
            await engine.stop()
            channel.close()

    def engine(self, engines: KeptEngines, folder: Path) -> tuple[SglangEngine, Kept, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        kept = waiting(folder, ours)
        kept.child.kept_log.write_text("of the job before\n")
        engines.leave(SETTINGS, kept)
        (folder / "engine.log").write_text("of the run before\n")
        return SglangEngine(SETTINGS, folder / "engine.log", kept=engines), kept, theirs

    def test_each_job_s_log_has_what_was_printed_meanwhile(self, engines: KeptEngines, tmp_path: Path) -> None:
        engine, kept, theirs = self.engine(engines, tmp_path)
        with pytest.raises(EngineUnavailableError, match="CUDA out of memory") as caught:
            asyncio.run(self.taken_over(engine, theirs, done=True))
        assert caught.value.out_of_memory
        assert (tmp_path / "engine.log").read_text() == "of the run before\nCUDA out of memory\n"
        assert not kept.child.scratch.exists()

    def test_one_that_does_not_take_the_job_is_ended_and_another_one_started(
        self, engines: KeptEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> Child:
            raise OSError(11, "no more processes")

        monkeypatch.setattr("blendrun.engine.process.start_child", refused)
        engine, kept, theirs = self.engine(engines, tmp_path)
        with pytest.raises(EngineUnavailableError, match="no more processes"):
            asyncio.run(self.taken_over(engine, theirs, done=False))
        assert not kept.child.lives and not kept.child.scratch.exists()
        assert (tmp_path / "engine.log").read_text() == "of the run before\nCUDA out of memory\n"


class Unreadable:
    """A cache of a version of SGLang to come."""

    @property
    def tree_core(self) -> Any:
        raise RuntimeError("no such thing")


class IdleScheduler:
    """As much of SGLang's as a change of jobs needs. flushed: times that its cache was emptied."""

    def __init__(self) -> None:
        self.idle, self.flushed = True, 0
        self.tree_cache: Any = None

    def is_fully_idle(self) -> bool:
        return self.idle

    def flush(self, jobs: Jobs) -> Any:
        """As SGLang calls it."""
        return jobs._board.around(FLUSH)(type(self).flush_cache, self)

    def flush_cache(self) -> bool:
        self.flushed += self.idle
        return self.idle


class TestJobs:
    @pytest.fixture
    def jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
        monkeypatch.setenv(NEXT_VARIABLE, str(tmp_path / "next-job.json"))
        return Jobs(tmp_path / "next-job.json")

    def test_one_that_cannot_be_begun_is_told_and_the_next_one_can(self, jobs: Jobs, tmp_path: Path) -> None:
        scheduler = IdleScheduler()
        jobs._board.put([jobs._flush])
        leave_next(SchedulerSettings())
        assert not next_taken(), "nothing was flushed"
        scheduler.idle = False
        assert not scheduler.flush(jobs)
        assert not next_taken(), "something ran"
        scheduler.idle = True
        assert scheduler.flush(jobs)
        assert next_taken()
        assert len(jobs._board._chains) > 1
        leave_next(SchedulerSettings(estimates=str(tmp_path / "none")))
        assert scheduler.flush(jobs)
        assert not next_taken()
        assert list(jobs._board._chains) == [FLUSH]
        leave_next(SchedulerSettings())
        assert scheduler.flush(jobs)
        assert next_taken()
        assert scheduler.flushed == 0
        # Of one rank of several that could not.
        (tmp_path / "next-job.failed").touch()
        assert not next_taken()

    def test_a_flush_that_brings_no_other_job_empties_the_cache(self, jobs: Jobs) -> None:
        scheduler = IdleScheduler()
        jobs._board.put([jobs._flush])
        assert scheduler.flush(jobs)
        leave_next(SchedulerSettings())
        for flushed in (1, 2, 3):
            # The first of them brings it.
            assert scheduler.flush(jobs)
            assert scheduler.flushed == flushed

    def test_a_cache_that_cannot_be_kept_is_emptied(self, jobs: Jobs) -> None:
        scheduler = IdleScheduler()
        scheduler.tree_cache = Unreadable()
        jobs._board.put([jobs._flush])
        leave_next(SchedulerSettings())
        assert scheduler.flush(jobs)
        assert next_taken()
        assert scheduler.flushed == 1


class TestSwitchboard:
    def test_the_later_hook_is_the_outer_one_and_another_set_takes_their_place(self) -> None:
        said: list[str] = []

        def around(name: str) -> Hook:
            def hook(original: Any, *args: Any) -> Any:
                said.append(name)
                return original(*args)

            return Hook(name, "target", hook, "around")

        board = Switchboard(["target", "target", "other"])
        call = board.around("target")
        assert call(lambda number: number + 1, 1) == 2
        board.put([around("inner"), around("outer")])
        assert call(lambda number: number + 1, 1) == 2
        assert said == ["outer", "inner"]
        board.put([around("next")])
        call(lambda number: number, 1)
        board.put([])
        call(lambda number: number, 1)
        assert said == ["outer", "inner", "next"]

    def test_one_that_fails_is_off_and_the_rest_goes_on(self) -> None:
        said: list[str] = []

        def bad(original: Any, *args: Any) -> Any:
            raise ValueError

        def good(result: Any, *args: Any) -> None:
            said.append(f"{result}")

        board = Switchboard(["target"])
        board.put([Hook("bad", "target", bad, "around"), Hook("good", "target", good, "after")])
        call = board.around("target")
        assert [call(lambda: 7), call(lambda: 8)] == [7, 8]
        assert said == ["7", "8"]
