"""The orders that a blend has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Order
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

_SHUFFLE_SEED = 0


def shuffled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A permutation of `rows` that depends on their number only."""
    return np.random.default_rng(_SHUFFLE_SEED).permutation(rows)


def simple_order(name: OrderName, prompts: Prompts, tree: PrefixTree, lengths: Lengths) -> Order:
    """One of the orders that need no cost model. Raises ValueError for `blended`."""
    if name is OrderName.GIVEN:
        return _order(name, np.arange(len(prompts), dtype=np.int64))
    if name is OrderName.SHUFFLED:
        return _order(name, shuffled(np.arange(len(prompts), dtype=np.int64)))
    if name is OrderName.SORTED:
        return _order(name, tree.prompt)
    if name is OrderName.LOF:
        # Choices run side by side, so one choice's length decides how long the request stays. Equal lengths stay
        # depth first, which keeps what sharing a sort by length can keep.
        expected = lengths.mean[tree.prompt]
        return _order(name, tree.prompt[np.argsort(-expected, kind="stable")])
    raise ValueError(f"{name} needs the cost model")


def _order(name: OrderName, prompt: NDArray[np.int64]) -> Order:
    return Order(name, prompt, np.full(len(prompt), LEFT, dtype=np.uint8))
