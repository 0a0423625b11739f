"""Several engines on one job: each line is answered once, whoever dies, stops or is done first."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import jsonschema
import numpy as np
import orjson
import pytest

from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import BlendrunError, EngineUnavailableError
from blendrun.events import Listener
from blendrun.names import OrderName, Overlap
from blendrun.runner.order import divide_rows, plan_rows
from blendrun.runner.replica import Patience
from blendrun.runner.work_stealing import WorkPool
from tests.runner.interrupted import Interrupted, signalled
from tests.runner.runner_job import line, lines_of, run, write

COUNT = 120
LINES = [line(f"id {row}", f"question {row}") for row in range(COUNT)]
IDS = [f"id {row}" for row in range(COUNT)]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *LINES, b"no json")


class Counted(ReplayEngine):
    """Notes what it is given. pause: seconds before each answer. dies_after: answers; None: it lives."""

    made: list[Counted]

    def __init__(self, made: list[Counted], *, pause: float = 0.0, dies_after: int | None = None) -> None:
        super().__init__(ReplaySettings(slots=4))
        self.rows: list[int] = []
        self.answered, self.pause, self.dies_after = 0, pause, dies_after
        made.append(self)

    async def submit(self, item: WorkItem) -> None:
        self.rows.append(item.row)
        await super().submit(item)

    async def results(self) -> AsyncIterator[Result]:
        async for result in super().results():
            if self.dies_after is not None and self.answered >= self.dies_after:
                raise EngineUnavailableError("the engine died. The end of engine.log:\n  | RuntimeError: no luck")
            await asyncio.sleep(self.pause)
            self.answered += 1
            yield result


class Stillborn(ReplayEngine):
    async def start(self, listener: Listener) -> EngineInfo:
        raise EngineUnavailableError("the engine did not start: no device")


def counts(made: list[Counted]) -> Counter[int]:
    return Counter(row for engine in made for row in engine.rows)


def test_each_has_a_part_and_the_output_is_that_of_one(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    summary = run(out, jobs, engine=lambda: Counted(made, pause=0.002), replicas=3)
    assert summary.exit_code == 3
    assert [answer["custom_id"] for answer in lines_of(out)] == IDS
    assert len(made) == 3
    assert set(counts(made).values()) == {1}
    assert min(len(engine.rows) for engine in made) >= COUNT // 6
    records = lines_of(out.with_name(f"{out.name}.blendrun") / "records.jsonl")
    assert sorted(record["row"] for record in records) == list(range(COUNT))
    assert {record["replica"] for record in records} == {1, 2, 3}
    schema = orjson.loads((Path(__file__).parents[2] / "docs" / "schemas" / "record.json").read_bytes())
    for record in records:
        jsonschema.validate(record, schema)


def test_one_that_is_done_first_goes_on_with_what_others_have(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    slow = iter([0.05, 0.0005])
    # A window of few requests: what is handed over is nobody else's any more.
    run(out, jobs, engine=lambda: Counted(made, pause=next(slow)), replicas=2)
    assert set(counts(made).values()) == {1}
    lazy, quick = made
    assert lazy.answered < quick.answered


def test_a_replica_that_dies_starts_again_and_nothing_is_asked_twice_that_was_answered(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    deaths = iter([None, 10])
    summary = run(
        out,
        jobs,
        engine=lambda: Counted(made, pause=0.01, dies_after=next(deaths, None)),
        replicas=2,
        patience=Patience(restarts=1),
    )
    assert summary.counts.completed == COUNT
    assert [answer["custom_id"] for answer in lines_of(out)] == IDS
    (restart,) = summary.restarts
    assert restart.replica == 2
    assert sum(engine.answered for engine in made) == COUNT
    assert max(counts(made).values()) == 2


def test_one_that_is_given_up_leaves_its_requests_to_the_others(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    deaths = iter([5])
    summary = run(out, jobs, engine=lambda: Counted(made, pause=0.005, dies_after=next(deaths, None)), replicas=3)
    assert summary.counts.completed == COUNT
    assert [answer["custom_id"] for answer in lines_of(out)] == IDS
    assert len(made) == 3
    assert any("replica 1 is given up, the others go on" in note for note in summary.notes)


def test_one_that_never_comes_up_is_no_reason_to_stop(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    engines = [Stillborn(ReplaySettings()), Counted(made)]
    summary = run(out, jobs, engine=lambda: engines.pop(0), replicas=2)
    assert summary.counts.completed == COUNT
    assert made[0].answered == COUNT


def test_one_that_waits_for_a_machine_for_ever_keeps_nobody_waiting(jobs: Path, out: Path) -> None:
    class Waiting(ReplayEngine):
        async def start(self, listener: Listener) -> EngineInfo:
            await asyncio.sleep(3600)
            raise AssertionError("it was not needed")

    made: list[Counted] = []
    engines = [Waiting(ReplaySettings()), Counted(made)]
    summary = run(out, jobs, engine=lambda: engines.pop(0), replicas=2)
    assert summary.counts.completed == COUNT
    assert made[0].answered == COUNT
    assert set(counts(made).values()) == {1}


def test_one_whose_machine_is_lost_while_it_loads_starts_again(jobs: Path, out: Path) -> None:
    class Lost(ReplayEngine):
        async def start(self, listener: Listener) -> EngineInfo:
            raise EngineUnavailableError("the engine is lost with its actor", machine_lost=True)

    made: list[Counted] = []
    engines = [Lost(ReplaySettings())]
    summary = run(
        out,
        jobs,
        engine=lambda: engines.pop() if engines else Counted(made),
        patience=Patience(restarts=1),
    )
    assert summary.counts.completed == COUNT
    assert [restart.in_flight for restart in summary.restarts] == [0]


def test_when_the_last_one_is_given_up_the_run_fails_and_resumes(jobs: Path, out: Path) -> None:
    made: list[Counted] = []
    with pytest.raises(EngineUnavailableError):
        run(out, jobs, engine=lambda: Counted(made, dies_after=20), replicas=2)
    answered = sum(engine.answered for engine in made)
    assert 20 <= answered <= 40
    again: list[Counted] = []
    run(out, jobs, engine=lambda: Counted(again), replicas=4)
    assert [answer["custom_id"] for answer in lines_of(out)] == IDS
    assert sum(engine.answered for engine in again) == COUNT - answered


def test_a_stop_drains_all_of_them(jobs: Path, out: Path) -> None:
    with pytest.raises(BlendrunError, match="are left"):
        run(
            out,
            jobs,
            engine=lambda: Interrupted(5, signalled(signal.SIGTERM)),
            patience=Patience(drain=0.0),
            replicas=2,
        )
    summary = run(out, jobs, replicas=2)
    assert summary.counts.completed == COUNT


def test_a_stop_does_not_wait_for_a_replica_that_loads(jobs: Path, out: Path) -> None:
    class Loading(ReplayEngine):
        async def start(self, listener: Listener) -> EngineInfo:
            await asyncio.sleep(3600)
            raise AssertionError("it was to be stopped")

    engines = [Loading(ReplaySettings()), Interrupted(5, signalled(signal.SIGTERM))]
    with pytest.raises(BlendrunError, match="are left"):
        run(out, jobs, engine=lambda: engines.pop(0), patience=Patience(drain=3600.0), replicas=2)


def test_more_replicas_than_requests(tmp_path: Path, out: Path) -> None:
    jobs = write(tmp_path / "few.jsonl", *LINES[:2])
    made: list[Counted] = []
    run(out, jobs, engine=lambda: Counted(made), replicas=5)
    assert [answer["custom_id"] for answer in lines_of(out)] == IDS[:2]


def test_a_request_that_kills_costs_itself_alone(jobs: Path, out: Path) -> None:
    class Poisoned(ReplayEngine):
        async def results(self) -> AsyncIterator[Result]:
            async for result in super().results():
                if 17 in {item for _, item, _ in self._running} | {result.row}:
                    raise EngineUnavailableError("the engine died")
                yield result

    summary = run(
        out, jobs, engine=lambda: Poisoned(ReplaySettings(slots=4)), replicas=2, patience=Patience(restarts=3)
    )
    assert [answer["custom_id"] for answer in lines_of(out)] == [name for name in IDS if name != "id 17"]
    assert summary.error_codes == {"engine_error": 1, "invalid_json": 1}


class TestWorkPool:
    @staticmethod
    def make(parts: int, rows: int = 100, *, stopping: Callable[[], bool] = lambda: False) -> WorkPool:
        pool = WorkPool(
            rows,
            lambda rows: plan_rows(rows, OrderName.GIVEN, Overlap.EXCLUSIVE),
            lambda: np.arange(rows),
            stopping,
        )
        divided = divide_rows(np.arange(rows), OrderName.GIVEN, Overlap.EXCLUSIVE, parts)
        pool.begin(divided.parts)
        return pool

    def test_half_of_what_the_one_with_most_has_left(self) -> None:
        pool = self.make(2)
        first, second = (pool._plans[number].feeder for number in (1, 2))
        while first.take() is not None:
            pass
        for _ in range(10):
            second.take()
        plan = asyncio.run(pool.more(1))
        assert plan is not None
        assert plan.feeder.rows.tolist() == list(range(80, 100))
        assert second.rows.tolist() == list(range(60, 80))

    def test_it_is_the_one_with_most_of_several(self) -> None:
        pool = self.make(3, rows=99)
        first, second, third = (pool._plans[number].feeder for number in (1, 2, 3))
        while first.take() is not None:
            pass
        for _ in range(20):
            second.take()
        plan = asyncio.run(pool.more(1))
        assert plan is not None and plan.feeder.rows.tolist() == list(range(83, 99))
        assert (second.unfed, third.unfed) == (13, 17)

    def test_what_was_given_back_is_divided_among_those_who_work(self) -> None:
        pool = self.make(4)
        pool.give_back(2, keep=[30])
        pool.leave(2)
        rows: list[list[int]] = []
        while pool._free:
            plan = asyncio.run(pool.more(1 + 2 * (len(rows) % 2)))
            assert plan is not None
            rows.append(plan.feeder.rows.tolist())
        assert sorted(row for piece in rows for row in piece) == [row for row in range(25, 50) if row != 30]
        assert max(map(len, rows)) == 8

    def test_nobody_waits_once_a_stop_is_asked_for(self) -> None:
        pool = self.make(2, rows=2, stopping=lambda: True)
        assert asyncio.run(pool.more(1)) is None

    @pytest.mark.parametrize(("up", "left"), [(True, 1), (False, 0)])
    def test_one_without_an_engine_keeps_not_even_its_last_request(self, up: bool, left: int) -> None:
        pool = self.make(2, rows=8, stopping=lambda: False)
        first, second = (pool._plans[number].feeder for number in (1, 2))
        pool.up(2, up)
        while first.take() is not None:
            pass
        taken = []
        while (plan := pool._steal()) is not None:
            taken += [queued.row for queued in iter(plan.feeder.take, None)]
        assert sorted(taken) == list(range(4 + left, 8))
        assert second.unfed == left

    @pytest.mark.parametrize("replicas", [2, 3])
    def test_one_without_work_waits_for_what_another_may_give_back(self, replicas: int) -> None:
        pool = self.make(replicas, rows=12)
        for number in range(1, replicas + 1):
            pool.up(number, True)
            while pool._plans[number].feeder.take() is not None:
                pass

        async def wait() -> list[int]:
            waiting = asyncio.ensure_future(pool.more(1))
            await asyncio.sleep(0.05)
            assert not waiting.done(), "what others have in flight may come back"
            pool.give_back(2)
            pool.leave(2)
            plan = await waiting
            assert plan is not None
            rows: list[int] = plan.feeder.rows.tolist()
            return rows

        given = asyncio.run(wait())
        assert set(given) <= set(range(12 // replicas, 2 * 12 // replicas)) and given

    def test_there_are_others_to_take_from_only_where_several_began(self) -> None:
        assert [self.make(replicas).several for replicas in (1, 2, 3)] == [False, True, True]

    def test_the_last_one_does_not_wait_for_itself(self) -> None:
        pool = self.make(1)
        feeder = pool._plans[1].feeder
        while feeder.take() is not None:
            pass
        assert asyncio.run(pool.more(1)) is None
