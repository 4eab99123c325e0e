"""The SIMD type: each operation on a vector does to every lane what NumPy does to an element."""

import numpy as np
import pytest
from kernel_harness import (
    Memory,
    address,
    assert_same_bits,
    each_dtype,
    elementwise,
    jit,
    lanes_of,
    padded,
)
from numba.core import types

from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop._kernels.simd import (
    absolute,
    any_lane,
    as_bits,
    convert,
    copysign,
    fill,
    fma,
    from_bits,
    has_tables,
    inverse,
    inverse_root,
    itemsize,
    lane_index,
    lanes,
    larger,
    largest_lane,
    live_lanes,
    load,
    piecewise_polynomial,
    pointer,
    select,
    smaller,
    sqrt,
    store,
    sum_lanes,
)
from fastbackprop._kernels.simd.types import vector_of

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.5, 2.5, -0.5, 1e30, 1e-30, 3.0]


def samples(dtype, seed, size=512):
    """Values of every kind: each pair of special ones meets, and random ones."""
    rng = np.random.default_rng(seed)
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL), dtype).reshape(2, -1)
    values = np.concatenate([pairs[seed % 2], rng.normal(size=size - pairs.shape[1])])
    return values.astype(dtype)


def run_lanes(function, dtype, operands, n_results):
    """Results (n_results, n) of a wrapper that writes one vector of each a call, L apart."""
    L, n = lanes_of(dtype), len(operands[0])
    assert n % L == 0
    results = []
    with Memory(dtype) as memory:
        sources = [memory.copy(operand) for operand in operands]
        out = memory.empty(n_results, L)
        for i in range(0, n, L):
            out[:] = np.nan
            places = [address(source[i:]) for source in sources]
            function(address(out), *places, dtype(0))
            results.append(out.copy())
    return np.concatenate(results, axis=1)


@jit
def _shapes(p, like):
    p = pointer(p, like)
    return lanes(p), lanes(load(p)), itemsize(p), itemsize(like)


@each_dtype
def test_lanes_and_itemsize(dtype):
    size = np.dtype(dtype).itemsize
    x = np.zeros(64, dtype)
    L = VECTOR_BITS // 8 // size
    assert _shapes(address(x), dtype(0)) == (L, L, size, size)


@jit
def _arithmetic(out, x, y, like):
    out, x, y = pointer(out, like), load(pointer(x, like)), load(pointer(y, like))
    L = lanes(x)
    store(out, x + y)
    store(out + L, x - y)
    store(out + 2 * L, x * y)
    store(out + 3 * L, x / y)
    store(out + 4 * L, x + 0.1)
    store(out + 5 * L, 0.1 - x)
    store(out + 6 * L, x * 3)
    store(out + 7 * L, 1.0 / x)
    store(out + 8 * L, -x)
    store(out + 9 * L, sqrt(x))
    store(out + 10 * L, absolute(x))
    store(out + 11 * L, copysign(x, y))
    store(out + 12 * L, x * y + y)


@each_dtype
def test_arithmetic(dtype):
    x, y = samples(dtype, 0), samples(dtype, 1)
    with np.errstate(all="ignore"):
        expected = [
            x + y,
            x - y,
            x * y,
            x / y,
            x + dtype(0.1),
            dtype(0.1) - x,
            x * dtype(3),
            dtype(1) / x,
            -x,
            np.sqrt(x),
            np.abs(x),
            np.copysign(x, y),
            x * y + y,  # not fused unless asked for
        ]
    assert_same_bits(run_lanes(_arithmetic, dtype, [x, y], 13), np.array(expected))


@jit
def _comparisons(out, x, y, like):
    out, x, y = pointer(out, like), load(pointer(x, like)), load(pointer(y, like))
    L = lanes(x)
    one = fill(x, 1.0)
    store(out, select(x < y, one, 0.0))
    store(out + L, select(x <= y, one, 0.0))
    store(out + 2 * L, select(x > y, one, 0.0))
    store(out + 3 * L, select(x >= y, one, 0.0))
    store(out + 4 * L, select(x == y, one, 0.0))
    store(out + 5 * L, select(x != y, one, 0.0))
    store(out + 6 * L, select(x < 1.0, one, 0.0))
    store(out + 7 * L, select(1.0 < x, one, 0.0))  # noqa: SIM300
    store(out + 8 * L, larger(x, y))
    store(out + 9 * L, smaller(x, y))
    store(out + 10 * L, select(x < y, 7.0, x))
    store(out + 11 * L, fill(x, any_lane(x > 1e29)))


@each_dtype
def test_comparisons(dtype):
    """NaN compares as in NumPy; `larger` and `smaller` give their second operand for it."""
    x, y = samples(dtype, 0), samples(dtype, 1)
    any_huge = np.repeat((x > 1e29).reshape(-1, lanes_of(dtype)).any(axis=1), lanes_of(dtype))
    expected = [
        x < y,
        x <= y,
        x > y,
        x >= y,
        x == y,
        x != y,
        x < 1,
        x > 1,
        np.where(x > y, x, y),
        np.where(x < y, x, y),
        np.where(x < y, 7, x),
        any_huge,
    ]
    assert_same_bits(run_lanes(_comparisons, dtype, [x, y], 12), np.array(expected, dtype))


@jit
def _fma(out, x, y, z, like):
    a, b, c = load(pointer(x, like)), load(pointer(y, like)), load(pointer(z, like))
    store(pointer(out, like), fma(a, b, c))


