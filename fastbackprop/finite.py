"""A quick look whether small arrays are finite, as every call on a few rows takes several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of more elements BLAS might make a sum in threads of its own.
_MOST = 8192


def is_surely_finite(array: NDArray[Any]) -> bool:
    """Whether an array of floats is small and has a finite sum of squares.

    Then each of its values is finite. Else they may be, too: there are many, or squares overflow.
    Looking at each takes three times as long, and a sum of values may overflow with a warning.

    Examples
    --------
    >>> is_surely_finite(np.array([1.0, -2.0]))
    True
    >>> is_surely_finite(np.array([1.0, np.nan])), is_surely_finite(np.array([1e200]))
    (False, False)
    """
    return array.size <= _MOST and math.isfinite(np.vdot(array, array))
