"""Engine processes that are started before they are needed: used, passed over, or ended, and nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from blendrun.engine.base import EngineSettings, Platform, Result, WorkItem
from blendrun.engine.child import Child, EarlyChildren, start_child
from blendrun.engine.process import SglangEngine
from blendrun.errors import EngineUnavailableError
from blendrun.events import ignore
from tests.processes import wait_for_end


def settings(model: str = "/no/such/model", threads: int = 1) -> EngineSettings:
    return EngineSettings(model, "cpu", threads)


def gone(child: Child) -> bool:
    return not child.lives and not child.scratch.exists()


def test_unwanted_ones_end_with_all_they_left() -> None:
    early = EarlyChildren()
    early.start("cpu", 1, count=2)
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
    early = EarlyChildren()
    early.start("cpu", 1, count=1)
    engine = SglangEngine(settings(), tmp_path / "engine.log", early.take)
    with pytest.raises(EngineUnavailableError, match=r"could not be started: .*Resource temporarily unavailable"):
        asyncio.run(engine.start(ignore))


def test_a_signal_between_two_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Child] = []

    def stopped_at_the_third(platform: Platform, threads: int) -> Child:
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(start_child(platform, threads))
        return begun[-1]

    monkeypatch.setattr("blendrun.engine.child.start_child", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt), closing(EarlyChildren()) as early:
        early.start("cpu", 1, count=4)
    assert len(begun) == 2 and all(map(gone, begun))


STARTED = """
import mmap, os, signal, sys
from blendrun.engine.child import start_child
child = start_child("cpu", 1)
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
child.folder.note_shared([os.getpid()])
print(child.scratch, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr("tempfile.tempdir", None)
    shared, other = (Path("/dev/shm", f"sglang_loads_{os.getpid()}_{name}.shm") for name in ("mapped", "foreign"))
    shared.write_bytes(bytes(4096))
    other.touch()
    killed = subprocess.run([sys.executable, "-c", STARTED, shared], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    foreign = left.with_name(f"{left.name}-of-something-else")
    foreign.mkdir()
    assert shared.exists(), killed.stderr
    first, second = start_child("cpu", 1), start_child("cpu", 1)
    try:
        assert not left.exists() and not shared.exists()
        assert first.scratch.exists() and second.scratch.exists(), "what is in use stays"
        assert foreign.exists() and other.exists()
    finally:
        first.end()
        second.end()
        foreign.rmdir()
        other.unlink()


@pytest.mark.parametrize("name", ["long" * 12, "\u65e5" * 14])
def test_sockets_lie_where_their_paths_are_short(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    child = start_child("cpu", 1)
    child.end()
    assert len(os.fsencode(child.scratch)) < 60


@pytest.mark.runtime
class TestEngine:
    def started(self, log: Path, *children: Child, model: str = "/no/such/model") -> tuple[str, str]:
        """What an engine that was given these processes says as it does not come up, and its log."""
        waiting = list(children)
        engine = SglangEngine(settings(model), log, lambda: waiting.pop(0) if waiting else None)
        with pytest.raises(EngineUnavailableError) as caught:
            asyncio.run(engine.start(ignore))
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

    def test_no_module_comes_from_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("queue", "torch"):
            (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        monkeypatch.chdir(tmp_path)
        said, _ = self.started(tmp_path / "engine.log", start_child("cpu", 1))
        assert "/no/such/model" in said
        assert not (tmp_path / "ran").exists()

    def test_processes_below_forked_ones_live(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SGLang's controller of data parallelism starts its schedulers from a process that is a fork itself."""
        # Which cores each of the two computes on.
        monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|0")
        parts = {"dp_size": 2, "max_total_tokens": 512}
        two = EngineSettings(str(tiny_model), "cpu", 1, server_args=parts)
        asked = {"model": "any", "prompt": [1, 2, 3], "max_tokens": 2, "temperature": 0, "ignore_eos": True}

        async def answered() -> list[Result]:
            engine = SglangEngine(two, tmp_path / "engine.log")
            try:
                await engine.start(ignore)
                for row in range(4):
                    await engine.submit(WorkItem(row, "/v1/completions", orjson.dumps(asked)))
                results = engine.results()
                return [await anext(results) for _ in range(4)]
            finally:
                await engine.stop()

        assert sorted((each.row, each.status_code) for each in asyncio.run(answered())) == [(n, 200) for n in range(4)]

    def test_a_log_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        engine = SglangEngine(settings(), tmp_path / "none" / "engine.log")
        with pytest.raises(EngineUnavailableError, match=r"could not be started: .*No such file or directory"):
            asyncio.run(engine.start(ignore))
        assert engine.pid is None
