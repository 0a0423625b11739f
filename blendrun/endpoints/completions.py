"""/v1/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import (
    AnswerDemand,
    Endpoint,
    ServingPath,
    Usage,
    check_common,
    numbered,
    refuse,
    summed,
    usage_body,
)


class Completions(Endpoint):
    """Plain text completion. A line of several prompts has the answers to all of them, in order."""

    url = "/v1/completions"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_completions:OpenAIServingCompletion",
        "sglang.srt.entrypoints.openai.protocol:CompletionRequest",
    )
    prompt_field = "prompt"
    bound_fields = ("max_tokens",)
    needs_bound = True
    answer_content = ("text", (str,))

    def validate(self, body: dict[str, Any]) -> None:
        check_common({name: value for name, value in body.items() if name != "max_tokens"} if scores(body) else body)
        prompts = prompts_of(body)
        if not prompts:
            raise refuse("`prompt` must be a string, a list of token ids, or a list of several of one kind")
        for each in prompts:
            if not each:
                raise refuse("`prompt` is empty")
            if not isinstance(each, str) and not _are_ids(each):
                raise refuse("`prompt` must be a string, a list of token ids, or a list of several of one kind")

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        """Each prompt of a line has its own answers. A scored prompt has none, and costs what one token costs."""
        asked = super().demand(body)
        return AnswerDemand(asked.choices * len(prompts_of(body)), 1 if scores(body) else asked.max_new_tokens)

    def plain_prompt(self, body: Mapping[str, Any]) -> str | list[Any]:
        """Of several the longest."""
        prompt: str | list[Any] = max(prompts_of(body), key=len)
        return prompt

    def prompt_characters(self, body: dict[str, Any]) -> int:
        return sum(len(each) if isinstance(each, str) else 4 * len(each) for each in prompts_of(body))

    def parts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One for each prompt."""
        prompts = prompts_of(body)
        return [body | {"prompt": each} for each in prompts] if len(prompts) > 1 else [body]

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Choices in the order of the prompts, tokens together."""
        if len(answers) == 1:
            return answers[0]
        usage = summed([answer["usage"] for answer in answers])
        return answers[0] | {"choices": numbered(answers, "choices"), "usage": usage}

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        choice = {"finish_reason": reason, "logprobs": None, "text": text}
        return {
            "id": "cmpl-replay",
            "object": "text_completion",
            "created": 0,
            "model": body.get("model") or "default",
            "system_fingerprint": "blendrun-replay",
            "choices": [{"index": place, **choice} for place in range(self.demand(body).choices)],
            "usage": usage_body(usage),
        }


def prompts_of(body: Mapping[str, Any]) -> list[Any]:
    """The prompts of a body in one spelling, each a text or token ids; empty where there is none."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        return []
    return prompt if isinstance(prompt[0], str | list) else [prompt]


def scores(body: Mapping[str, Any]) -> bool:
    """Whether a body asks for the log probabilities of its prompt and no token more."""
    return body.get("max_tokens") == 0 and body.get("echo") is True and body.get("logprobs") is not None


def _are_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in prompt)
