"""Lines that have a model say how well texts go together: pairs, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from blendrun.endpoints.base import Endpoint, Pair, PlainPrompt, ServingPath, refuse

SCORE, RERANK, CLASSIFY = "/v1/score", "/v1/rerank", "/v1/classify"
# vLLM's words for the two texts, or lists of them.
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
_LEFT = tuple(dict.fromkeys(left for left, _ in _PAIRS))
RERANKING = ServingPath(
    "sglang.srt.entrypoints.openai.serving_rerank:OpenAIServingRerank",
    "sglang.srt.entrypoints.openai.protocol:V1RerankReqInput",
    decodes=False,
)


class PairsEndpoint(Endpoint):
    """What score and rerank lines have in common."""

    prompt_field = "query"
    # What a generating engine scores by.
    reads_logprobs = True

    def plain_prompt(self, body: Mapping[str, Any]) -> PlainPrompt:
        """Of several the longest."""
        return max(self.prompts(body), key=characters)

    def prompt_characters(self, body: dict[str, Any]) -> int:
        return sum(characters(each) for each in self.prompts(body))

    def finish_reasons(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """None: what is not decoded does not end."""
        self.answers(answer)
        return ()


class Reads(StrEnum):
    """What a line wants of a model's head. pairs: a number of two texts together. items: all numbers of each text;
    labelled: the same, or how likely these labels are behind it. classes: which class a text is of.
    """

    PAIRS = "pairs"
    ITEMS = "items"
    LABELLED = "labelled"
    CLASSES = "classes"


def reads_of(url: str, body: Mapping[str, Any]) -> Reads | None:
    """What a valid line wants of a head; None where it wants none."""
    if url == RERANK or (url == SCORE and words_of_pairs(body) is not None):
        return Reads.PAIRS
    if url == SCORE:
        return Reads.ITEMS if body.get("label_token_ids") is None else Reads.LABELLED
    return Reads.CLASSES if url == CLASSIFY else None


def words_of_pairs(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of a score line's two sides; None where it asks in SGLang's words."""
    for left in _LEFT:
        if left in body:
            found = [words for words in _PAIRS if words[0] == left]
            return next((words for words in found if words[1] in body), found[0])
    return next((words for words in _PAIRS if words[1] in body and words[1] != "items"), None)


def pairs_of(body: Mapping[str, Any]) -> list[Pair]:
    """The pairs of a valid score line in vLLM's words."""
    words = words_of_pairs(body)
    assert words is not None, "asked in other words"
    left, right = (_texts(body.get(name)) for name in words)
    if len(left) == 1:
        left = left * len(right)
    return [Pair(*texts) for texts in zip(left, right, strict=True)]


def check_pairs(body: Mapping[str, Any], words: tuple[str, str]) -> None:
    """Raises LineError for a score line whose sides are no texts, or do not go together."""
    for name in words:
        check_texts(name, body.get(name))
    left, right = (_texts(body.get(name)) for name in words)
    if len(left) not in (1, len(right)):
        raise refuse(
            f"`{words[0]}` has {len(left):,} texts and `{words[1]}` {len(right):,}: give one for all, or one for each"
        )


def check_texts(name: str, value: Any) -> None:
    """Raises LineError for what is neither a text nor a list of them, or has an empty one."""
    texts = _texts(value)
    if not texts:
        raise refuse(f"`{name}` must be a text or a list of texts")
    for place, each in enumerate(texts):
        if not isinstance(each, str):
            raise refuse(f"`{name}[{place}]` must be a text: `{name}` must be a text or a list of texts")
        if not each.strip():
            raise refuse(f"`{name}[{place}]` is empty" if isinstance(value, list) else f"`{name}` is empty")


def asked_of_reranker(body: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
    """One pair as SGLang's reranker takes it; adapters go by the line's names."""
    named = {name: body[name] for name in ("model", "lora_path") if name in body}
    instruct = {"instruct": pair.instruct} if pair.instruct else {}
    return {**named, **instruct, "query": pair.query, "documents": [pair.document], "return_documents": False}


def scores_of(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """What SGLang's reranker said of each pair."""
    return [answer["results"][0]["score"] for answer in answers]


def characters(prompt: PlainPrompt) -> int:
    """Length of a prompt's text, estimated where there are only its tokens."""
    if isinstance(prompt, Pair):
        return len(prompt.query) + len(prompt.document)
    return len(prompt) if isinstance(prompt, str) else 4 * len(prompt)


def _texts(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else value if isinstance(value, list) else []
