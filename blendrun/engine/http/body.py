"""A request line as the server is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.base import WorkItem

_CHARACTERS_PER_TOKEN = 4
# A first guess where nobody counted: few tokens are shorter in bytes. Where it is too much, the server says so.
_BYTES_PER_TOKEN = 3
_LOWER, _MOST_LOWERINGS = 0.8, 24


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """content: the body, UTF-8, of a request to `endpoint`. tokens: prompt and expected answer, estimated where nobody
    counted. choices: answers asked for.

    lowerings: how often the answer's bound may still be lowered, where nobody counted the prompt and the server says
    that both are too long for its context.
    """

    endpoint: Endpoint
    content: bytes
    tokens: int
    choices: int = 1
    lowerings: int = 0

    def less(self) -> OutgoingRequest | None:
        """With a lower bound; None where that is not what is wrong."""
        body = orjson.loads(self.content)
        bounds = {name: int(body[name] * _LOWER) for name in self.endpoint.bound_fields if name in body}
        if not self.lowerings or not bounds or min(bounds.values()) < 1:
            return None
        return replace(self, content=orjson.dumps(body | bounds), lowerings=self.lowerings - 1)


def ask(item: WorkItem, models: tuple[str, ...], model: str, context_length: int | None) -> OutgoingRequest:
    """models: names that the server serves; any other one in the line is taken for `model`.

    The answer is bounded by what the line asks for or by what the context leaves, whichever is less: servers give
    16 tokens where a completion asks for none, and refuse what is more than the context.
    """
    # null means "the default" in OpenAI's schema; servers take it for some fields only.
    body = {name: value for name, value in orjson.loads(item.body).items() if value is not None}
    if body.get("model") not in models:
        body["model"] = model
    if body.get("continue_final_message") is True:
        # vLLM refuses one without the other; SGLang knows the first alone.
        body.setdefault("add_generation_prompt", False)
    endpoint = ENDPOINTS[item.url]
    demand = endpoint.demand(body)
    asked = demand.max_new_tokens
    counted = item.plan.prompt if item.plan is not None else 0
    if context_length is not None:
        left = context_length - (counted or min(len(item.body) // _BYTES_PER_TOKEN, context_length // 2))
        # What the line asks for is lowered by a count only, not by a guess.
        if left > 0 and (asked is None or counted):
            body = endpoint.bound(body, left)
    prompt = counted or endpoint.prompt_characters(body) // _CHARACTERS_PER_TOKEN
    expected = item.plan.output if item.plan is not None and item.plan.output else asked or 0
    lowerings = 0 if counted else _MOST_LOWERINGS
    tokens = prompt + expected * demand.choices
    return OutgoingRequest(endpoint, orjson.dumps(body), tokens, endpoint.answers_to(body), lowerings)
