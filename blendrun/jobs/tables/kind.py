"""Whether a file is a table: Parquet and JSON by their first bytes, CSV and text, which have none, by their names."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from blendrun.errors import InputInvalidError
from blendrun.jobs.tables import json_rows, parquet_rows, text_rows
from blendrun.jobs.tables.base import REQUESTS, Kind, Table
from blendrun.jobs.tables.columns import Columns, knows

# What of a file is looked at, and how many of its lines.
_HEAD_BYTES, _HEAD_LINES = 1 << 20, 20
# Rows of JSON that tell which columns there are.
_NAMED_ROWS = 100
_PACKED = (".gz", ".zst", ".zstd")
_SUFFIXES = {".csv": Kind.CSV, ".tsv": Kind.TSV, ".tab": Kind.TSV, ".txt": Kind.TEXT}
_BOM = b"\xef\xbb\xbf"


def find_table(path: Path, name: str, columns: Columns) -> Table | None:
    """The table that a plain file is; None where it holds request lines, or what is no table.

    name: as the user gave it. Raises InputInvalidError, InputMissingError, UsageError (no pyarrow), OSError.
    """
    kind = _kind(path, name, columns)
    if kind is None:
        return None
    names = _names(path, name, kind)
    if not names:
        raise InputInvalidError(f"{name} has no columns" if kind is Kind.PARQUET else f"{name} holds no rows")
    return Table(path, name, kind, names)


def suffix_kind(name: str) -> Kind | None:
    """What a name says, whatever packs it."""
    suffixes = [each for each in Path(name).suffixes if each.lower() not in _PACKED]
    return _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None


def _kind(path: Path, name: str, columns: Columns) -> Kind | None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(parquet_rows.MAGIC):
        return Kind.PARQUET
    whole = len(head) < _HEAD_BYTES
    text = head.removeprefix(_BOM).lstrip()
    named = suffix_kind(name)
    if named in (Kind.CSV, Kind.TSV):
        return named
    if text.startswith(b"[") and _is_array(text, whole, columns):
        return Kind.ARRAY
    row = None if text.startswith(b"[") and named is not Kind.TEXT else _first_object(text, whole)
    # Of prompts any but the first may be JSON; requests may begin with a wrong line.
    if named is Kind.TEXT and text and not text.startswith(b"{"):
        return None if row is not None and json_rows.is_request(row) else Kind.TEXT
    return Kind.ROWS if row is not None and _is_row(row, columns) else None


def _first_object(text: bytes, whole: bool) -> dict[str, Any] | None:
    """The first of a file's first lines that is a JSON object."""
    lines = text.split(b"\n", _HEAD_LINES)
    for line in lines[: _HEAD_LINES if whole or len(lines) > _HEAD_LINES else -1] or lines[:1]:
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _is_row(row: dict[str, Any], columns: Columns) -> bool:
    """Whether an object is no request, nor meant to be one, nor of a trace, nor an answer, and has a prompt."""
    if json_rows.is_request(row) or "prompt_tokens" in row or row.keys() >= {"custom_id", "error"}:
        return False
    return bool(columns.given) or knows(row)


def _is_array(text: bytes, whole: bool, columns: Columns) -> bool:
    """Whether all of the file is one array of rows or requests; a line that is an array is only a wrong line."""
    first, _, rest = text.partition(b"\n")
    if rest.strip() and _is_json(first):
        return False
    inner = text[1:].lstrip()
    try:
        element = json.JSONDecoder().raw_decode(inner.decode(errors="replace"))[0]
    except (ValueError, RecursionError):
        # One that is longer than what is looked at; or the array is not sound, and reading it says where.
        return inner.startswith(b"{") and (not whole or bool(columns.given))
    if isinstance(element, dict):
        return json_rows.is_request(element) or _is_row(element, columns)
    return isinstance(element, str)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _names(path: Path, name: str, kind: Kind) -> tuple[str, ...]:
    if kind is Kind.PARQUET:
        return parquet_rows.names_of(path, name)
    if kind in (Kind.CSV, Kind.TSV):
        return text_rows.csv_names(path, name, kind)
    if kind is Kind.TEXT:
        return (text_rows.PROMPT,)
    rows = json_rows.line_rows(path) if kind is Kind.ROWS else json_rows.array_rows(path, name)
    names: dict[str, None] = {}
    for row in islice(rows, _NAMED_ROWS):
        names |= dict.fromkeys(row if isinstance(row, dict) else ())
    return tuple(names) or REQUESTS
