"""What an endpoint is: one url of the OpenAI API, with everything blendrun needs to know of it.

A new endpoint is one file beside `chat.py` and one line in `__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from blendrun.endpoints.fields import check_fields
from blendrun.errors import ErrorCode, LineError


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request may ask of the machine, known before any token is counted.

    choices: answers asked for (`n`); each is decoded on its own.
    max_new_tokens: upper bound of output tokens a choice; None means up to the end of the context.
    """

    choices: int
    max_new_tokens: int | None


@dataclass(frozen=True, slots=True)
class ServingPath:
    """Where SGLang's own implementation lives, as `module:Class`, so that only the engine process imports it.

    takes_template: the serving class is built with the engine's template manager as second argument.
    """

    serving_class: str
    request_class: str
    takes_template: bool = True


class Endpoint(ABC):
    """One url: validator, cost, runner and response shape."""

    url: str
    serving: ServingPath
    # Where the prompt is in a body: messages go through the model's chat template, a prompt is taken as it stands.
    prompt_field: Literal["messages", "prompt"]

    @abstractmethod
    def validate(self, body: dict[str, Any]) -> None:
        """Refuse what can be refused without tokenizer or model.

        Raises LineError. What passes here can still be refused by SGLang's own request model.
        """

    @abstractmethod
    def demand(self, body: dict[str, Any]) -> Demand:
        """The bounds that `body` (valid) states."""

    @abstractmethod
    def prompt_characters(self, body: dict[str, Any]) -> int:
        """Length of the prompt's text in characters; for replay and for prior guesses, never for planning."""

    @abstractmethod
    def replay_body(self, body: dict[str, Any], text: str, usage: dict[str, Any]) -> dict[str, Any]:
        """A response body of this endpoint's shape around a made-up answer (the replay engine's)."""


def refuse(message: str) -> LineError:
    """An `invalid_request` error with this message."""
    return LineError(ErrorCode.INVALID_REQUEST, message)


def check_common(body: dict[str, Any]) -> None:
    """Fields every generating endpoint shares. Raises LineError."""
    check_fields(body)
    if body.get("stream"):
        raise refuse("`stream` must be false in a batch: the answer is one line of the output file")
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise refuse(f"`model` must be a string, not {type(model).__name__}")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise refuse(f"`{name}` must be a whole number of 1 or more, not {value!r:.40}")
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise refuse(f"`{name}` must be a number, not {value!r:.40}")
