"""Rows of a table as request lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.spellings import one_spelling
from blendrun.errors import LineError, UsageError

# From a row to a request's body, or to a batch line with `body` and `url`.
ToRequest = Callable[[dict[str, Any]], dict[str, Any]]


def request_line(row: dict[str, Any], number: int, to_request: ToRequest | None) -> bytes:
    """A row as a line of a job, named by its number. Raises UsageError for one that is no request at all.

    Columns that are null in this row count as not there: a table has every column in every row.
    """
    request = _present(row if to_request is None else to_request(row))
    if isinstance(request.get("body"), dict):
        body, url = request["body"], request.get("url")
    else:
        body, url = request, None
    # A column of text is no request in SGLang's own words unless its row says so.
    known = [endpoint for endpoint in ENDPOINTS.values() if endpoint.names_model]
    fits = [endpoint for endpoint in known if endpoint.prompt_field in body]
    if not fits and not url:
        fields = " nor ".join(dict.fromkeys(f"`{endpoint.prompt_field}`" for endpoint in known))
        names = ", ".join(sorted(map(str, row)))
        raise UsageError(f"a row has neither {fields} nor `body` but {names}: give to_request")
    if not url:
        # Of two with the same field, the first that takes the rest, too.
        url = next((endpoint.url for endpoint in fits if _takes(endpoint, body)), fits[0].url)
    return orjson.dumps({"custom_id": str(number), "url": url, "body": body})


def _takes(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    try:
        endpoint.validate(one_spelling(body))
    except LineError:
        return False
    return True


def _present(value: Any) -> Any:
    """As JSON has it, without the nulls that a table puts where a field of others is missing."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _present(each) for name, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list) else value
