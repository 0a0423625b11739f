"""A plan's way to the scheduler in a request's sampling parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from blendrun.blend.base import RIGHT, Turn
from blendrun.engine.base import Planned
from blendrun.engine.scheduler.planned import attach_plan, plan_of


def arrived(custom_params: Any) -> SimpleNamespace:
    """The request as the scheduler sees it."""
    return SimpleNamespace(sampling_params=SimpleNamespace(custom_params=custom_params))


@pytest.mark.parametrize("users", [{}, {"custom_params": None}, {"custom_params": {"thinking_budget": 3}}])
def test_a_plan_arrives_beside_what_the_user_sent(users: dict[str, Any]) -> None:
    adapted = SimpleNamespace(sampling_params=dict(users), priority=None)
    plan = Planned(index=2**31 - 1, output=17, reuse=400)
    attach_plan(adapted, plan)
    carried = adapted.sampling_params["custom_params"]
    assert plan_of(arrived(carried)) == plan
    assert adapted.priority == plan.index
    assert {name: carried[name] for name in (users.get("custom_params") or {})} == (users.get("custom_params") or {})


def test_a_turn_arrives_with_its_plan() -> None:
    adapted = SimpleNamespace(sampling_params={}, priority=None)
    turn = Turn(RIGHT, 165.5, 63_837.5, True, 7, 2.88, 1.29, 1e-3, 2e-3, 4.5, 0.5)
    attach_plan(adapted, Planned(index=3, output=17, reuse=400, turn=turn))
    assert plan_of(arrived(adapted.sampling_params["custom_params"])) == Planned(3, 17, 400, turn=turn)


@pytest.mark.parametrize(
    "custom_params",
    [
        None,
        {},
        {"blendrun": None},
        {"blendrun": [1, 2]},
        {"blendrun": "abc"},
        {"blendrun": [1, 2, "3"]},
        {"blendrun": [1] * 5},
    ],
)
def test_what_is_no_plan_is_none(custom_params: Any) -> None:
    request = arrived(custom_params)
    assert plan_of(request) is None
    assert plan_of(request) is None
