"""Lines with an `input`: one text or many, or token ids, each read by itself and with an answer of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import (
    AnswerDemand,
    Endpoint,
    PlainPrompt,
    check_common,
    numbered,
    refuse,
    summed,
)

_CHARACTERS_PER_TOKEN = 4


class InputsEndpoint(Endpoint):
    """What embeddings and classes have in common."""

    prompt_field = "input"
    answer_field = "data"

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        inputs = inputs_of(body)
        if not inputs:
            raise refuse("`input` must be a text, a list of token ids, or a list of several of one kind")
        for place, each in enumerate(inputs):
            name = f"`input[{place}]`" if len(inputs) > 1 else "`input`"
            if type(each) is not type(inputs[0]) or not (isinstance(each, str) or are_ids(each)):
                which = f"{name}: " if len(inputs) > 1 else ""
                raise refuse(f"{which}`input` must be a text, a list of token ids, or a list of several of one kind")
            if not (each.strip() if isinstance(each, str) else each):
                raise refuse(f"{name} is empty")

    def plain_prompt(self, body: Mapping[str, Any]) -> PlainPrompt:
        """Of several the longest."""
        prompt: PlainPrompt = max(inputs_of(body), key=len)
        return prompt

    def prompts(self, body: Mapping[str, Any]) -> Sequence[PlainPrompt]:
        return inputs_of(body)

    def prompt_characters(self, body: dict[str, Any]) -> int:
        return sum(characters(each) for each in inputs_of(body))

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        """Nothing is decoded. Plans know no request without an output token, so it counts as one."""
        return AnswerDemand(choices=1, max_new_tokens=1)

    def answers_to(self, body: dict[str, Any]) -> int:
        return len(inputs_of(body))

    def finish_reasons(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """None: what is not decoded does not end."""
        self.answers(answer)
        return ()

    def parts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One for each input."""
        inputs = inputs_of(body)
        return [body | {"input": each} for each in inputs]

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """In the order of the inputs, tokens together."""
        usage = summed([answer["usage"] for answer in answers])
        return answers[0] | {"data": numbered(answers, "data"), "usage": usage}


def inputs_of(body: Mapping[str, Any]) -> list[Any]:
    """The inputs of a body in one spelling, each a text or token ids; empty where there is none."""
    given = body.get("input")
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        return []
    return given if isinstance(given[0], str | list) else [given]


def are_ids(value: Any) -> bool:
    """Whether it is a list of whole numbers of 0 or more."""
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def characters(prompt: PlainPrompt) -> int:
    """Length of a prompt's text, estimated where there are only its tokens."""
    return len(prompt) if isinstance(prompt, str) else _CHARACTERS_PER_TOKEN * len(prompt)


def read_usage(tokens: int) -> dict[str, int]:
    """`usage` of a request that decodes nothing."""
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
