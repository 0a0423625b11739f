"""What another API is: one url whose requests are chats in other words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import orjson

from blendrun.endpoints.effects import BODIES, Effect, harmless
from blendrun.endpoints.fields import refuse_field

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer says. finish: why it ended, in its API's word. prompt, cached, output: tokens; None where it does
    not say.
    """

    text: Any
    finish: Any
    prompt: Any
    cached: Any
    output: Any


class Api(ABC):
    """One url. What its bodies may have is in `effects.BODIES`; what is kept there goes into the chat as it is.

    Behind the index there are chats only: one tree, one plan, one engine for all who ask the same in other words.
    """

    url: str

    @abstractmethod
    def chat(self, body: Body) -> Body:
        """A body in the words of /v1/chat/completions. Raises LineError where a chat cannot say it."""

    @abstractmethod
    def answer(self, answer: Body, body: Body) -> Body:
        """A chat's response in this API's words. body: the request as its line has it."""

    @abstractmethod
    def facts(self, answer: Body) -> Facts | None:
        """Of an answer in this API's words; None for one in others."""

    def kept(self, body: Body) -> Body:
        """The fields that a chat has under the same name. Raises LineError for one that is always an error.

        What no table knows goes along where nothing was refused before: servers judge themselves.
        """
        table = BODIES[self.url]
        told: Body = {}
        for name, value in body.items():
            field = table.get(name)
            if field is not None and field.effect is Effect.FORBIDDEN and not harmless(field, value):
                raise refuse_field(name, field.note)
            if field is None or field.effect is Effect.KEPT:
                told[name] = value
        return told


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a line was written that became a chat.

    body: as the line has it. results: whether the line is one of Anthropic's batches, whose lines have no url.
    """

    api: Api
    body: Body
    results: bool = False

    def answer(self, answer: bytes) -> bytes:
        """A chat's response (JSON) in the words of the line. Raises ValueError for one that has not a chat's shape."""
        try:
            return orjson.dumps(self.api.answer(orjson.loads(answer), self.body))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Whatever a server put into the place of a message, a call or a number.
            raise ValueError(f"the answer has not the shape of a chat's ({type(error).__name__})") from error


def as_object(value: Any, name: str) -> Body:
    """`value`, if it is an object. Raises LineError."""
    if not isinstance(value, dict):
        raise refuse_field(name, "it must be an object")
    return value


def as_list(value: Any, name: str) -> list[Any]:
    """`value`, if it is a list. Raises LineError."""
    if not isinstance(value, list):
        raise refuse_field(name, "it must be a list")
    return value


def as_text(value: Any, name: str) -> str:
    """`value`, if it is text. Raises LineError."""
    if not isinstance(value, str):
        raise refuse_field(name, "it must be a string")
    return value


def as_arguments(value: Any, name: str) -> str:
    """`value`, if it is the JSON text of an object, as templates take a call's arguments. Raises LineError."""
    text = as_text(value, name)
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise refuse_field(name, "it must be the JSON text of an object")
    return text


def without(holder: Body, *names: str) -> Body:
    """The fields of `holder` that are left when these are used."""
    return {name: value for name, value in holder.items() if name not in names and value is not None}


def one_text(parts: list[Body]) -> str | list[Body]:
    """The content of a message: its only text as a string, which templates of either kind show alike."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts


def tool_call(identity: str, name: str, arguments: str) -> Body:
    """A call in the words of a chat."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def suffix(answer: Body) -> str:
    """What is left of a chat answer's id without its kind."""
    return str(answer.get("id", "")).rpartition("-")[2] or "0"


def first_choice(answer: Body) -> tuple[Body, Body]:
    """The only choice of a chat's response, and its message."""
    choice: Body = answer["choices"][0]
    message: Body = choice.get("message") or {}
    return choice, message


def cached_tokens(usage: Body) -> int:
    """Prompt tokens that came from the prefix cache."""
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
