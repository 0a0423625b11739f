"""SGLang's own scheduling policies, asked for by an engine argument, and our orders: one of them at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from blendrun.backends.base import Placement
from blendrun.backends.sglang import engine_settings, planner_of
from blendrun.errors import UsageError
from blendrun.models.cards import load_card
from blendrun.models.resolve import ResolvedModel, resolve_model
from blendrun.names import OrderName, Overlap


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    return resolve_model("smollm2-135m", platform="cpu")


def planner(model: ResolvedModel, order: str, **arguments: Any) -> Any:
    named = None if order == "auto" else OrderName(order)
    return planner_of(model, Placement("cpu", 1, 1), arguments, named, None)


def test_auto_leaves_the_order_to_a_policy_that_was_asked_for(model: ResolvedModel) -> None:
    assert planner(model, "auto", schedule_policy="lpm") is None
    assert planner(model, "auto") is not None
    assert planner(model, "auto", schedule_policy="fcfs") is not None


def test_a_policy_and_an_order_by_name_are_refused_before_anything_starts(model: ResolvedModel) -> None:
    with pytest.raises(UsageError, match=r"schedule_policy=lpm has an order of its own.*--order blended"):
        planner(model, "blended", schedule_policy="lpm")


def test_a_model_s_card_names_its_parsers_and_the_user_s_win(model: ResolvedModel) -> None:
    named = replace(model, card=load_card("qwen3-8b"))
    parsers = named.card.parsers if named.card else None
    assert parsers is not None and parsers.tool_call
    own = engine_settings(named, "cpu", 1, {"max_running_requests": 4}).server_args
    assert (own["tool_call_parser"], own["max_running_requests"]) == (parsers.tool_call, 4)
    assert engine_settings(named, "cpu", 1, {"tool_call_parser": "hermes"}).server_args["tool_call_parser"] == "hermes"


def test_an_engine_that_deals_requests_out_by_itself_keeps_no_plan(model: ResolvedModel) -> None:
    for order in ("auto", "blended"):
        with pytest.raises(UsageError, match=r"dp_size=2: .* use --replicas 2, .* or --order given"):
            planner(model, order, dp_size=2)
    assert planner(model, "given", dp_size=2) is None


def test_the_devices_of_an_engine_are_planned_with(model: ResolvedModel) -> None:
    on_gpu = planner_of(
        model, Placement("gpu", 1, 1), {"tp_size": 4, "pp_size": 2}, OrderName.SORTED, Overlap.EXCLUSIVE
    )
    assert on_gpu is not None and on_gpu.limits.devices == 8
    assert planner(model, "sorted", tp_size=3).limits.devices is None


def test_an_engine_that_prefills_whole_prompts_keeps_more_memory_free(model: ResolvedModel) -> None:
    chunks = [
        planner_of(model, Placement("gpu", 1, 1), {}, OrderName.SORTED, overlap).limits.chunk  # type: ignore[union-attr]
        for overlap in (Overlap.EXCLUSIVE, Overlap.PDMUX)
    ]
    assert chunks == [None, 16_384]
