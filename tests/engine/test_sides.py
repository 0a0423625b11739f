"""Which side of a blend comes in, on SGLang's own admission."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blendrun.blend.base import LEFT, RIGHT, Turn
from blendrun.engine.base import Planned, SchedulerSettings
from blendrun.engine.scheduler import plugin
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.sglang_names import ADD_REQUEST
from tests.engine.scheduler_loop import Loop, engine_settings, hooked

pytestmark = pytest.mark.runtime

SETTINGS = SchedulerSettings(gate=False, reserve=True, sides=True, plan_order=True)


@pytest.fixture(scope="module", autouse=True)
def settings(tiny_model: Path) -> Iterator[None]:
    with engine_settings(str(tiny_model)):
        yield


class Job:
    """A pool of 600 tokens, of which a third is the left side's."""

    def __init__(self) -> None:
        self.loop, self.looked = Loop(600, 64), 0
        self.count = 0

    def wait(self, side: int, prompt: int, holds: float, *, stays: bool = False, **more: float) -> int:
        """One more request waits. Returns its place in the plan. more: of its turn."""
        number, density = self.count, (2.0, 0.5)[side]
        self.count += 1
        turn = Turn(side, holds, stays=stays, unit=side, density=density, rest_compute=1.0, rest_memory=1.0, **more)
        ids = [10_000 * (number + 1) + place for place in range(prompt)]
        self.loop.submit(str(number), ids, 30, Planned(number, 30, 0, prompt, turn), most=30)
        return number

    def step(self) -> set[int]:
        """Places of those that come in with the next step."""
        before, self.looked = len(self.loop.admitted), 0
        self.loop.run()
        return {place for _, place in self.loop.admitted[before:]}

    def look(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.looked += 1
        return original(*args, **kwargs)

    def hooks(self) -> list[Hook]:
        return [*plugin.hooks(SETTINGS), Hook("looks", ADD_REQUEST, self.look, "around")]


def test_a_head_without_room_keeps_its_side_out_and_not_the_other() -> None:
    job = Job()
    with hooked(job.hooks()):
        first = {job.wait(RIGHT, 100, 115.0), job.wait(LEFT, 20, 35.0)}
        assert job.step() == first
        job.wait(RIGHT, 500, 515.0)
        small = [job.wait(RIGHT, 10, 25.0) for _ in range(40)]
        other = job.wait(LEFT, 20, 35.0)
        assert job.step() == {other}
        # Both heads, and the place where the left side ends: SGLang looks into the cache for each that it comes to.
        assert job.looked == 3
        assert small[0] not in job.step()


def test_what_is_begun_does_not_overtake_the_head_of_its_side() -> None:
    # The right side has its part. Its head has to wait, and so has what stands behind it.
    job = Job()
    with hooked(job.hooks()):
        begun = job.wait(RIGHT, 100, 450.0)
        assert job.step() == {begun}
        head, behind, other = job.wait(RIGHT, 10, 25.0), job.wait(RIGHT, 10, 25.0, stays=True), job.wait(LEFT, 10, 25.0)
        assert job.step() == {other}
        while not (came := job.step()):
            pass
        assert came == {head, behind}


@pytest.mark.parametrize("left_to_come", [0.0, 10_000.0])
def test_what_one_side_has_left_is_read_from_both_ends_once_nothing_is_to_come(left_to_come: float) -> None:
    job = Job()
    with hooked(job.hooks()):
        begun = job.wait(RIGHT, 100, 450.0, rest_size=left_to_come)
        assert job.step() == {begun}
        # The right side has its part, and there is room for one of these.
        waiting = [job.wait(RIGHT, 250, 265.0, rest_size=left_to_come) for _ in range(3)]
        # The left side reads from where the ends would meet; while more is to come, that is not here yet.
        assert job.step() == ({waiting[-1]} if left_to_come == 0 else set())


def test_once_all_that_is_left_fits_the_longest_comes_first_whatever_its_side() -> None:
    job = Job()
    with hooked(job.hooks()):
        reaches = {job.wait(side, 10, 25.0, size=40.0, rest_size=0.0, reach=reach): reach
                   for side, reach in ((LEFT, 30.0), (RIGHT, 90.0), (LEFT, 60.0), (RIGHT, 10.0))}  # fmt: skip
        assert job.step() == set(reaches)
        assert [place for _, place in job.loop.admitted] == sorted(reaches, key=lambda place: -reaches[place])


def test_while_it_does_not_fit_sides_come_in_turn() -> None:
    job = Job()
    with hooked(job.hooks()):
        for side, reach in ((LEFT, 30.0), (RIGHT, 90.0), (LEFT, 60.0), (RIGHT, 10.0)):
            job.wait(side, 10, 25.0, size=200.0, rest_size=0.0, reach=reach)
        job.step()
        assert [place for _, place in job.loop.admitted] == [1, 3, 0, 2]
