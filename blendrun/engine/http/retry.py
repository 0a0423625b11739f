"""What an exchange with a server means for its request."""

from __future__ import annotations

from enum import Enum

# Refusals that speak of the server: a redirect, payment, a path that is not there.
NOT_THE_REQUESTS = (301, 302, 303, 307, 308, 402, 404, 405)


class Verdict(Enum):
    """Of an exchange. ANSWERED, REFUSED: the end of the request, with an answer or an error of its own.

    BUSY: the server takes nothing now (too many requests, overload, a gateway without its server behind it).
    FAILED: the request was taken and came to nothing: an error inside, a cut connection, an answer that is none.
    MALFORMED: the same with an answer of another shape, for which the server is not given up.
    STALLED: no answer in time. AWAY: nobody listens. FORBIDDEN: the key is wrong, for this and all others.
    """

    ANSWERED = "answered"
    REFUSED = "refused"
    BUSY = "busy"
    FAILED = "failed"
    MALFORMED = "malformed"
    STALLED = "stalled"
    AWAY = "away"
    FORBIDDEN = "forbidden"


def meaning_of(status: int) -> Verdict:
    """By status code alone."""
    if status == 200:
        return Verdict.ANSWERED
    if status in (401, 403):
        return Verdict.FORBIDDEN
    # 529 is what some gateways say for overload.
    if status in (425, 429, 502, 503, 504, 529):
        return Verdict.BUSY
    if status == 408 or status >= 500:
        return Verdict.FAILED
    return Verdict.REFUSED
