"""/generate: SGLang's own request, as `sglang.Engine.generate` takes it, for texts and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.endpoints.base import MOST_TOKENS, AnswerDemand, Endpoint, ServingPath, Usage, check_common, refuse
from blendrun.endpoints.bounds import MOST_LOGPROBS, check_bounds
from blendrun.endpoints.fields import must_be, refuse_field
from blendrun.endpoints.inputs import are_ids, characters

# Of SGLang's sampling parameters, but for those that are its own business or blendrun's.
_SAMPLING = (
    *("max_new_tokens", "min_new_tokens", "stop", "stop_token_ids", "stop_regex", "temperature", "top_p", "top_k"),
    *("min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "n", "json_schema", "regex", "ebnf"),
    *("structural_tag", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim"),
    *("logit_bias", "sampling_seed"),
)
# The same in the words that bounds are stored under.
_WORDS: dict[str, str] = {"min_new_tokens": "min_tokens", "sampling_seed": "seed"}
# SGLang's own bound of an answer where a request sets none.
_DEFAULT_BOUND = 128
_FLAGS = ("return_logprob", "return_text_in_logprobs")


class Generate(Endpoint):
    """One prompt in SGLang's words. The answer is what SGLang gives: `text`, `output_ids` and `meta_info`; of several
    choices, a list of these under `outputs`.
    """

    url = "/generate"
    serving = ServingPath("blendrun.engine.native:NativeGenerate", "blendrun.engine.native:as_asked", False)
    prompt_field = "text"
    answer_field = "outputs"
    answer_content = ("text", (str,))
    names_model = False

    def validate(self, body: dict[str, Any]) -> None:
        check_common(body)
        text, ids = body.get("text"), body.get("input_ids")
        if (text is None) == (ids is None):
            raise refuse("a request has `text` or `input_ids`, one of them")
        if not (are_ids(ids) if text is None else isinstance(text, str)):
            raise refuse("`text` must be a string, `input_ids` a list of token ids: one prompt a line")
        if not (text or ids):
            raise refuse("the prompt is empty")
        for name in _FLAGS:
            if not isinstance(body.get(name), bool | None):
                raise must_be(name, "true or false", body[name])
        _check_count(body, "top_logprobs_num", 0, MOST_LOGPROBS)
        _check_count(body, "logprob_start_len", -1, MOST_TOKENS)
        wanted = body.get("token_ids_logprob")
        if wanted is not None and not (are_ids(wanted) and len(wanted) <= MOST_LOGPROBS):
            raise refuse_field("token_ids_logprob", f"it must be a list of at most {MOST_LOGPROBS} token ids")
        _check_parameters(body.get("sampling_params"))

    def plain_prompt(self, body: Mapping[str, Any]) -> str | list[Any]:
        prompt: str | list[Any] = body["input_ids"] if body.get("text") is None else body["text"]
        return prompt

    def prompt_characters(self, body: dict[str, Any]) -> int:
        return characters(self.plain_prompt(body))

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        asked = parameters(body)
        most = asked.get("max_new_tokens")
        return AnswerDemand(asked.get("n") or 1, _DEFAULT_BOUND if most is None else most)

    def bound(self, body: dict[str, Any], left: int) -> dict[str, Any]:
        asked = parameters(body)
        most = self.demand(body).max_new_tokens or 0
        return body | {"sampling_params": asked | {"max_new_tokens": min(most, left)}}

    def answers(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(answer)] if "meta_info" in answer else super().answers(answer)

    def usage(self, answer: Mapping[str, Any]) -> Usage:
        """The prompt counts once, the answers together."""
        told = [_told(each) for each in self.answers(answer)]
        output = sum(_count(each, "completion_tokens") for each in told)
        return Usage(_count(told[0], "prompt_tokens"), _count(told[0], "cached_tokens"), min(output, MOST_TOKENS))

    def finish_reasons(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        reasons = [_told(each).get("finish_reason") for each in self.answers(answer)]
        return tuple(str(each.get("type", "")) if isinstance(each, dict) else "" for each in reasons)

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        choices = self.demand(body).choices
        told = {
            "id": "replay",
            "finish_reason": {"type": reason},
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "completion_tokens": usage.output // choices,
        }
        outputs = [{"text": text, "output_ids": [], "meta_info": told} for _ in range(choices)]
        return outputs[0] if choices == 1 else {"outputs": outputs}


def parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that a body sets."""
    return {name: value for name, value in (body.get("sampling_params") or {}).items() if value is not None}


def _check_parameters(given: dict[str, Any] | None) -> None:
    if given is None:
        return
    if not isinstance(given, dict):
        raise refuse_field("sampling_params", "it must be an object: one prompt a line, with parameters of its own")
    for name in given.keys() - set(_SAMPLING):
        raise refuse_field(f"sampling_params.{name:.40}", "no part of the runtime reads it")
    check_bounds({_WORDS.get(name, name): value for name, value in given.items() if value is not None})
    _check_count(given, "max_new_tokens", 0, MOST_TOKENS)
    for name in ("json_schema", "regex", "ebnf", "structural_tag"):
        if not isinstance(given.get(name), str | None):
            raise refuse_field(f"sampling_params.{name}", "it must be a string")


def _check_count(holder: Mapping[str, Any], name: str, least: int, most: int) -> None:
    value = holder.get(name)
    if value is not None and not (type(value) is int and least <= value <= most):
        raise must_be(name, f"a whole number from {least:,} to {most:,}", value)


def _told(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    told = answer.get("meta_info")
    return told if isinstance(told, dict) else {}


def _count(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return value if type(value) is int and 0 < value <= MOST_TOKENS else 0
