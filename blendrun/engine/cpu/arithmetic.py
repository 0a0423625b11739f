"""exp for loops compiled by Numba, in a form that LLVM turns into vectors: a call of libm's for each value takes longer
than all else that the loops do."""

from __future__ import annotations

import numpy as np

from blendrun.engine.cpu.instructions import real_of
from blendrun.tree.compiled import reordered

_F = np.float32
# exp(x) = 2^n exp(r) with r = x - n ln 2 and ln 2 in two parts; the polynomial is that of Cephes' expf.
_LOWEST, _LOG2_E, _LN2, _LN2_REST = _F(-87), _F(1.44269504088896341), _F(0.693359375), _F(-2.12194440e-4)
_P0, _P1, _P2 = _F(1.9875691500e-4), _F(1.3981999507e-3), _F(8.3334519073e-3)
_P3, _P4, _P5 = _F(4.1665795894e-2), _F(1.6666665459e-1), _F(5.0000001201e-1)
_HALF, _ONE = _F(0.5), _F(1)
_BIAS, _FRACTION = np.int32(127), np.int32(23)


@reordered
def exp_of_negative(x: np.float32) -> np.float32:
    """exp of a float32 that is not above 0, to its rounding; the least is that of -87, which is 1.6e-38."""
    x = max(x, _LOWEST)
    n = np.int32(x * _LOG2_E - _HALF)
    whole = _F(n)
    r = x - whole * _LN2 - whole * _LN2_REST
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    result: np.float32 = (p * r * r + r + _ONE) * real_of(np.int32((n + _BIAS) << _FRACTION))
    return result
