"""A small job is planned by the interpreter, and its plan is that of the compiled loops."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendrun.blend.base import Blend, Order
from blendrun.names import OrderName
from blendrun.simulate.base import Outcome, SimulatedEngine, StepTime
from blendrun.simulate.simulator import simulate
from blendrun.tree.build import build_tree
from blendrun.tree.interpreted import interpreted
from tests.simulate.small_jobs import NARROW, SPARSE, STEP, Job, engines, jobs


def outcome_of(job: Job, name: OrderName, engine: SimulatedEngine, step: StepTime) -> Outcome | None:
    """None where a division by zero says to do without."""
    fed: Order | Blend = job.blend(engine.pool_tokens) if name is OrderName.BLENDED else job.order(name)
    try:
        return simulate(*(job.tree, job.prompts, fed, job.outputs, step, engine))
    except ZeroDivisionError:
        return None


@settings(max_examples=30, deadline=None)
@given(jobs(), engines(), st.sampled_from(OrderName), st.sampled_from((STEP, SPARSE, NARROW)))
def test_simulations_are_the_same(job: Job, engine: SimulatedEngine, name: OrderName, step: StepTime) -> None:
    fast = outcome_of(job, name, engine, step)
    with interpreted():
        slow = outcome_of(job, name, engine, step)
    assert fast is not None
    if slow is None:
        return
    for each in fields(Outcome):
        if each.name == "timeline":
            for part in fields(fast.timeline):
                own, other = getattr(slow.timeline, part.name), getattr(fast.timeline, part.name)
                assert own == pytest.approx(other, rel=1e-9), part.name
        else:
            assert getattr(slow, each.name) == pytest.approx(getattr(fast, each.name), rel=1e-9), each.name


@settings(max_examples=30, deadline=None)
@given(jobs())
def test_trees_are_the_same(job: Job) -> None:
    with interpreted():
        tree = build_tree(job.prompts)
    for each in ("parent", "depth", "leaf", "position", "prompt", "leaf_begin", "leaf_end"):
        assert np.array_equal(getattr(tree, each), getattr(job.tree, each)), each
