"""Inverted dropout whose mask is a function of (seed, epoch, step, layer, row, unit).

No thread owns a generator, and no mask is stored: what is dropped becomes -0, which nothing that is
kept is, so that the backward pass sees the mask in what the layer multiplied.
The generator is Threefry-2x32 from Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC 2011, section 3.3, with 13 rounds: the fewest that they know to pass all tests of
BigCrush. Their 20 are a margin that masks do not need.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    as_bits,
    fill,
    fma,
    integer_constant_for,
    lane_index,
    lanes,
    load,
    select,
    store,
)

_PARITY = np.uint32(0x1BD11BDA)
_32 = np.uint32(32)
# Of the four rounds in each odd group of four, and in each even one.
_ODD = tuple(np.uint32(rotation) for rotation in (13, 15, 26, 6))
_EVEN = tuple(np.uint32(rotation) for rotation in (17, 29, 16, 24))
_ALL = 1 << 32


@kernel
def _mix(x):
    """SplitMix64's finalizer: 64 well-mixed bits of 64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def dropout_key(seed, epoch, step, layer):
    """64 bits of key for one application of dropout."""
    key = _mix(np.uint64(seed))
    key = _mix(key ^ np.uint64(epoch))
    key = _mix(key ^ np.uint64(step))
    return _mix(key ^ np.uint64(layer))


@kernel
def _round(x0, x1, rotation):
    x0 = x0 + x1
    x1 = (x1 << rotation) | (x1 >> (_32 - rotation))
    return x0, x1 ^ x0


@kernel
def _rounds(x0, x1, rotations, first, second):
    """Four rounds, and the injection of two words, of the key and of it and their number."""
    x0, x1 = _round(x0, x1, rotations[0])
    x0, x1 = _round(x0, x1, rotations[1])
    x0, x1 = _round(x0, x1, rotations[2])
    x0, x1 = _round(x0, x1, rotations[3])
    return x0 + first, x1 + second


@kernel
def random_bits(key, pair, column):
    """Threefry-2x32-13: two times 32 random bits for each lane of ``column`` (uint32)."""
    k0, k1 = np.uint32(key), np.uint32(key >> np.uint64(32))
    k2 = k0 ^ k1 ^ _PARITY
    x0, x1 = column + k0, fill(column, np.uint32(np.uint32(pair) + k1))
    x0, x1 = _rounds(x0, x1, _ODD, k1, np.uint32(k2 + np.uint32(1)))
    x0, x1 = _rounds(x0, x1, _EVEN, k2, np.uint32(k0 + np.uint32(2)))
    x0, x1 = _rounds(x0, x1, _ODD, k0, np.uint32(k1 + np.uint32(3)))
    return _round(x0, x1, _EVEN[0])


_sign_bit = integer_constant_for({types.float32: -(1 << 31), types.float64: -(1 << 63)})


@kernel
def _keep(out, x, kept, keep_scale):
    v = load(x)
    zero = fill(v, 0.0)
    # 0 is added to what is kept, so that its -0 becomes 0.
    store(out, select(kept, fma(v, fill(v, keep_scale), zero), -zero))


@kernel
def dropout(out, x, ld, first, last, left, right, key, keep_below, keep_scale):
    """out = x · keep_scale where random < keep_below, else -0.

    out, x : (rows, ld), may be the same. Rows [first, last), columns [left, right) from the start
    of a vector; whole vectors are written, the padding included.
    """
    if keep_below >= _ALL:
        return
    limit = np.uint32(keep_below)
    # The generator gives two numbers at a time: one for each of two rows, which halves its cost.
    for pair in range(first >> 1, (last + 1) >> 1):
        for j in range(left, right, lanes(x)):
            columns = lane_index(load(x)) + np.uint32(j)
            even, odd = random_bits(key, pair, columns)
            above, below = 2 * pair * ld + j, (2 * pair + 1) * ld + j
            if first <= 2 * pair:
                _keep(out + above, x + above, even < limit, keep_scale)
            if 2 * pair + 1 < last:
                _keep(out + below, x + below, odd < limit, keep_scale)


@kernel
def dropout_backward(dx, ld_dx, x, ld_x, first, last, left, right, keep_scale):
    """dx *= keep_scale where x, made by `dropout`, is kept, else 0.

    Rows [first, last), columns [left, right) from the start of a vector, whole vectors.
    """
    for i in range(first, last):
        for j in range(left, right, lanes(x)):
            v = load(x + (i * ld_x + j))
            kept = as_bits(v) != _sign_bit(v)
            place = dx + (i * ld_dx + j)
            store(place, select(kept, load(place) * keep_scale, 0.0))
