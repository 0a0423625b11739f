"""Lines that decode nothing on the real runtime. All models are tiny and random: what counts is whose numbers they are.

Each engine is asked twice in its own process, by lines and by SGLang's own methods, one request after the other.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from openai.types import CreateEmbeddingResponse

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from tests.command import blendrun, lines_of
from tests.tiny_model import write_tiny_cross_encoder, write_tiny_model

pytestmark = pytest.mark.runtime

TEXTS = ["The sky is blue.", "The harbour office opens at six."]
FRANCE = "What is the capital of France?"
CAPITALS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]
# What vLLM shows for its run-batch, model names and all.
VLLM_LINES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/score", {"model": "BAAI/bge-reranker-v2-m3", "text_1": FRANCE, "text_2": CAPITALS}),
    ("/score", {"model": "BAAI/bge-reranker-v2-m3", "queries": FRANCE, "documents": CAPITALS}),
    ("/v1/score", {"model": "BAAI/bge-reranker-v2-m3", "data_1": [FRANCE, FRANCE], "data_2": CAPITALS}),
    ("/rerank", {"model": "BAAI/bge-reranker-v2-m3", "query": FRANCE, "documents": CAPITALS}),
    ("/v1/rerank", {"model": "BAAI/bge-reranker-v2-m3", "query": FRANCE, "documents": CAPITALS, "top_n": 1}),
    ("/v2/rerank", {"model": "BAAI/bge-reranker-v2-m3", "query": FRANCE, "documents": CAPITALS, "top_n": 0}),
]
YES_OR_NO = (
    'Note that the answer can only be "yes" or "no".\n{% for message in messages %}{{ message.content }}\n{% endfor %}'
)


@dataclass
class Asked:
    """What came of lines, in order, and what SGLang's own methods gave."""

    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    encoded: list[Any] = field(default_factory=list)
    scored: list[Any] = field(default_factory=list)

    def body(self, line: int) -> dict[str, Any]:
        status, body = self.answers[line]
        assert status == 200, body
        return body


def ask(
    model: Path,
    lines: list[tuple[str, dict[str, Any]]],
    *,
    encode: tuple[str, ...] = (),
    score: tuple[dict[str, Any], ...] = (),
    **server_args: Any,
) -> Asked:
    """One engine's word on all of that."""
    asked: dict[str, Any] = {"model": str(model), "lines": lines, "encode": encode, "score": score}
    asked["server_args"] = {"max_total_tokens": 4096, "disable_radix_cache": True, **server_args}
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.read_engine"],
        input=orjson.dumps(asked),
        env=os.environ | environment(EngineSettings(str(model), "cpu", threads=1)),
        capture_output=True,
    )
    found = Asked()
    places = {"ANSWER": found.answers, "ENCODED": found.encoded, "SCORED": found.scored}
    for line in done.stdout.decode().splitlines():
        what, _, said = line.partition(" ")
        if what in places:
            places[what].append(json.loads(said))
    assert len(found.answers) == len(lines), done.stderr.decode()[-4000:]
    return found


@pytest.fixture(scope="session")
def embedded(tiny_model: Path) -> Asked:
    lines: list[tuple[str, dict[str, Any]]] = [
        *(("/v1/embeddings", {"input": text}) for text in TEXTS),
        ("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}),
        ("/v1/embeddings", {"input": [[504, 3575], [282, 4649, 314]]}),
        ("/v1/embeddings", {"input": [504, 3575], "model": "any"}),
        ("/v1/embeddings", {"input": [504, 49152]}),
        ("/v1/embeddings", {"input": ["short", "word " * 9000]}),
        ("/v1/embeddings", {"input": "x", "dimensions": 4}),
    ]
    return ask(tiny_model, lines, encode=tuple(TEXTS), is_embedding=True)


class TestEmbeddings:
    @pytest.mark.parametrize("number", range(len(TEXTS)))
    def test_a_vector_is_that_of_the_engine_bit_for_bit(self, embedded: Asked, number: int) -> None:
        answer = CreateEmbeddingResponse.model_validate(embedded.body(number), strict=True)
        assert answer.data[0].embedding == embedded.encoded[number]
        assert answer.model == "tiny" and answer.usage.prompt_tokens == answer.usage.total_tokens > 0

    def test_of_several_inputs_each_has_its_vector_in_its_place(self, embedded: Asked) -> None:
        answer = embedded.body(2)
        vectors = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]]
        np.testing.assert_allclose(vectors, embedded.encoded, rtol=1e-4, atol=1e-6)
        assert [each["index"] for each in answer["data"]] == [0, 1]
        of_each = [embedded.body(number)["usage"]["prompt_tokens"] for number in range(2)]
        assert answer["usage"]["prompt_tokens"] == sum(of_each)

    def test_token_ids(self, embedded: Asked) -> None:
        first = embedded.body(3)["data"][0]["embedding"]
        np.testing.assert_allclose(first, embedded.body(4)["data"][0]["embedding"], rtol=1e-4, atol=1e-6)

    def test_what_cannot_be_embedded_is_refused_by_name(self, embedded: Asked) -> None:
        errors = [body["error"] for status, body in embedded.answers[5:] if status == 400]
        assert [each["code"] for each in errors] == [*("invalid_request", "context_length_exceeded", "invalid_request")]
        assert "vocabulary" in errors[0]["message"] and "matryoshka" in errors[2]["message"]


