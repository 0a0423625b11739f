"""A part of a job that is like the whole: so many of its units, and what is fed of it in the same orders."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.blend.scan_row import ScanRow
from blendrun.tokens.base import Prompts

# How far the part may be from its share, in requests and in tokens.
_OFF = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """numbers: i64 (n,), ascending, the part's prompts in the whole job; its own orders count from 0."""

    numbers: NDArray[np.int64]
    _number: NDArray[np.int64]

    @classmethod
    def like_whole(cls, blend: Blend, prompts: Prompts, outputs: NDArray[np.int64], requests: int) -> Portion | None:
        """About so many requests of a larger job; None where units are too large or too unlike for that.

        Units of the blend (`blend.split`) are taken whole, so that what they share stays shared.
        outputs: i64 (M,), of one choice, as expected.
        """
        share = requests / len(prompts)
        # As many at every place of the row, along which units stand by density.
        taken = np.floor(np.arange(blend.units + 1) * share)
        numbers = np.sort(blend.row_prompt[(taken[1:] > taken[:-1])[blend.row.unit]])
        for weight in (np.ones(len(prompts)), prompts.prompt_tokens, outputs * prompts.choices):
            if not abs(float(weight[numbers].sum()) / max(share * float(weight.sum()), 1e-9) - 1) <= _OFF:
                return None
        number = np.full(len(prompts), -1, dtype=np.int64)
        number[numbers] = np.arange(len(numbers))
        return cls(numbers, number)

    def of(self, fed: Order | Blend) -> Order | Blend:
        """The part's requests in the order in which the whole is fed. A blend's divisions of the pool stay."""
        if isinstance(fed, Order):
            prompt = self._number[fed.prompt]
            return Order(fed.name, prompt[prompt >= 0], fed.side[prompt >= 0])
        order = self.of(fed.order)
        assert isinstance(order, Order)
        prompt = self._number[fed.row_prompt]
        return replace(fed, order=order, row=_some(fed.row, prompt >= 0), row_prompt=prompt[prompt >= 0])


def _some(row: ScanRow, kept: NDArray[np.bool_]) -> ScanRow:
    """kept: bool (M,), leaves."""
    held = row.held
    return replace(
        row,
        unit=row.unit[kept],
        held=replace(held, **{column.name: getattr(held, column.name)[kept] for column in fields(held)}),
        own_left=row.own_left[kept],
        own_right=row.own_right[kept],
        keep_left=row.keep_left[kept],
        keep_right=row.keep_right[kept],
    )
