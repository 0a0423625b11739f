"""Token ids that a model does not have are refused by the name of their field."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.engine.token_ids import check_token_ids
from blendrun.errors import LineError


@pytest.mark.parametrize(
    "params",
    [{"stop_token_ids": [1, 100]}, {"stop_token_ids": {100}, "min_new_tokens": 2}, {"logit_bias": {"100": 1.0}}],
)
def test_outside_the_vocabulary(params: dict[str, Any]) -> None:
    with pytest.raises(LineError, match=f"`{next(iter(params))}`: 100 is outside the model's vocabulary of 100"):
        check_token_ids(params, 100)


@pytest.mark.parametrize(
    "params",
    [{}, {"stop_token_ids": None, "logit_bias": None}, {"stop_token_ids": [0, 99, None], "logit_bias": {"99": 1}}],
)
def test_inside_it(params: dict[str, Any]) -> None:
    check_token_ids(params, 100)
