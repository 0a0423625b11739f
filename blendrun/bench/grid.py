"""Numbers of a grid as the command line has them: `1.4`, `0.9,1.4` or `0.8:1.4:0.05`."""

from __future__ import annotations

import math

from blendrun.errors import UsageError

MAX_VALUES = 200


def parse_values(text: str, option: str) -> tuple[float, ...]:
    """The values, each once, ascending. a:b:step has both ends, b where it is a whole number of steps away.

    Raises UsageError naming the option where a number makes no sense or there are more than MAX_VALUES.
    """
    values: list[float] = []
    for part in text.split(","):
        values += _range(part, option) if ":" in part else [_number(part, option)]
    return tuple(sorted(set(values)))


def _range(text: str, option: str) -> list[float]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"{option} {text}: a grid is first:last:step, for example 0.8:1.4:0.05")
    first, last, step = (_number(part, option) for part in parts)
    if step <= 0 or last < first:
        raise UsageError(f"{option} {text}: the step must be above 0 and the last value no less than the first")
    # A little over, so that 0.8 + 12 * 0.05 is still within 1.4.
    count = (last - first) / step + 1e-6
    if count >= MAX_VALUES:
        raise UsageError(f"{option} {text}: these are {count + 1:,.0f} values; at most {MAX_VALUES} can be asked for")
    return [round(first + number * step, 10) for number in range(int(count) + 1)]


def _number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} takes a number or first:last:step, not {text.strip()!r}")
    return value
