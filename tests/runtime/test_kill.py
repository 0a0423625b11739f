"""kill -9 of the run, of the engine process and of the scheduler, a hang: every line exactly once, no process left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.runtime import requests
from tests.runtime.conftest import BLENDRUN, blendrun, read_lines

pytestmark = pytest.mark.runtime

LINES = 24
# A dead engine must be noticed within this; SGLang's own watchdog looks once a second.
NOTICE_S = 15.0
STALL_S = 12


def alive_in_group(group: int) -> list[str]:
    """Command names of running processes of a process group; zombies do not run."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":
            names.append(name)
    return names


def children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def scheduler_of(engine: int) -> int:
    return next(child for child in children(engine) if "schedul" in Path(f"/proc/{child}/comm").read_text())


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False


class Job:
    """One output that several invocations work on."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "answers.jsonl"
        self.journal = folder / "answers.jsonl.blendrun" / "journal"
        lines = [
            requests.chat(
                f"line {number}",
                [{"role": "user", "content": f"{requests.PASSAGE}\nSay {number} in words."}],
                max_tokens=24,
            )
            for number in range(LINES)
        ]
        job = folder / "job.jsonl"
        job.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
        self.command = ["run", str(job), "--model", "smollm2-135m", "--device", "cpu", "-o", str(self.output)]
        # Few at once, so that a kill finds some finished, some running and some waiting.
        self.command += ["--engine-arg", "max_running_requests=4"]

    def records(self) -> list[bytes]:
        whole = self.journal.read_bytes().split(b"\n")[1:-1] if self.journal.exists() else []
        return list(whole)

    def start(self, *options: str) -> tuple[subprocess.Popen[str], int]:
        """Begin, and come back at a random moment after the first new record: the run and the engine's group."""
        before = len(self.records())
        run = subprocess.Popen([BLENDRUN, *self.command, *options], stderr=subprocess.PIPE, text=True)
        assert wait_for(lambda: len(self.records()) > before or run.poll() is not None, 240)
        assert run.poll() is None, run.communicate()[1]
        (engine,) = children(run.pid)
        time.sleep(random.uniform(0, 0.5))
        return run, engine


def test_killed_while_the_engine_loads_no_process_stays(tmp_path: Path) -> None:
    """SGLang's processes ask to die with their parent only after their imports; ours must not depend on that."""
    job = Job(tmp_path)
    run = subprocess.Popen([BLENDRUN, *job.command], stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: bool(children(run.pid)) and len(children(children(run.pid)[0])) > 1, 120)
    (engine,) = children(run.pid)
    time.sleep(random.uniform(0.5, 2))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert wait_for(lambda: not alive_in_group(engine), NOTICE_S), alive_in_group(engine)


@pytest.mark.timeout(1500)
def test_killed_at_random_moments_every_line_comes_once(tmp_path: Path) -> None:
    job = Job(tmp_path)

    run, engine = job.start()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert wait_for(lambda: not alive_in_group(engine), NOTICE_S), alive_in_group(engine)
    survived = job.records()
    assert 0 < len(survived) < LINES
    assert not job.output.exists()

    run, engine = job.start("--max-restarts", "1", "--stall-timeout", str(STALL_S))
    os.kill(scheduler_of(engine), signal.SIGSTOP)
    begun = time.monotonic()
    assert wait_for(lambda: run.poll() is not None or children(run.pid) not in ([], [engine]), 3 * STALL_S)
    assert time.monotonic() - begun >= STALL_S
    assert run.poll() is None, "a hung engine is started again"
    assert not alive_in_group(engine)
    (engine,) = children(run.pid)
    before = len(job.records())
    assert wait_for(lambda: len(job.records()) > before or run.poll() is not None, 240)
    os.kill(scheduler_of(engine), signal.SIGKILL)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 69, errors
    assert "no sign of life" in errors
    assert "engine.log" in errors
    assert not alive_in_group(engine)

    run, engine = job.start("--max-restarts", "0")
    os.kill(engine, signal.SIGKILL)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 69, errors
    assert not alive_in_group(engine)

    assert job.records()[: len(survived)] == survived
    before = len(job.records())
    finished = blendrun(*job.command)
    assert finished.returncode == 0, finished.stderr
    assert f"resuming: {before} of {LINES}" in finished.stderr
    assert [line["custom_id"] for line in read_lines(job.output)] == [f"line {number}" for number in range(LINES)]
    assert len(job.records()) == LINES, "a finished request was run again"
    answers = job.output.read_bytes().splitlines()
    assert {record.partition(b"\t")[2] for record in survived} <= set(answers)
