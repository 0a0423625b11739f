"""From the user's engine arguments to SGLang's: what is read, what decides an answer, what the process is told."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blendrun.engine import settings as engine_settings
from blendrun.engine.base import ConstantStep, EngineSettings, Platform, SchedulerSettings
from blendrun.engine.settings import (
    answer_settings,
    available_cores,
    detect_platform,
    environment,
    parse_engine_args,
    server_args,
)
from blendrun.errors import UsageError

with_sglang = pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="sglang is not installed")


class TestEngineArgs:
    @pytest.mark.parametrize(
        ("pair", "name", "value"),
        [
            ("max_running_requests=16", "max_running_requests", 16),
            ("--max-running-requests=16", "max_running_requests", 16),
            (" mem-fraction-static=0.8", "mem_fraction_static", 0.8),
            ("disable_radix_cache=true", "disable_radix_cache", True),
            ("dtype=float16", "dtype", "float16"),
            ('dtype="float16"', "dtype", "float16"),
            ('json_model_override_args={"a": [1]}', "json_model_override_args", {"a": [1]}),
            ("chat_template=a=b", "chat_template", "a=b"),
            ("tokenizer_path=", "tokenizer_path", ""),
            ("quantization=null", "quantization", None),
        ],
    )
    def test_values_are_json_where_they_are_json_and_text_elsewhere(self, pair: str, name: str, value: object) -> None:
        assert parse_engine_args([pair]) == {name: value}

    def test_the_last_of_a_name_counts(self) -> None:
        assert parse_engine_args(["tp_size=1", "tp-size=2"]) == {"tp_size": 2}

    @pytest.mark.parametrize("pair", ["", "=", "=3", "tp_size", "tp size=3", "1=2", "a.b=3"])
    def test_what_is_no_pair_is_refused(self, pair: str) -> None:
        with pytest.raises(UsageError, match=r"takes NAME=VALUE, for example max_running_requests=16, not"):
            parse_engine_args([pair])


def test_adapters_on_the_cpu_take_a_backend_that_needs_no_gpu() -> None:
    def backend(platform: Platform, **arguments: Any) -> object:
        return server_args(EngineSettings("/m", platform, 1, server_args=arguments)).get("lora_backend")

    assert backend("cpu", lora_paths=["sql=/a"]) == backend("cpu", enable_lora=True) == "torch_native"
    assert backend("cpu", lora_paths=["sql=/a"], lora_backend="triton") == "triton"
    assert backend("gpu", lora_paths=["sql=/a"]) is backend("cpu") is None


def test_what_sets_speed_or_room_decides_no_answer_and_all_else_does() -> None:
    arguments = {
        "max_running_requests": 3,
        "tp_size": 2,
        "mem_fraction_static": 0.5,
        "chunked_prefill_size": 99,
        "dtype": "float16",
        "an_argument_nobody_knows_yet": 1,
        "random_seed": 3,
    }
    assert answer_settings(arguments) == {"an_argument_nobody_knows_yet": 1, "dtype": "float16", "random_seed": 3}


class TestPlatform:
    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_hidden_devices_are_none(self, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert detect_platform() == "cpu"

    @pytest.mark.parametrize("shown", [None, "0", "2,3"])
    def test_otherwise_the_device_nodes_tell(self, monkeypatch: pytest.MonkeyPatch, shown: str | None) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if shown is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        there = any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd"))
        assert detect_platform() == ("gpu" if there else "cpu")

    def test_cores_are_those_this_process_may_use(self) -> None:
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert available_cores() == 1
        finally:
            os.sched_setaffinity(0, before)
        assert available_cores() == len(before)


def make(platform: str, model: Path | str = "/models/none", **arguments: object) -> EngineSettings:
    return EngineSettings(str(model), platform, threads=3, server_args=arguments)  # type: ignore[arg-type]


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def bytecode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)

    def test_on_a_gpu_sglang_is_left_as_it_is(self) -> None:
        names = set(environment(make("gpu")))
        changed = [name for name in names if name.startswith(("SGLANG", "OMP", "MKL", "CUDA"))]
        assert changed == ["SGLANG_ENABLE_NAN_LOGITS_CHECK"]

    def test_on_a_cpu_the_platform_and_its_plugins_are_named_and_threads_bounded(self) -> None:
        found = environment(make("cpu"))
        assert found["SGLANG_PLATFORM"] == "blendrun_cpu"
        assert "blendrun_cpu" in found["SGLANG_PLUGINS"].split(",")
        assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
        assert "SGLANG_DISABLED_MODEL_ARCHS" not in found, "of an unknown model all modules are imported"

    def test_threads_do_not_spin_for_long_unless_the_user_says_how(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        assert environment(make("cpu"))["GOMP_SPINCOUNT"] == "4000"
        assert "GOMP_SPINCOUNT" not in environment(make("gpu"))
        monkeypatch.setenv("OMP_WAIT_POLICY", "active")
        assert "GOMP_SPINCOUNT" not in environment(make("cpu"))

    @pytest.mark.parametrize("platform", ["cpu", "gpu"])
    def test_the_scheduler_process_is_told_what_is_asked_of_it(self, platform: str) -> None:
        scheduler = SchedulerSettings(budget=ConstantStep(512), reserve=True, step_log="/tmp/ä.jsonl")
        found = environment(msgspec.structs.replace(make(platform), scheduler=scheduler))
        assert msgspec.json.decode(found["BLENDRUN_SCHEDULER"], type=SchedulerSettings) == scheduler

    def test_eviction_by_next_use_takes_the_tree_that_can_do_it(self) -> None:
        scheduler = SchedulerSettings(next_use=True)
        found = environment(msgspec.structs.replace(make("gpu"), scheduler=scheduler))
        assert found["SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND"] == "python"

    @pytest.mark.parametrize("platform", ["cpu", "gpu"])
    def test_no_network_is_asked(self, platform: str) -> None:
        assert environment(make(platform))["HF_HUB_OFFLINE"] == "1"

    def test_values_are_text(self) -> None:
        assert all(isinstance(value, str) for value in environment(make("cpu")).values())


class TestModelsNotNeeded:
    @staticmethod
    def skipped(folder: Path, config: object) -> list[str]:
        (folder / "config.json").write_text(json.dumps(config))
        return engine_settings._models_not_needed(folder)

    @with_sglang
    @pytest.mark.parametrize(
        ("architecture", "module"),
        [("LlamaForCausalLM", "llama"), ("Qwen3ForCausalLM", "qwen3"), ("GptOssForCausalLM", "gpt_oss")],
    )
    def test_all_but_the_needed_module(self, tmp_path: Path, architecture: str, module: str) -> None:
        found = self.skipped(tmp_path, {"architectures": [architecture]})
        assert len(found) > 50
        assert module not in found
        assert not {"__init__", "registry"} & set(found)
        assert found == sorted(set(found))

    @with_sglang
    def test_every_module_of_several_architectures_stays(self, tmp_path: Path) -> None:
        found = self.skipped(tmp_path, {"architectures": ["LlamaForCausalLM", "Qwen2ForCausalLM"]})
        assert not {"llama", "qwen2"} & set(found)

    @pytest.mark.parametrize(
        "config", [{}, {"architectures": None}, {"architectures": []}, {"architectures": ["NobodyKnows"]}, [], None]
    )
    def test_none_is_skipped_where_the_architecture_is_not_told(self, tmp_path: Path, config: object) -> None:
        assert self.skipped(tmp_path, config) == []

    def test_nor_where_there_is_no_config(self, tmp_path: Path) -> None:
        assert engine_settings._models_not_needed(tmp_path) == []


class TestServerArgs:
    @pytest.mark.parametrize("platform", ["cpu", "gpu"])
    def test_the_users_win_over_ours(self, platform: str) -> None:
        found = server_args(make(platform, schedule_policy="lpm", dtype="bfloat16", anything=1))
        assert (found["schedule_policy"], found["dtype"], found["anything"]) == ("lpm", "bfloat16", 1)

    def test_on_a_gpu_no_capacity_is_decided_for_sglang(self) -> None:
        assert set(server_args(make("gpu"))) == {
            "model_path",
            "trust_remote_code",
            "log_level",
            "enable_cache_report",
            "schedule_policy",
        }
