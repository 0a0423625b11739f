"""What `--engine` may say, and what answers then."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from blendrun.backends.base import Backend, Opening, Placement
from blendrun.backends.options import RunOptions
from blendrun.backends.registry import find_backend
from blendrun.backends.servers import Servers
from blendrun.backends.session import run_job
from blendrun.backends.sglang import _devices, open_backend
from blendrun.endpoints.rules import Rules
from blendrun.engine.child import EarlyChildren
from blendrun.engine.http.server import ServerInfo
from blendrun.engine.http.settings import HttpSettings
from blendrun.errors import UsageError
from blendrun.events import ignore
from blendrun.names import EngineName
from tests.command import write_jobs


def test_every_name_of_an_engine_has_a_backend() -> None:
    assert {find_backend(name).__module__ for name in EngineName} == {
        f"blendrun.backends.{name}" for name in EngineName
    }
    assert find_backend("http://here:1,http://there:1").__module__ == "blendrun.backends.servers"


@pytest.mark.parametrize("engine", ["base", "vllm", "", "servers", "../replay"])
def test_nothing_else_is_one(engine: str) -> None:
    with pytest.raises(UsageError, match="known are sglang, replay, and addresses of servers"):
        find_backend(engine)


def test_adapters_of_servers_are_known_to_the_plan_and_judged_by_the_servers() -> None:
    def rules(*adapters: str) -> Rules:
        info = ServerInfo("sglang", ("base", *adapters), adapters)
        return Servers(("http://here:1",), HttpSettings(), (info,)).rules(options)

    options = RunOptions(inputs=("job.jsonl",), output=Path("out.jsonl"), engine="http://here:1")
    for found in (rules("sql"), rules()):
        found.check({"model": "anything", "lora_path": "anything"})
    assert rules("sql").adapters == ("sql",) and rules().adapters is None
    # A line that names what the server serves names no other model.
    assert "base" in (rules().base or ())


def test_the_runtime_is_looked_for_before_a_model_is_fetched_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendrun.backends.sglang.find_spec", lambda name: None)
    options = RunOptions(inputs=("job.jsonl",), output=Path("out.jsonl"), model="/no/such/model")
    place = Placement("cpu", 1, 1)
    with closing(EarlyChildren()) as early, pytest.raises(UsageError, match="SGLang is not installed"):
        open_backend(Opening(options, place, early, ignore))


def test_a_price_is_paid_for_every_gpu_of_every_engine() -> None:
    arguments = {"tp_size": 2, "pp_size": 2}
    assert _devices(Placement("gpu", 3, 1), arguments) == 12
    assert _devices(Placement("gpu", 3, 1, needs={"GPU": 4.0}), arguments) == 12
    assert _devices(Placement("cpu", 3, 1), {}) == 1, "engines of one machine"
    assert _devices(Placement("cpu", 3, 1, needs={"CPU": 4.0}), {}) == 3, "each on a node"


def test_what_a_model_takes_to_be_found_or_made_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(opening: Opening) -> Backend:
        time.sleep(0.05)
        return find_backend("replay")(opening)

    monkeypatch.setattr("blendrun.backends.session.open_backend", slow)
    jobs = write_jobs(tmp_path / "jobs.jsonl", 2)
    options = RunOptions.of({"inputs": [str(jobs)], "output": tmp_path / "out.jsonl", "engine": "replay", "price": 9})
    summary = run_job(options, nullcontext(ignore), begun=time.monotonic() - 7.0)
    assert summary.seconds["model"] >= 0.05 and summary.seconds["start"] >= 7.0
    assert summary.seconds["wall"] >= 7.05
    assert summary.cost is not None and summary.cost.gpu_hour == 9.0
