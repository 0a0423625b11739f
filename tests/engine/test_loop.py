"""What a thread of the engine process raises reaches whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from blendrun.engine.loop import Loop


def _take_too_many() -> None:
    next(iter(()))


async def _in_a_pool(function: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)


@pytest.mark.parametrize("where", [asyncio.to_thread, _in_a_pool])
def test_an_iterator_that_ends_in_a_thread_is_an_error_and_no_wait_for_ever(where: Callable[..., Any]) -> None:
    loop = Loop()
    try:
        with pytest.raises(ValueError, match="fewer media than marks"):
            loop.run_until_complete(asyncio.wait_for(where(_take_too_many), 20))
        with pytest.raises(KeyError):
            loop.run_until_complete(where({}.__getitem__, 1))
        assert loop.run_until_complete(where(max, 1, 2)) == 2
    finally:
        loop.close()
