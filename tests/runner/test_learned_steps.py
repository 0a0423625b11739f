"""What a run leaves of its steps to later ones, however it ends; and what is left of a run when that cannot be kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blendrun.cost.hardware import load_hardware, machine
from blendrun.engine.base import Result
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import EngineUnavailableError, InterruptedRunError
from blendrun.learned.base import EngineKey
from blendrun.learned.own import OwnSpeed, own_speed
from blendrun.learned.store import StepStore
from blendrun.models.cards import load_card
from blendrun.store.summary import Summary
from tests.runner.runner_job import line, run, write

COUNT, STEPS = 12, 40


class Logging(ReplayEngine):
    """Leaves a log of steps, as SGLang's scheduler does, in which the machine is four times as slow as its card."""

    def __init__(self, log: Path, speed: OwnSpeed, *, dies: bool = False) -> None:
        super().__init__(ReplaySettings())
        self._log, self._step, self._dies = log, speed.card_step, dies

    async def results(self) -> AsyncIterator[Result]:
        answered = 0
        async for result in super().results():
            if answered == COUNT // 2:
                self._write()
                if self._dies:
                    raise EngineUnavailableError("the kernel's last words")
            answered += 1
            yield result

    def _write(self) -> None:
        step, time = self._step, 0.0
        known = {"mode": "decode", "admitted": [], "kv_used": 10, "waiting": 0, "parallel": False}
        with self._log.open("a", encoding="utf-8") as file:
            for number in range(STEPS):
                rows, context = 1 + number % 8, 400 * (1 + number % 8)
                seconds = 4 * (max(step.decode_token * rows, step.weights) + step.kv_token * context)
                what = {"prefill_tokens": 0, "prefill_square": 0, "begun": 0, "decode_rows": rows, "step": number}
                when = {"context_tokens": context, "time": time, "seconds": seconds}
                file.write(json.dumps(known | what | when) + "\n")
                time += seconds


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def speed() -> OwnSpeed:
    model = load_card("smollm2-135m")
    return own_speed(EngineKey("here", "cpu", "", model.digest, 1, 2, 1, "{}"), model, machine(load_hardware("cpu")))


def finished(folder: Path, name: str, *, dies: bool = False) -> Summary:
    jobs = write(folder / "jobs.jsonl", *(line(f"id {row}", f"say {row}") for row in range(COUNT)))
    output, known = folder / name, speed()
    log = folder / f"{name}.blendrun" / "steps.jsonl"
    return run(output, jobs, engine=lambda: Logging(log, known, dies=dies), speed=known)


def runs() -> int:
    found = StepStore.open().recall(speed().key)
    return 0 if found is None else found.runs


def test_each_run_teaches_the_next(tmp_path: Path) -> None:
    before = speed().step
    assert finished(tmp_path, "first.jsonl").exit_code == 0
    after = speed().step
    assert after.kv_token == pytest.approx(4 * before.kv_token, rel=0.3)
    assert after.weights == pytest.approx(4 * before.weights, rel=0.3)
    finished(tmp_path, "second.jsonl")
    assert runs() == 2


def test_a_run_that_fails_has_taught_too(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError):
        finished(tmp_path, "out.jsonl", dies=True)
    assert runs() == 1


def test_a_run_that_finds_all_done_teaches_nothing_again(tmp_path: Path) -> None:
    finished(tmp_path, "out.jsonl")
    finished(tmp_path, "out.jsonl")
    assert runs() == 1


def test_only_what_this_invocation_logged_counts(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError):
        finished(tmp_path, "out.jsonl", dies=True)
    lines = (tmp_path / "out.jsonl.blendrun" / "steps.jsonl").read_bytes()
    before = StepStore.open().recall(speed().key)
    finished(tmp_path, "out.jsonl")
    after = StepStore.open().recall(speed().key)
    assert before is not None and after is not None
    # The rest has not enough requests for the log to be written again.
    assert (tmp_path / "out.jsonl.blendrun" / "steps.jsonl").read_bytes() == lines
    assert (after.runs, after.seconds) == (before.runs, before.seconds)


def test_what_cannot_be_kept_costs_the_run_nothing(tmp_path: Path, data: Path) -> None:
    data.write_text("in the way")
    summary = finished(tmp_path, "out.jsonl")
    assert (summary.exit_code, summary.counts.completed) == (0, COUNT)
    assert any("step times of earlier runs" in note for note in summary.notes)


def test_neither_does_a_fit_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a fit")

    monkeypatch.setattr("blendrun.learned.own.learned", fails)
    summary = finished(tmp_path, "out.jsonl")
    assert (summary.exit_code, summary.counts.completed) == (0, COUNT)
    assert "nothing is learned of this run's steps: ZeroDivisionError: a fit" in summary.notes
    assert runs() == 0


def test_a_signal_while_it_learns_ends_the_run_as_any_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise InterruptedRunError("stopped")

    monkeypatch.setattr("blendrun.learned.own.learned", interrupted)
    with pytest.raises(InterruptedRunError):
        finished(tmp_path, "out.jsonl")
    assert runs() == 0
    assert finished(tmp_path, "out.jsonl").counts.completed == COUNT
