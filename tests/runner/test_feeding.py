"""What is handed over, and when: by what waits in the engine, or by what its pool has room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from blendrun.blend.base import LEFT, RIGHT
from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.events import Listener, ignore
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.names import OrderName
from blendrun.planner.feeder import PlanFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.dispatch import Dispatcher
from blendrun.runner.flight import Asked
from blendrun.store.records import Records
from tests.blend.jobs_of_lengths import Small, small_job
from tests.runner.runner_job import line, write

# Tokens; about 30 of the memory-heavy requests.
POOL = 20_000
# What SGLang allows on any GPU, whatever its pool holds.
MOST_RUNNING = 4096
DEPTH = 8


def two_kinds(count: int) -> Small:
    """Half are long prompts with short answers, half the reverse."""
    units = [[1000 + place] * (400 if place % 2 else 10) for place in range(count)]
    return small_job(units, [2 if place % 2 else 1500 for place in range(count)])


class Recording(ReplayEngine):
    """Notes what it is given, and how much it has at once.

    admits: requests of each side that it runs at once, which it tells; None for one that tells nothing.
    """

    def __init__(self, path: Path, admits: int | None) -> None:
        super().__init__(ReplaySettings(slots=MOST_RUNNING))
        self.rows: list[int] = []
        self.sides: list[int] = []
        self.inside = self.most = 0
        self.admits, self._have = admits, [0, 0]
        self.occupancy = Occupancy.create(path) if admits is not None else None

    async def start(self, listener: Listener) -> EngineInfo:
        info = await super().start(listener)
        return msgspec.structs.replace(info, tells_running=self.admits is not None)

    async def submit(self, item: WorkItem) -> None:
        assert item.plan is not None and item.plan.turn is not None
        self.rows.append(item.row)
        self.sides.append(item.plan.turn.side)
        self._have[item.plan.turn.side] += 1
        self._count(1)
        await super().submit(item)

    async def results(self) -> AsyncIterator[Result]:
        async for result in super().results():
            self._have[self.sides[self.rows.index(result.row)]] -= 1
            self._count(-1)
            yield result

    def _count(self, more: int) -> None:
        self.inside += more
        self.most = max(self.most, self.inside)
        if self.occupancy is not None:
            assert self.admits is not None
            self.occupancy.tell(*(min(have, self.admits) for have in self._have))


def feed(tmp_path: Path, count: int, admits: int | None, kind: type[Recording] = Recording) -> Recording:
    """A blend of two kinds through a dispatcher."""
    made = two_kinds(count)
    jobs = write(tmp_path / "jobs.jsonl", *[line(f"id {row}", "question") for row in range(count)])
    feeder = PlanFeeder(
        made.prompts, made.tree, made.lengths, made.blend(pool_tokens=POOL),
        wanted=np.ones(count, dtype=np.bool_), pool_tokens=POOL,
    )  # fmt: skip
    engine = kind(tmp_path / "occupancy", admits)

    async def run() -> None:
        with index_jobs(open_sources([str(jobs)], tmp_path / "spool")) as job:
            info, records = await engine.start(ignore), Records(tmp_path / "records.jsonl")
            await Dispatcher(
                job=job, plan=RunPlan(feeder, OrderName.BLENDED, planned=True, queue_depth=DEPTH), engine=engine,
                info=info, records=records, steps=None, estimates=None, occupancy=engine.occupancy, receiver=Nobody(),
                listener=ignore, stopping=lambda: False,
            ).run()  # fmt: skip
            records.close()

    asyncio.run(run())
    assert sorted(engine.rows) == list(range(count))
    return engine


class Nobody:
    def receive(self, result: Result, asked: Asked) -> None:
        """Nothing is done with it."""

    def show_progress(self) -> None:
        """Nobody looks."""


def test_an_engine_that_says_nothing_is_given_what_its_pool_has_room_for(tmp_path: Path) -> None:
    engine = feed(tmp_path, 400, admits=None)
    # The pool holds fewer than 30 of the long answers; with the short ones' places and what waits, never a third of
    # what the engine would take at once.
    assert engine.most < 60
    # So the sides still alternate when the first answers come.
    first = engine.sides[:200]
    assert 40 < first.count(LEFT) < 160


@pytest.mark.parametrize("admits", [4, 20])
def test_an_engine_that_says_what_runs_has_a_few_of_each_side_waiting(tmp_path: Path, admits: int) -> None:
    engine = feed(tmp_path, 400, admits)
    # And of the right side as many as its part of the pool is filled with.
    assert engine.most <= 2 * (admits + DEPTH) + 30
    assert {LEFT, RIGHT} == set(engine.sides[: admits + 2 * DEPTH + 30])


def test_one_that_stops_saying_it_is_fed_by_what_its_pool_has_room_for(tmp_path: Path) -> None:
    class Broken(Recording):
        def _count(self, more: int) -> None:
            super()._count(more)
            if len(self.rows) > 50 and self.occupancy is not None:
                self.occupancy.lose()

    engine = feed(tmp_path, 400, 4, Broken)
    assert engine.most < 60
