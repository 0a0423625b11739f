"""Which columns the answers of a job have, and the cells of a line in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.jobs.job import Job
from blendrun.store.tables import cells
from blendrun.store.tables.cells import Column, Of, Shape, UnlikeError

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_ENDED = ("error_code", "error")


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """columns: what is read of answers; behind them stand `error_code` and `error`. suffix: of all their names, where
    a column of the input has one of these. shape: of all answers, as far as it is known.
    """

    columns: tuple[Column, ...]
    shape: Shape
    suffix: str = ""
    with_id: bool = False

    @property
    def fields(self) -> list[tuple[str, Of]]:
        """Names and what they hold, in order."""
        found = [(column.name, column.of) for column in self.columns] + [(name, Of.TEXT) for name in _ENDED]
        own = [("custom_id", Of.TEXT)] if self.with_id else []
        return own + [(f"{name}{self.suffix}", of) for name, of in found]

    def row(self, line: bytes) -> list[Any]:
        """The cells of an output or errors line. Raises UnlikeError."""
        answer = orjson.loads(line)
        body = (answer.get("response") or {}).get("body") or (answer.get("result") or {}).get("message")
        found = [_cell(column, body, self.shape) for column in self.columns]
        error = answer.get("error")
        if not isinstance(error, dict):
            error = {}
        own = [answer.get("custom_id")] if self.with_id else []
        return [*own, *found, error.get("code"), error.get("message")]


def answer_columns(job: Job, own: Collection[str], schema: dict[str, Any] | None, size: int | None) -> AnswerColumns:
    """For a job. own: names of the input's columns; none for lines, which are known by their custom_id.

    size: numbers of its first vector.
    """
    rows = job.accepted
    urls = {url for code, url in enumerate(ENDPOINTS) if (job.endpoint[rows] == code).any()}
    columns = tuple(_columns(urls, schema, tools=job.with_tools > 0))
    several = bool(len(rows)) and bool((job.choices[rows] > 1).any())
    names = {*(column.name for column in columns), *_ENDED}
    number, suffix = 1, ""
    while not {f"{name}{suffix}" for name in names}.isdisjoint(own):
        number += 1
        suffix = f"_{number}"
    return AnswerColumns(columns, Shape(several=several, size=size), suffix, with_id=not own)


def _columns(urls: Collection[str], schema: dict[str, Any] | None, *, tools: bool) -> Sequence[Column]:
    written = _CHAT in urls or _COMPLETIONS in urls or not urls
    found: list[Column] = []
    if written:
        found += [cells.RESPONSE]
        found += [cells.REASONING] if _CHAT in urls else []
        found += [cells.CALLS] if tools else []
        found += [cells.PARSED] if schema is not None else []
    if "/v1/embeddings" in urls:
        found += [cells.EMBEDDING]
    if "/v1/classify" in urls:
        found += cells.LABELS
    if "/v1/score" in urls:
        found += cells.SCORES
    if "/v1/rerank" in urls:
        found += cells.RANKING
    found += [cells.FINISH] if written else []
    found += cells.INPUT_TOKENS
    found += [cells.OUTPUT_TOKENS] if written else []
    return found


def _cell(column: Column, body: Any, shape: Shape) -> Any:
    """None for an answer of another endpoint, and where there is none."""
    if not isinstance(body, dict):
        return None
    try:
        return column.read(body, shape)
    except UnlikeError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
