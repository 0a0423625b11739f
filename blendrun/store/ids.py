"""The ids of lines in the output and in the errors file."""

from __future__ import annotations

HEAD = "batch_req_"


def line_id(key: bytes, taken: str | None = None) -> str:
    """Of the line whose work `key` names. taken: see `journal.Record`; the id ends with it, so that such lines are
    known.
    """
    return f"{HEAD}{key.hex()}" if taken is None else f"{HEAD}{key.hex()}_{taken}"
