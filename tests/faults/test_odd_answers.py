"""Answers of any shape become a row of a table, and leave those beside them as they are."""

from __future__ import annotations

import base64
import csv
import io
import struct
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from blendrun.backends import answer_files
from blendrun.errors import InputInvalidError
from blendrun.jobs.tables.base import Kind
from blendrun.store.tables import write

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
BASE64 = base64.b64encode(struct.pack("<2f", 1.0, 2.0)).decode()
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "choices": [
            {
                "message": {"content": "a", "reasoning_content": "b", "tool_calls": [{"id": "c"}]},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
    "completion": {"choices": [{"text": "a", "finish_reason": "stop"}], "usage": USAGE},
    "generate": {
        "text": "a",
        "meta_info": {"prompt_tokens": 3, "completion_tokens": 2, "finish_reason": {"type": "x"}},
    },
    "several": {"outputs": [{"text": "a", "meta_info": {}}, {"text": "b", "meta_info": {}}]},
    "vector": {"data": [{"embedding": [1.0, 2.0]}], "usage": USAGE},
    "base64": {"data": [{"embedding": BASE64}, {"embedding": BASE64}], "usage": USAGE},
    "classes": {"data": [{"label": "a", "probs": [0.5, 0.5]}], "usage": USAGE},
    "scores": {"data": [{"score": 0.5}], "scores": [[0.5]], "usage": USAGE},
    "ranking": {"results": [{"index": 0, "relevance_score": 0.5}], "usage": USAGE},
    "message": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}], "usage": USAGE},
    "response": {"object": "response", "output": [{"type": "message", "content": [{"type": "output_text"}]}]},
}
ODD: list[Any] = [None, True, -1, 2**63, 1.5e308, "", "x\u0000\r\n", [], {}, [None], [[]], [{}], {"a": [1]}, [1, "a"]]


def answer(body: Any) -> dict[str, Any]:
    return {"id": "x", "custom_id": "1", "response": {"status_code": 200, "body": body}, "error": None}


def changed(value: Any) -> Iterator[Any]:
    """With each odd value in each place, and without it."""
    yield from deepcopy(ODD)
    places = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for place in places:
        for other in changed(value[place]):
            copy = value.copy()
            copy[place] = other
            yield copy
        if isinstance(value, dict):
            yield {key: each for key, each in value.items() if key != place}


def lines_of(name: str) -> list[bytes]:
    good = answer(BODIES[name])
    # The form of all is that of the first.
    lines = [good, *map(answer, changed(BODIES[name]))]
    if name == "chat":
        for key in ("id", "custom_id", "response", "error", "result"):
            lines += [good | {key: deepcopy(other)} for other in ODD]
        lines += [good | {"result": {"message": BODIES["message"]}}]
    return [orjson.dumps(each) + b"\n" for each in (*lines, good)]


@pytest.mark.parametrize("kind", [Kind.CSV, Kind.PARQUET])
@pytest.mark.parametrize("name", BODIES)
def test_each_is_a_row(tmp_path: Path, name: str, kind: Kind) -> None:
    lines = lines_of(name)
    assert len(lines) > 50
    with (tmp_path / "t").open("w+b") as file:
        write.write_lines(file, kind, lambda: iter(lines))
    if kind is Kind.PARQUET:
        rows = pq.read_table(tmp_path / "t").to_pylist()
    else:
        rows = list(csv.DictReader(io.StringIO((tmp_path / "t").read_bytes().decode().replace("\0", ""), newline="")))
    assert len(rows) == len(lines)
    # Alike before and behind all that is odd.
    assert rows[0] == rows[-1]
    assert any(rows[0].values())


@pytest.mark.parametrize("kind", [Kind.CSV, Kind.PARQUET])
def test_long_ones_are_not_held_together(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_HELD_BYTES", 10_000)
    held: list[int] = []

    def lines() -> Iterator[bytes]:
        for row in range(100):
            held.append(row)
            body = {"choices": [{"text": f"{row}{'x' * 4000}", "finish_reason": "stop"}]}
            yield orjson.dumps(answer(body)) + b"\n"

    most: list[int] = []

    def counted(columns: Any, found: Iterator[bytes], count: int) -> list[list[Any]]:
        before = len(held)
        made = real(columns, found, count)
        most.append(len(held) - before)
        return made

    real = write._next
    monkeypatch.setattr(write, "_next", counted)
    with (tmp_path / "t").open("w+b") as file:
        write.write_lines(file, kind, lines)
    assert max(most) == 3
    if kind is Kind.PARQUET:
        texts = pq.read_table(tmp_path / "t")["response"].to_pylist()
        assert [text.rstrip("x") for text in texts] == [str(row) for row in range(100)]


class TestLongLines:
    def write(self, path: Path, *lines: bytes) -> str:
        path.write_bytes(b"".join(lines))
        return str(path)

    def test_one_that_is_longer_than_any_answer_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answer_files, "LONGEST_RECORD", 1000)
        good = orjson.dumps(answer(BODIES["completion"])) + b"\n"
        path = self.write(tmp_path / "a.jsonl", good, b'{"custom_id":"' + b"x" * 5000 + b'"}\n')
        lines = answer_files.answer_lines([path], None)()
        assert next(lines) == good
        with pytest.raises(InputInvalidError, match="line 2, is no answer of a run"):
            next(lines)

    def test_so_is_one_of_too_many_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answer_files, "LONGEST_RECORD", 100_000)
        good = orjson.dumps(answer(BODIES["completion"])) + b"\n"
        many = b'{"custom_id":"1","response":{"body":[' + b"{}," * 20_000 + b'0]},"error":null,"id":"x"}\n'
        path = self.write(tmp_path / "a.jsonl", good, many)
        with pytest.raises(InputInvalidError, match="line 2, is no answer of a run"):
            list(answer_files.answer_lines([path], None)())
        answer_files.refuse_answers(self.write(tmp_path / "b.jsonl", b"x" * 200_000))
