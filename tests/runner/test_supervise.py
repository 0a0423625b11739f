"""Engines that die, hang or lack memory in the middle of a run: it goes on, and says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blendrun.engine.base import EngineInfo, Result
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import DrainedError, EngineUnavailableError
from blendrun.events import Listener
from blendrun.jobs.job import Job
from blendrun.names import OrderName
from blendrun.planner.feeder import QueuedRequest, RowFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.replica import Patience
from tests.runner.runner_job import line, lines_of, run, write

COUNT = 40
LINES = [line(f"id {row}", f"question {row}") for row in range(COUNT)]
IDS = [f"id {row}" for row in range(COUNT)]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *LINES)


class Dying(ReplayEngine):
    """Dies where `kills` says so of the rows that it has."""

    def __init__(self, kills: Callable[[set[int]], bool], out_of_memory: bool = False) -> None:
        super().__init__(ReplaySettings(slots=4))
        self.kills, self.out_of_memory, self.starts = kills, out_of_memory, 0

    async def start(self, listener: Listener) -> EngineInfo:
        self.starts += 1
        return await super().start(listener)

    async def results(self) -> AsyncIterator[Result]:
        async for result in super().results():
            if self.kills({item for _, item, _ in self._running} | {result.row}):
                raise EngineUnavailableError(
                    "the engine died. The end of engine.log:\n  | Traceback\n  | torch.AcceleratorError: no such luck",
                    out_of_memory=self.out_of_memory,
                )
            yield result


def summary_of(out: Path) -> dict[str, object]:
    text = out.with_name(f"{out.name}.blendrun") / "summary.json"
    found: dict[str, object] = json.loads(text.read_bytes())
    return found


class TestDeath:
    def test_one_death_costs_a_restart_and_no_answer(self, jobs: Path, out: Path) -> None:
        deaths = iter([True])
        engine = Dying(lambda rows: 17 in rows and next(deaths, False))
        summary = run(out, jobs, engine=lambda: engine, patience=Patience(restarts=1))
        assert summary.exit_code == 0
        assert [answer["custom_id"] for answer in lines_of(out)] == IDS
        (restart,) = summary.restarts
        assert restart.reason == "AcceleratorError: no such luck"
        assert restart.in_flight > 0
        assert any("1 of 1 restarts used" in note for note in summary.notes)

    def test_the_request_that_kills_becomes_an_error_line(self, jobs: Path, out: Path) -> None:
        summary = run(out, jobs, engine=lambda: Dying(lambda rows: 17 in rows), patience=Patience(restarts=3))
        assert summary.exit_code == 3
        (error,) = lines_of(out.with_name("out.jsonl.errors.jsonl"))
        assert error["custom_id"] == "id 17"
        assert error["error"]["code"] == "engine_error"
        assert error["error"]["line"] == 18
        assert "ends the engine, alone too: AcceleratorError" in error["error"]["message"]
        assert [answer["custom_id"] for answer in lines_of(out)] == [name for name in IDS if name != "id 17"]

    def test_beyond_its_restarts_the_run_ends_with_what_it_has(self, jobs: Path, out: Path) -> None:
        engine = Dying(lambda rows: len(rows) == 1)
        with pytest.raises(EngineUnavailableError, match="no such luck"):
            run(out, jobs, engine=lambda: engine, patience=Patience(restarts=0))
        assert engine.starts == 1
        assert run(out, jobs).exit_code == 0

    def test_an_engine_without_memory_is_made_smaller(self, jobs: Path, out: Path) -> None:
        deaths = iter([True, True])
        engine = Dying(lambda rows: next(deaths, False), out_of_memory=True)
        summary = run(out, jobs, engine=lambda: engine, patience=Patience(restarts=3))
        assert [restart.shrinks for restart in summary.restarts] == [1, 2]
        assert summary.exit_code == 0

    def test_an_engine_that_dies_of_everything_is_given_up(self, jobs: Path, out: Path) -> None:
        engine = Dying(lambda rows: True)
        with pytest.raises(EngineUnavailableError, match="no such luck"):
            run(out, jobs, engine=lambda: engine, patience=Patience(restarts=2))
        assert engine.starts < 60
        assert summary_of(out)["exit_code"] == 69

    def test_a_killer_among_the_last_ones(self, tmp_path: Path, out: Path) -> None:
        """All that is left may be suspects: there is nothing to plan beside them."""
        jobs = write(tmp_path / "few.jsonl", *LINES[:3])
        summary = run(out, jobs, engine=lambda: Dying(lambda rows: 1 in rows), patience=Patience(restarts=3))
        assert (summary.exit_code, summary.counts.completed) == (3, 2)

    def test_dead_behind_its_last_answer_it_is_not_started_again(self, jobs: Path, out: Path) -> None:
        class DyingLast(ReplayEngine):
            starts = 0

            async def start(self, listener: Listener) -> EngineInfo:
                self.starts += 1
                return await super().start(listener)

            async def results(self) -> AsyncIterator[Result]:
                async for result in super().results():
                    yield result
                raise EngineUnavailableError("the engine died")

        engine = DyingLast(ReplaySettings())
        summary = run(out, jobs, engine=lambda: engine, patience=Patience(restarts=1))
        assert (summary.exit_code, engine.starts) == (0, 1)


class Silent(ReplayEngine):
    """Answers three, then nothing; the next one like it answers all."""

    def __init__(self) -> None:
        super().__init__(ReplaySettings(slots=4))
        self.hangs = True

    async def results(self) -> AsyncIterator[Result]:
        number = 0
        async for result in super().results():
            if number == 3 and self.hangs:
                self.hangs = False
                await asyncio.sleep(3600)
            number += 1
            yield result


class SilentStart(ReplayEngine):
    async def start(self, listener: Listener) -> EngineInfo:
        await asyncio.sleep(3600)
        raise AssertionError("unreachable")


class TestHang:
    def test_an_engine_that_says_nothing_is_started_again(self, jobs: Path, out: Path) -> None:
        engine = Silent()
        summary = run(out, jobs, engine=lambda: engine, patience=Patience(restarts=1, stall=1.0))
        assert summary.exit_code == 0
        (restart,) = summary.restarts
        assert "no sign of life" in restart.reason
        assert len(lines_of(out)) == COUNT

    def test_so_is_one_that_does_not_come_up(self, jobs: Path, out: Path) -> None:
        with pytest.raises(EngineUnavailableError, match="did not start: no sign of life for 1 s"):
            run(out, jobs, engine=lambda: SilentStart(ReplaySettings()), patience=Patience(load=0.5))


class Fetching(ReplayEngine):
    """The media of its requests take longer than an engine may say nothing."""

    def __init__(self) -> None:
        super().__init__(ReplaySettings(slots=4))
        self.there = False

    @property
    def fetching(self) -> int:
        return 0 if self.there else len(self._waiting)

    async def results(self) -> AsyncIterator[Result]:
        await asyncio.sleep(3.0)
        self.there = True
        async for result in super().results():
            yield result


def test_an_engine_that_waits_for_media_is_not_hung(jobs: Path, out: Path) -> None:
    summary = run(out, jobs, engine=Fetching, patience=Patience(restarts=0, stall=1.0))
    assert (summary.exit_code, summary.restarts) == (0, ())


class SilentEnd(ReplayEngine):
    """Answers all, and does not say that it has."""

    async def results(self) -> AsyncIterator[Result]:
        async for result in super().results():
            yield result
        await asyncio.sleep(3600)


def test_an_engine_that_does_not_end_is_ended(jobs: Path, out: Path) -> None:
    engine = SilentEnd(ReplaySettings())
    assert run(out, jobs, engine=lambda: engine, patience=Patience(stall=1.0)).exit_code == 0


class Expecting(RowFeeder):
    """A planner that feeds rows as they stand and knows how long their answers will be."""

    def __init__(self, tokens: dict[int, int], default: int) -> None:
        self.tokens, self.default = tokens, default

    def __call__(self, job: Job, rows: NDArray[np.int64], *_: object) -> RunPlan:
        super().__init__(rows)
        return RunPlan(self, OrderName.GIVEN)

    def take(self, side: int | None = None) -> QueuedRequest | None:
        queued = super().take(side)
        return None if queued is None else replace(queued, output=self.tokens.get(queued.row, self.default))


class TestDeadline:
    def test_what_cannot_finish_is_not_begun(self, tmp_path: Path, out: Path) -> None:
        rows = [line(f"id {row}", "question", max_tokens=20) for row in range(400)]
        jobs = write(tmp_path / "many.jsonl", *rows)
        # 0.2 s each, two at a time: 40 s of work.
        engine: dict[str, object] = {"slots": 2, "decode_rate": 100.0, "real_time": 1.0}
        patience = Patience(deadline=time.monotonic() + 4.0, drain=1.0, closing=0.5)
        with pytest.raises(DrainedError, match=r"\d+ requests are left") as caught:
            run(out, jobs, engine=engine, patience=patience)
        assert caught.value.exit_code == 75
        counts = summary_of(out)["counts"]
        assert isinstance(counts, dict)
        assert 0 < counts["completed"] < 400
        assert run(out, jobs).counts.completed == 400

    def test_what_would_be_cut_off_is_left_and_the_rest_is_done_in_good_time(self, tmp_path: Path, out: Path) -> None:
        # Long ones take days: if it waited for them, or for the deadline, the test's own timeout would end it.
        tokens = 1_000_000_000
        short, long = {"max_tokens": 5}, {"max_tokens": tokens}
        rows = [line(f"short {row}", "question", **short) for row in range(160)]
        # Past the window of 130, so that the pace is known when their turn comes; short ones come behind them.
        rows[140:140] = [line(f"long {row}", "question", **long) for row in range(5)]
        jobs = write(tmp_path / "mixed.jsonl", *rows)
        engine: dict[str, object] = {"slots": 2, "decode_rate": 1000.0, "real_time": 1.0}
        plan = Expecting(dict.fromkeys(range(140, 145), tokens), default=5)
        patience = Patience(deadline=time.monotonic() + 3600.0, drain=1.0)
        with pytest.raises(DrainedError, match="5 requests are left that would end behind the deadline"):
            run(out, jobs, engine=engine, planner=plan, patience=patience)
        counts = summary_of(out)["counts"]
        assert isinstance(counts, dict)
        assert counts["completed"] == 160
