"""What `--engine` may say, and what answers then."""

from __future__ import annotations

import pytest

from blendrun.backends.registry import find_backend
from blendrun.errors import UsageError
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
