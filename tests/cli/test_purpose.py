"""What a job's lines need an engine for, as the command says it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends.purpose import find_purpose
from blendrun.endpoints.rules import FOR_PLANNING
from blendrun.errors import InputInvalidError
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.models.kind import ModelKind, is_bidirectional, kind_of
from blendrun.models.resolve import ResolvedModel
from blendrun.names import Purpose
from tests.good_bodies import GOOD_BODIES

CHAT, EMBEDDINGS, SCORE, RERANK, CLASSIFY = (
    f"/v1/{name}" for name in ("chat/completions", "embeddings", "score", "rerank", "classify")
)


def purpose(folder: Path, kind: ModelKind, urls: list[str], **arguments: Any) -> Purpose:
    path = folder / "job.jsonl"
    lines = [{"custom_id": str(row), "url": url, "body": GOOD_BODIES[url]} for row, url in enumerate(urls)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ResolvedModel("m", folder, None, "i", None, "folder", kind)
    with index_jobs(open_sources([path], folder / "spool"), rules=FOR_PLANNING) as job:
        return find_purpose(model, arguments)(job)


@pytest.mark.parametrize(
    ("kind", "urls", "wanted"),
    [
        (ModelKind.GENERATOR, [CHAT, "/v1/completions", SCORE, RERANK], Purpose.GENERATE),
        (ModelKind.GENERATOR, [EMBEDDINGS], Purpose.EMBED),
        (ModelKind.EMBEDDER, [EMBEDDINGS], Purpose.EMBED),
        (ModelKind.CLASSIFIER, [CLASSIFY, SCORE, RERANK], Purpose.EMBED),
    ],
)
def test_one_engine_for_all_lines(tmp_path: Path, kind: ModelKind, urls: list[str], wanted: Purpose) -> None:
    assert purpose(tmp_path, kind, urls) is wanted


@pytest.mark.parametrize(
    ("kind", "urls", "arguments", "words"),
    [
        (ModelKind.GENERATOR, [CLASSIFY], {}, "m has no classification head, and 1 line of /v1/classify needs another"),
        (ModelKind.EMBEDDER, [CHAT, CHAT], {}, "m only embeds, and 2 lines of /v1/chat/completions need another"),
        (ModelKind.CLASSIFIER, [EMBEDDINGS, CLASSIFY], {}, "m only classifies and scores, and 1 line of /v1/embed"),
        (ModelKind.GENERATOR, [CHAT], {"is_embedding": True}, "m runs with is_embedding=True, and 1 line of /v1/chat"),
        (ModelKind.GENERATOR, [EMBEDDINGS], {"is_embedding": False}, "m runs with is_embedding=False"),
    ],
)
def test_what_the_model_does_not_do_is_named(
    tmp_path: Path, kind: ModelKind, urls: list[str], arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputInvalidError) as caught:
        purpose(tmp_path, kind, urls, **arguments)
    assert words in str(caught.value)


def test_two_engines_are_refused_with_commands_that_split_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputInvalidError) as caught:
        purpose(tmp_path, ModelKind.GENERATOR, [CHAT, EMBEDDINGS, EMBEDDINGS, SCORE])
    message = str(caught.value)
    assert "1 line of /v1/chat/completions and 1 line of /v1/score need one that generates" in message
    assert "2 lines of /v1/embeddings one that embeds" in message
    commands = message.partition("split it: ")[2].replace("JOB.jsonl", str(tmp_path / "job.jsonl"))
    done = subprocess.run(["sh", "-c", commands], cwd=tmp_path, capture_output=True, text=True)
    if "not found" in done.stderr:
        pytest.skip("needs jq: apt-get install jq")
    assert done.returncode == 0, done.stderr
    found = [Counter(json.loads(line)["url"] for line in (tmp_path / name).read_text().splitlines()) for name in
             ("THESE.jsonl", "OTHERS.jsonl")]  # fmt: skip
    assert found == [{EMBEDDINGS: 2}, {CHAT: 1, SCORE: 1}]


@pytest.mark.parametrize(
    ("architecture", "kind", "bidirectional"),
    [
        ("LlamaForCausalLM", ModelKind.GENERATOR, False),
        ("Qwen3ForCausalLM", ModelKind.GENERATOR, False),
        ("Qwen3Model", ModelKind.EMBEDDER, False),
        ("MistralModel", ModelKind.EMBEDDER, False),
        ("BertModel", ModelKind.EMBEDDER, True),
        ("XLMRobertaForSequenceClassification", ModelKind.CLASSIFIER, True),
        ("LlamaForSequenceClassification", ModelKind.CLASSIFIER, False),
        ("Qwen2ForRewardModel", ModelKind.CLASSIFIER, False),
        ("LlamaForClassification", ModelKind.CLASSIFIER, False),
        ("Gemma3TextModel", ModelKind.GENERATOR, False),
    ],
)
def test_kinds_of_models(architecture: str, kind: ModelKind, bidirectional: bool) -> None:
    config = {"architectures": [architecture]}
    assert (kind_of(config), is_bidirectional(config)) == (kind, bidirectional)
    gemma = {"architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True}
    assert (kind_of(gemma), is_bidirectional(gemma)) == (ModelKind.EMBEDDER, True)
    assert kind_of({}) is ModelKind.GENERATOR
