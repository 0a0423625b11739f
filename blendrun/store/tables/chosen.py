"""Which columns the answers of a job have, and the cells of a line in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.jobs.job import Job
from blendrun.store.tables import cells
from blendrun.store.tables.cells import Column, Of, Shape, UnlikeError

_CHAT, _COMPLETIONS, _GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
EMBEDDINGS, CLASSIFY, SCORE, RERANK = "/v1/embeddings", "/v1/classify", "/v1/score", "/v1/rerank"
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
        body = _body(answer)
        found = [_cell(column, body, self.shape) for column in self.columns]
        error = answer.get("error")
        if not isinstance(error, dict):
            error = {}
        own = [answer.get("custom_id")] if self.with_id else []
        return [*own, *found, error.get("code"), error.get("message")]


def columns_of_job(job: Job, own: Collection[str], schema: dict[str, Any] | None, size: int | None) -> AnswerColumns:
    """Of the answers of a job. own: names of the input's columns; none for lines, which are known by their custom_id.

    size: numbers of its first vector.
    """
    rows = job.accepted
    urls = {url for code, url in enumerate(ENDPOINTS) if (job.endpoint[rows] == code).any()}
    several = bool(len(rows)) and bool((job.choices[rows] > 1).any())
    return _named(_columns(urls, schema, tools=job.with_tools > 0), own, Shape(several=several, size=size))


def columns_of_lines(lines: Iterable[bytes]) -> AnswerColumns:
    """Of answers whose requests nobody knows, by what stands in them."""
    urls: set[str] = set()
    several = tools = False
    size = None
    for line in lines:
        if (body := _body(orjson.loads(line))) is None:
            continue
        urls.add(_url(body))
        choices = body.get("outputs" if cells.is_generate(body) else "choices")
        several |= isinstance(choices, list) and len(choices) > 1
        tools = tools or b'"tool_calls":[' in line
        size = vector_size([line]) if size is None else size
    return _named(_columns(urls, None, tools=tools), (), Shape(several=several, size=size))


def vector_size(lines: Iterable[bytes]) -> int | None:
    """Numbers of the first vector; None where there is none."""
    for line in lines:
        try:
            found = (_body(orjson.loads(line)) or {})["data"][0]["embedding"]
            return len(cells.vector(found))
        except (LookupError, TypeError, ValueError):
            continue
    return None


def _url(body: dict[str, Any]) -> str:
    """Of a response, by its form; of other APIs that of a chat."""
    if isinstance(data := body.get("data"), list):
        first = data[0] if data and isinstance(data[0], dict) else {}
        return EMBEDDINGS if "embedding" in first else CLASSIFY if "probs" in first else SCORE
    if "scores" in body:
        return SCORE
    if "results" in body:
        return RERANK
    if cells.is_generate(body):
        return _GENERATE
    choices = body.get("choices")
    text = isinstance(choices, list) and choices and isinstance(choices[0], dict) and "text" in choices[0]
    return _COMPLETIONS if text else _CHAT


def _body(answer: dict[str, Any]) -> dict[str, Any] | None:
    found = _within(answer.get("response"), "body") or _within(answer.get("result"), "message")
    return found if isinstance(found, dict) else None


def _within(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _named(columns: Sequence[Column], own: Collection[str], shape: Shape) -> AnswerColumns:
    """With names that no column of the input has."""
    names = {*(column.name for column in columns), *_ENDED}
    number, suffix = 1, ""
    while not {f"{name}{suffix}" for name in names}.isdisjoint(own):
        number += 1
        suffix = f"_{number}"
    return AnswerColumns(tuple(columns), shape, suffix, with_id=not own)


def _columns(urls: Collection[str], schema: dict[str, Any] | None, *, tools: bool) -> Sequence[Column]:
    written = not urls or not {_CHAT, _COMPLETIONS, _GENERATE}.isdisjoint(urls)
    found: list[Column] = []
    if written:
        found += [cells.RESPONSE]
        found += [cells.REASONING] if _CHAT in urls else []
        found += [cells.CALLS] if tools else []
        found += [cells.PARSED] if schema is not None else []
    if EMBEDDINGS in urls:
        found += [cells.EMBEDDING]
    if CLASSIFY in urls:
        found += cells.LABELS
    if SCORE in urls:
        found += cells.SCORES
    if RERANK in urls:
        found += cells.RANKING
    found += [cells.FINISH] if written else []
    found += cells.INPUT_TOKENS
    found += [cells.OUTPUT_TOKENS] if written else []
    return found


def _cell(column: Column, body: dict[str, Any] | None, shape: Shape) -> Any:
    """None for an answer of another endpoint, and where there is none."""
    if body is None:
        return None
    try:
        return column.read(body, shape)
    except UnlikeError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None
