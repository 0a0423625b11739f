"""Which arguments turn an overlap mode on, and what forbids it."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.engine.base import AdaptiveStep, ConstantStep, EngineSettings, SchedulerSettings
from blendrun.engine.overlap import JobFacts, OverlapRefusal, overlap_arguments
from blendrun.engine.settings import server_args
from blendrun.errors import UsageError

ADAPTIVE = AdaptiveStep(floor=256, most=1000, ratio=1.0, weight_tokens=1.0, row_tokens=0.1, cached_tokens=0.01)


def test_exclusive_is_sglang_as_it_is() -> None:
    assert overlap_arguments("exclusive", "cpu", {}, JobFacts(any_logprobs=True, any_adapter=True)) == {}


class TestMixed:
    @pytest.mark.parametrize(
        ("facts", "arguments", "chunk"),
        [
            (JobFacts(), {}, None),
            (JobFacts(budget=ConstantStep(2048)), {}, 2048),
            (JobFacts(budget=ConstantStep(1000)), {}, 1024),
            (JobFacts(budget=ADAPTIVE), {"max_running_requests": 32}, 1088),
            (JobFacts(budget=ADAPTIVE), {}, 1536),
        ],
    )
    def test_the_chunk_holds_the_largest_step_of_the_budget(
        self, facts: JobFacts, arguments: dict[str, Any], chunk: int | None
    ) -> None:
        found = overlap_arguments("mixed", "cpu", arguments, facts)
        assert found == {"enable_mixed_chunk": True} | ({} if chunk is None else {"chunked_prefill_size": chunk})

    @pytest.mark.parametrize(
        ("facts", "arguments", "reason"),
        [
            (JobFacts(any_logprobs=True), {}, "requests ask for logprobs"),
            (JobFacts(), {"enable_mixed_chunk": False}, "turned off by an engine argument"),
            (JobFacts(), {"chunked_prefill_size": -1}, "chunked_prefill_size=-1 turns chunks off"),
            (JobFacts(), {"speculative_algorithm": "NGRAM"}, "speculative_algorithm=NGRAM"),
        ],
    )
    def test_refusals(self, facts: JobFacts, arguments: dict[str, Any], reason: str) -> None:
        refused = overlap_arguments("mixed", "gpu", arguments, facts)
        assert isinstance(refused, OverlapRefusal)
        assert refused.sentence.startswith("overlap mixed is not possible: ")
        assert reason in refused.sentence

    @pytest.mark.parametrize("algorithm", [None, "EAGLE3", "eagle"])
    def test_speculation_that_sglang_mixes(self, algorithm: str | None) -> None:
        assert not isinstance(
            overlap_arguments("mixed", "gpu", {"speculative_algorithm": algorithm}, JobFacts()), OverlapRefusal
        )


class TestPdmux:
    def test_the_arguments_that_sglang_asserts(self) -> None:
        facts = JobFacts(compute_capability=(9, 0), architecture="LlamaForCausalLM", any_logprobs=True)
        assert overlap_arguments("pdmux", "gpu", {}, facts) == {
            "enable_pdmux": True,
            "chunked_prefill_size": -1,
            "disable_overlap_schedule": True,
        }

    @pytest.mark.parametrize(
        ("platform", "facts", "arguments", "reason"),
        [
            ("cpu", JobFacts(), {}, "this engine runs on the CPU"),
            ("gpu", JobFacts(compute_capability=(10, 0)), {}, "compute capability (10, 0)"),
            ("gpu", JobFacts(architecture="DeepseekV3ForCausalLM"), {}, "DeepseekV3ForCausalLM"),
            ("gpu", JobFacts(any_adapter=True), {}, "LoRA"),
            ("gpu", JobFacts(), {"lora_paths": ["sql=/adapters/sql"]}, "LoRA"),
            ("gpu", JobFacts(), {"pp_size": 2}, "pp_size=1, not 2"),
            ("gpu", JobFacts(), {"chunked_prefill_size": 2048}, "chunked_prefill_size=-1, not 2048"),
            ("gpu", JobFacts(), {"speculative_algorithm": "EAGLE"}, "speculative"),
            ("gpu", JobFacts(), {"disable_overlap_schedule": False}, "disable_overlap_schedule=true"),
        ],
    )
    def test_refusals(self, platform: Any, facts: JobFacts, arguments: dict[str, Any], reason: str) -> None:
        refused = overlap_arguments("pdmux", platform, arguments, facts)
        assert isinstance(refused, OverlapRefusal)
        assert reason in refused.sentence


class TestWiring:
    def test_a_mode_and_its_budget_become_server_arguments(self) -> None:
        scheduler = SchedulerSettings(budget=ConstantStep(512))
        found = server_args(EngineSettings("/models/none", "cpu", 1, scheduler=scheduler, overlap="mixed"))
        assert found["enable_mixed_chunk"] is True
        assert found["chunked_prefill_size"] == 512

    def test_the_users_chunk_wins(self) -> None:
        settings = EngineSettings("/m", "cpu", 1, server_args={"chunked_prefill_size": 64}, overlap="mixed")
        assert server_args(settings)["chunked_prefill_size"] == 64

    def test_a_refused_mode_ends_with_its_sentence(self) -> None:
        with pytest.raises(UsageError, match="this engine runs on the CPU"):
            server_args(EngineSettings("/models/none", "cpu", 1, overlap="pdmux"))

    def test_plan_order_is_sglangs_priority_scheduling(self) -> None:
        found = server_args(EngineSettings("/m", "gpu", 1, scheduler=SchedulerSettings(plan_order=True)))
        assert found["schedule_policy"] == "fcfs"
        assert found["enable_priority_scheduling"] and found["schedule_low_priority_values_first"]
        assert found["disable_priority_preemption"] and found["retraction_policy"] == "priority"

    def test_a_policy_of_the_users_does_not_go_with_plan_order(self) -> None:
        settings = EngineSettings(
            "/m", "gpu", 1, server_args={"schedule_policy": "lpm"}, scheduler=SchedulerSettings(plan_order=True)
        )
        with pytest.raises(UsageError, match="schedule_policy=lpm has its own"):
            server_args(settings)
