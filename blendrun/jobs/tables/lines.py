"""Rows become request lines: one line a row, whatever the row holds, so that numbers of lines are numbers of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from blendrun.errors import InputInvalidError
from blendrun.jobs.tables.base import BAD_ROW, BadRow, Row, RowError, Table
from blendrun.jobs.tables.cells import text_of
from blendrun.jobs.tables.columns import CHAT, COMPLETIONS, Chosen, Columns, choose
from blendrun.jobs.tables.conversation import conversation, without_answer
from blendrun.jobs.tables.images import image_parts
from blendrun.jobs.tables.note import Made
from blendrun.jobs.tables.rows import read_rows
from blendrun.text import cut

# What a row of JSON may say of its request itself.
_FIELDS = (
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "n"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs", "top_logprobs"),
    *("response_format", "tools", "tool_choice", "reasoning_effort", "chat_template_kwargs"),
)
# Of any request, whether it decodes or not.
_ADAPTER = "lora_path"
# Different sets of columns that JSON rows may have, of which the choice is kept.
_MOST_FORMS = 1000


@dataclass(slots=True)
class LineMaker:
    """Makes the lines of one table. place: of the file among the inputs, from 0.

    Counted meanwhile: rows; bad ones; conversations that ended with an answer, and those with a system message of
    their own.
    """

    table: Table
    columns: Columns
    place: int = 0
    rows: int = 0
    bad: int = 0
    answered: int = 0
    own_system: int = 0
    _chosen: Chosen | None = None
    _forms: dict[tuple[str, ...], Chosen | str] = field(default_factory=dict)

    def lines(self) -> Iterator[bytes]:
        """Each with its newline. Raises InputInvalidError, InputMissingError, UsageError, OSError."""
        if not self.table.requests:
            self._chosen = choose(self.columns, self.table.names, self.table.name)
        wanted = self._chosen.columns if self._chosen is not None else ()
        for row in read_rows(self.table, wanted):
            if self.columns.limit is not None and self.rows >= self.columns.limit:
                return
            if not isinstance(row, bytes):
                row = self._line(row)
            elif row.strip():
                self.rows += 1
            yield row + b"\n"
        if not self.rows:
            raise InputInvalidError(f"{self.table.name} holds no rows")

    def said(self) -> str:
        """What was made of the table, as `jobs.tables.note` reads it."""
        how = "are requests already" if self._chosen is None else f"become requests of {self._chosen.said()}"
        return Made(f"of {self.table.kind} {how}", self.rows, self.bad, self.answered, self.own_system).text()

    def _line(self, row: Row | BadRow) -> bytes:
        self.rows += 1
        # By its place in the file: names of files may change.
        name = f"row-{self.rows}" if not self.place else f"{self.place + 1}-row-{self.rows}"
        try:
            if isinstance(row, BadRow):
                raise RowError(row.why)
            chosen = self._choice(row)
            name = self._id(row, chosen, name)
            return orjson.dumps({"custom_id": name, "url": chosen.url, "body": self._body(row, chosen)})
        except RowError as error:
            why = str(error)
        except (TypeError, UnicodeEncodeError):
            why = "it holds text that is not UTF-8, or what JSON cannot hold"
        self.bad += 1
        return orjson.dumps({"custom_id": name, BAD_ROW: f"row {self.rows}: {cut(why)}"})

    def _choice(self, row: Row) -> Chosen:
        """Raises RowError."""
        if self._chosen is not None and (not self.table.kind.json or row.keys() >= {*self.table.names}):
            return self._chosen
        names = tuple(row)
        found = self._forms.get(names)
        if found is None:
            try:
                found = choose(self.columns, names, "it")
            except InputInvalidError as error:
                found = str(error).partition(";")[0]
            if len(self._forms) < _MOST_FORMS:
                self._forms[names] = found
        if isinstance(found, str):
            raise RowError(found)
        return found

    def _id(self, row: Row, chosen: Chosen, name: str) -> str:
        if chosen.id is None:
            return name
        found = text_of(row[chosen.id], chosen.id)
        found.encode()
        return found

    def _body(self, row: Row, chosen: Chosen) -> dict[str, Any]:
        """Raises RowError."""
        body = self._prompt(row, chosen)
        columns = self.columns
        if self.table.kind.json:
            said = (_ADAPTER,) if chosen.reads else (*_FIELDS, _ADAPTER)
            body |= {name: row[name] for name in said if row.get(name) is not None}
        if chosen.reads:
            return body
        if columns.max_tokens is not None and "max_completion_tokens" not in body:
            body.setdefault("max_tokens", columns.max_tokens)
        if columns.temperature is not None:
            body.setdefault("temperature", columns.temperature)
        if columns.schema is not None:
            schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": columns.schema}}
            body.setdefault("response_format", schema)
        return body

    def _prompt(self, row: Row, chosen: Chosen) -> dict[str, Any]:
        if chosen.messages is not None:
            return {"messages": self._messages(row, chosen.messages, chosen)}
        if chosen.slots is None:
            assert chosen.prompt is not None
            cell = row[chosen.prompt]
            if isinstance(cell, list) and chosen.url == CHAT and cell and all(isinstance(each, dict) for each in cell):
                return {"messages": self._messages(row, chosen.prompt, chosen)}
            if isinstance(cell, list | dict):
                raise RowError(f"`{chosen.prompt}` is no text")
            text = text_of(cell, chosen.prompt)
            if chosen.beside is not None and (more := row.get(chosen.beside)):
                text = f"{text}\n\n{text_of(more, chosen.beside)}"
        else:
            slots = chosen.slots
            text = "".join(text_of(row[slot], slot) if place % 2 else slot for place, slot in enumerate(slots))
        if not text.strip():
            raise RowError(f"`{chosen.prompt}` is empty" if chosen.slots is None else "the prompt is empty")
        if chosen.url == CHAT:
            return {"messages": self._whole([{"role": "user", "content": text}], row, chosen)}
        return {"prompt" if chosen.url == COMPLETIONS else "input": text}

    def _messages(self, row: Row, column: str, chosen: Chosen) -> list[dict[str, Any]]:
        messages, cut_off = without_answer(conversation(row[column], column), column)
        self.answered += cut_off
        return self._whole(messages, row, chosen)

    def _whole(self, messages: list[dict[str, Any]], row: Row, chosen: Chosen) -> list[dict[str, Any]]:
        """With the picture in front of the last question, and the system prompt in front of all."""
        if chosen.image is not None:
            last = messages[-1]
            text = last.get("content")
            parts = text if isinstance(text, list) else [{"type": "text", "text": text}]
            messages[-1] = last | {"content": [*image_parts(row[chosen.image], chosen.image), *parts]}
        if self.columns.system is not None:
            if messages[0].get("role") == "system":
                self.own_system += 1
            else:
                messages.insert(0, {"role": "system", "content": self.columns.system})
        return messages
