"""What stands at the head of a GGUF file: names and values, without its weights and without a library."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"GGUF"
# Of the format's versions, those that count with 64 bits.
_VERSIONS = (2, 3)
_TEXT, _LIST = 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# No value of a real file is near to it: a damaged length must not ask for all memory.
_LONGEST = 1 << 28


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """values: by name. tensors: names of the weights."""

    values: dict[str, Any]
    tensors: tuple[str, ...]


def read_header(path: Path) -> GgufHeader:
    """The whole head. Raises ValueError for what is no GGUF file, or a damaged one, and OSError."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError(f"{path.name} is no GGUF file")
        version, tensors, count = _number(file, "I"), _number(file, "Q"), _number(file, "Q")
        if version not in _VERSIONS:
            raise ValueError(f"{path.name} is GGUF of version {version}; known are {_VERSIONS}")
        values = dict(_pair(file) for _ in range(_within(count)))
        return GgufHeader(values, tuple(_tensor(file) for _ in range(_within(tensors))))


def _pair(file: BinaryIO) -> tuple[str, Any]:
    name = _text(file)
    return name, _value(file, _number(file, "I"))


def _tensor(file: BinaryIO) -> str:
    """The name of one; its dimensions, kind and place are passed over."""
    name = _text(file)
    _bytes(file, 8 * _within(_number(file, "I")) + 4 + 8)
    return name


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind == _LIST:
        inner, count = _number(file, "I"), _within(_number(file, "Q"))
        if form := _FORMS.get(inner):
            return list(struct.unpack(f"<{count}{form}", _bytes(file, count * struct.calcsize(f"<{form}"))))
        read: Callable[[], Any] = (lambda: _text(file)) if inner == _TEXT else (lambda: _value(file, inner))
        return [read() for _ in range(count)]
    if form := _FORMS.get(kind):
        return _number(file, form)
    raise ValueError(f"a value of the unknown kind {kind}")


def _text(file: BinaryIO) -> str:
    return _bytes(file, _number(file, "Q")).decode("utf-8", "replace")


def _number(file: BinaryIO, form: str) -> Any:
    (found,) = struct.unpack(f"<{form}", _bytes(file, struct.calcsize(f"<{form}")))
    return found


def _bytes(file: BinaryIO, count: int) -> bytes:
    found = file.read(_within(count))
    if len(found) != count:
        raise ValueError("the file ends in the middle of its head")
    return found


def _within(count: int) -> int:
    if count > _LONGEST:
        raise ValueError(f"a length of {count:,}")
    return count
