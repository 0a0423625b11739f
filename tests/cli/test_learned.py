"""What runs on this machine taught, where people see it: `plan`, `doctor`, and no other card."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

import blendrun
from blendrun.backends.doctor import checkup
from blendrun.backends.speed import engine_key, speed_of
from blendrun.engine.settings import available_cores
from blendrun.events import Event, Note, ignore
from blendrun.models.cards import load_card
from blendrun.report.terminal.plan import print_plan
from tests.command import write_jobs
from tests.learned.machines import JOBS, REAL, faster, steps_of, taken

MODEL = "smollm2-135m"


@pytest.fixture(autouse=True)
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a machine that is ten times as slow as its card has been here."""
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    speed = speed_of(load_card(MODEL), MODEL, "cpu", {}, ignore, threads=available_cores())
    assert speed is not None
    rng = np.random.default_rng(0)
    sample = taken(faster(REAL, 10.0), steps_of(JOBS[0], 300, rng), rng, 0.05, 0.0)
    assert speed.record([sample], time.time()) is not None
    return tmp_path / "data"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write_jobs(tmp_path / "jobs.jsonl", 12, max_tokens=8)


def test_a_plan_goes_by_it_and_says_so(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = blendrun.plan(str(jobs), model=MODEL)
    by_card = blendrun.plan(str(jobs), model=MODEL, hardware="cpu")
    assert (report.times, by_card.times) == ("learned", "prior")
    assert report.learned is not None
    assert report.learned.runs == 1
    assert by_card.learned is None
    assert report.orders[0].predicted_seconds > 2 * by_card.orders[0].predicted_seconds
    assert report.constants["prefill_token"].origin == "learned"
    assert report.constants["prefill_token"].seconds == pytest.approx(10 * REAL.prefill_token, rel=0.2)
    assert {each.origin for each in by_card.constants.values()} == {"prior"}
    print_plan(report, sys.stdout, next_command=None)
    assert "learned from 1 run on this machine, last on 20" in capsys.readouterr().out


def test_another_engine_of_this_machine_is_planned_by_the_card(jobs: Path) -> None:
    assert blendrun.plan(str(jobs), model=MODEL, engine_args={"kv_cache_dtype": "fp8_e5m2"}).times == "prior"
    assert (
        blendrun.plan(str(jobs), model=MODEL, engine_args={"max_total_tokens": 4096, "tp_size": 1}).times == "learned"
    )


def test_the_doctor_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def rates() -> str:
        (found,) = [check for check in checkup().checks if check.name == "rates"]
        return f"{found.state}: {found.found}"

    assert rates().startswith("ok: published ones of cpu; step times learned: smollm2-135m from 1 run, last on 20")
    monkeypatch.setenv("BLENDRUN_LEARN", "0")
    assert rates() == "missing: published ones of cpu: predicted times are rough"


def test_a_file_that_cannot_be_used_is_a_warning(jobs: Path, taught: Path) -> None:
    (taught / "steps.sqlite3").write_bytes(b"nothing that SQLite knows " * 50)
    heard: list[Event] = []
    assert blendrun.plan(str(jobs), model=MODEL, progress=heard.append).times == "prior"
    warnings = [event.text for event in heard if isinstance(event, Note) and event.warning]
    assert any("steps.sqlite3 are left out" in text for text in warnings)


def test_a_gpu_s_engines_do_not_share_and_a_cpu_s_do() -> None:
    card = load_card(MODEL)
    cpu = engine_key(card, MODEL, "cpu", {"log_level": "info"}, threads=4, replicas=2)
    gpu = engine_key(card, MODEL, "gpu", {"tp_size": 2, "tool_call_parser": "llama3"}, threads=4, replicas=2)
    assert (cpu.threads, cpu.replicas, cpu.gpus, cpu.arguments) == (4, 2, 1, "{}")
    assert (gpu.threads, gpu.replicas, gpu.gpus, gpu.arguments) == (0, 0, 2, '{"tp_size": 2}')
