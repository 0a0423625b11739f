"""kill -9 of the run, of the engine process and of the scheduler, a hang: every line exactly once, no process left.

Every second line runs on an adapter, so that all of it holds for those too.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.adapters import write_adapter
from tests.command import lines_of, start
from tests.processes import children, scheduler_of, wait_for, wait_for_end
from tests.runtime import requests

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(1800)]

LINES = 24
# By turns: the model, and its adapter.
MODELS = ("default", "sql")
# Long enough for a kill in the middle.
TOKENS = 250
STALL_S = 10


class Job:
    """One output that several invocations work on."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.output = folder / "answers.jsonl"
        self.state = folder / "answers.jsonl.blendrun"
        lines = [
            requests.chat(
                f"line {number}",
                [{"role": "user", "content": f"{requests.PASSAGE}\nSay {number} in words."}],
                model=MODELS[number % 2],
                max_tokens=TOKENS,
                ignore_eos=True,
            )
            for number in range(LINES)
        ]
        job = folder / "job.jsonl"
        job.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
        self.command = ["run", str(job), "--model", str(model), "--device", "cpu", "-o", str(self.output)]
        # Few at once, so that a kill finds some finished, some running and some waiting.
        self.command += ["--threads", "1", "--engine-arg", "max_running_requests=4"]
        adapter = write_adapter(folder / "sql", model, seed=1, rank=4, targets=("q_proj", "v_proj"))
        self.command += ["--engine-arg", f'lora_paths=["sql={adapter}"]']
        self._runs: list[subprocess.Popen[str]] = []

    def records(self) -> list[bytes]:
        journal = self.state / "journal"
        whole = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
        return list(whole)

    def begin(self, *options: str) -> tuple[subprocess.Popen[str], int]:
        """A run and its engine process, as soon as there is one."""
        run = start(*self.command, *options)
        self._runs.append(run)
        wait_for(lambda: bool(children(run.pid)), run)
        (engine,) = children(run.pid)
        return run, engine

    def await_record(self, run: subprocess.Popen[str]) -> None:
        """Come back at a random moment after the next new record."""
        before = len(self.records())
        wait_for(lambda: len(self.records()) > before, run)
        time.sleep(random.uniform(0, 0.5))

    def end(self) -> None:
        for run in self._runs:
            run.kill()
            run.wait()


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> Iterator[Job]:
    found = Job(tmp_path, tiny_model)
    yield found
    found.end()


def test_killed_while_the_engine_process_imports_no_process_stays(job: Job) -> None:
    """It is started with the command, before there is anything to answer."""
    run, engine = job.begin()
    time.sleep(random.uniform(0, 1.0))
    run.kill()
    wait_for_end(engine)


def test_killed_while_the_engine_loads_no_process_stays(job: Job) -> None:
    """SGLang's processes ask to die with their parent only after their imports; ours must not depend on that."""
    run, engine = job.begin()
    wait_for(lambda: len(children(engine)) > 1, run)
    time.sleep(random.uniform(0, 1.0))
    run.kill()
    wait_for_end(engine)


def test_stopped_before_it_is_needed_the_engine_process_ends_with_the_command(job: Job) -> None:
    run, engine = job.begin("--limit", "1")
    run.send_signal(signal.SIGTERM)
    said = run.communicate()[1]
    assert run.returncode == 75, said
    wait_for_end(engine)


def test_killed_at_random_moments_every_line_comes_once(job: Job) -> None:
    # The process that owns the files.
    run, engine = job.begin()
    job.await_record(run)
    run.kill()
    wait_for_end(engine)
    survived = job.records()
    assert 0 < len(survived) < LINES
    assert not job.output.exists()

    # A hang, and then a death, of which one is too many.
    run, engine = job.begin("--max-restarts", "1", "--stall-timeout", str(STALL_S))
    job.await_record(run)
    os.kill(scheduler_of(engine), signal.SIGSTOP)
    begun = time.monotonic()
    wait_for(lambda: children(run.pid) not in ([], [engine]), run)
    assert time.monotonic() - begun >= STALL_S
    wait_for_end(engine)
    (engine,) = children(run.pid)
    job.await_record(run)
    os.kill(scheduler_of(engine), signal.SIGKILL)
    errors = run.communicate()[1]
    assert run.returncode == 69, errors
    assert "no sign of life" in errors
    assert "engine.log" in errors
    wait_for_end(engine)

    # A death that another engine makes good.
    assert job.records()[: len(survived)] == survived
    before = len(job.records())
    run, engine = job.begin("--max-restarts", "1")
    job.await_record(run)
    os.kill(engine, signal.SIGKILL)
    said = run.communicate()[1]
    assert run.returncode == 0, said
    wait_for_end(engine)
    assert f"resuming: {before} of {LINES}" in said
    assert [line["custom_id"] for line in lines_of(job.output)] == [f"line {number}" for number in range(LINES)]
    models = [line["response"]["body"]["model"] for line in lines_of(job.output)]
    assert [model == "sql" for model in models] == [name == "sql" for _ in range(LINES // 2) for name in MODELS]
    assert len(job.records()) == LINES, "a finished request was run again"
    assert job.records()[: len(survived)] == survived
    answers = job.output.read_bytes().splitlines()
    assert {record.partition(b"\t")[2] for record in survived} <= set(answers)
