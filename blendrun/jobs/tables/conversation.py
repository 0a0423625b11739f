"""Conversations as data sets hold them: OpenAI's messages, ShareGPT's turns, either of them as JSON text."""

from __future__ import annotations

from typing import Any

import orjson

from blendrun.jobs.tables.base import RowError

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
Message = dict[str, Any]


def conversation(cell: Any, column: str) -> list[Message]:
    """The messages of a cell, as it has them. Raises RowError."""
    if cell is None:
        raise RowError(f"`{column}` is null")
    if isinstance(cell, str | bytes):
        try:
            cell = orjson.loads(cell)
        except orjson.JSONDecodeError:
            raise RowError(f"`{column}` is text, but not a JSON list of messages") from None
    if not isinstance(cell, list) or not all(isinstance(each, dict) for each in cell):
        raise RowError(f"`{column}` is no list of messages")
    if not cell:
        raise RowError(f"`{column}` is an empty list")
    return [_message(each, column) for each in cell]


def without_answer(messages: list[Message], column: str) -> tuple[list[Message], bool]:
    """The messages up to the last one that asks, and whether answers stood behind it. Raises RowError for none."""
    kept = list(messages)
    while kept and kept[-1].get("role") == "assistant":
        kept.pop()
    if not kept:
        raise RowError(f"`{column}` has no message but the assistant's")
    return kept, len(kept) < len(messages)


def _message(given: Message, column: str) -> Message:
    """One message, without what a column of structs has filled up with nulls."""
    if "from" in given and "role" not in given:
        role = _ROLES.get(str(given["from"]).lower())
        if role is None:
            raise RowError(f"`{column}` has a turn from {str(given['from'])[:40]!r}: known are {', '.join(_ROLES)}")
        return {"role": role, "content": given.get("value")}
    return {name: _dense(value) for name, value in given.items() if value is not None or name == "content"}


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _dense(each) for name, each in value.items() if each is not None}
    return [_dense(each) for each in value] if isinstance(value, list) else value
