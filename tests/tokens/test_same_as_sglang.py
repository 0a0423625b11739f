"""Our ids are SGLang's: every body of shapes.py, with every template, through SGLang's own serving code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.tokens.load import load_tokenizer
from blendrun.tokens.template import ChatTemplate, RenderError
from blendrun.tokens.tokenizer import PromptTokenizer
from tests.tokens.shapes import BODIES, TEMPLATES
from tests.tokens.token_jobs import CHAT, smollm2_folder

pytestmark = pytest.mark.runtime


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for template in (None, *TEMPLATES):
        for name, body in BODIES.items():
            yield f"{template} / {name}", {"template": TEMPLATES.get(template or ""), "body": body, "defaults": {}}
    for name in ("one user", "effort low", "effort in kwargs", "thinking off"):
        for template in ("qwen", "parts"):
            defaults = {"enable_thinking": False, "reasoning_effort": "high"}
            yield (
                f"{template} / {name}, with defaults",
                {"template": TEMPLATES[template], "body": BODIES[name], "defaults": defaults},
            )


def our_ids(tokenizer: PromptTokenizer, case: dict[str, Any]) -> list[int] | None:
    if case["template"]:
        tokenizer = replace(tokenizer, template=ChatTemplate(case["template"]))
    try:
        prompt = replace(tokenizer, defaults=case["defaults"]).render(ENDPOINTS[CHAT], case["body"])
    except RenderError:
        return None
    (encoded,) = tokenizer.encode([prompt])
    ids: list[int] = encoded.tolist()
    return ids


def test_ids_equal_those_of_sglangs_serving_code() -> None:
    pytest.importorskip("sglang", reason="needs sglang")
    folder = smollm2_folder()
    named = dict(cases())
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tokens.sglang_ids"],
        input=orjson.dumps({"folder": str(folder), "cases": list(named.values())}),
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=500,
    )
    lines = [line for line in finished.stdout.decode().splitlines() if line.startswith("IDS ")]
    assert lines, finished.stderr.decode()[-4000:]
    theirs = dict(zip(named, orjson.loads(lines[0].removeprefix("IDS ")), strict=True))
    tokenizer = load_tokenizer(folder)
    ours = {name: our_ids(tokenizer, case) for name, case in named.items()}
    different = {name: (ours[name], theirs[name]) for name in named if ours[name] != theirs[name]}
    assert different == {}
    assert sum(ids is not None for ids in theirs.values()) > 0.6 * len(named)
