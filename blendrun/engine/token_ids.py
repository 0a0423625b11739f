"""Token ids in a request's parameters that the model does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.endpoints.fields import refuse_field

# Such a stop ends the scheduler as soon as any request that runs beside it has a least number of tokens.
_FIELDS = ("logit_bias", "stop_token_ids")


def check_token_ids(params: Mapping[str, Any], vocabulary: int) -> None:
    """params: SGLang's sampling parameters. Raises LineError, with the field's name, for an id outside of
    `vocabulary` (number of ids)."""
    for field in _FIELDS:
        for token in params.get(field) or ():
            # SGLang takes a null among them for nothing.
            if token is not None and not 0 <= int(token) < vocabulary:
                raise refuse_field(field, f"{token} is outside the model's vocabulary of {vocabulary}")
