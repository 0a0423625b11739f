"""kill -9 while an input is fetched and while an output is sent: the same command goes on, and all is exact."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from tests.command import REPLAY, blendrun, ids, line, start
from tests.remote.object_server import Objects, cut_after, read_then_die

JOBS = b"".join(line(f"id {row}", f"question {row}" * 50) + b"\n" for row in range(200))


@pytest.fixture
def hold() -> Iterator[Event]:
    """Set at the end, so that a server that waits for it ends."""
    found = Event()
    yield found
    found.set()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_kill_while_an_input_is_fetched(objects: Objects, tmp_path: Path, hold: Event, ranges: bool) -> None:
    objects.files["/jobs.jsonl"] = JOBS
    objects.ranges = ranges
    reached = Event()
    objects.faults.append(cut_after(70_000, wait=hold, reached=reached))
    words = ("run", f"{objects.url}/jobs.jsonl", *REPLAY, "-o", "out.jsonl")
    running = start(*words, cwd=tmp_path)
    with killed(running):
        assert reached.wait(60)
        (part,) = wait_for(tmp_path / "out.jsonl.blendrun/spool/fetched", "*.part", 1)
    begun = part.stat().st_size
    assert 0 < begun < len(JOBS)
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert objects.asked[1].headers["Range"] == f"bytes={begun}-"
    assert ids(tmp_path / "out.jsonl") == [f"id {row}" for row in range(200)]


def test_a_kill_while_an_output_is_sent(objects: Objects, tmp_path: Path, hold: Event) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(JOBS)
    reached = Event()
    objects.faults.append(read_then_die(20_000, wait=hold, reached=reached))
    words = ("run", "jobs.jsonl", *REPLAY, "-o", f"{objects.url}/out.jsonl")
    running = start(*words, cwd=tmp_path)
    with killed(running):
        assert reached.wait(60)
    assert "/out.jsonl" not in objects.files
    answered = (tmp_path / "out.jsonl").read_bytes()
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phase=run" not in done.stderr
    assert objects.files["/out.jsonl"] == answered == (tmp_path / "out.jsonl").read_bytes()
    assert ids(tmp_path / "out.jsonl") == [f"id {row}" for row in range(200)]
    assert objects.methods() == ["PUT", "PUT"]


@contextmanager
def killed(running: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever comes of what is done inside."""
    with running:
        try:
            yield
        finally:
            running.kill()


def wait_for(folder: Path, pattern: str, size: int) -> list[Path]:
    """Files of the pattern once each has so many bytes."""
    while not (found := [path for path in folder.glob(pattern) if path.stat().st_size >= size]):
        Event().wait(0.01)
    return found


def test_a_signal_while_an_input_is_fetched_or_an_output_sent(objects: Objects, tmp_path: Path, hold: Event) -> None:
    objects.files["/jobs.jsonl"] = JOBS
    reached, sending = Event(), Event()
    objects.faults.extend([cut_after(70_000, wait=hold, reached=reached)])
    words = ("run", f"{objects.url}/jobs.jsonl", *REPLAY, "-o", f"{objects.url}/out.jsonl")
    with start(*words, cwd=tmp_path) as running:
        assert reached.wait(60)
        running.terminate()
        assert running.wait(60) == 75
    objects.faults.extend([None, read_then_die(20_000, wait=hold, reached=sending)])
    with start(*words, cwd=tmp_path) as running:
        assert sending.wait(60)
        running.terminate()
        assert running.wait(60) == 75
    told = json.loads((tmp_path / "out.jsonl.blendrun/status.json").read_bytes())
    assert (told["status"], told["blendrun"]["exit_code"]) == ("cancelled", 75)
    assert blendrun(*words, cwd=tmp_path).returncode == 0
    assert objects.files["/out.jsonl"] == (tmp_path / "out.jsonl").read_bytes()
