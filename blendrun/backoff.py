"""How long to wait before something that a server did not do is tried again."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime

# Seconds before a try at most.
_LONGEST_S, _MOST_DOUBLINGS = 30.0, 10
# A server may ask for longer; more than that is a mistake of its clock or ours.
_LONGEST_ASKED_S = 3600.0
# Of a header: no number and no date is longer.
_LONGEST_HEADER = 64


def pause(tries: int, first: float, asked: float | None = None, longest_asked: float = _LONGEST_ASKED_S) -> float:
    """Seconds until the next try, of which `tries` were made. asked: what the server asked for, longest_asked: at most.

    first: before the second try at most; twice as long before each one after it. It is drawn from the upper half, so
    that requests that failed together do not come back together.
    """
    longest = min(first * 2 ** min(tries - 1, _MOST_DOUBLINGS), _LONGEST_S)
    return max(random.uniform(longest / 2, longest), min(asked or 0.0, longest_asked, _LONGEST_ASKED_S))


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3); None where it cannot be read."""
    if value is None or len(value) > _LONGEST_HEADER:
        return None
    try:
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
