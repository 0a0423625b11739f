"""Lines that decode nothing: what they may say, what of them is read by itself, and how answers look."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from blendrun.endpoints.adapters import adapter_of
from blendrun.endpoints.base import AnswerDemand, Pair, Usage
from blendrun.endpoints.pairs import Reads
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.line import RequestLine, parse_line

EMBEDDINGS, SCORE, RERANK, CLASSIFY = "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/classify"


def read(url: str, body: dict[str, Any], rules: Rules | None = None) -> RequestLine:
    return parse_line(json.dumps({"custom_id": "1", "url": url, "body": body}).encode(), rules=rules or Rules())


def refusal(url: str, body: dict[str, Any], rules: Rules | None = None) -> str:
    with pytest.raises(LineError) as caught:
        read(url, body, rules)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    return caught.value.message


def part(document: str, **fields: Any) -> dict[str, Any]:
    return {"query": "q", "documents": [document], "return_documents": False, **fields}


@pytest.mark.parametrize("url", [EMBEDDINGS, CLASSIFY])
@pytest.mark.parametrize(
    ("written", "inputs"),
    [
        ("a", ["a"]),
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        ([5, 6.0], [[5, 6]]),
        ([[5, 6]], [[5, 6]]),
        ([[5], [6.0, 7]], [[5], [6, 7]]),
    ],
)
def test_an_input_is_a_text_or_token_ids_or_many(url: str, written: object, inputs: list[Any]) -> None:
    line = read(url, {"input": written, "model": "m"})
    assert list(line.endpoint.prompts(line.body)) == inputs
    assert line.endpoint.parts(line.body) == [{"model": "m", "input": each} for each in inputs]
    assert line.endpoint.answers_to(line.body) == len(inputs)
    assert line.endpoint.demand(line.body) == AnswerDemand(1, 1), "plans know no request without a token"


@pytest.mark.parametrize("url", [EMBEDDINGS, CLASSIFY])
@pytest.mark.parametrize("wrong", [None, [], {}, 5, [True], [-1], [1.5], ["a", 1], [[1], "a"], [{"text": "a"}]])
def test_what_is_no_input_is_named(url: str, wrong: object) -> None:
    assert "`input` must be a text, a list of token ids, or a list of several of one kind" in refusal(
        url, {"input": wrong}
    )


@pytest.mark.parametrize(("wrong", "name"), [("", "`input`"), (" ", "`input`"), (["a", ""], "`input[1]`")])
def test_an_empty_input_is_named(wrong: object, name: str) -> None:
    assert refusal(EMBEDDINGS, {"input": wrong}) in (f"{name} is empty", f"{name}: {name} is empty")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"encoding_format": "hex"}, "`encoding_format` must be"),
        ({"dimensions": 0}, "`dimensions` must be a whole number of 1 or more"),
        ({"dimensions": True}, "`dimensions` must be"),
        ({"dimension": 4}, "did you mean `dimensions`?"),
        ({"truncate_prompt_tokens": 5}, "prompts are not cut"),
        ({"max_tokens": 5}, "`max_tokens` would have no effect"),
        ({"embed_overrides": [[[1.0]]]}, "vectors in the place of tokens"),
    ],
)
def test_fields_of_an_embedding(fields: dict[str, Any], word: str) -> None:
    assert word in refusal(EMBEDDINGS, {"input": "a", **fields})
    assert read(EMBEDDINGS, {"input": "a", "encoding_format": "base64", "dimensions": 8.0, "user": "u"})


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (EMBEDDINGS, {"input": ["a", "b"]}),
        (CLASSIFY, {"input": ["a", "b"]}),
        (SCORE, {"query": "q", "items": ["a", "b"], "label_token_ids": [1]}),
        (SCORE, {"text_1": "q", "text_2": ["a", "b"]}),
        (RERANK, {"query": "q", "documents": ["a", "b"]}),
    ],
)
def test_each_part_runs_on_the_adapter_of_its_line(url: str, body: dict[str, Any]) -> None:
    rules = Rules(adapters=("sql", "law"), base=("tiny", "default"))
    for named in ({"model": "sql"}, {"model": "tiny:sql"}, {"lora_path": "sql"}):
        line = read(url, body | named, rules)
        assert {adapter_of(each, rules.adapters) for each in line.endpoint.parts(line.body)} == {"sql"}
    assert "'sqll' is not served; served are tiny, default, sql, law" in refusal(url, body | {"model": "sqll"}, rules)
    assert "this run declares none" in refusal(url, body | {"lora_path": "sql"})


def test_answers_to_parts_are_one_in_their_order() -> None:
    endpoint = ENDPOINTS[EMBEDDINGS]
    each = {"object": "embedding", "index": 0}
    usage = {"prompt_tokens": 2, "total_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    answers = [
        {"model": "m", "object": "list", "usage": usage, "data": [each | {"embedding": [number]}]}
        for number in (0.5, 0.25)
    ]
    joined = endpoint.joined({"input": ["a", "b"]}, answers)
    answer = CreateEmbeddingResponse.model_validate(joined, strict=True)
    assert [(each.index, each.embedding) for each in answer.data] == [(0, [0.5]), (1, [0.25])]
    assert endpoint.usage(joined) == Usage(4, 2, 0) and endpoint.finish_reasons(joined) == ()


@pytest.mark.parametrize("label", ["Default", "LABEL_0"])
def test_one_class_alone_is_no_answer(label: str) -> None:
    answer = {"data": [{"index": 0, "label": label, "probs": [1.0]}], "usage": {"prompt_tokens": 1}}
    with pytest.raises(LineError, match="gives no classes: /v1/score with the texts as `items` has its numbers"):
        ENDPOINTS[CLASSIFY].joined({"input": "a"}, [answer])


class TestPairs:
    @pytest.mark.parametrize(
        ("body", "documents"),
        [
            ({"text_1": "q", "text_2": "a"}, ["a"]),
            ({"text_1": "q", "text_2": ["a", "b"]}, ["a", "b"]),
            ({"queries": ["q", "q"], "documents": ["a", "b"]}, ["a", "b"]),
            ({"queries": "q", "items": ["a", "b"]}, ["a", "b"]),
            ({"data_1": ["q"], "data_2": ["a", "b"]}, ["a", "b"]),
        ],
    )
    def test_vllms_words(self, body: dict[str, Any], documents: list[str]) -> None:
        line = read("/score", body | {"model": "m"})
        assert list(line.endpoint.prompts(line.body)) == [Pair("q", each) for each in documents]
        assert line.endpoint.parts(line.body) == [part(each, model="m") for each in documents]
        assert line.endpoint.serving_of(line.body) == ENDPOINTS[RERANK].serving

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"text_1": "q"}, "`text_2` must be a text or a list of texts"),
            ({"documents": ["a"]}, "`queries` must be a text or a list of texts"),
            ({"text_1": ["q", "r"], "text_2": ["a"]}, "`text_1` has 2 texts and `text_2` 1"),
            ({"text_1": "q", "text_2": ["a", " "]}, "`text_2[1]` is empty"),
            ({"text_1": "q", "text_2": [[1]]}, "`text_2` must be a text or a list of texts"),
            ({"text_1": "q", "text_2": "a", "label_token_ids": [1]}, "`label_token_ids`: it goes with `query`"),
            ({"query": "q"}, "in other words, `text_1` and `text_2`"),
            ({"query": [1], "items": ["a"]}, "`query` must be a text where"),
            ({"query": "q", "items": ["a"], "label_token_ids": []}, "`label_token_ids` must be"),
            ({"query": "q", "items": ["a"], "label_token_ids": [[1], [2]]}, "has 2 lists for 1 item: give one"),
            ({"query": "q", "items": ["a", "b"], "label_token_ids": [[1], [2, 2]]}, "has an id twice"),
            ({"query": "q", "items": ["a"], "label_token_ids": [1], "temperature": 2}, "goes with `apply_softmax`"),
            ({"text_1": "q", "text_2": ["a", 5]}, "`text_2[1]` must be a text"),
            ({"query": "q", "items": ["a"], "apply_softmax": 1}, "`apply_softmax` must be true or false"),
            ({"query": "q", "items": ["a"], "temperature": 0}, "`temperature` must be a number above 0"),
        ],
    )
    def test_what_does_not_go_together_is_named(self, body: dict[str, Any], message: str) -> None:
        assert message in refusal(SCORE, body)

    def test_they_are_answered_in_vllms_form(self) -> None:
        body = {"text_1": "q", "text_2": ["a", "b"]}
        found = ENDPOINTS[SCORE].joined(body, [reranked(0.25), reranked(0.75)])
        assert found == {
            "id": "score-x",
            "object": "list",
            "created": 7,
            "model": "m",
            "data": [{"index": 0, "object": "score", "score": 0.25}, {"index": 1, "object": "score", "score": 0.75}],
            "usage": {"prompt_tokens": 6, "total_tokens": 6},
        }
        assert ENDPOINTS[SCORE].finish_reasons(found) == ()

    def test_sglangs_words_are_one_request_to_it(self) -> None:
        line = read(SCORE, {"query": "q", "items": ["a", "b"], "label_token_ids": [1, 2], "item_first": True})
        assert list(line.endpoint.prompts(line.body)) == ["aq", "bq"]
        assert line.endpoint.parts(line.body) == [line.body]
        assert line.endpoint.answers_to(line.body) == len(line.endpoint.answers({"scores": [[0.1], [0.2]]})) == 2
        ids = read(SCORE, {"query": [1.0, 2], "items": [[3], [4, 5.0]], "label_token_ids": [[1.0], [2]]})
        assert list(ids.endpoint.prompts(ids.body)) == [[1, 2, 3], [1, 2, 4, 5]]

    def test_what_scores_no_pairs_refuses_them_before_there_is_an_engine(self) -> None:
        rules = Rules(unanswered={Reads.PAIRS: "this model does not"})
        assert refusal(RERANK, {"query": "q", "documents": ["a"]}, rules) == "this model does not"
        assert refusal(SCORE, {"text_1": "q", "text_2": "a"}, rules) == "this model does not"
        assert read(SCORE, {"query": "q", "items": ["a"], "label_token_ids": [1]}, rules)


def reranked(score: float) -> dict[str, Any]:
    """What the engine makes of one pair."""
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"id": "x", "created": 7, "model": "m", "usage": usage, "results": [{"index": 0, "score": score}]}


class TestRerank:
    def test_documents_come_best_first_equal_ones_as_they_stood(self) -> None:
        body = {"query": "q", "documents": ["a", "b", "c"], "top_n": 2}
        found = ENDPOINTS[RERANK].joined(body, [reranked(0.5), reranked(0.9), reranked(0.5)])
        assert found["results"] == [
            {"index": 1, "document": {"text": "b"}, "relevance_score": 0.9},
            {"index": 0, "document": {"text": "a"}, "relevance_score": 0.5},
        ]
        assert (found["id"], found["model"], found["usage"]["prompt_tokens"]) == ("rerank-x", "m", 9)

    @pytest.mark.parametrize(("most", "shown"), [(None, 2), (0, 2), (1, 1), (5, 2)])
    def test_top_n(self, most: int | None, shown: int) -> None:
        body = {"query": "q", "documents": ["a", "b"], "top_n": most, "return_documents": False}
        assert ENDPOINTS[RERANK].answers_to(body) == shown
        found = ENDPOINTS[RERANK].joined(body, [reranked(0.5), reranked(0.9)])
        assert len(found["results"]) == shown and "document" not in found["results"][0]

    def test_documents_as_others_write_them(self) -> None:
        line = read("/v2/rerank", {"query": "q", "documents": ["a", {"text": "b"}], "instruct": "i"})
        assert line.endpoint.parts(line.body) == [part("a", instruct="i"), part("b", instruct="i")]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"documents": ["a"]}, "`query` must be a text"),
            ({"query": "q", "documents": "a"}, "`documents` must be a list of texts"),
            ({"query": "q", "documents": []}, "`documents` must be a text or a list of texts"),
            ({"query": "q", "documents": [{"text": "a", "title": "t"}]}, "`documents[0]` must be a text, or an object"),
            ({"query": "q", "documents": ["a", 5]}, "`documents[1]` must be a text"),
            ({"query": "q", "documents": ["a"], "top_n": -1}, "`top_n` must be a whole number of 0 (for all) or more"),
            ({"query": "q", "documents": ["a"], "return_documents": "no"}, "`return_documents` must be"),
        ],
    )
    def test_what_cannot_be_reranked_is_named(self, body: dict[str, Any], message: str) -> None:
        assert message in refusal(RERANK, body)

    def test_a_list_of_sglangs_servers_is_the_same_in_one_form(self) -> None:
        told = [
            {"score": 0.5, "index": 1, "document": "b", "meta_info": {"prompt_tokens": 4}},
            {"score": 0.1, "index": 0},
        ]
        assert ENDPOINTS[RERANK].in_one_form(told) == {
            "results": [
                {"index": 1, "relevance_score": 0.5, "document": {"text": "b"}},
                {"index": 0, "relevance_score": 0.1},
            ],
            "usage": {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4},
        }
        ours: dict[str, Any] = {"results": []}
        assert ENDPOINTS[RERANK].in_one_form(ours) is ours


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *((f"{before}/{name}", f"/v1/{name}") for name in ("embeddings", "score", "rerank", "classify")
          for before in ("", "/v1", "v1", "https://host/v1", "/openai/v1")),
        ("/openai/deployments/d/embeddings?api-version=1", EMBEDDINGS),
        ("/v2/rerank", RERANK),
    ],
)  # fmt: skip
def test_urls_as_others_write_them(given: str, meant: str) -> None:
    body = {"input": "a", "text_1": "q", "text_2": "a", "query": "q", "documents": ["a"]}
    fields = {EMBEDDINGS: ("input",), CLASSIFY: ("input",), SCORE: ("text_1", "text_2"), RERANK: ("query", "documents")}
    assert read(given, {name: body[name] for name in fields[meant]}).endpoint.url == meant


@pytest.mark.parametrize(
    ("url", "body", "count"),
    [
        (EMBEDDINGS, {"input": ["a", "b"], "dimensions": 3}, 2),
        (CLASSIFY, {"input": ["a", "b"]}, 2),
        (SCORE, {"text_1": "q", "text_2": ["a", "b"]}, 2),
        (SCORE, {"query": "q", "items": ["a", "b"], "label_token_ids": [1, 2, 3]}, 2),
        (RERANK, {"query": "q", "documents": ["a", "b"], "top_n": 1}, 1),
    ],
)
def test_placeholders_have_the_shape_of_answers(url: str, body: dict[str, Any], count: int) -> None:
    endpoint = ENDPOINTS[url]
    answer = json.loads(json.dumps(endpoint.replay_body(body, "", Usage(5, 0, 1), "stop")))
    assert len(endpoint.answers(answer)) == count == endpoint.answers_to(body)
    assert endpoint.finish_reasons(answer) == () and endpoint.usage(answer) == Usage(5, 0, 0)
    assert endpoint.answer_content is not None
    name, kinds = endpoint.answer_content
    assert all(isinstance(each[name], kinds) for each in endpoint.answers(answer))


def test_a_placeholder_in_base64_has_the_numbers_of_the_other_form() -> None:
    endpoint = ENDPOINTS[EMBEDDINGS]
    body = {"input": "a", "dimensions": 5, "encoding_format": "base64"}
    (told,) = endpoint.replay_body(body, "", Usage(), "stop")["data"]
    assert len(base64.b64decode(told["embedding"])) == 20
