"""Every kind of line on every kind of model: it is answered, or somebody says plainly why not. No engine is started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends.heads import unanswered
from blendrun.backends.purpose import find_purpose
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.errors import InputInvalidError
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.models.kind import ModelKind, is_bidirectional, kind_of, labels_of
from blendrun.models.resolve import ResolvedModel
from tests.good_bodies import GOOD_BODIES

LLAMA, BERT = "LlamaForSequenceClassification", "BertForSequenceClassification"
# The rows of the table in docs/files.md: what is in the model's config.json.
MODELS: dict[str, dict[str, Any]] = {
    "generates": {"architectures": ["LlamaForCausalLM"]},
    "generates, with a reranker's chat template": {"architectures": ["Qwen3ForCausalLM"]},
    "embeds alone": {"architectures": ["BertModel"]},
    "head of several classes": {"architectures": [LLAMA], "id2label": {"0": "a", "1": "b", "2": "c"}},
    "head of one number, such as a reward": {"architectures": [LLAMA], "num_labels": 1},
    "cross-encoder": {"architectures": [BERT], "num_labels": 1},
    "cross-encoder's architecture, several classes": {"architectures": [BERT]},
}
# The columns.
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat and other text": ("/v1/chat/completions", GOOD_BODIES["/v1/chat/completions"]),
    "`/v1/embeddings`": ("/v1/embeddings", {"input": "a"}),
    "`/v1/classify`": ("/v1/classify", {"input": "a"}),
    "`/v1/rerank`": ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}),
    "pairs": ("/v1/score", {"text_1": "q", "text_2": ["a", "b"]}),
    "`items`": ("/v1/score", {"query": "q", "items": ["a", "b"]}),
    "`items` with `label_token_ids`": ("/v1/score", {"query": "q", "items": ["a"], "label_token_ids": [1]}),
}
RERANKER = 'The answer can only be "yes" or "no". {{ messages[0].content }}'


@pytest.fixture
def model(tmp_path: Path) -> Any:
    def make(kind: str) -> ResolvedModel:
        config = MODELS[kind]
        (tmp_path / "tokenizer.json").write_text("{}")
        (tmp_path / "tokenizer_config.json").write_text("{}")
        if "reranker" in kind:
            (tmp_path / "chat_template.jinja").write_text(RERANKER)
        facts = kind_of(config), is_bidirectional(config), labels_of(config)
        return ResolvedModel("m", tmp_path, None, "i", None, "folder", *facts)

    return make


def outcome(model: ResolvedModel, folder: Path, url: str, body: dict[str, Any]) -> tuple[str, str]:
    """What becomes of a file of one such line: "yes", or who refuses it, with the reason."""
    path = folder / "job.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "url": url, "body": body}) + "\n")
    with index_jobs(open_sources([path], folder / "spool"), rules=Rules(unanswered=unanswered(model, {}))) as job:
        # What no engine answers is refused whole, also beside lines that are.
        try:
            find_purpose(model, {})(job)
        except InputInvalidError as refusal:
            return "file", str(refusal)
        return ("yes", "") if len(job.accepted) else ("line", job.error(0).message)


@pytest.mark.parametrize("kind", MODELS)
def test_the_table_of_the_docs_holds(model: Any, tmp_path: Path, kind: str) -> None:
    found = {name: outcome(model(kind), tmp_path, *line) for name, line in LINES.items()}
    assert documented()[kind] == {name: what for name, (what, _) in found.items()}
    for what, why in found.values():
        # A sentence that names the model and something to do.
        assert what == "yes" or ("m " in why and re.search(r"[:;] |\(", why) and "Error" not in why), why


def test_no_url_is_forgotten() -> None:
    assert {url for url, _ in LINES.values()} | {"/v1/completions", "/generate"} >= set(ENDPOINTS)
    assert {kind_of(config) for config in MODELS.values()} == set(ModelKind)


def documented() -> dict[str, dict[str, str]]:
    text = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
    table = next(part for part in text.split("\n\n") if part.startswith("| model |") and "`items`" in part)
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"architectures": ["LlamaForCausalLM"], "num_labels": 3}, 0),
        ({"architectures": ["BertModel"]}, 0),
        ({"architectures": [LLAMA]}, 2),
        ({"architectures": [LLAMA], "num_labels": 5}, 5),
        ({"architectures": [LLAMA], "num_labels": 5, "id2label": {"0": "a"}}, 1),
        ({"architectures": [LLAMA], "num_labels": "many", "id2label": []}, 2),
        ({"architectures": ["Qwen2ForRewardModel"], "id2label": {"0": "a", "1": "b"}}, 1),
        ({"architectures": [f"{LLAMA}WithNormal_Weights"], "num_labels": 10}, 1),
        ({"architectures": ["LlamaForClassification"], "classification_out_size": 4}, 4),
    ],
)
def test_numbers_of_a_head(config: dict[str, Any], labels: int) -> None:
    assert labels_of(config) == labels


def test_a_rerankers_template_on_a_model_with_a_head_is_named(model: Any, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(RERANKER)
    what, why = outcome(model("head of one number, such as a reward"), tmp_path, *LINES["`/v1/rerank`"])
    assert what == "line" and "give it another one (--engine-arg chat_template=FILE)" in why
