"""What the hooks save changes nothing: the same requests come in at the same steps, the same leaves are evicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from blendrun.engine.base import ConstantStep, Planned, SchedulerSettings
from blendrun.engine.scheduler import budget, plugin
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.next_use import begin_walk, next_leaf
from blendrun.engine.scheduler.planned import take_corrections
from blendrun.engine.scheduler.rows import Rows, steps_left
from tests.engine.scheduler_loop import Loop, engine_settings, hooked

pytestmark = pytest.mark.runtime

COUNT = 90
Cached = frozenset[tuple[int, int]]


@pytest.fixture(scope="module", autouse=True)
def settings(tiny_model: Path) -> Iterator[None]:
    with engine_settings(str(tiny_model)):
        yield


@pytest.fixture(params=range(4))
def seed(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def chosen(leave_out: Callable[[Hook], bool] = lambda _: False, core: str = "python") -> list[Hook]:
    # The compiled core takes no order of eviction from outside.
    everything = SchedulerSettings(budget=ConstantStep(200), reserve=True, next_use=core == "python", plan_order=True)
    return [hook for hook in plugin.hooks(everything) if not leave_out(hook)]


class History:
    """A job of random requests on a pool too small for them; what is told of them is often wrong.

    Groups share prefixes, some requests have no plan, some are aborted, expectations are corrected meanwhile.
    """

    def __init__(self, seed: int, hooks: Sequence[Hook], estimates: Path, core: str = "python") -> None:
        self.source = Random(seed)
        self.core = core
        self.loop = Loop(1500, 24, chunk=256, mixed=seed % 2 == 1, core=core)
        self.estimates = Estimates.create(estimates, COUNT)
        self.hooks = hooks
        # Of each step: tokens that are free, and those that nothing runs on.
        self.pool: list[tuple[int, int]] = []
        self.cached: list[Cached] = []
        self.waited = 0

    def run(self) -> History:
        source, loop = self.source, self.loop
        requests: list[Any] = []
        take_corrections(self.estimates)
        with hooked(self.hooks):
            while len(requests) < COUNT or loop.scheduler.waiting_queue or loop.scheduler.last_batch:
                while len(requests) < COUNT and (source.random() < 0.1 or len(loop.scheduler.waiting_queue) < 3):
                    requests.append(self.submit(len(requests)))
                if source.random() < 0.05:
                    self.estimates.correct(source.randrange(COUNT), source.choice([3, 20, 60, 150]))
                if source.random() < 0.02:
                    loop.abort(source.choice(requests))
                loop.run()
                self.note()
        return self

    def submit(self, number: int) -> Any:
        source = self.source
        group = source.randrange(6)
        shared = [10_000 + group * 1000 + place for place in range(80)][: source.choice([0, 40, 80])]
        own = [number * 100_000 + 500_000 + place for place in range(source.randrange(5, 300))]
        answer, expected = source.randrange(1, 90), source.choice([0, 1, 10, 45, 90])
        plan = None if source.random() < 0.05 else Planned(number, expected, source.choice([0, len(shared)]))
        return self.loop.submit(f"{number}", shared + own, answer, plan, most=source.choice([answer + 1, 100, 400]))

    def note(self) -> None:
        self.pool.append((self.loop.pool.available_size(), self.loop.tree.evictable_size()))
        if self.core != "python":
            return
        nodes, found = [self.loop.tree.tree_core.root_node], set()
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            if len(node.key):
                found.add((node.key.token_ids[0], len(node.key)))
        self.cached.append(frozenset(found))


@pytest.mark.parametrize("core", ["python", "rust"])
def test_a_step_that_is_not_looked_at_would_have_admitted_nothing(seed: int, core: str, tmp_path: Path) -> None:
    from sglang.srt.managers.scheduler import Scheduler

    looked: list[int] = []
    original = Scheduler._get_new_batch_prefill_raw

    def count(*args: Any, **kwargs: Any) -> Any:
        looked[-1] += 1
        return original(*args, **kwargs)

    found = []
    with patch.object(Scheduler, "_get_new_batch_prefill_raw", count):
        for leave_out in (lambda hook: hook.function.__name__ == "look_once", lambda _: False):
            looked.append(0)
            found.append(History(seed, chosen(leave_out, core), tmp_path / "estimates", core).run())
    always, once = found
    assert once.loop.admitted == always.loop.admitted
    assert once.loop.retracted == always.loop.retracted
    assert once.pool == always.pool
    assert once.cached == always.cached
    assert looked[1] < 0.95 * looked[0], "there were steps to save"
    assert len(always.pool) > 2 * len({step for step, _ in always.loop.admitted})


def test_leaves_kept_in_order_go_as_those_put_in_order_each_time(seed: int, tmp_path: Path) -> None:
    def in_order(hook: Hook) -> bool:
        return hook.function in (begin_walk, next_leaf)

    each_time = History(seed, chosen(in_order), tmp_path / "estimates").run()
    kept = History(seed, chosen(), tmp_path / "estimates").run()
    assert kept.cached == each_time.cached
    assert kept.loop.admitted == each_time.loop.admitted
    assert sum(one - two != frozenset() for one, two in zip(kept.cached, kept.cached[1:], strict=False)) > 50


def test_rows_that_are_kept_are_those_counted_anew(seed: int, tmp_path: Path) -> None:
    kept = Rows.ends
    seen = []

    def both(rows: Rows, requests: list[Any]) -> Any:
        ahead, freed = kept(rows, requests)
        anew = kept(Rows(), requests)
        assert (ahead.tolist(), freed.tolist()) == (anew[0].tolist(), anew[1].tolist())
        assert ahead.tolist() == [steps_left(request) for request in requests]
        seen.append(len(requests))
        return ahead, freed

    with patch.object(Rows, "ends", both):
        found = History(seed, chosen(), tmp_path / "estimates").run()
    assert sum(count > 4 for count in seen) > 50
    assert found.loop.retracted, "estimates are wrong enough"


def test_the_context_that_a_budget_counts_is_that_of_prompts_and_answers(tmp_path: Path) -> None:
    counted = budget._context
    seen = []

    def both(scheduler: Any, running_batch: Any, beside: list[Any]) -> int:
        found = counted(scheduler, running_batch, beside)
        known = sum(len(request.origin_input_ids) + len(request.output_ids) for request in beside)
        # Results lag by a step.
        assert abs(found - known) <= len(beside)
        seen.append(len(beside))
        return found

    with patch.object(budget, "_context", both):
        History(1, chosen(), tmp_path / "estimates").run()
    assert sum(count > 4 for count in seen) > 50
