"""Engine processes that are started before they are needed: used, passed over, or ended, and nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from blendrun.engine.base import EngineSettings
from blendrun.engine.child import Child, EarlyChildren, start_child
from blendrun.engine.process import SglangEngine
from blendrun.errors import EngineUnavailableError
from tests.processes import wait_for_end


def settings(model: str = "/no/such/model", threads: int = 1) -> EngineSettings:
    return EngineSettings(model, "cpu", threads)


def gone(child: Child) -> bool:
    return not child.lives and not child.scratch.exists()


def test_unwanted_ones_end_with_all_they_left() -> None:
    early = EarlyChildren("cpu", 1, count=2)
    taken = early.take()
    assert taken is not None
    left = early.take()
    assert left is not None and early.take() is None
    early._waiting.append(left)
    early.close()
    assert gone(left)
    assert taken.lives, "whoever takes one ends it"
    taken.end()
    assert gone(taken)


def test_where_none_can_be_started_the_engine_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object) -> Child:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("blendrun.engine.child.start_child", refused)
    monkeypatch.setattr("blendrun.engine.process.start_child", refused)
    early = EarlyChildren("cpu", 1, count=1)
    engine = SglangEngine(settings(), tmp_path / "engine.log", early.take)
    with pytest.raises(EngineUnavailableError, match=r"could not be started: .*Resource temporarily unavailable"):
        asyncio.run(engine.start(lambda _: None))


@pytest.mark.runtime
class TestEngine:
    def started(self, log: Path, *children: Child, model: str = "/no/such/model") -> tuple[str, str]:
        """What an engine that was given these processes says as it does not come up, and its log."""
        waiting = list(children)
        engine = SglangEngine(settings(model), log, lambda: waiting.pop(0) if waiting else None)
        with pytest.raises(EngineUnavailableError) as caught:
            asyncio.run(engine.start(lambda _: None))
        for child in children:
            wait_for_end(child.process.pid)
            assert not child.scratch.exists()
        return str(caught.value), log.read_text()

    def test_one_that_waits_is_used(self, tmp_path: Path) -> None:
        child = start_child("cpu", 1)
        said, log = self.started(tmp_path / "engine.log", child)
        assert "the engine did not start (exit status 1)" in said
        assert "/no/such/model" in said and "/no/such/model" in log

    def test_one_that_has_died_is_passed_over_and_its_words_are_kept(self, tmp_path: Path) -> None:
        child = start_child("cpu", 1)
        with child.early_log.open("ab") as file:
            file.write(b"last words\n")
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()
        said, log = self.started(tmp_path / "engine.log", child)
        assert log.startswith("last words\n")
        assert "/no/such/model" in said, "another one took its place"

    def test_one_for_other_settings_is_passed_over(self, tmp_path: Path) -> None:
        child = start_child("cpu", 2)
        said, _ = self.started(tmp_path / "engine.log", child)
        assert "/no/such/model" in said

    def test_a_log_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        engine = SglangEngine(settings(), tmp_path / "none" / "engine.log")
        with pytest.raises(EngineUnavailableError, match=r"could not be started: .*No such file or directory"):
            asyncio.run(engine.start(lambda _: None))
        assert engine.pid is None
