"""Text of others (lines, servers, file names, logs) as it may be shown: short, and without control characters."""

from __future__ import annotations

import re

# Characters of a message that are kept of what others wrote.
LONGEST_MESSAGE = 2000
# What a terminal may act on: control characters, and those that turn the direction of writing around.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSEEN_BUT_LINES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# As in `[17:23:36] /project/cpp/converter.cc:4181: `.
_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+\.(?:cc|cpp|h|hpp):\d+: ?")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with each control character written out, as `\x1b`. lines: line feeds stay."""
    return (_UNSEEN_BUT_LINES if lines else _UNSEEN).sub(_written, text)


def cut(text: str, most: int = LONGEST_MESSAGE) -> str:
    """The text, or its beginning and "…" where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(count: int, one: str, many: str = "") -> str:
    """A number of things in words: 1 line, 2,000 lines. many: what several are; "" for `one` with an "s"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def without_place(text: str) -> str:
    """A message without the clock and the line of a C++ file that a compiled library puts before it."""
    return _PLACE.sub("", text).strip()


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
