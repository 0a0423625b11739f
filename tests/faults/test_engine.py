"""Engines that die of what they are given, for real: memory that is not there, logits that are no numbers."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.runtime.conftest import BLENDRUN, read_lines

pytestmark = pytest.mark.runtime

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


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [BLENDRUN, "run", *map(str, arguments), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, timeout=1400, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with a token whose embedding is NaN; its output layer, which shared the weights, is whole."""
    import torch
    from safetensors.torch import load_file, save_file

    from blendrun.models import resolve_model

    source = resolve_model("smollm2-135m", platform="cpu").path
    folder = tmp_path_factory.mktemp("broken-model")
    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.embed_tokens.weight"][POISON] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".txt") and "index" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    config = orjson.loads((source / "config.json").read_bytes())
    (folder / "config.json").write_bytes(orjson.dumps(config | {"tie_word_embeddings": False}))
    return folder


@pytest.mark.timeout(1500)
def test_a_request_whose_logits_are_no_numbers_becomes_an_error_line(tmp_path: Path, broken_model: Path):
    job = job_of(tmp_path / "job.jsonl", [[1, 2, 3, POISON], [4, 5, 6, 7]])
    output = tmp_path / "answers.jsonl"
    finished = run(job, "--model", broken_model, "-o", output)
    assert finished.returncode == 3, finished.stderr
    (error,) = read_lines(Path(f"{output}.errors.jsonl"))
    assert error["custom_id"] == "line 0"
    assert error["error"]["code"] == "engine_error"
    assert "NaN" in error["error"]["message"]
    assert [line["custom_id"] for line in read_lines(output)] == ["line 1"]


def test_an_engine_that_does_not_fit_is_started_smaller(tmp_path: Path):
    job, output = job_of(tmp_path / "job.jsonl", [[1, 2, 3], [4, 5, 6]]), tmp_path / "answers.jsonl"

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (14 * GIBI, 14 * GIBI))

    # 46 KB a token: 9 GiB, which does not fit beside 6 of the rest; 0.7 of it does.
    arguments = ("--model", "smollm2-135m", "-o", output, "--engine-arg", "max_total_tokens=200000", "--threads", "2")
    # Address space is counted, of which every thread takes an arena on machines with many cores.
    finished = run(job, *arguments, preexec_fn=little_memory, env=os.environ | {"MALLOC_ARENA_MAX": "2"})
    assert finished.returncode == 0, finished.stderr
    assert "it starts again smaller" in finished.stderr
    summary = orjson.loads((output.with_name("answers.jsonl.blendrun") / "summary.json").read_bytes())
    shrinks = [restart["shrinks"] for restart in summary["restarts"]]
    assert shrinks in ([1], [1, 2]), "once, or twice where the rest takes more"
