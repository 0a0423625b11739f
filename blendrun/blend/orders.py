"""The registry of orders: by which rule each is made. A new order is a name in `blendrun.names` and a rule here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Order
from blendrun.blend.stable import stable_order
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

_SHUFFLE_SEED = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """How an order is made. An order without a function needs the cost model: that is the blend (`blend.blended`).

    of_rows: i64 rows to the same rows permuted; such an order needs no tokens, so anything can run it.
    of_prompts: prompts, their tree and expected lengths to i64 prompt numbers.
    needs_lengths: the order follows expected output lengths; a run that has to guess them learns them as it goes.
    automatic: a run may choose the order by itself.
    """

    of_rows: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None
    of_prompts: Callable[[Prompts, PrefixTree, Lengths], NDArray[np.int64]] | None = None
    needs_lengths: bool = False
    automatic: bool = True


def keep(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows as they stand."""
    return rows


def shuffle(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A permutation of `rows` that depends on their number only."""
    return np.random.default_rng(_SHUFFLE_SEED).permutation(rows)


def walk_tree(_: Prompts, tree: PrefixTree, __: Lengths) -> NDArray[np.int64]:
    """Depth first through the prefix tree."""
    return tree.prompt


def put_longest_first(_: Prompts, tree: PrefixTree, lengths: Lengths) -> NDArray[np.int64]:
    """Longest output first, by how far it may reach (`Lengths.reach`): a known length, or a long one of its kind.

    Choices run side by side, so one choice's length decides how long the request stays. Equal lengths stay depth first,
    which keeps what sharing a sort by length can keep.
    """
    return tree.prompt[stable_order(-lengths.reach[tree.prompt])]


# Simplest first: of orders that are equally fast the first one is chosen.
ORDERS: dict[OrderName, Rule] = {
    OrderName.GIVEN: Rule(of_rows=keep),
    OrderName.SORTED: Rule(of_prompts=walk_tree),
    # For comparisons; nothing speaks for it in a run.
    OrderName.SHUFFLED: Rule(of_rows=shuffle, automatic=False),
    OrderName.LOF: Rule(of_prompts=put_longest_first, needs_lengths=True),
    OrderName.BLENDED: Rule(needs_lengths=True),
}
SIMPLEST_FIRST = tuple(ORDERS)
AUTOMATIC = tuple(name for name, rule in ORDERS.items() if rule.automatic)


def needs_prompts(name: OrderName) -> bool:
    """Whether the order needs the prompts in tokens."""
    return ORDERS[name].of_rows is None


def simple_order(name: OrderName, prompts: Prompts, tree: PrefixTree, lengths: Lengths) -> Order:
    """One of the orders that need no cost model. Raises ValueError for `blended`."""
    rule = ORDERS[name]
    if rule.of_rows is not None:
        prompt = rule.of_rows(np.arange(len(prompts), dtype=np.int64))
    elif rule.of_prompts is not None:
        prompt = rule.of_prompts(prompts, tree, lengths)
    else:
        raise ValueError(f"{name} needs the cost model")
    return Order(name, prompt, np.full(len(prompt), LEFT, dtype=np.uint8))
