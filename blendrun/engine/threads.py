"""Work beside the event loop that nobody has to wait for when the run ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The result of a call in a thread of its own.

    Not the loop's executor: at its end a loop waits for that, and so would a signal.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(error: BaseException | None, result: _T | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where the call gives None

    def work() -> None:
        error: BaseException | None = None
        result: _T | None = None
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:  # noqa: BLE001  # it is raised where the call is waited for
            error = caught
        try:
            loop.call_soon_threadsafe(settle, error, result)
        except RuntimeError:
            return  # The loop is closed: the run is over.

    threading.Thread(target=work, name="blendrun-beside", daemon=True).start()
    return await future
