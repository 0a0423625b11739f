"""What an endpoint is: one url of the OpenAI API, with everything blendrun needs to know of it.

A new endpoint is one file beside `chat.py` and one line in `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from blendrun.endpoints.bounds import check_bounds
from blendrun.endpoints.fields import check_fields
from blendrun.errors import ErrorCode, LineError


@dataclass(frozen=True, slots=True)
class AnswerDemand:
    """What one request may ask of the machine, known before any token is counted.

    choices: answers asked for (`n`); each is decoded on its own.
    max_new_tokens: upper bound of output tokens a choice; None means up to the end of the context.
    """

    choices: int
    max_new_tokens: int | None


# Of one request, of a kind: 31 bits hold it.
MOST_TOKENS = 2**31 - 1


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request, each at most MOST_TOKENS.

    cached: prompt tokens served from the prefix cache; output: over all choices.
    """

    prompt: int = 0
    cached: int = 0
    output: int = 0


class Pair(NamedTuple):
    """Two texts that a model reads together, to say how well they go together. instruct: for models that take one."""

    query: str
    document: str
    instruct: str = ""


# A prompt that no chat template makes: a text, token ids, or a pair.
PlainPrompt = str | list[Any] | Pair


@dataclass(frozen=True, slots=True)
class ServingPath:
    """Where SGLang's own implementation lives, as `module:Class`, so that only the engine process imports it.

    takes_template: the serving class is built with the engine's template manager as second argument.
    decodes: whether tokens are sampled; without, a prompt is read and its request has ended.
    """

    serving_class: str
    request_class: str
    takes_template: bool = True
    decodes: bool = True


class Endpoint(ABC):
    """One url: what its requests may say, what they cost, what answers them and how answers look.

    prompt_field: where the prompt is in a body. bound_fields: those that bound an answer's tokens, the one that counts
    first. needs_bound: servers cut an answer short (16 tokens) where a request sets none. answer_field: where the
    answers are in a response. answer_content: what each of them has, and of which types; None where that is not looked
    at. reads_logprobs: whether answers are made of log probabilities. names_model: whether they say which model
    gave them. serving: None where only servers
    (`--engine http://...`) answer it.
    """

    url: str
    prompt_field: str
    bound_fields: tuple[str, ...] = ()
    needs_bound: bool = False
    answer_field: str = "choices"
    answer_content: tuple[str, tuple[type, ...]] | None = None
    reads_logprobs: bool = False
    names_model: bool = True
    serving: ServingPath | None = None

    @abstractmethod
    def validate(self, body: dict[str, Any]) -> None:
        """Refuse what can be refused without tokenizer or model.

        Raises LineError. What passes here can still be refused by SGLang's own request model.
        """

    @abstractmethod
    def plain_prompt(self, body: Mapping[str, Any]) -> PlainPrompt | None:
        """The prompt that is taken as it stands. None: messages go through the chat template."""

    @abstractmethod
    def prompt_characters(self, body: dict[str, Any]) -> int:
        """Length of the prompt's text in characters; for replay and for prior guesses, never for planning."""

    @abstractmethod
    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        """A response body of this endpoint's shape around a made-up answer. reason: why the answer ended."""

    def prompts(self, body: Mapping[str, Any]) -> Sequence[PlainPrompt]:
        """All that a line has the model read, each by itself; none where the chat template makes the prompt."""
        prompt = self.plain_prompt(body)
        return () if prompt is None else (prompt,)

    def serving_of(self, body: Mapping[str, Any]) -> ServingPath | None:
        """What answers a valid body, or each of its `parts`."""
        return self.serving

    def parts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Bodies that SGLang's class answers one by one, of a line that is several requests to it."""
        return [body]

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The answer to a body, of the answers to its parts."""
        return answers[0]

    def answers_to(self, body: dict[str, Any]) -> int:
        """How many answers a response to a valid body has."""
        return self.demand(body).choices

    def in_one_form(self, answer: Any) -> Any:
        """A server's response in the form of this endpoint, where servers have several; as it is where it is that."""
        return answer

    def demand(self, body: dict[str, Any]) -> AnswerDemand:
        """The bounds that `body` (valid) states."""
        bounds = (body[name] for name in self.bound_fields if body.get(name) is not None)
        return AnswerDemand(body.get("n") or 1, next(bounds, None))

    def bound(self, body: dict[str, Any], left: int) -> dict[str, Any]:
        """`body` with an answer of at most `left` tokens; as it is where it sets no bound and needs none."""
        bounds = {name: min(body[name], left) for name in self.bound_fields if body.get(name) is not None}
        if not bounds and self.needs_bound:
            bounds = {self.bound_fields[0]: left}
        return body | bounds

    def usage(self, answer: Mapping[str, Any]) -> Usage:
        """Tokens that a response says it took. Cached ones as OpenAI, SGLang and vLLM tell them, or as llama.cpp."""
        usage = _object(answer, "usage")
        cached = _object(usage, "prompt_tokens_details").get("cached_tokens")
        if cached is None:
            cached = _object(answer, "timings").get("cache_n")
        return Usage(_count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens")))

    def finish_reasons(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """Why each choice of a response ended. Raises ValueError for what is no answer of this endpoint's shape."""
        choices = self.answers(answer)
        return tuple(str(choice.get("finish_reason") or "") for choice in choices)

    def answers(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers in a response. Raises ValueError where there are none."""
        found = answer.get(self.answer_field)
        if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
            raise ValueError(f"an answer without {self.answer_field}")
        return found


def summed(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One `usage` of several, number by number; what is no number is the first one's."""
    total: dict[str, Any] = {}
    for name, first in usages[0].items():
        values = [usage.get(name) for usage in usages]
        if isinstance(first, int):
            total[name] = sum(value for value in values if isinstance(value, int))
        elif isinstance(first, dict):
            total[name] = summed([value for value in values if isinstance(value, dict)])
        else:
            total[name] = first
    return total


def numbered(answers: Sequence[Mapping[str, Any]], field: str) -> list[dict[str, Any]]:
    """What several responses have in `field`, as one list that counts on."""
    found = [each for answer in answers for each in answer[field]]
    return [each | {"index": place} for place, each in enumerate(found)]


def usage_body(usage: Usage) -> dict[str, int]:
    """Tokens as a response's `usage` has them."""
    total = usage.prompt + usage.output
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.output, "total_tokens": total}


def refuse(message: str) -> LineError:
    """An `invalid_request` error with this message."""
    return LineError(ErrorCode.INVALID_REQUEST, message)


def check_common(body: dict[str, Any]) -> None:
    """Fields every generating endpoint shares. Raises LineError."""
    check_fields(body)
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise refuse(f"`model` must be a string, not {type(model).__name__}")
    check_bounds(body)


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    """A number of tokens; 0 for what cannot be one, as where nothing is said."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_TOKENS else 0
