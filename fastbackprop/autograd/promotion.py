"""Promotion: the dtype that an operation computes in, by PyTorch's rule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbackprop.autograd.operations import Array

_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2}
_NUMBERS = (int, float, np.generic)  # np.float64(2), too, counts as a plain number


def real(array: Array) -> Array:
    """The array, if it is one of real numbers."""
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"a tensor holds real numbers, got {array!r:.60}")
    return array


def common_dtype(values: Sequence[object], arrays: Sequence[Array]) -> np.dtype[Any]:
    """The dtype of `arrays`, which are what `values` hold, together.

    Floats come before integers, those before bools; among equal kinds, what has axes decides,
    then tensors and arrays without axes, then plain numbers. So 0.5 and ``Tensor(0.5)`` leave
    float32 as it is, while an integer tensor times either becomes float64.
    """
    if len({x.dtype for x in arrays}) == 1:
        return arrays[0].dtype
    ranks = [
        (_KINDS[x.dtype.kind], x.ndim > 0, not isinstance(value, _NUMBERS))
        for value, x in zip(values, arrays, strict=True)
    ]
    deciding = [x.dtype for x, rank in zip(arrays, ranks, strict=True) if rank == max(ranks)]
    return np.result_type(*deciding)
