"""Cells of any type as text, for prompts and for files of text."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import Any

import orjson

from blendrun.jobs.tables.base import RowError


def text_of(cell: Any, column: str) -> str:
    """A cell as it stands in a prompt; lists and structs as JSON. Raises RowError for null, and for bytes."""
    if isinstance(cell, str):
        return cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        raise RowError(f"`{column}` is null")
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise RowError(f"`{column}` holds bytes that are no UTF-8") from None
    return plain(cell)


def plain(cell: Any) -> str:
    """A cell that is neither null nor bytes, as text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, list | dict):
        return orjson.dumps(cell, default=_other, option=orjson.OPT_NON_STR_KEYS).decode()
    return str(cell)


def _other(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
