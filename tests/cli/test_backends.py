"""What `--engine` may say, and what answers then."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from blendrun.backends.base import Opening, Placement
from blendrun.backends.options import RunOptions
from blendrun.backends.registry import find_backend
from blendrun.backends.servers import Servers
from blendrun.backends.sglang import open_backend
from blendrun.endpoints.rules import Rules
from blendrun.engine.child import EarlyChildren
from blendrun.engine.http.server import ServerInfo
from blendrun.engine.http.settings import HttpSettings
from blendrun.errors import UsageError
from blendrun.events import ignore
from blendrun.names import EngineName


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
