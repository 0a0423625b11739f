"""How large an engine is made: by what the user said, by the plan, and less where memory ran out."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.engine.base import AdaptiveStep, EngineSettings, Platform, SchedulerSettings
from blendrun.engine.settings import server_args
from blendrun.engine.shared_reads import CASCADE, LEAST_SHARED
from blendrun.engine.sizes import (
    PlannedSize,
    engine_limits,
    limits_to_plan,
    shrunk_arguments,
    sized_arguments,
)
from blendrun.errors import UsageError

SIZE = PlannedSize(max_running=700, graph_rows=640, fraction=0.82)


class TestWhatIsKnown:
    def test_a_cpu_s_engine_is_ours(self) -> None:
        assert engine_limits("cpu", {}) == EngineLimits(32_768, 32, 4096)
        assert engine_limits("cpu", {"max_total_tokens": 500, "tp_size": 3}) == EngineLimits(500, 32, 4096)

    def test_a_gpu_s_is_sglang_s_but_for_what_was_said(self) -> None:
        assert engine_limits("gpu", {}) == EngineLimits()
        assert engine_limits("gpu", {"tp_size": 4}).devices == 4
        assert engine_limits("gpu", {"pp_size": 2}).devices == 2
        assert engine_limits("gpu", {"chunked_prefill_size": -1}).chunk == 16_384
        assert engine_limits("gpu", {"mem_fraction_static": 0.7}).fraction == 0.7

    @pytest.mark.parametrize(
        ("arguments", "rows"),
        [
            ({}, None),
            ({"disable_cuda_graph": True}, 0),
            ({"disable_decode_cuda_graph": True, "cuda_graph_max_bs_decode": 64}, 0),
            ({"cuda_graph_backend_decode": "disabled"}, 0),
            ({"cuda_graph_max_bs_decode": 64}, 64),
            ({"cuda_graph_bs_decode": [1, 96, 8], "cuda_graph_max_bs_decode": 64}, 96),
            ({"cuda_graph_config": {"decode": {"max_bs": 128}}, "cuda_graph_max_bs_decode": 64}, 128),
            ({"cuda_graph_config": {"prefill": {"max_bs": 128}}}, None),
        ],
    )
    def test_graphs(self, arguments: dict[str, Any], rows: int | None) -> None:
        assert engine_limits("gpu", arguments).graph_rows == rows

    def test_what_reads_a_shared_prefix_once(self) -> None:
        assert engine_limits("gpu", {"attention_backend": "fa3"}).shared_reads is None
        assert engine_limits("gpu", {"attention_backend": CASCADE}).shared_reads == LEAST_SHARED
        split = {"attention_backend": "fa3", "decode_attention_backend": CASCADE}
        assert engine_limits("gpu", split).shared_reads == LEAST_SHARED
        assert engine_limits("gpu", split | {"decode_attention_backend": "fa3"}).shared_reads is None
        assert engine_limits("cpu", {"attention_backend": "intel_amx"}).shared_reads is None

    @pytest.mark.parametrize(
        "arguments", [{"tp_size": 0}, {"pp_size": "two"}, {"max_running_requests": 0}, {"mem_fraction_static": "half"}]
    )
    def test_numbers_that_are_none_are_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=f"--engine-arg {next(iter(arguments))}="):
            engine_limits("gpu", arguments)

    @pytest.mark.parametrize("platform", ["cpu", "gpu"])
    def test_ranks_that_sglang_deals_to_are_no_plan(self, platform: Platform) -> None:
        with pytest.raises(UsageError, match="use --replicas 3, each with a part of the plan, or --order given"):
            limits_to_plan(platform, {"dp_size": 3})
        assert limits_to_plan(platform, {"dp_size": 1}) == engine_limits(platform, {})


class TestByThePlan:
    def test_rows_and_graphs_on_a_gpu(self) -> None:
        found = sized_arguments({"dtype": "float16"}, "gpu", SIZE)
        assert found == {"max_running_requests": 700, "cuda_graph_max_bs_decode": 640, "dtype": "float16"}

    @pytest.mark.parametrize(
        "given",
        [
            {"max_running_requests": 64},
            {"cuda_graph_bs_decode": [1, 8]},
            {"disable_decode_cuda_graph": True},
            {"cuda_graph_config": {"decode": {"max_bs": 8}}},
        ],
    )
    def test_what_the_user_said_stands(self, given: dict[str, Any]) -> None:
        found = sized_arguments(given, "gpu", SIZE)
        assert found.items() >= given.items()
        assert ("cuda_graph_max_bs_decode" in found) == ("max_running_requests" in given)

    @pytest.mark.parametrize(("platform", "size"), [("cpu", SIZE), ("gpu", PlannedSize())])
    def test_else_it_is_left_alone(self, platform: Platform, size: PlannedSize) -> None:
        assert sized_arguments({"tp_size": 2}, platform, size) == {"tp_size": 2}

    def test_the_chunk_of_mixed_steps_holds_the_planned_rows(self) -> None:
        budget = AdaptiveStep(floor=256, most=1000, ratio=1.0, weight_tokens=1.0, row_tokens=0.1, cached_tokens=0.01)
        arguments = sized_arguments({}, "gpu", SIZE)
        settings = EngineSettings(
            "/models/none", "gpu", 1, server_args=arguments, scheduler=SchedulerSettings(budget=budget), overlap="mixed"
        )
        assert server_args(settings)["chunked_prefill_size"] == 1728


class TestLess:
    def test_half_the_rows_and_graphs_for_no_more(self) -> None:
        arguments = sized_arguments({}, "gpu", SIZE)
        found = shrunk_arguments(arguments, "gpu", 1, fraction=SIZE.fraction)
        assert found == {
            "max_running_requests": 350,
            "cuda_graph_max_bs_decode": 352,
            "mem_fraction_static": 0.76,
        }

    def test_never_a_larger_share_than_ran_out(self) -> None:
        shares = [
            shrunk_arguments(given, "gpu", 1, fraction=planned)["mem_fraction_static"]
            for given, planned in (({}, None), ({}, 0.7), ({}, 0.9), ({"mem_fraction_static": 0.5}, 0.8))
        ]
        assert shares == [0.8, 0.64, 0.8, 0.44]

    def test_none_is_none(self) -> None:
        assert shrunk_arguments({"tp_size": 2}, "gpu", 0) == {"tp_size": 2}
