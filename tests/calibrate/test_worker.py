"""Which code is timed as decode attention, and that a stand-in is called one."""

from __future__ import annotations

import sys

import pytest
import torch

from blendrun.calibrate import rates
from blendrun.calibrate.base import Rates
from blendrun.calibrate.rates import PLAIN, Request, measure_rates
from blendrun.calibrate.worker import decode_attention, first_that_runs
from blendrun.errors import EngineUnavailableError

pytestmark = pytest.mark.runtime
SHAPE = (9, 3, 64)


def test_the_engines_own_kernel_is_timed_where_it_runs() -> None:
    for name in ("fa3", "flashinfer", "trtllm_mha", "triton"):
        assert first_that_runs(name, {name: 1.0}.__getitem__) == (1.0, name, "")


def test_a_stand_in_says_what_it_stands_in_for(capsys: pytest.CaptureFixture[str]) -> None:
    def seconds(name: str) -> float:
        if name != "triton":
            raise ImportError(f"no {name} here")
        return 2.0

    found = first_that_runs("fa3", seconds)
    assert found == (2.0, "triton", "the engine's fa3 did not run here (ImportError: no fa3 here)")
    assert "flashinfer did not run" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["aiter", "flashmla", None])
def test_a_kernel_that_is_not_measured_here_is_named(wanted: str | None) -> None:
    _, name, why = first_that_runs(wanted, lambda name: 1.0)
    assert name == "flashinfer"
    assert why == f"the engine's {wanted or 'attention'} is not one that is measured here"


def test_torchs_own_attention_is_the_last_resort() -> None:
    assert first_that_runs("fa3", {PLAIN: 3.0}.__getitem__)[:2] == (3.0, PLAIN)
    assert first_that_runs(PLAIN, {PLAIN: 3.0}.__getitem__) == (3.0, PLAIN, "")
    with pytest.raises(KeyError):
        first_that_runs("fa3", {"another": 1.0}.__getitem__)


def test_the_cpu_is_timed_by_what_its_runtime_does() -> None:
    request = Request("cpu", *SHAPE, repeats=1, attention="torch_native")
    bandwidth, ran, why = decode_attention(request, torch.device("cpu"), torch.float32)
    assert bandwidth > 0
    assert (ran, why) == ("torch_native, 16 x 1024 tokens", "")


def test_what_the_cpus_loops_do_not_take_is_timed_by_torch() -> None:
    request = Request("cpu", *SHAPE, repeats=1, attention="torch_native")
    assert decode_attention(request, torch.device("cpu"), torch.bfloat16)[1:] == ("torch, 16 x 1024 tokens", "")


def test_a_kernel_that_breaks_its_process_costs_only_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def child(request: Request, environment: dict[str, str]) -> Rates:
        asked.append(request)
        if request.attention != PLAIN:
            raise EngineUnavailableError("could not be measured:\n  | CUDA error: an illegal memory access")
        return Rates(1e14, 1e12, 1e12, 8e10, "NVIDIA H200", "torch, 128 x 2048 tokens")

    monkeypatch.setattr(rates, "_in_child", child)
    found = measure_rates(Request("gpu", *SHAPE, attention="fa3"), {})
    assert [request.attention for request in asked] == ["fa3", PLAIN]
    assert found.stand_in == "the engine's fa3 broke its process (| CUDA error: an illegal memory access)"
    with pytest.raises(EngineUnavailableError):
        measure_rates(Request("cpu", *SHAPE, attention="torch_native"), {})


def test_a_child_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineUnavailableError, match="exit status 1"):
        measure_rates(Request("cpu", *SHAPE), {})
