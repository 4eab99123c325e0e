"""Guarded memory, and calls through addresses: how the tests reach the compiled kernels."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop._kernels.simd import lanes, load, pointer, store

DTYPES = [np.float32, np.float64]

each_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Kernels have no Python wrapper. A test's own function, compiled by this, makes pointers of the
# addresses that it gets and calls one kernel.
jit = numba.njit(nogil=True, error_model="numpy")

_LINE = 64
_GUARD_BYTES = 4 * _LINE
_GUARD = 0xFF  # four or eight of them are a NaN


def lanes_of(dtype):
    """Elements of a vector."""
    return VECTOR_BITS // (8 * np.dtype(dtype).itemsize)


def padded(n, dtype):
    """``n`` rounded up to whole vectors."""
    return -(-n // lanes_of(dtype)) * lanes_of(dtype)


class Memory:
    """Arrays for a call of a kernel, each between two guard bands that the call must not change.

    A read beyond an array is seen too: the guard bands are NaN.
    """

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self._guards = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.check()

    def empty(self, *shape, dtype=None):
        """An array on a cache line whose every byte is a guard's, so NaN if it is of floats."""
        dtype = np.dtype(dtype or self.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        block = np.full(size + 2 * _GUARD_BYTES + _LINE, _GUARD, np.uint8)
        start = _GUARD_BYTES + -(block.ctypes.data + _GUARD_BYTES) % _LINE
        self._guards += [block[:start], block[start + size :]]
        return block[start : start + size].view(dtype).reshape(shape)

    def copy(self, values, ld=None):
        """A vector, or a matrix whose rows become ``ld`` elements apart, with NaN between them."""
        values = np.asarray(values)
        dtype = self.dtype if values.dtype.kind == "f" else values.dtype
        out = self.empty(*values.shape[:-1], ld or values.shape[-1], dtype=dtype)
        out[..., : values.shape[-1]] = values
        return out

    def check(self):
        """Fail if anything was written outside of the arrays."""
        assert all(np.all(guard == _GUARD) for guard in self._guards), "written beyond an array"


def address(array):
    """Where an array begins; 0 for None."""
    return 0 if array is None else array.ctypes.data


def elementwise(function):
    """A kernel that takes and returns one vector, as a function of whole arrays."""

    @jit
    def run(out, x, n, like):
        out, x = pointer(out, like), pointer(x, like)
        for i in range(0, n, lanes(x)):
            store(out + i, function(load(x + i)))

    def apply(x):
        x = np.asarray(x)
        size = padded(x.size, x.dtype)
        with Memory(x.dtype) as memory:
            source, out = memory.copy(x.ravel(), size), memory.empty(size)
            run(address(out), address(source), size, x.dtype.type(0))
            return out[: x.size].reshape(x.shape).copy()

    return apply


def assert_same_bits(actual, expected):
    """Equal to the last bit, signs of zeros included; any NaN is like any other."""
    np.testing.assert_array_equal(actual, expected)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual)[~nan], np.signbit(expected)[~nan])
    assert actual.dtype == expected.dtype
