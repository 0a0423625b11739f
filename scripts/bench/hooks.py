"""CPU of the scheduler's hooks a step, on SGLang's own classes in this process: no engine, no model, no GPU.

    python scripts/bench/hooks.py [--rows 128 350 700 1400] [--cached 100000 400000 1000000] [--sides]

hooks: a mixed loop of so many rows, thread CPU time of what each hook adds to SGLang's own function, medians over
steps. "refused": a request waits and does not come in. "admits 4": four rows have ended and four come in.
With --sides the requests are a blend's, half of what waits from either side.
SGLang: its own part of looking for a prefill batch in that step.
eviction: a full pool from which each step takes a token a row, which publishes what it took as prompts of 300 tokens
with answers of 100 that nothing will use again; the Rust core with SGLang's LRU beside it.
PYTHONPATH chooses the code that is measured. So SGLang's names are not taken from that code (`engine.sglang_names`):
those here and in the tests' loop are where 0.5.23 has them.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blendrun.blend.base import Turn
from blendrun.engine.base import ConstantStep, Planned, SchedulerSettings
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.plugin import hooks
from tests.tiny_model import write_tiny_model

_PROMPT, _ANSWER = 300, 100
_STEPS = 60
_FEATURES = ("reserve", "gate", "budget", "step_log", "next_use", "sides")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=int, default=[128, 350, 700, 1400])
    parser.add_argument("--cached", nargs="*", type=int, default=[100_000, 400_000, 1_000_000])
    parser.add_argument("--sides", action="store_true", help="of a blend: sides are chosen in the scheduler")
    parser.add_argument("--evict-rows", type=int, default=350, help="tokens that a step takes out of the full pool")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with loops.engine_settings(str(write_tiny_model(path / "tiny"))):
            print("| rows | step |", " | ".join(_FEATURES), "| all hooks | SGLang |")
            print("|---" * (len(_FEATURES) + 4) + "|")
            for rows in asked.rows:
                for step, spent in hook_times(rows, str(path / "steps.jsonl"), asked.sides).items():
                    print_times(rows, step, spent)
            print("\n| cached tokens | next use: mean ms, worst | Rust LRU: mean ms, worst |\n|---|---|---|")
            for cached in asked.cached:
                ours = evictions(cached, asked.evict_rows, "python")
                theirs = evictions(cached, asked.evict_rows, "rust")
                print(f"| {cached:,} | {_mean_and_worst(ours)} | {_mean_and_worst(theirs)} |", flush=True)


def _loops() -> Any:
    """The loop of the tests, beside this file's own checkout whatever code is measured."""
    path = Path(__file__).parents[2] / "tests/engine/scheduler_loop.py"
    spec = importlib.util.spec_from_file_location("scheduler_loop", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


loops = _loops()


class Clock:
    """CPU time of this thread by feature, what is called in between left out."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._began = 0.0
        self._inside: list[str] = []

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        self._stop()
        self._inside.append(name)
        self._began = time.thread_time()
        try:
            yield
        finally:
            self._stop()
            self._inside.pop()
            self._began = time.thread_time()

    def _stop(self) -> None:
        if self._inside:
            self.spent[self._inside[-1]] += time.thread_time() - self._began


def timed(hook: Hook, clock: Clock) -> Hook:
    """`hook`, timed; SGLang's own part of its target goes to another account."""
    own = "SGLang" if hook.target.endswith("get_new_batch_prefill") else "rest"

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def target(*args: Any, **kwargs: Any) -> Any:
            with clock.inside(own):
                return original(*args, **kwargs)

        with clock.inside(hook.feature):
            if hook.kind == "around":
                return hook.function(target, *args, **kwargs)
            result = target(*args, **kwargs)
            hook.function(result, *args, **kwargs)
            return result

    return replace(hook, function=around, kind="around")


def hook_times(rows: int, log: str, sides: bool) -> dict[str, list[dict[str, float]]]:
    """Of steps of each kind: seconds by feature."""
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    clock = Clock()
    more: dict[str, Any] = {"step_log": log, "sides": sides}
    settings = SchedulerSettings(budget=ConstantStep(8192), reserve=True, next_use=True, plan_order=True, **more)
    loop = loops.Loop(rows * 2000, rows + 8, mixed=True)
    found: dict[str, list[dict[str, float]]] = {"refused": [], "admits 4": []}
    with loops.hooked([timed(hook, clock) for hook in hooks(settings)]):
        for number in range(rows):
            submit(loop, number, sides)
        while loop.scheduler.waiting_queue or loop.scheduler.last_batch.forward_mode.is_extend():
            loop.run()
        number = rows
        while len(found["admits 4"]) < _STEPS:
            # Four of the oldest end with their next token; four more wait.
            for request in loop.scheduler.running_batch.reqs[:4]:
                loop.abort(request)
            loop.run()
            for _ in range(4):
                submit(loop, number, sides)
                number += 1
            spent, came = one_step(loop, clock)
            if came == 4:
                found["admits 4"].append(spent)
            for _ in range(3):
                loop.run()
        # What is left of the pool lasts for the steps, and not for one more request.
        loop.tree.evict(EvictParams(num_tokens=loop.tree.evictable_size()))
        loop.pool.alloc(loop.pool.available_size() - 2 * _STEPS * rows)
        for _ in range(64):
            submit(loop, number, sides)
            number += 1
        for _ in range(_STEPS):
            spent, came = one_step(loop, clock)
            assert not came and loop.scheduler.waiting_queue, came
            found["refused"].append(spent)
    return found


def submit(loop: Any, number: int, sides: bool) -> None:
    # None ends by itself, and none is overdue while it is looked at.
    prompt = [number * 7919 % 1_000_003, *range(_PROMPT - 1)]
    turn = None
    if sides:
        # Both parts of the pool have room, and each request is a unit of its own.
        side = number % 2
        left = 1e9 - number
        turn = Turn(side, 1.0, unit=number, density=(2.0, 0.5)[side], rest_compute=left, rest_memory=left)
    plan = Planned(number, 800 + number * 37 % 400, 0, _PROMPT, turn)
    loop.submit(str(number), prompt, 10_000, plan, most=4000)


def one_step(loop: Any, clock: Clock) -> tuple[dict[str, float], int]:
    """Seconds by feature, and requests that came in."""
    clock.spent.clear()
    before = len(loop.admitted)
    loop.run()
    return dict(clock.spent), len(loop.admitted) - before


def print_times(rows: int, step: str, steps: Sequence[dict[str, float]]) -> None:
    def median(names: Sequence[str]) -> str:
        return f"{1e3 * statistics.median(sum(spent.get(name, 0.0) for name in names) for spent in steps):.3f}"

    columns = [median([name]) for name in _FEATURES]
    print(f"| {rows:,} | {step} |", " | ".join(columns), f"| {median(_FEATURES)} | {median(['SGLang'])} |", flush=True)


def evictions(cached: int, tokens: int, core: str) -> list[float]:
    """CPU seconds of each step's eviction."""
    import gc

    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    chosen = hooks(SchedulerSettings(gate=False, dead_ends=False, next_use=core == "python"))
    spent = []
    with loops.hooked(chosen):
        loop = loops.Loop(cached, 8, core=core)
        number = 0
        while loop.pool.available_size() >= _PROMPT + _ANSWER:
            publish(loop, number)
            number += 1
        # A collection of all that a process holds is no part of an eviction.
        gc.collect()
        gc.freeze()
        for _ in range(4 * _STEPS):
            short = tokens - loop.pool.available_size()
            began = time.thread_time()
            if short > 0:
                loop.tree.evict_for_alloc(EvictParams(num_tokens=short))
            spent.append(time.thread_time() - began)
            for _ in range(loop.pool.available_size() // (_PROMPT + _ANSWER)):
                publish(loop, number)
                number += 1
    return spent


def publish(loop: Any, number: int) -> None:
    """What SGLang inserts for a request that has ended: prompt and answer, with a border between them."""
    from array import array

    from sglang.srt.mem_cache.base_prefix_cache import InsertParams
    from sglang.srt.mem_cache.radix_cache import RadixKey

    ids = array("q", [1_000_000 + number, *range(_PROMPT + _ANSWER - 1)])
    slots = loop.pool.alloc(len(ids))
    mark = 4 * (number + 1)
    loop.tree.insert(InsertParams(key=RadixKey(ids, None), value=slots, priority=mark + 1))
    loop.tree.insert(
        InsertParams(
            key=RadixKey(ids[:_PROMPT], None), value=slots[:_PROMPT], priority=mark + 2, prev_prefix_len=_PROMPT,
            inserted_len=_PROMPT,
        )
    )  # fmt: skip


def _mean_and_worst(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.mean(seconds):.3f}, {1e3 * max(seconds):.2f}"


if __name__ == "__main__":
    main()
