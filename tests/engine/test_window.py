"""How much the engine has at once."""

from __future__ import annotations

import asyncio

import pytest

from blendrun.blend.base import LEFT, RIGHT
from blendrun.engine.window import Window, side_to_feed


@pytest.mark.parametrize(
    ("waiting", "side"),
    [((0.0, 0.0), RIGHT), ((1.0, 0.0), RIGHT), ((2.0, 3.0), LEFT), ((3.0, 4.0), None), ((9.0, 2.0), RIGHT)],
)
def test_the_side_of_which_fewer_wait_is_fed_until_enough_do(waiting: tuple[float, float], side: int | None) -> None:
    assert side_to_feed(waiting, 3, sided=True) == side


def test_a_side_that_lacks_its_part_of_the_pool_is_fed_on() -> None:
    assert side_to_feed((0.0, 90.0), 3, sided=True, right_short=True) == RIGHT
    assert side_to_feed((3.0, 200.0), 3, sided=True, right_short=True) is None


def test_without_sides_all_that_waits_counts_together() -> None:
    assert side_to_feed((2.0, 0.9), 3, sided=False) == LEFT
    assert side_to_feed((2.0, 1.0), 3, sided=False) is None


def test_who_waits_for_a_change_can_be_ended_while_it_comes() -> None:
    async def ended_in_time() -> bool:
        window = Window(1)

        async def watch() -> None:
            while True:
                await window.change(0.001)

        for _ in range(50):
            watching = asyncio.ensure_future(watch())
            await asyncio.sleep(0.0015)
            watching.cancel()
            await window.enter(1)
            await window.leave(1)
            if not (await asyncio.wait((watching,), timeout=1.0))[0]:
                return False
        return True

    assert asyncio.run(ended_in_time())
