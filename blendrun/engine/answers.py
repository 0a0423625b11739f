"""SGLang's response as OpenAI's API has it: the model's name, text offsets, a scored prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.completions import scores

# Tokens are looked for this many characters beyond where they should be: special tokens stand in no text, and a part
# of a character is shown as another.
_SLACK = 8


def completed(answer: dict[str, Any], body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`answer` to a body, put right in place. model: what answers call the model; "" for what SGLang wrote."""
    if model:
        answer["model"] = model
    if "prompt" in body:
        for choice in answer["choices"]:
            if scores(body):
                _take_answer_away(choice, str(choice["text"]), body)
            if isinstance(logprobs := choice.get("logprobs"), dict):
                logprobs["text_offset"] = text_offsets(str(choice["text"]), logprobs.get("tokens") or [])
        if scores(body):
            usage = answer["usage"]
            usage["total_tokens"] = usage["prompt_tokens"]
            usage["completion_tokens"] = 0
    return answer


def asked_of_sglang(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as SGLang's request model takes it. A prompt is scored by having one token generated, which is dropped."""
    if not scores(body):
        return body
    # Without a number it gives none of the prompt's.
    return body | {"max_tokens": 1, "logprobs": body["logprobs"] or 1}


def text_offsets(text: str, tokens: Sequence[str]) -> list[int]:
    """Where each token begins in `text`, in characters."""
    offsets, place = [], 0
    for token in tokens:
        found = text.find(token, place, place + len(token) + _SLACK)
        offsets.append(place if found < 0 else found)
        if found >= 0:
            place = found + len(token)
    return offsets


def _take_answer_away(choice: dict[str, Any], text: str, body: Mapping[str, Any]) -> None:
    """The generated token, and alternatives where none were asked for."""
    prompt, logprobs = body["prompt"], choice["logprobs"]
    if isinstance(prompt, str):
        choice["text"] = prompt
    else:
        # Of token ids only the text of all is known.
        choice["text"] = text.removesuffix(logprobs["tokens"][-1])
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        if isinstance(logprobs.get(name), list):
            logprobs[name] = logprobs[name][:-1]
    if not body["logprobs"]:
        logprobs["top_logprobs"] = None
    choice["finish_reason"], choice["matched_stop"] = "length", None
