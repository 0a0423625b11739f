"""What a batch is told of its model, beside what `blendrun run` says of the same lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends.options import RunOptions
from blendrun.service.named import Named


def named(**given: Any) -> Named:
    return Named(RunOptions.of({"inputs": ("job.jsonl",), "output": Path("answers.jsonl"), **given}))


@pytest.mark.parametrize(
    ("model", "names", "note"),
    [
        ("smollm2-135m", {}, None),
        ("smollm2-135m", {"smollm2-135m": 2, "default": 1, "HuggingFaceTB/SmolLM2-135M-Instruct": 1}, None),
        (
            "smollm2-135m",
            {"default": 1, "gpt-4o": 3},
            "3 lines name another model and run on smollm2-135m",
        ),
        ("no-such-model", {"gpt-4o": 1}, "1 line names another model and runs on no-such-model all the same: gpt-4o"),
    ],
)
def test_another_name_is_counted(model: str, names: dict[str, int], note: str | None) -> None:
    answers, notes = named(model=model).of(Counter(names))
    assert answers == model
    assert notes is None if note is None else notes is not None and note in notes[0]


def test_where_names_decide_nothing_is_said() -> None:
    adapters = named(model="smollm2-135m", engine_args={"lora_paths": ["sql=/adapters/sql"]})
    assert adapters.of(Counter({"gpt-4o": 1})) == ("smollm2-135m", None)
    servers = named(engine="http://127.0.0.1:1")
    assert servers.of(Counter({"gpt-4o": 1})) == ("gpt-4o", None)
    assert servers.of(Counter()) == (None, None)
