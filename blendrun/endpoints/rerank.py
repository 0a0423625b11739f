"""/v1/rerank, answered in vLLM's form, which is Jina's and Cohere's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import AnswerDemand, Pair, PlainPrompt, Usage, check_common, refuse, summed
from blendrun.endpoints.fields import must_be
from blendrun.endpoints.inputs import read_usage
from blendrun.endpoints.pairs import RERANK, RERANKING, PairsEndpoint, asked_of_reranker, check_texts, scores_of


class Rerank(PairsEndpoint):
    """Documents in the order in which they answer a query, the best first."""

    url = RERANK
    answer_field = "results"
    answer_content = ("relevance_score", (int, float))
    serving = RERANKING

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        if not isinstance(body.get("query"), str):
            raise refuse("`query` must be a text")
        check_texts("query", body["query"])
        if not isinstance(body.get("documents"), list):
            raise refuse("`documents` must be a list of texts")
        for place, each in enumerate(body["documents"]):
            if isinstance(each, dict):
                raise refuse(f"`documents[{place}]` must be a text, or an object with nothing but its `text`")
        check_texts("documents", body["documents"])
        if (most := body.get("top_n")) is not None and (type(most) is not int or most < 0):
            raise must_be("top_n", "a whole number of 0 (for all) or more", most)
        for name, kind, what in (("instruct", str, "a text"), ("return_documents", bool, "true or false")):
            if not isinstance(body.get(name), kind | None):
                raise must_be(name, what, body[name])

    def prompts(self, body: Mapping[str, Any]) -> Sequence[PlainPrompt]:
        return _pairs(body)

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        """Nothing is decoded. Plans know no request without an output token, so it counts as one."""
        return AnswerDemand(choices=1, max_new_tokens=1)

    def answers_to(self, body: dict[str, Any]) -> int:
        return min(body.get("top_n") or len(body["documents"]), len(body["documents"]))

    def parts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One for each document."""
        return [asked_of_reranker(body, pair) for pair in _pairs(body)]

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return _response(body, scores_of(answers)) | {
            "id": f"rerank-{answers[0]['id']}",
            "model": answers[0]["model"],
            "usage": summed([answer["usage"] for answer in answers]),
        }

    def in_one_form(self, answer: Any) -> Any:
        """SGLang's servers give a list of `score` and `document`."""
        if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
            return answer
        facts = [each.get("meta_info") for each in answer]
        tokens = [each.get("prompt_tokens") for each in facts if isinstance(each, dict)]
        results = []
        for each in answer:
            result = {"index": each.get("index"), "relevance_score": each.get("score")}
            document = {"document": {"text": each["document"]}} if isinstance(each.get("document"), str) else {}
            results.append(result | document)
        return {"results": results, "usage": read_usage(sum(each for each in tokens if isinstance(each, int)))}

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        return {
            "id": "rerank-replay",
            "model": body.get("model") or "default",
            "usage": read_usage(usage.prompt),
            **_response(body, [0.0] * len(body["documents"])),
        }


def _pairs(body: Mapping[str, Any]) -> list[Pair]:
    instruct = body.get("instruct") or ""
    return [Pair(body["query"], document, instruct) for document in body["documents"]]


def _response(body: Mapping[str, Any], scores: Sequence[float]) -> dict[str, Any]:
    """Equal scores in the order of the documents."""
    documents = body["documents"]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[: body.get("top_n") or None]
    shown = body.get("return_documents") is not False
    results = []
    for place in order:
        document = {"document": {"text": documents[place]}} if shown else {}
        results.append({"index": place, **document, "relevance_score": scores[place]})
    return {"results": results}
