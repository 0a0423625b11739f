"""Answers to requests that were written in another API's words, put into these where they arrive."""

from __future__ import annotations

import msgspec

from blendrun.endpoints.apis.base import Spoken
from blendrun.engine.base import Result
from blendrun.engine.failure import failure
from blendrun.errors import ErrorCode

_OK, _BAD_GATEWAY = 200, 502


def in_own_words(result: Result, spoken: Spoken | None) -> Result:
    """The result as its request has to have it; an error where the answer cannot be said so.

    An answer that stands beside an error (it broke its promise, say) is put into these words, too.
    """
    if spoken is None or result.status_code != _OK or not result.body:
        return result
    try:
        return msgspec.structs.replace(result, body=spoken.answer(result.body))
    except ValueError as error:
        return failure(result.row, _BAD_GATEWAY, ErrorCode.ENGINE_ERROR, str(error))
