"""blendrun adds nothing and takes nothing: greedy answers are those of plain SGLang."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

import blendrun
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


def test_an_engine_that_stays_gives_the_same_call_after_call(plain_run: PlainRun) -> None:
    prompts = list(requests.PLAIN_PROMPTS)
    greedy = {"temperature": 0, "max_new_tokens": requests.PLAIN_TOKENS}
    with blendrun.Engine("smollm2-135m", options={"device": "cpu"}) as engine:
        first = engine.generate(prompts, greedy)
        loaded = engine_processes(engine)
        assert [answer["text"] for answer in first] == plain_run.texts
        # Another plan on the same engine: other lengths, all of them in the order that it wants.
        again = engine.generate(
            prompts[::-1] * 3, [{**greedy, "max_new_tokens": 1 + n % 3} for n in range(3 * len(prompts))]
        )
        assert [answer["output_ids"][0] for answer in again[: len(prompts)]] == [
            answer["output_ids"][0] for answer in first[::-1]
        ]
        assert [answer["meta_info"]["completion_tokens"] for answer in again[:3]] == [1, 2, 3]
        # The cache of the call before is there; a prompt's last token is computed in any case.
        met = [answer["meta_info"] for answer in again]
        assert [facts["cached_tokens"] for facts in met] == [facts["prompt_tokens"] - 1 for facts in met]
        scored = engine.generate(prompts[0], greedy, return_logprob=True, logprob_start_len=0)["meta_info"]
        assert len(scored["input_token_logprobs"]) == scored["prompt_tokens"]
        assert dict(engine.stream(prompts))[0]["meta_info"]["finish_reason"]["type"] in ("length", "stop")
        assert engine_processes(engine) == loaded
        assert len(loaded) == 1


def engine_processes(engine: blendrun.Engine) -> list[str]:
    """The engine processes below an Engine."""
    host = engine._host.pid
    children = Path(f"/proc/{host}/task/{host}/children").read_text().split()
    return [pid for pid in children if b"blendrun.engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
