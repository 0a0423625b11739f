"""Engines that die of what they are given, for real: memory that is not there, logits that are no numbers."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.command import blendrun, lines_of
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(1800)]

# Its embedding is NaN in the broken model, and so is every logit behind it.
POISON = 12_345
GIBI = 1 << 30


def job_of(path: Path, prompts: list[list[int]]) -> Path:
    lines = [
        {
            "custom_id": f"line {number}",
            "url": "/v1/completions",
            "body": {"prompt": ids, "max_tokens": 4, "temperature": 0, "ignore_eos": True},
        }
        for number, ids in enumerate(prompts)
    ]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return blendrun("run", *arguments, "--device", "cpu", "--threads", "1", process=True, **options)


def test_a_request_whose_logits_are_no_numbers_becomes_an_error_line(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "broken", nan_token=POISON)
    job = job_of(tmp_path / "job.jsonl", [[1, 2, 3, POISON], [4, 5, 6, 7]])
    output = tmp_path / "answers.jsonl"
    finished = run(job, "--model", model, "-o", output)
    assert finished.returncode == 3, finished.stderr
    (error,) = lines_of(Path(f"{output}.errors.jsonl"))
    assert error["custom_id"] == "line 0"
    assert error["error"]["code"] == "engine_error"
    assert "NaN" in error["error"]["message"]
    assert [line["custom_id"] for line in lines_of(output)] == ["line 1"]


def test_an_engine_that_does_not_fit_is_started_smaller(tmp_path: Path) -> None:
    # 16 KB a token: 3.5 GiB, which does not fit beside 4.2 of the rest; 0.7 of it does.
    model = write_tiny_model(tmp_path / "wide", num_key_value_heads=4, head_dim=256)
    job, output = job_of(tmp_path / "job.jsonl", [[1, 2, 3], [4, 5, 6]]), tmp_path / "answers.jsonl"

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (7 * GIBI, 7 * GIBI))

    arguments = ("--model", model, "-o", output, "--engine-arg", "max_total_tokens=229376")
    # Address space is counted, of which every thread takes an arena on machines with many cores.
    finished = run(job, *arguments, preexec_fn=little_memory, env=os.environ | {"MALLOC_ARENA_MAX": "2"})
    assert finished.returncode == 0, finished.stderr
    assert "it starts again smaller" in finished.stderr
    summary = orjson.loads((output.with_name("answers.jsonl.blendrun") / "summary.json").read_bytes())
    shrinks = [restart["shrinks"] for restart in summary["restarts"]]
    assert shrinks in ([1], [1, 2]), "once, or twice where the rest takes more"
