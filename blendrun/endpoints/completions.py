"""/v1/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.endpoints.base import Endpoint, ServingPath, Usage, check_common, refuse, usage_body


class Completions(Endpoint):
    """Plain text completion. One prompt a line: a batch has no use for a batch inside a line."""

    url = "/v1/completions"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_completions:OpenAIServingCompletion",
        "sglang.srt.entrypoints.openai.protocol:CompletionRequest",
    )
    prompt_field = "prompt"
    bound_fields = ("max_tokens",)
    needs_bound = True

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            if not prompt:
                raise refuse("`prompt` is empty")
        elif isinstance(prompt, list) and prompt:
            if not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
                raise refuse("`prompt` must be one string or one list of token ids; write one line a prompt")
        else:
            raise refuse("`prompt` must be a string or a list of token ids")

    def plain_prompt(self, body: Mapping[str, Any]) -> str | list[Any]:
        prompt: str | list[Any] = body["prompt"]
        return prompt

    def prompt_characters(self, body: dict[str, Any]) -> int:
        prompt = body["prompt"]
        return len(prompt) if isinstance(prompt, str) else 4 * len(prompt)

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
