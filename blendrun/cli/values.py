"""What is said of a value that an option does not take: the option, the value, and what to give instead."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Of each option that takes a number one that works.
NUMBERS = {
    "drain_timeout": "60",
    "gpus": "2",
    "host_memory": "64",
    "keep_sharing": "0.99",
    "kv_tokens": "32768",
    "limit": "100",
    "max_file_bytes": "1000000000",
    "max_line_bytes": "1000000",
    "max_lines": "50000",
    "max_restarts": "5",
    "max_running": "64",
    "max_tokens": "256",
    "metrics_port": "9400",
    "port": "8000",
    "price": "2.5",
    "repeat": "3",
    "replicas": "2",
    "requests": "1000",
    "rho": "1.1",
    "seed": "7",
    "sharing": "0.3",
    "stall_timeout": "120",
    "temperature": "0.7",
    "threads": "8",
    "tp": "2",
    "zstd_window": "27",
}
# An empty text says something there, or is told in words of its own.
_MAY_BE_EMPTY = ("system_prompt", "model", "engine_arg", "api_key")
_LONGEST = 60
# In the words of typer's versions.
_WHOLE, _NUMBER = ("integer",), ("number", "float", "range", "greater than", "less than")
_NAMES, _QUOTED = re.compile(r"not one of (.+)"), re.compile(r"'([^']*)'")


def wrong_value(error: Any, given: Mapping[str, Any]) -> str | None:
    """A sentence of a value that typer refused; None where it is about something else.

    error: a `typer.BadParameter`. given: texts as they stand on the command line, by parameter name.
    """
    option, texts = error.param, given.get(getattr(error.param, "name", None) or "")
    if option is None or texts is None:
        return None
    text = " ".join(_texts(texts))
    said = str(error.message).removeprefix("Value error, ")
    if (names := _NAMES.search(said)) is not None:
        said = f"known are {', '.join(_QUOTED.findall(names[1]))}"
    elif any(word in said for word in (*_WHOLE, *_NUMBER)):
        said = _number_to_give(option, text, whole=any(word in said for word in _WHOLE))
    else:
        said = said.removeprefix(f"{text}: ")
    return f"{_name(option)} {_shown(text)}: {said}"


def is_suspect(value: Any) -> bool:
    """Whether a value that typer takes may be none: a number without an end, an empty text, or a path of one."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list | tuple):
        return any(map(is_suspect, value))
    return value == "" or (isinstance(value, Path) and value == Path())


def no_value(options: Iterable[Any], taken: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """A sentence of a value that typer takes and that is none; None where there is none such.

    taken: values by name. given: texts as they stand on the command line.
    """
    for option in options:
        value, text = taken.get(option.name), given.get(option.name)
        if isinstance(value, float) and not math.isfinite(value):
            shown = str(value if text is None else text)
            return f"{_name(option)} {_shown(shown)}: {_number_to_give(option, shown, whole=False)}"
        if option.name not in _MAY_BE_EMPTY and "" in _texts(text):
            return f"{_name(option)} is empty: give it a value, or leave it out"
    return None


def _texts(given: Any) -> list[str]:
    """Of one option: several where it may be repeated, none of a flag."""
    if isinstance(given, str):
        return [given]
    return [str(each) for each in given] if isinstance(given, list | tuple) else []


def _number_to_give(option: Any, text: str, *, whole: bool) -> str:
    least, most = (_bound(option, side) for side in ("min", "max"))
    kind = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        kind = f"{kind} from {least:,} to {most:,}"
    elif least is not None:
        kind = f"{kind} of at least {least:,}"
    elif most is not None:
        kind = f"{kind} of at most {most:,}"
    example = NUMBERS.get(option.name)
    such = f", such as {_name(option)} {example}" if example else ""
    by_card = "; prices by card are for blendrun plan" if option.name == "price" and "=" in text else ""
    return f"give {kind}{such}{by_card}"


def _bound(option: Any, side: str) -> float | None:
    """Older versions of typer have it with the type."""
    found = getattr(option, side, None)
    bound: float | None = getattr(getattr(option, "type", None), side, None) if found is None else found
    return bound


def _name(option: Any) -> str:
    names: Sequence[str] = option.opts
    found = max(names, key=len)
    return found if found.startswith("-") else option.name.upper()


def _shown(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        return f"{text[:_LONGEST]!r}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
