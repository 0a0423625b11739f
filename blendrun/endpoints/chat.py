"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.endpoints.base import Endpoint, ServingPath, Usage, check_common, refuse, usage_body


class ChatCompletions(Endpoint):
    """Chat through SGLang's own serving class: templates, tools, parsers and schemas are the runtime's."""

    url = "/v1/chat/completions"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat",
        "sglang.srt.entrypoints.openai.protocol:ChatCompletionRequest",
    )
    prompt_field = "messages"
    bound_fields = ("max_completion_tokens", "max_tokens")
    answer_content = ("message", (dict,))

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise refuse("`messages` must be a list of at least one message")
        for place, message in enumerate(messages):
            if not isinstance(message, dict):
                raise refuse(f"`messages[{place}]` must be an object, not {type(message).__name__}")
            if not isinstance(message.get("role"), str):
                raise refuse(f"`messages[{place}].role` must be a string such as 'user'")

    def plain_prompt(self, body: Mapping[str, Any]) -> list[Any] | None:
        """SGLang takes token ids in place of what the template makes of the messages."""
        ids = body.get("input_ids")
        return ids if ids is None or isinstance(ids, list) else [ids]

    def prompt_characters(self, body: dict[str, Any]) -> int:
        return sum(_text_length(message.get("content")) for message in body["messages"])

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        choice = {
            "finish_reason": reason,
            "logprobs": None,
            "message": {"role": "assistant", "content": text},
        }
        return {
            "id": "chatcmpl-replay",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model") or "default",
            "system_fingerprint": "blendrun-replay",
            "choices": [{"index": place, **choice} for place in range(self.demand(body).choices)],
            "usage": usage_body(usage),
        }


def _text_length(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return sum(len(text) for text in texts if isinstance(text, str))
    return 0
