"""Which columns of a table requests are made of, and what is added to each: what the user says, or well-known names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import msgspec

from blendrun.endpoints.spellings import url_of
from blendrun.errors import InputInvalidError, UsageError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# Bodies that take a text as `input`.
_READING = ("/v1/embeddings", "/v1/classify")
_URLS = (CHAT, COMPLETIONS, *_READING)
# The first that a table has is taken. A conversation says more than a prompt.
_MESSAGES = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "problem", "question", "instruction", "query", "input", "text")
_IDS = ("custom_id",)
_SLOT = re.compile(r"\{\{\s*(.+?)\s*\}\}|\[\[DOCUMENT\]\]")
_SHOWN_NAMES = 30


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of rows. url: of lines that are made; None for chat. limit: rows to take of a file.

    template: a prompt with `{{ column }}`, and `[[DOCUMENT]]` for the prompt column. schema: of the answers.
    """

    prompt: str | None = None
    messages: str | None = None
    image: str | None = None
    id: str | None = None
    system: str | None = None
    template: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    url: str | None = None
    limit: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The options that speak of rows, as they are typed."""
        return tuple(option for name, option in _OPTIONS.items() if getattr(self, name) is not None)

    @property
    def digest(self) -> str:
        """Of all that decides the lines."""
        return blake2b(msgspec.json.encode(self, order="sorted"), digest_size=16).hexdigest()

    def check(self) -> None:
        """Raises UsageError for options that cannot go together."""
        if self.messages is not None and (self.prompt or self.template) is not None:
            raise UsageError("--messages-column holds whole conversations: leave --prompt-column and the template out")
        if self.template is not None and not self.template.strip():
            raise UsageError("--prompt-template is empty")
        url = self.made_url
        if self.given and url not in _URLS:
            raise UsageError(f"--endpoint {self.url}: rows become requests of {', '.join(_URLS)}")
        for name in ("messages", "image", "system") if url != CHAT else ():
            if getattr(self, name) is not None:
                raise UsageError(f"{_OPTIONS[name]} is for chats, not for {url}")
        for name in ("max_tokens", "temperature", "schema") if url in _READING else ():
            if getattr(self, name) is not None:
                raise UsageError(f"{_OPTIONS[name]} is for answers that are written, not for {url}")

    @property
    def made_url(self) -> str:
        """Of the lines that are made."""
        return CHAT if self.url is None else url_of(self.url)


_OPTIONS = {
    "prompt": "--prompt-column",
    "messages": "--messages-column",
    "image": "--image-column",
    "id": "--id-column",
    "system": "--system-prompt",
    "template": "--prompt-template",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "schema": "--schema",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where a row's request comes from. url: of the line. Each name: a column, None for none.

    beside: a second column, put behind the prompt (Alpaca's `input`). slots: of the template, text and columns in
    turns; None for the prompt as it is.
    """

    url: str
    prompt: str | None = None
    messages: str | None = None
    image: str | None = None
    id: str | None = None
    beside: str | None = None
    slots: tuple[str, ...] | None = None

    @property
    def reads(self) -> bool:
        """Whether the line decodes nothing."""
        return self.url in _READING

    @property
    def columns(self) -> frozenset[str]:
        """All that are read."""
        named = (self.prompt, self.messages, self.image, self.id, self.beside, *(self.slots or ())[1::2])
        return frozenset(name for name in named if name is not None)

    def said(self) -> str:
        """A clause for people."""
        if self.slots is not None:
            what = f"the template with {', '.join(f'`{name}`' for name in dict.fromkeys(self.slots[1::2]))}"
        elif self.messages is not None:
            what = f"the conversation is `{self.messages}`"
        else:
            beside = f" and `{self.beside}`" if self.beside else ""
            what = f"the prompt is `{self.prompt}`{beside}"
        return f"{self.url}: {what}; custom_id is {'row-N' if self.id is None else f'`{self.id}`'}"


def choose(columns: Columns, names: Sequence[str], name: str) -> Chosen:
    """The columns of a table that has `names`. name: of the file, for messages.

    Raises InputInvalidError where a column is not there, or none is known that could be the prompt.
    """
    for column in (columns.prompt, columns.messages, columns.image, columns.id):
        if column is not None and column not in names:
            raise _missing(name, column, names)
    url = columns.made_url
    if url not in _URLS:
        raise UsageError(f"--endpoint {columns.url}: rows become requests of {', '.join(_URLS)}")
    found = Chosen(url, image=columns.image, id=columns.id or _first(_IDS, names))
    if columns.template is not None:
        return _by_template(found, columns, names, name)
    if columns.prompt is not None:
        return replace(found, prompt=columns.prompt)
    messages = columns.messages or (_first(_MESSAGES, names) if url == CHAT else None)
    if messages is not None:
        return replace(found, messages=messages)
    prompt = _first(_PROMPTS, names)
    if prompt is None:
        raise InputInvalidError(
            f"{name}: which column is the prompt? Give --prompt-column (or --messages-column, --prompt-template); "
            f"its columns are {listed(names)}"
        )
    beside = "input" if prompt == "instruction" and "input" in names else None
    return replace(found, prompt=prompt, beside=beside)


def knows(names: Iterable[str]) -> bool:
    """Whether one of a row's columns is known to be a prompt or a conversation."""
    return not {*_MESSAGES, *_PROMPTS}.isdisjoint(names)


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message."""
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(name[:80] for name in names[:_SHOWN_NAMES]) + more


def _by_template(found: Chosen, columns: Columns, names: Sequence[str], name: str) -> Chosen:
    template, slots, place = columns.template or "", [], 0
    for slot in _SLOT.finditer(template):
        column = slot[1] if slot[1] is not None else columns.prompt or _first(_PROMPTS, names)
        if column is None:
            raise InputInvalidError(
                f"{name}: which column is [[DOCUMENT]]? Give --prompt-column; its columns are {listed(names)}"
            )
        if column not in names:
            raise _missing(name, column, names)
        slots += [template[place : slot.start()], column]
        place = slot.end()
    if not slots:
        raise UsageError("--prompt-template names no column: write {{ column }}, or [[DOCUMENT]] for the prompt column")
    return replace(found, slots=(*slots, template[place:]))


def _first(known: Iterable[str], names: Sequence[str]) -> str | None:
    return next((each for each in known if each in names), None)


def _missing(name: str, column: str, names: Sequence[str]) -> InputInvalidError:
    return InputInvalidError(f"{name} has no column {column!r}; its columns are {listed(names)}")
