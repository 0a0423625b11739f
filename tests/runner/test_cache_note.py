"""A run whose cache found far less than was planned says so."""

from __future__ import annotations

import numpy as np
import pytest

from blendrun.names import OrderName
from blendrun.planner.feeder import RowFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.plans import cache_note
from blendrun.store.summary import Tokens

PLAN = RunPlan(RowFeeder(np.arange(3)), OrderName.GIVEN, prompt_tokens=1000, predicted_hit_tokens=230)


def test_less_than_half_of_the_plan_is_told() -> None:
    note = cache_note(PLAN, Tokens(1000, 15, 40))
    assert note is not None
    assert note.startswith("1.5 % of the prompt tokens came from the prefix cache, and 23.0 % were planned: ")


@pytest.mark.parametrize(
    ("hits", "tokens"),
    [(230, Tokens(1000, 115, 40)), (20, Tokens(1000, 0, 40)), (None, Tokens(1000, 0, 40)), (230, Tokens(0, 0, 0))],
)
def test_all_else_is_no_news(hits: int | None, tokens: Tokens) -> None:
    plan = RunPlan(RowFeeder(np.arange(3)), OrderName.GIVEN, prompt_tokens=1000, predicted_hit_tokens=hits)
    assert cache_note(plan, tokens) is None
    assert cache_note(None, tokens) is None
