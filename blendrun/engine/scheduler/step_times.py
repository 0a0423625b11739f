"""How long steps take on a device that works on behind the scheduler: from their results, not from their launch.

SGLang launches a step before it looks at the result of the one before. So a step begins when it is launched or when
its predecessor is done, whichever is later, and ends when its result is there. Where prefill and decode have streams of
their own (pdmux), the predecessor is that of the same stream.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

# Results that SGLang never looks at are forgotten: it has two under way at most.
_MOST = 8


@dataclass(slots=True)
class Launched:
    """A step without a result. line: to be written when it has one. at: seconds, monotonic. stream: it runs on."""

    line: dict[str, Any]
    at: float
    stream: str


class StepTimes:
    """Steps that are under way, by the result that they will have."""

    def __init__(self) -> None:
        self._under_way: OrderedDict[int, tuple[Any, Launched]] = OrderedDict()
        self._done: dict[str, float] = {}
        self._parts: Launched | None = None

    def launch(self, result: Any, step: Launched, *, in_parts: bool = False) -> None:
        """in_parts: the result is that of the step's first part, those of further parts will come (`go_on`)."""
        self._under_way[id(result)] = result, step
        self._parts = step if in_parts else self._parts
        while len(self._under_way) > _MOST:
            self._under_way.popitem(last=False)

    def go_on(self, result: Any) -> None:
        """One more part of the step in parts is launched: the step is done with its result."""
        if self._parts is None:
            return
        for key, (_, step) in self._under_way.items():
            if step is self._parts:
                del self._under_way[key]
                break
        self._under_way[id(result)] = result, self._parts

    def is_under_way(self, result: Any) -> bool:
        return id(result) in self._under_way

    def finish(self, result: Any) -> tuple[dict[str, Any], float, float]:
        """The result is there now: the step's line, when it began on the device (monotonic), and its seconds."""
        _, step = self._under_way.pop(id(result))
        now = time.monotonic()
        began = max(step.at, self._done.get(step.stream, step.at))
        self._done[step.stream] = now
        return step.line, began, now - began


def wait_for(scheduler: Any, result: Any) -> None:
    """Wait as SGLang is about to."""
    copied = getattr(result, "copy_done", None)
    if copied is not None:
        copied.synchronize()
    else:
        # Without overlap it fetches the tokens from the device by themselves.
        scheduler.device_module.current_stream().synchronize()
