"""What drafts, a cache in host memory and shared reads would bring a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import UsageError
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.planner.plan import Choice, Plan, Structure, cost_structure, make_plan
from blendrun.planner.what_if import (
    cache_in_host_memory,
    drafts_at_the_tail,
    drafts_in_every_step,
    rows_with_free_drafts,
)
from tests.blend.jobs_of_lengths import small_job

MODEL, CARD = load_card("llama-3-8b"), load_hardware("a100-80g")
GIVEN = Choice(orders=(OrderName.GIVEN,))


def plan(structure: Structure, choice: Choice = GIVEN, gpus: int = 1, **limits: int) -> Plan:
    return make_plan(cost_structure(structure, MODEL, machine(CARD, gpus), limits=EngineLimits(**limits)), choice)


@pytest.fixture(scope="module")
def far_apart() -> Structure:
    """Documents of 600 tokens; their questions come one round after the other, and a pool holds few of them."""
    units = [[document] * 600 + [9000 + question] * 5 for question in range(6) for document in range(40)]
    made = small_job(units, [60] * 240)
    return Structure(made.prompts, made.tree, made.lengths)


def test_drafts_pay_while_few_rows_decode(far_apart: Structure) -> None:
    few = plan(far_apart, pool_tokens=8000, max_running=8)
    tail = drafts_at_the_tail(few, 4, 0.6)
    assert tail.gain > 0.2
    assert tail.gain < drafts_at_the_tail(few, 4, 0.9).gain
    assert drafts_at_the_tail(few, 4, 0.0).gain <= 0
    assert tail.without == few.portfolio.chosen.seconds


def test_drafts_in_every_step_cost_arithmetic_where_many_rows_decode(far_apart: Structure) -> None:
    many = plan(far_apart, Choice(orders=(OrderName.SORTED,), overlaps=(Overlap.EXCLUSIVE,)), pool_tokens=400_000)
    always = drafts_in_every_step(many, 4, 0.2)
    assert always is not None
    assert always.gain < 0 <= drafts_at_the_tail(many, 4, 0.2).gain
    assert drafts_in_every_step(plan(far_apart, Choice(overlaps=(Overlap.MIXED,)), pool_tokens=8000), 4, 0.6) is None


def test_the_rows_up_to_which_drafts_are_free(far_apart: Structure) -> None:
    step = plan(far_apart, pool_tokens=8000).portfolio.step
    rows = rows_with_free_drafts(step, 4, 0.5)
    grown = 1 + 0.5 + 0.25 + 0.125 + 0.0625

    def seconds(count: int, tokens: int) -> float:
        return max(step.decode_token * count * tokens, step.weights)

    assert seconds(rows, 5) / grown <= seconds(rows, 1)
    assert seconds(rows + 1, 5) / grown > seconds(rows + 1, 1)


def test_host_memory_brings_back_what_the_order_uses_far_apart(far_apart: Structure) -> None:
    made = plan(far_apart, pool_tokens=8000)
    assert made.portfolio.chosen.outcome.hit_tokens < 0.5 * far_apart.tree.shared_tokens
    enough, nothing = cache_in_host_memory(made, 40), cache_in_host_memory(made, 1e-3)
    assert enough.gain > 0.02
    assert nothing.seconds == pytest.approx(nothing.without)


def test_host_memory_of_parts_and_of_cards_that_do_not_say(far_apart: Structure) -> None:
    made = plan(far_apart, gpus=2, pool_tokens=8000)
    assert cache_in_host_memory(made, 40).seconds < made.portfolio.chosen.seconds
    silent = replace(made.costed.machine, card=replace(CARD, host_bandwidth=None))
    with pytest.raises(UsageError, match="host_bandwidth"):
        cache_in_host_memory(replace(made, costed=replace(made.costed, machine=silent)), 40)


def test_shared_reads_make_long_documents_faster_and_keep_them_together() -> None:
    rng = np.random.default_rng(0)
    units = [[document] * 3000 + rng.integers(0, 99, 20).tolist() for document in range(30) for _ in range(8)]
    made = small_job(units, [150] * 240)
    structure = Structure(made.prompts, made.tree, made.lengths)
    choice = Choice(orders=(OrderName.SHUFFLED, OrderName.SORTED))
    each = plan(structure, choice, pool_tokens=60_000)
    once = plan(structure, choice, pool_tokens=60_000, shared_reads=256)
    assert once.portfolio.chosen.order is OrderName.SORTED
    assert once.portfolio.chosen.seconds < 0.8 * each.portfolio.chosen.seconds
    assert once.costed.bound.memory < 0.5 * each.costed.bound.memory
    # Segments of 3,000 tokens: attention that wants longer ones reads for each row.
    longer = plan(structure, choice, pool_tokens=60_000, shared_reads=3001)
    assert longer.portfolio.chosen.seconds == pytest.approx(each.portfolio.chosen.seconds)