@pytest.fixture(scope="session")
def scored(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    template = tmp_path_factory.mktemp("template") / "yes-or-no.jinja"
    template.write_text(YES_OR_NO)
    lines: list[tuple[str, dict[str, Any]]] = [
        *(("/v1/score", arguments) for arguments in SCORES),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": FRANCE}], "max_tokens": 2}),
        ("/v1/rerank", {"query": FRANCE, "documents": CAPITALS}),
        ("/v1/score", {"text_1": FRANCE, "text_2": CAPITALS}),
        ("/v1/score", {"query": FRANCE, "items": TEXTS}),
        ("/v1/score", {"query": [1, 49152], "items": [[2]], "label_token_ids": [3]}),
    ]
    return ask(tiny_model, lines, score=tuple(SCORES), chat_template=str(template))


SCORES: list[dict[str, Any]] = [
    {"query": FRANCE, "items": CAPITALS, "label_token_ids": [504, 505, 506], "apply_softmax": True},
    {"query": FRANCE, "items": CAPITALS[0], "label_token_ids": [504], "item_first": True},
    {"query": [504, 3575], "items": [[282], [4649, 314]], "label_token_ids": [[504, 7], [505, 8]]},
]


class TestScoresOfAnEngineThatGenerates:
    @pytest.mark.parametrize("number", range(len(SCORES)))
    def test_they_are_those_of_the_engine_bit_for_bit(self, scored: Asked, number: int) -> None:
        answer = scored.body(number)
        assert answer["object"] == "scoring" and answer["scores"] == scored.scored[number]
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0

    def test_beside_a_chat(self, scored: Asked) -> None:
        assert scored.body(len(SCORES))["choices"][0]["message"]["role"] == "assistant"

    def test_pairs_by_yes_and_no_where_the_template_is_a_rerankers(self, scored: Asked) -> None:
        reranked, pairs = scored.body(len(SCORES) + 1), scored.body(len(SCORES) + 2)
        numbers = [each["score"] for each in pairs["data"]]
        assert all(0 < each < 1 for each in numbers)
        best_first = sorted(range(2), key=lambda place: -numbers[place])
        assert [each["index"] for each in reranked["results"]] == best_first
        assert reranked["usage"]["prompt_tokens"] == pairs["usage"]["prompt_tokens"] > 20

    def test_what_cannot_be_scored_is_refused_by_name(self, scored: Asked) -> None:
        (_, without), (_, outside) = scored.answers[-2:]
        assert "label_token_ids is required" in without["error"]["message"]
        assert "vocabulary" in outside["error"]["message"]


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    model = write_tiny_model(tmp_path_factory.mktemp("head") / "classes", labels=3)
    lines: list[tuple[str, dict[str, Any]]] = [
        ("/v1/classify", {"input": TEXTS[0]}),
        ("/v1/classify", {"input": [[504, 3575], [282, 4649, 314]]}),
        ("/v1/score", {"query": FRANCE, "items": CAPITALS}),
    ]
    score = {"query": FRANCE, "items": CAPITALS}
    return ask(model, lines, encode=(TEXTS[0],), score=(score,), is_embedding=True)


class TestModelsWithAHead:
    def test_classes_are_what_the_heads_numbers_say(self, classified: Asked) -> None:
        (found,) = classified.body(0)["data"]
        numbers = np.exp(np.array(classified.encoded[0], dtype=np.float64))
        np.testing.assert_allclose(found["probs"], numbers / numbers.sum(), rtol=1e-5)
        assert found["label"] == f"class-{int(numbers.argmax())}" and found["num_classes"] == 3

    def test_of_several_inputs_each_has_its_class(self, classified: Asked) -> None:
        assert [each["index"] for each in classified.body(1)["data"]] == [0, 1]

    def test_scores_are_those_of_the_engine(self, classified: Asked) -> None:
        # The engine has both items in one batch: its products are rounded in another order.
        np.testing.assert_allclose(classified.body(2)["scores"], classified.scored[0], rtol=1e-5)
        assert np.shape(classified.scored[0]) == (2, 3)


def test_vllms_example_lines_run_unchanged_on_a_cross_encoder(tmp_path: Path) -> None:
    model = write_tiny_cross_encoder(tmp_path / "pairs")
    job, output = tmp_path / "job.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": f"request-{row}", "method": "POST", "url": url, "body": body}
        for row, (url, body) in enumerate(VLLM_LINES)
    ]
    job.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    done = blendrun("run", job, "--model", model, "--device", "cpu", "--threads", "1", "-o", output, process=True)
    assert done.returncode == 0, done.stderr
    bodies = [record["response"]["body"] for record in lines_of(output)]
    scores = [[each["score"] for each in body["data"]] for body in bodies[:3]]
    np.testing.assert_allclose(scores, [scores[0]] * 3, rtol=1e-4)
    assert all(0 < each < 1 and body["object"] == "list" for body in bodies[:3] for each in scores[0])
    order = sorted(range(2), key=lambda place: -scores[0][place])
    for body, shown in zip(bodies[3:], (2, 1, 2), strict=True):
        assert [each["index"] for each in body["results"]] == order[:shown]
        assert body["results"][0]["document"] == {"text": CAPITALS[order[0]]}
        np.testing.assert_allclose(body["results"][0]["relevance_score"], scores[0][order[0]], rtol=1e-4)
    assert json.loads((tmp_path / "out.jsonl.blendrun" / "manifest.json").read_text())["answer_settings"][
        "is_embedding"
    ]
