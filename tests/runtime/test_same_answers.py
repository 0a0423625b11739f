"""blendrun adds nothing and takes nothing: greedy answers are those of plain SGLang."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import CPU_PLATFORM, environment, server_args
from blendrun.models.resolve import resolve_model
from blendrun.tokens.load import load_tokenizer
from tests.runtime import requests
from tests.runtime.feature_run import FeatureRun
from tests.tokens.shapes import BODIES

pytestmark = pytest.mark.runtime


# Those of tests/tokens/shapes.py that a prompt's ids depend on most.
CHATS = (
    "one user",
    "system",
    "many turns",
    "spaces and specials",
    "unknown fields",
    "text parts",
    "ends on assistant",
    "continued",
    "tools",
    "tool call",
    "effort low",
    "thinking off",
    "ids",
)


def _valid(name: str) -> dict[str, Any]:
    """A body without the type of a tool's parameter that SGLang refuses (and would render)."""
    body: dict[str, Any] = orjson.loads(orjson.dumps(BODIES[name]).replace(b'"internal"', b'"integer"'))
    return body


@dataclass(frozen=True)
class PlainRun:
    """What plain SGLang made of the prompts and bodies it was given, in their order."""

    texts: list[str]
    ids: list[list[int]]


@pytest.fixture(scope="module")
def plain_run() -> PlainRun:
    """float32 and the same weights, one request at a time, SGLang's stock attention."""
    model = resolve_model("smollm2-135m", platform="cpu")
    settings = EngineSettings(str(model.path), "cpu", threads=1)
    asked = {
        "server_args": server_args(settings) | {"log_level": "error"},
        "prompts": requests.PLAIN_PROMPTS,
        "tokens": requests.PLAIN_TOKENS,
        "chats": [_valid(name) for name in CHATS],
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
    said = dict(
        line.split(" ", 1) for line in finished.stdout.decode().splitlines() if line.startswith(("TEXTS ", "IDS "))
    )
    assert said, finished.stderr.decode()[-4000:]
    return PlainRun(texts=orjson.loads(said["TEXTS"]), ids=orjson.loads(said["IDS"]))


def test_greedy_answers_equal_plain_sglang_one_at_a_time(feature_run: FeatureRun, plain_run: PlainRun) -> None:
    answers = [feature_run.body(f"greedy {number}")["choices"][0]["text"] for number in range(len(plain_run.texts))]
    assert answers == plain_run.texts


def test_planned_prompts_have_the_ids_that_the_runtime_makes(plain_run: PlainRun) -> None:
    tokenizer = load_tokenizer(resolve_model("smollm2-135m", platform="cpu").path)
    prompts = [tokenizer.render(ENDPOINTS["/v1/chat/completions"], _valid(name)) for name in CHATS]
    ours = {name: ids.tolist() for name, ids in zip(CHATS, tokenizer.encode(prompts), strict=True)}
    assert ours == dict(zip(CHATS, plain_run.ids, strict=True))
