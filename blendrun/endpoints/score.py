"""/v1/score, in SGLang's words and in vLLM's, each answered in its own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import (
    AnswerDemand,
    PlainPrompt,
    ServingPath,
    Usage,
    check_common,
    refuse,
    summed,
)
from blendrun.endpoints.fields import must_be, refuse_field
from blendrun.endpoints.inputs import are_ids, read_usage
from blendrun.endpoints.pairs import (
    RERANKING,
    SCORE,
    PairsEndpoint,
    asked_of_reranker,
    check_pairs,
    pairs_of,
    scores_of,
    words_of_pairs,
)
from blendrun.text import plural

# Words of SGLang's form, which mean nothing beside two texts.
_OF_ITEMS = ("query", "label_token_ids", "temperature", "score_extraction_token")
_FLAGS = ("apply_softmax", "item_first", "return_token_logprobs", "return_pooled_hidden_states")
_ITEMS = "`items` must be a text, a list of texts, or a list of lists of token ids"


class Score(PairsEndpoint):
    """How likely labels are behind a query and each of its items, or what a model's head says of them (SGLang's words:
    `query`, `items`); or how well two texts go together (vLLM's: `text_1` and `text_2`, and others for the same).
    """

    url = SCORE
    answer_field = "data"
    answer_content = ("score", (int, float, list))
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_score:OpenAIServingScore",
        "sglang.srt.entrypoints.openai.protocol:ScoringRequest",
        takes_template=False,
        decodes=False,
    )

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        if (words := words_of_pairs(body)) is not None:
            check_pairs(body, words)
            if beside := [name for name in (*_OF_ITEMS, *_FLAGS) if body.get(name) is not None]:
                raise refuse_field(beside[0], f"it goes with `query` and `items`, not with `{words[0]}`")
            return
        query, items = body.get("query"), items_of(body)
        if not items:
            raise refuse(f"{_ITEMS}; in other words, `text_1` and `text_2` are two texts, or lists of them")
        texts = all(isinstance(each, str) for each in items)
        if not texts and not all(are_ids(each) for each in items):
            raise refuse(_ITEMS)
        if query is not None and not (isinstance(query, str) if texts else are_ids(query)):
            raise refuse("`query` must be a text where `items` are texts, and token ids where they are token ids")
        # An empty text behind a query is what follows it.
        if any(not (query or each) for each in items):
            raise refuse("`query` and an item are both empty")
        _check_labels(body.get("label_token_ids"), len(items))
        for name in _FLAGS:
            if not isinstance(body.get(name), bool | None):
                raise must_be(name, "true or false", body[name])
        if (temperature := body.get("temperature")) == 0:
            raise must_be("temperature", "a number above 0", 0)
        if temperature not in (None, 1) and body.get("apply_softmax") is not True:
            raise refuse_field("temperature", "it goes with `apply_softmax`")

    def serving_of(self, body: Mapping[str, Any]) -> ServingPath | None:
        return self.serving if words_of_pairs(body) is None else RERANKING

    def prompts(self, body: Mapping[str, Any]) -> Sequence[PlainPrompt]:
        if words_of_pairs(body) is not None:
            return pairs_of(body)
        items: list[Any] = items_of(body)
        query = body.get("query") or items[0][:0]
        return [each + query if body.get("item_first") is True else query + each for each in items]

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        """Nothing is decoded. Plans know no request without an output token, so it counts as one."""
        return AnswerDemand(choices=1, max_new_tokens=1)

    def answers_to(self, body: dict[str, Any]) -> int:
        return len(items_of(body) if words_of_pairs(body) is None else pairs_of(body))

    def answers(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of either form."""
        scores = answer.get("scores")
        if isinstance(scores, list) and all(isinstance(each, list) for each in scores):
            return [{"score": each} for each in scores]
        return super().answers(answer)

    def parts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One for each pair. SGLang's own code divides a line in its own words."""
        if words_of_pairs(body) is None:
            return [body]
        return [asked_of_reranker(body, pair) for pair in pairs_of(body)]

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if words_of_pairs(body) is None:
            return answers[0]
        first = answers[0]
        usage = summed([answer["usage"] for answer in answers])
        return _response(f"score-{first['id']}", first["created"], first["model"], scores_of(answers)) | {
            "usage": usage
        }

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        model, told = body.get("model") or "default", {"usage": read_usage(usage.prompt)}
        if words_of_pairs(body) is not None:
            return _response("score-replay", 0, model, [0.0] * len(pairs_of(body))) | told
        labels = body.get("label_token_ids") or [0]
        rows = labels if isinstance(labels[0], list) else [labels] * len(items_of(body))
        return {"object": "scoring", "scores": [[0.0] * len(row) for row in rows], "model": model, **told}


def items_of(body: Mapping[str, Any]) -> list[Any]:
    """The items of a line in SGLang's words; empty where there are none."""
    items = body.get("items")
    return [items] if isinstance(items, str) else items if isinstance(items, list) else []


def _check_labels(labels: Any, items: int) -> None:
    good = labels is None or (isinstance(labels, list) and labels and (are_ids(labels) or all(map(_some_ids, labels))))
    if not good:
        raise refuse("`label_token_ids` must be a list of token ids, or one such list for each item")
    lists = labels if labels and isinstance(labels[0], list) else []
    if lists and len(lists) != items:
        have = f"{plural(len(lists), 'list')} for {plural(items, 'item')}"
        raise refuse(f"`label_token_ids` has {have}: give one for all, or one for each")
    if any(len(set(each)) < len(each) for each in lists or [labels or []]):
        raise refuse("`label_token_ids` has an id twice")


def _some_ids(value: Any) -> bool:
    return bool(value) and are_ids(value)


def _response(name: str, created: int, model: str, scores: Sequence[float]) -> dict[str, Any]:
    data = [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)]
    return {"id": name, "object": "list", "created": created, "model": model, "data": data}
