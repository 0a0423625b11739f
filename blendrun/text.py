"""Text of others (lines, servers, file names, logs) as it may be shown: short, and without control characters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

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


def in_money(amount: float) -> str:
    """An amount of whatever currency the prices are in; small ones with two digits that say something."""
    if amount >= 0.1 or amount == 0:
        return f"{amount:,.2f}"
    return f"{amount:.{min(1 - math.floor(math.log10(amount)), 9)}f}"


def at_price(amount: float, hour: float, devices: int) -> str:
    """An amount and the price it rests on: 0.76 at 2.5 an hour for each of 2 devices."""
    return f"{in_money(amount)} at {hour:g} an hour" + (f" for each of {devices:,} devices" if devices > 1 else "")


def in_one_unit(seconds: Iterable[float]) -> list[str]:
    """Times that stand beside each other, all in the unit that suits the shortest: ["2.4 min", "210.0 min"]."""
    values = list(seconds)
    unit, size, digits = _unit(min((abs(value) for value in values if value), default=0.0))
    return [f"{value / size:,.{digits}f} {unit}" for value in values]


def in_time(seconds: float) -> str:
    """A time alone, in the unit that suits it: 840 ms, 24.4 s, 2.4 min, 3.1 h."""
    return in_one_unit((seconds,))[0]


def _unit(seconds: float) -> tuple[str, float, int]:
    if 0 < seconds < 1:
        return ("ms", 1e-3, 0) if seconds >= 0.01 else ("ms", 1e-3, 2)
    if seconds < 120:
        return "s", 1.0, 1
    return ("min", 60.0, 1) if seconds < 7200 else ("h", 3600.0, 1)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
