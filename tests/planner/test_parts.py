"""A plan for several replicas: each has a part of the job, and together they do all of it."""

from __future__ import annotations

import numpy as np
import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.cost.hardware import load_hardware, machine
from blendrun.events import Event, Progress
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.planner.plan import Choice, Plan, Structure, cost_structure, make_plan
from tests.blend.jobs_of_lengths import small_job

MODEL, CARD = load_card("llama-3-8b"), load_hardware("a100-80g")
CHOICE = Choice(overlaps=(Overlap.MIXED,))


@pytest.fixture(scope="module")
def structure() -> Structure:
    """Documents with short answers and stories that are long ones, many times what fits a pool."""
    rng = np.random.default_rng(0)
    units = [[document] * 300 + rng.integers(0, 9, 20).tolist() for document in range(200) for _ in range(10)]
    units += [[1000 + story] * 5 for story in range(1000)]
    made = small_job(units, [8] * 2000 + [200] * 1000)
    return Structure(made.prompts, made.tree, made.lengths)


def plan(structure: Structure, gpus: int) -> Plan:
    return make_plan(cost_structure(structure, MODEL, machine(CARD, gpus), limits=EngineLimits(8000)), CHOICE)


def test_more_devices_are_as_many_times_as_fast_as_the_parts_are_equal(structure: Structure) -> None:
    one, four = plan(structure, 1), plan(structure, 4)
    assert not one.parts
    assert one.partition is None
    assert len(four.parts) == 4
    assert four.partition is not None
    assert four.partition.kept_sharing > 0.97
    speed_up = one.portfolio.chosen.seconds / four.portfolio.chosen.seconds
    # Four pools together hold more prefixes than one.
    assert 3.4 < speed_up < 4.6
    slowest = max(
        candidate.seconds
        for part in four.parts
        for candidate in part.plan.portfolio.candidates
        if candidate.order is four.portfolio.chosen.order
    )
    assert four.portfolio.chosen.seconds == slowest


def test_together_they_do_the_whole_job(structure: Structure) -> None:
    one, three = plan(structure, 1), plan(structure, 3)
    assert sorted(three.order.prompt.tolist()) == list(range(len(structure.prompts)))
    np.testing.assert_array_equal(one.portfolio.outputs, three.portfolio.outputs)
    for single, many in zip(one.portfolio.candidates, three.portfolio.candidates, strict=True):
        assert (single.order, single.overlap) == (many.order, many.overlap)
        # Requests that are sent back decode some tokens twice.
        assert many.outcome.decode_tokens == pytest.approx(single.outcome.decode_tokens, rel=0.01)
        line = many.outcome.timeline
        assert line.seconds.sum() == pytest.approx(many.seconds)
        assert line.prefill.sum() == pytest.approx(many.outcome.prefill_tokens)
        assert line.decode.sum() == pytest.approx(many.outcome.decode_tokens)
        assert many.tokens_per_second * many.seconds == pytest.approx(single.tokens_per_second * single.seconds)
    for part in three.parts:
        rows = part.plan.costed.structure.prompts.row
        np.testing.assert_array_equal(rows, structure.prompts.row[part.numbers])
        assert part.plan.costed.pool.replicas == 1


def test_what_all_devices_cost(structure: Structure) -> None:
    choice = Choice((OrderName.SORTED,), (Overlap.MIXED,), gpu_hour=2.0)
    two = make_plan(cost_structure(structure, MODEL, machine(CARD, 2)), choice)
    assert two.portfolio.chosen.cost == pytest.approx(2 * 2.0 * two.portfolio.chosen.seconds / 3600)


def test_how_far_it_is_counts_the_simulations_of_all_parts(structure: Structure) -> None:
    seen: list[Event] = []
    choice = Choice((OrderName.SORTED,), (Overlap.MIXED,))
    made = make_plan(cost_structure(structure, MODEL, machine(CARD, 3)), choice, seen.append)
    assert len(made.parts) == 3
    assert seen == [Progress(done, len(seen), "simulations") for done in range(1, len(seen) + 1)]


def test_fewer_requests_than_devices(structure: Structure) -> None:
    few = structure.take(np.arange(3))
    made = plan(few, 8)
    assert 1 <= len(made.parts) <= 3
    assert sorted(made.order.prompt.tolist()) == [0, 1, 2]
