"""Which evidence a plan goes by: what runs taught, a calibration, or rates; and who is taught."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from blendrun.cost.base import Machine, StepFigures
from blendrun.cost.hardware import load_hardware, machine
from blendrun.learned.base import EngineKey
from blendrun.learned.own import OwnSpeed, own_speed
from blendrun.learned.sample import StepSample
from blendrun.learned.store import StepsUnavailableError
from blendrun.models.card import ModelCard
from blendrun.models.cards import load_card
from blendrun.simulate.steptime import step_time, times_rest_on
from tests.learned.machines import JOBS, REAL, faster, steps_of, taken

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def model() -> ModelCard:
    return load_card("smollm2-135m")


def key(model: ModelCard, **changed: object) -> EngineKey:
    return replace(EngineKey("here", "cpu", "", model.digest, 1, 2, 1, "{}"), **changed)  # type: ignore[arg-type]


def cpu() -> Machine:
    return machine(load_hardware("cpu"))


def calibrated(model: ModelCard, on: Machine, when: float | None, factor: float = 1.0) -> Machine:
    """The machine with constants that a calibration found then."""
    found = faster(REAL, factor)
    date = None if when is None else datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
    figures = StepFigures(
        model="smollm2-135m",
        step_seconds=found.step,
        row_seconds=found.row,
        request_seconds=found.request,
        prefill_token_seconds=found.prefill_token,
        decode_token_seconds=found.decode_token,
        prefill_square_seconds=found.prefill_square,
        kv_token_seconds=found.kv_token,
        weights_seconds=found.weights,
        fit_error=0.02,
        digest=model.digest,
        date=date,
    )
    return replace(on, card=replace(on.card, step=figures))


def sample(factor: float = 1.0, count: int = 400) -> StepSample:
    rng = np.random.default_rng(count)
    return taken(faster(REAL, factor), steps_of(JOBS[0], count, rng), rng, 0.05, 0.0)


def speed(model: ModelCard, on: Machine | None = None) -> OwnSpeed:
    return own_speed(key(model), model, on or cpu())


def test_the_next_plan_takes_what_a_run_taught_and_says_so(model: ModelCard) -> None:
    first = speed(model)
    assert first.step == step_time(model, cpu())
    assert first.machine.learned is None
    assert first.record([sample()], NOW) is not None
    second = speed(model)
    assert second.step.kv_token == pytest.approx(REAL.kv_token, rel=0.2)
    assert times_rest_on(second.step) == "learned"
    assert second.step.origin["kv_token"] == "learned"
    assert second.machine.learned is not None
    assert second.machine.learned.sentence == "learned from 1 run on this machine, last on 2027-01-15"
    second.record([sample()], NOW + DAY)
    third = speed(model).machine.learned
    assert third is not None
    assert third.sentence == "learned from 2 runs on this machine, last on 2027-01-16"


def test_what_one_engine_taught_is_no_other_engine_s(model: ModelCard) -> None:
    speed(model).record([sample()], NOW)
    for changed in ({"threads": 1}, {"arguments": '{"dtype": "bfloat16"}'}, {"host": "there"}):
        assert own_speed(key(model, **changed), model, cpu()).machine.learned is None


def test_a_calibration_counts_until_a_run_behind_it(model: ModelCard) -> None:
    speed(model).record([sample(2.0)], NOW)
    later = calibrated(model, cpu(), NOW + DAY)
    found = speed(model, later)
    assert found.machine.learned is None
    assert times_rest_on(found.step) == "measured"
    known = found.record([sample()], NOW + 2 * DAY)
    assert known is not None
    assert known.runs == 1, "what was learned before the calibration is forgotten"
    assert speed(model, later).machine.learned is not None
    earlier = calibrated(model, cpu(), NOW - DAY)
    assert speed(model, earlier).machine.learned is not None


def test_what_a_run_cannot_tell_is_the_calibration_s(model: ModelCard) -> None:
    on = calibrated(model, cpu(), NOW - DAY)
    rng = np.random.default_rng(5)
    prompts = taken(REAL, steps_of((1.0, 400, 100), 300, rng), rng, 0.05, 0.0)
    speed(model, on).record([prompts], NOW)
    found = speed(model, on).step
    assert found.kv_token == pytest.approx(REAL.kv_token, rel=0.1)
    assert found.origin["prefill_token"] == "learned"


def test_a_card_that_says_no_date_is_older_than_any_run(model: ModelCard) -> None:
    on = calibrated(model, cpu(), None, factor=3.0)
    speed(model, on).record([sample()], NOW)
    assert speed(model, on).step.kv_token == pytest.approx(REAL.kv_token, rel=0.25)


@pytest.mark.parametrize("word", ["0", "no", "OFF", "false"])
def test_it_can_be_switched_off(model: ModelCard, monkeypatch: pytest.MonkeyPatch, data: Path, word: str) -> None:
    speed(model).record([sample()], NOW)
    before = (data / "steps.sqlite3").read_bytes()
    monkeypatch.setenv("BLENDRUN_LEARN", word)
    found = speed(model)
    assert found.machine.learned is None
    assert found.record([sample()], NOW + DAY) is None
    assert (data / "steps.sqlite3").read_bytes() == before


def test_a_short_run_teaches_nothing(model: ModelCard, data: Path) -> None:
    assert speed(model).record([sample(count=5), StepSample()], NOW) is None
    assert speed(model).record([], NOW) is None
    assert not data.exists()


def test_a_damaged_file_is_told(model: ModelCard, data: Path) -> None:
    before = speed(model)
    data.mkdir()
    (data / "steps.sqlite3").write_bytes(b"no database, but long enough to look like one" * 20)
    with pytest.raises(StepsUnavailableError):
        speed(model)
    with pytest.raises(StepsUnavailableError):
        before.record([sample()], NOW)
