"""Engines that outlive a job: which one the next job gets, and hooks that another job's take the place of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blendrun.engine.base import ConstantStep, EngineInfo, EngineSettings, SchedulerSettings
from blendrun.engine.child import Child
from blendrun.engine.kept import Kept, KeptEngines, for_any_plan
from blendrun.engine.scheduler.hooks import Hook, Switchboard
from blendrun.scratch import Scratch

SETTINGS = EngineSettings("model", "cpu", threads=1, scheduler=SchedulerSettings(step_log="one.jsonl"))


@pytest.fixture
def engines() -> Iterator[KeptEngines]:
    found = KeptEngines()
    yield found
    found.close()


def waiting(folder: Path) -> Kept:
    """A process that waits as an engine does."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    ours, theirs = socket.socketpair()
    theirs.close()
    child = Child("cpu", 1, process, ours, Scratch.make(folder))
    return Kept(child, EngineInfo("sglang", "cpu", 1, 1, 1, {}), folder / "engine.log")


class TestTake:
    @pytest.mark.parametrize(
        "changed",
        [
            {"scheduler": SchedulerSettings(step_log="two.jsonl", reserve=True, next_use=True, plan_order=True)},
            {"scheduler": SchedulerSettings(budget=ConstantStep(256))},
            {"server_args": {"max_running_requests": 8}},
        ],
    )
    def test_what_a_plan_asks_for_is_told_to_it(self, engines: KeptEngines, tmp_path: Path, changed: Any) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        assert engines.take(msgspec.structs.replace(SETTINGS, **changed)) is kept
        assert len(engines) == 0
        engines.leave(SETTINGS, kept)

    @pytest.mark.parametrize(
        "changed",
        [
            {"model_path": "other"},
            {"threads": 2},
            {"model_name": "other"},
            {"identity": "other"},
            {"trust_remote_code": True},
            {"server_args": {"max_total_tokens": 1000}},
            {"server_args": {"lora_paths": ["a=b"]}},
        ],
    )
    def test_another_engine_takes_its_place(self, engines: KeptEngines, tmp_path: Path, changed: Any) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        assert engines.take(msgspec.structs.replace(SETTINGS, **changed)) is None
        # Memory for one is not memory for two.
        assert not kept.child.lives
        assert not kept.child.scratch.exists()

    def test_one_that_has_died_is_not_given_out(self, engines: KeptEngines, tmp_path: Path) -> None:
        engines.leave(SETTINGS, kept := waiting(tmp_path))
        kept.child.kill()
        kept.child.process.wait()
        assert engines.take(SETTINGS) is None

    def test_it_is_made_for_all_that_a_plan_may_ask(self) -> None:
        made = for_any_plan(SETTINGS).scheduler
        assert (made.next_use, made.plan_order, made.step_log) == (True, True, "one.jsonl")


class TestSwitchboard:
    def test_the_later_hook_is_the_outer_one_and_another_set_takes_their_place(self) -> None:
        said: list[str] = []

        def around(name: str) -> Hook:
            def hook(original: Any, *args: Any) -> Any:
                said.append(name)
                return original(*args)

            return Hook(name, "target", hook, "around")

        board = Switchboard(["target", "target", "other"])
        call = board.around("target")
        assert call(lambda number: number + 1, 1) == 2
        board.put([around("inner"), around("outer")])
        assert call(lambda number: number + 1, 1) == 2
        assert said == ["outer", "inner"]
        board.put([around("next")])
        call(lambda number: number, 1)
        board.put([])
        call(lambda number: number, 1)
        assert said == ["outer", "inner", "next"]

    def test_one_that_fails_is_off_and_the_rest_goes_on(self) -> None:
        said: list[str] = []

        def bad(original: Any, *args: Any) -> Any:
            raise ValueError

        def good(result: Any, *args: Any) -> None:
            said.append(f"{result}")

        board = Switchboard(["target"])
        board.put([Hook("bad", "target", bad, "around"), Hook("good", "target", good, "after")])
        call = board.around("target")
        assert [call(lambda: 7), call(lambda: 8)] == [7, 8]
        assert said == ["7", "8"]
