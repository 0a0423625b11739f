"""How answers are spread about what is expected of them: quantiles of each prompt's length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.prior import prior_quantile
from blendrun.lengths.survival import Curves, Floats, Groups


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Distributions of M prompts' answers: that of the prompt's kind, stretched to the prompt's own mean.

    A kind's is what was seen of it and the prior, quantile by quantile, with the weights that its mean has.

    of: i64 (M,), kind of each prompt, 0..C-1. scale: f64 (M,), times the kind's lengths. bound: i32 (M,).
    limit: i32 (C,), most tokens of the kind's answers. curves: of C groups, what was seen; None where nothing was.
    prior: answers that the prior counts for. stretch: of the prior's lengths.
    """

    of: Groups
    scale: Floats
    bound: NDArray[np.int32]
    limit: NDArray[np.int32]
    curves: Curves | None = None
    prior: float = 1.0
    stretch: float = 1.0

    def quantile(self, level: Floats) -> Floats:
        """The length that `level` of the answers (0 to 1) do not exceed, f64 (M,) -> f64 (M,), within the bound."""
        of = self.of
        tokens = self.stretch * prior_quantile(level, self.limit[of])
        if self.curves is not None:
            seen = self.curves.seen[of]
            tokens = (seen * self.curves.quantile(of, level) + self.prior * tokens) / (seen + self.prior)
        within: Floats = np.minimum(tokens * self.scale, self.bound)
        return within

    def take(self, numbers: NDArray[np.int64]) -> Spread:
        """Of some of the prompts. numbers: i64 (n,)."""
        return replace(self, of=self.of[numbers], scale=self.scale[numbers], bound=self.bound[numbers])