@each_dtype
def test_fma_rounds_once(dtype):
    L, eps = lanes_of(dtype), np.finfo(dtype).eps
    x = np.full(L, 1 + eps, dtype)
    z = np.full(L, -(1 + 2 * eps), dtype)
    np.testing.assert_array_equal(x * x + z, 0)
    np.testing.assert_array_equal(run_lanes(_fma, dtype, [x, x, z], 1), [[eps**2] * L])


@jit
def _bits(out, x, like):
    out, v = pointer(out, like), load(pointer(x, like))
    L = lanes(v)
    bits = as_bits(v)
    store(out, from_bits(bits, v))
    store(out + L, from_bits(bits + 1, v))
    store(out + 2 * L, from_bits(bits - 1, v))
    store(out + 3 * L, from_bits((bits << 1) >> 1, v))  # logical: the sign is gone
    store(out + 4 * L, from_bits(bits ^ as_bits(fill(v, -0.0)), v))
    store(out + 5 * L, from_bits(bits & as_bits(fill(v, -0.0)), v))
    store(out + 6 * L, from_bits(bits | as_bits(fill(v, -0.0)), v))
    store(out + 7 * L, convert(convert(v, bits), v))
    store(out + 8 * L, convert(lane_index(v), v))


@each_dtype
def test_bits_and_conversions(dtype):
    L = lanes_of(dtype)
    x = np.random.default_rng(0).normal(scale=1e4, size=8 * L).astype(dtype)
    bits = x.view(f"i{x.itemsize}")
    expected = [
        x,
        (bits + 1).view(dtype),
        (bits - 1).view(dtype),
        np.abs(x),
        -x,
        np.copysign(0, x),
        -np.abs(x),
        np.trunc(x) + 0.0,  # integers have no -0
        np.tile(np.arange(L), 8),
    ]
    assert_same_bits(run_lanes(_bits, dtype, [x], 9), np.array(expected, dtype))


@jit
def _live(out, j, n, like):
    out = pointer(out, like)
    v = fill(load(out), 1.0)
    store(out, select(live_lanes(v, j, n), v, 0.0))


@each_dtype
def test_live_lanes(dtype):
    L = lanes_of(dtype)
    with Memory(dtype) as memory:
        out = memory.empty(L)
        for j in (0, L, 5, 2**31 + 5, 2**32):
            for n in (*range(2 * L + 1), 2**31, 2**32 + 3, 2**40):
                _live(address(out), j, n, dtype(0))
                np.testing.assert_array_equal(out, j + np.arange(L) < n)


@jit
def _reductions(out, x, like):
    out, v = pointer(out, like), load(pointer(x, like))
    out[0] = sum_lanes(v)
    out[1] = largest_lane(v)


@each_dtype
def test_reductions(dtype):
    L, rng = lanes_of(dtype), np.random.default_rng(0)

    def reduce(x):
        with Memory(dtype) as memory:
            out = memory.empty(2)
            _reductions(address(out), address(memory.copy(x)), dtype(0))
            return out

    for _ in range(50):
        x = rng.integers(-1000, 1000, L).astype(dtype)
        assert reduce(x).tolist() == [x.sum(), x.max()]
        x = rng.normal(size=L).astype(dtype)
        total = reduce(x)[0]
        assert abs(total - x.sum(dtype=np.longdouble)) <= L * np.finfo(dtype).eps * abs(x).sum()
        assert total == reduce(x)[0]
    x[0] = np.nan
    assert np.isnan(reduce(x)[0])
    assert reduce(x)[1] == x[1:].max()
    assert np.isnan(reduce(np.full(L, np.nan, dtype))[1])
    assert reduce(np.full(L, -np.inf, dtype)).tolist() == [-np.inf, -np.inf]
    assert np.signbit(reduce(np.full(L, -0.0, dtype))[0])


_inverse, _inverse_root = elementwise(inverse), elementwise(inverse_root)


@each_dtype
def test_inverse_and_inverse_root_are_within_2_ulp(dtype):
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    exponents = np.arange(info.minexp, -info.minexp)  # those whose inverse is normal too
    a = np.ldexp(rng.uniform(1, 2, (40, exponents.size)), exponents).astype(dtype)
    a[0] = np.ldexp(1.0, exponents)
    wide = a.astype(np.float64 if dtype == np.float32 else np.longdouble)
    for function, exact in ((_inverse, 1 / wide), (_inverse_root, 1 / np.sqrt(wide))):
        error = np.abs(function(a) - exact) / np.spacing(exact.astype(dtype))
        assert error.max() <= 2


ROWS = np.random.default_rng(0).integers(-9, 9, (32, 4)).tolist()
_pieces = piecewise_polynomial(ROWS)


@jit
def _piecewise(out, x, like):
    x = load(pointer(x, like))
    store(pointer(out, like), _pieces(x, as_bits(x)))


@pytest.mark.skipif(not has_tables(vector_of(types.float32)), reason="AVX-512 alone has tables")
def test_piecewise_polynomial():
    """Each lane takes the row of the low five bits, and the others do not count."""
    bits = np.random.default_rng(1).permutation(np.arange(64)) + (0x41200000 >> 5 << 5)
    x = bits.astype(np.int32).view(np.float32)  # from 10 on
    centre, *coefficients = np.array(ROWS, np.float64)[bits & 31].T
    expected = sum(c * (x - centre) ** i for i, c in enumerate(coefficients))
    actual = run_lanes(_piecewise, np.float32, [x], 1)[0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * 9 * 20**2)


def test_padded_is_whole_vectors():
    L = lanes_of(np.float32)
    assert [padded(n, np.float32) for n in (0, 1, L, L + 1)] == [0, L, L, 2 * L]
