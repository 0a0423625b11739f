"""Cells that hold pictures: bytes, data sets' `{bytes, path}`, addresses, paths, or a list of any of them."""

from __future__ import annotations

import base64
from typing import Any

from blendrun.jobs.tables.base import RowError

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
)


def image_parts(cell: Any, column: str) -> list[dict[str, Any]]:
    """Parts of a message's content, one a picture. Raises RowError."""
    cells = cell if isinstance(cell, list) else [cell]
    if not cells:
        raise RowError(f"`{column}` is an empty list")
    return [{"type": "image_url", "image_url": {"url": _url(each, column)}} for each in cells]


def _url(cell: Any, column: str) -> str:
    if isinstance(cell, dict):
        data = cell.get("bytes")
        cell = data if data is not None else cell.get("path") or cell.get("url")
    if isinstance(cell, str) and cell:
        return cell
    if isinstance(cell, bytes) and (kind := _kind(cell)) is not None:
        return f"data:image/{kind};base64,{base64.b64encode(cell).decode()}"
    raise RowError(f"`{column}` is null" if cell is None else f"`{column}` holds no picture that is known")


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
