"""A small calibration from end to end: the real engine on the CPU, a card that plans can load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from blendrun.cost.hardware import load_hardware
from tests.command import blendrun

pytestmark = pytest.mark.runtime


def test_a_quick_calibration_stores_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = ["calibrate", "--model", "smollm2-135m", "--device", "cpu", "--threads", "1", "--quick", "--json"]
    # Stored however busy the machine is: whether times are good enough to plan with is not what this test asks.
    words.append("--keep")
    done = blendrun(*words, "--engine-arg", "max_total_tokens=4096", process=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    card = load_hardware("this-machine")
    assert card.step is not None
    assert card.step.model == "smollm2-135m"
    # What is sure on any machine, however busy it is: tokens and steps take time.
    assert card.step.prefill_token_seconds + card.step.prefill_square_seconds > 0
    assert card.step.step_seconds + card.step.row_seconds + card.step.request_seconds > 0
    assert card.achieved_flops.value > 1e9
    assert card.achieved_bandwidth.value > 1e8
    assert 0 <= found["step"]["fit_error"] < math.inf
    assert {point["name"].split()[0] for point in found["points"]} == {"prefill", "decode", "turnover"}
    assert len(found["held_out"]) == 1
    # What SGLang settled on, read from the engine that was measured.
    assert dict(found["engine"]) == {"decode attention": "torch_native", "chunk": "4096"}
    assert (found["rates"]["attention"], found["rates"]["stand_in"]) == ("torch_native, 16 x 1024 tokens", "")
