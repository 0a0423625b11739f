"""blendrun adds nothing and takes nothing: greedy answers are those of plain SGLang."""

from __future__ import annotations

import os
import subprocess
import sys

import orjson
import pytest

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import CPU_PLATFORM, available_cores, environment, server_args
from blendrun.models import resolve_model
from tests.runtime import requests
from tests.runtime.conftest import FeatureRun

pytestmark = pytest.mark.runtime


def test_greedy_answers_equal_plain_sglang_one_at_a_time(feature_run: FeatureRun) -> None:
    """float32, the same weights; there one request at a time and SGLang's stock attention, here batched and hooked."""
    model = resolve_model("smollm2-135m", platform="cpu")
    settings = EngineSettings(str(model.path), "cpu", available_cores())
    asked = {
        "server_args": server_args(settings) | {"log_level": "error"},
        "prompts": requests.PLAIN_PROMPTS,
        "tokens": requests.PLAIN_TOKENS,
    }
    # The platform alone; the attention and seed hooks are what is being checked.
    plain = environment(settings) | {"SGLANG_PLUGINS": CPU_PLATFORM}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.runtime.plain_engine"],
        input=orjson.dumps(asked),
        env=os.environ | plain,
        capture_output=True,
        timeout=500,
    )
    texts = [line for line in finished.stdout.decode().splitlines() if line.startswith("TEXTS ")]
    assert texts, finished.stderr.decode()[-4000:]
    expected = orjson.loads(texts[0].removeprefix("TEXTS "))
    answers = [feature_run.body(f"greedy {number}")["choices"][0]["text"] for number in range(len(expected))]
    assert answers == expected
