"""`blendrun calibrate` from outside: what it prints and stores, and how it fails. The engine is not started here."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import orjson
import pytest
import yaml

from blendrun.calibrate.base import Calibration, Point, Rates
from blendrun.calibrate.measure import Task
from blendrun.cost.base import StepFigures
from blendrun.cost.hardware import load_hardware
from blendrun.engine.base import Engine
from blendrun.events import Listener
from tests.command import blendrun
from tests.imports import loaded_by

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "blendrun" / "hardware"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_bytes(orjson.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Put finished figures in the place of the measurement; the tasks that were asked for."""
    asked: list[Task] = []

    def stand_in(task: Task, engine: Engine, listener: Listener) -> Calibration:
        asked.append(task)
        return Calibration(
            model=task.model,
            platform=task.settings.platform,
            threads=task.settings.threads,
            date="2026-07-01T12:00:00+00:00",
            versions={"sglang": "0.5.23", "torch": "2.14.1"},
            rates=Rates(1.2e11, 1.8e10, 9e9, 1.7e10, "cpu", "torch, 16 x 1024 tokens", "no fa3 here"),
            step=StepFigures(task.model, 0.05, 0.002, 0.004, 0.0014, 0.0014, 4e-8, 6e-6, 0.0, 0.02),
            round_trip_seconds=0.015,
            points=(Point("decode 4 x 64", 1.0, 1.05, 0.05),),
            held_out=(Point("mix of 48", 20.0, 19.0, -0.05),),
            worst_error=0.05,
            seconds=150.0,
            engine=(("decode attention", "fa3"), ("chunk", "4096")),
        )

    monkeypatch.setattr("blendrun.calibrate.measure.calibrate", stand_in)
    return asked


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    done = blendrun("calibrate", "--device", "cpu", *words)
    assert done.returncode == 0, done.stderr
    return done


def test_the_table_and_the_card(model: Path, measured: list[Task]) -> None:
    words = ("--model", model, "--name", "mine", "--threads", "1", "--engine-arg", "max_total_tokens=4096", "--quick")
    shown = run(*words).stdout
    for text in ("0.120 TFLOP/s", "9.0 GB/s", "50.00 ms", "1400.0 us/token", "decode 4 x 64", "mix of 48", "-5.0 %"):
        assert text in shown
    for text in (
        "(torch, 16 x 1024 tokens)",
        "not the engine's own: no fa3 here",
        "decode attention: fa3, chunk: 4096",
    ):
        assert text in shown
    assert "--hardware mine" in shown
    assert load_hardware("mine").achieved_flops.value == 1.2e11
    typed = shlex.join(["blendrun", "calibrate", "--device", "cpu", *map(str, words)])
    assert typed in load_hardware("mine").achieved_flops.source
    (task,) = measured
    assert (task.settings.threads, task.settings.server_args, task.quick) == (1, {"max_total_tokens": 4096}, True)


def test_json_is_one_object_on_stdout(model: Path, measured: list[Task]) -> None:
    shown = run("--model", model, "--json", "-q")
    found = json.loads(shown.stdout)
    assert found["name"] == "this-machine"
    assert found["step"]["row_seconds"] == 0.002
    assert found["points"][0]["error"] == 0.05
    assert Path(found["card"]).is_file()
    assert shown.stderr == ""


def test_a_poor_fit_is_stored_only_where_it_is_wanted(
    model: Path, measured: list[Task], monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    monkeypatch.setattr("blendrun.calibrate.measure.POOR_FIT", 0.01)
    done = blendrun("calibrate", "--device", "cpu", "--model", model)
    assert done.returncode == 1
    assert "nothing was stored: times are 2 % off on average" in done.stderr
    assert "rm " not in done.stdout
    assert not list(own_folder.glob("*.yaml"))
    kept = run("--model", model, "--keep").stdout
    assert "tiny here: reads 714 prompt tokens a second, writes 19 tokens a second of one answer" in kept
    assert f"rm {own_folder / 'this-machine.yaml'}" in kept


def test_output_names_the_card_file(model: Path, measured: list[Task], tmp_path: Path, own_folder: Path) -> None:
    run("--model", model, "-o", tmp_path / "node.yaml", "-q")
    assert load_hardware(str(tmp_path / "node.yaml")).step is not None
    assert "name" not in yaml.safe_load((tmp_path / "node.yaml").read_text())
    assert not own_folder.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "which model? Give --model"),
        (("--model", "no-such-model"), 2, "no model is called 'no-such-model'"),
        (("--model", "/nowhere/at/all"), 66, "there is no file or folder"),
        (("--model", "smollm2-135m", "--name", "a/b"), 2, "--name 'a/b'"),
        (("--model", "smollm2-135m", "-o", "x.json"), 2, "a hardware card is a .yaml file"),
        (("--model", "smollm2-135m", "--engine-arg", "slots"), 2, "--engine-arg takes NAME=VALUE"),
        (("--model", "smollm2-135m", "--threads", "0"), 2, "--threads"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(words: tuple[str, ...], code: int, message: str) -> None:
    done = blendrun("calibrate", "--device", "cpu", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_73_before_anything_starts(model: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = blendrun("calibrate", "--device", "cpu", "--model", model, "-o", tmp_path / "taken" / "x.yaml")
    assert done.returncode == 73
    assert "cannot write" in done.stderr
    assert "phase=rates" not in done.stderr


def test_the_command_imports_neither_torch_nor_sglang() -> None:
    for package in ("blendrun.cli", "blendrun.report", "blendrun.backends"):
        assert loaded_by(package).isdisjoint({"torch", "sglang", "transformers"})
