"""exp, tanh, log and their relatives against NumPy in a wider type, over every exponent."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernel_harness import DTYPES, assert_same_bits, each_dtype, elementwise
from numba.core import types

from fastbackprop._kernels import vmath
from fastbackprop._kernels.simd import has_tables
from fastbackprop._kernels.simd.types import vector_of
from fastbackprop._kernels.tanh_table import TANH_ROWS

LONGDOUBLE_IS_WIDER = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


class Function(NamedTuple):
    """A kernel, its definition, and where and how exactly it must hold."""

    exact: object
    ulp: int
    lowest: float = -np.inf
    highest: float = np.inf


FUNCTIONS = {
    "exp": Function(np.exp, 2),
    "tanh": Function(np.tanh, 2),
    "log": Function(np.log, 2),
    "sigmoid": Function(sigmoid, 3),
    "softplus": Function(lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 3),
    "log1p_unit": Function(np.log1p, 2, lowest=0, highest=1),
    "expm1_negative": Function(np.expm1, 2, highest=0),
}
KERNELS = {
    name: elementwise(getattr(vmath, name)) for name in (*FUNCTIONS, "normal_cdf", "normal_density")
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def wide(x):
    """``x`` in a type in which NumPy's own errors do not count."""
    if x.dtype == np.float32:
        return x.astype(np.float64)
    if not LONGDOUBLE_IS_WIDER:
        pytest.skip("long double is no wider than float64 here")
    return x.astype(np.longdouble)


def ulp_errors(actual, exact):
    """|actual - exact| in units of the last place of ``exact``; 0 where both are NaN.

    Infinity counts as the number that comes after the largest.
    """
    info = np.finfo(actual.dtype)
    beyond = np.ldexp(exact.dtype.type(1), info.maxexp)
    unit = np.spacing(np.minimum(np.abs(exact), info.max).astype(info.dtype))
    actual, exact = (np.clip(v.astype(exact.dtype), -beyond, beyond) for v in (actual, exact))
    error = np.abs(actual - exact) / unit
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(exact))
    return np.where(np.isnan(exact), 0, error)


def check(name, x):
    function = FUNCTIONS[name]
    x = x[~((x < function.lowest) | (x > function.highest))]  # NaN stays
    with np.errstate(all="ignore"):
        exact = function.exact(wide(x))
        error = ulp_errors(KERNELS[name](x), exact)
    if x.size:
        worst = error.argmax()
        assert error[worst] <= function.ulp, f"{name}({x[worst]!r}) is off by {error[worst]} ulp"


def bit_patterns(dtype, size):
    """Random bits: every exponent is as likely as any other, and NaN occurs."""
    rng = np.random.default_rng(0)
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return rng.integers(0, np.iinfo(unsigned).max, size, unsigned, endpoint=True).view(dtype)


@each_function
@each_dtype
def test_within_its_ulps_everywhere(name, dtype):
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    reach = 1.05 * float(np.log(info.max))  # beyond, exp is inf or 0
    samples = [bit_patterns(dtype, 200_000)]
    for radius in (1e-3, 0.1, 1.0, 5.0, 25.0, reach):
        samples.append(rng.uniform(-radius, radius, 50_000))
    samples.append(1 + rng.uniform(-0.5, 1, 100_000))  # log around 1 and through an octave
    samples.append(1 + np.arange(-2000, 2000) * float(info.eps))
    samples.append(np.log(float(info.max)) + np.arange(-2000, 2000) * 64 * float(info.eps))
    samples.append(np.log(float(info.tiny)) + np.linspace(-40, 1, 20_000))  # subnormal results
    samples.append(np.arange(-2000, 2000) * float(info.smallest_subnormal))
    # Where the reduction changes from one multiple of ln 2 to the next.
    steps = np.arange(-150, 130)[:, None] + 0.5
    samples.append(steps * math.log(2) * (1 + np.arange(-40, 40) * float(info.eps)))
    check(name, np.concatenate([np.ravel(s).astype(dtype) for s in samples]))


@each_function
@each_dtype
def test_special_values_are_those_of_numpy(name, dtype):
    function, info = FUNCTIONS[name], np.finfo(dtype)
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, info.max, -info.max], dtype)
    x = x[~((x < function.lowest) | (x > function.highest))]
    with np.errstate(all="ignore"):
        expected = function.exact(x)
    actual = KERNELS[name](x)
    exact = ~np.isfinite(expected) | (expected == 0) | (np.abs(expected) == 1)
    np.testing.assert_array_equal(actual[exact], expected[exact])
    np.testing.assert_allclose(actual, expected, rtol=4 * info.eps)


@each_dtype
def test_signs_of_zero(dtype):
    zeros = np.array([0.0, -0.0], dtype)
    assert_same_bits(KERNELS["tanh"](zeros), zeros)
    assert_same_bits(KERNELS["exp"](zeros), np.ones(2, dtype))
    assert_same_bits(KERNELS["log"](np.ones(1, dtype)), zeros[:1])
    assert_same_bits(KERNELS["expm1_negative"](zeros[:1]), zeros[:1])


@each_dtype
def test_tanh_of_a_small_number_is_itself(dtype):
    info = np.finfo(dtype)
    x = np.concatenate(
        [np.arange(1, 2000) * info.smallest_subnormal, np.geomspace(info.tiny, info.eps / 9, 2000)]
    ).astype(dtype)
    assert_same_bits(KERNELS["tanh"](x), x)


# Where tanh goes from one row of its table to the next.
TANH_EDGES = (np.arange(0x3F2, 0x3F2 + 33, dtype=np.int32) << 20).view(np.float32) - 0.625


def test_rows_of_the_tanh_table():
    """Each polynomial is close to tanh in its interval, before arithmetic rounds anything."""
    assert TANH_EDGES[0] == 0
    assert TANH_EDGES[-1] > 9.02
    edges = TANH_EDGES.tolist()
    for row, low, high in zip(TANH_ROWS, edges[:-1], edges[1:], strict=True):
        centre, *coefficients = (float(np.float32(number)) for number in row)
        x = np.linspace(max(low, 1e-5), min(high, 9.02), 2000)
        exact = np.tanh(x)
        error = np.polynomial.polynomial.polyval(x - centre, coefficients) - exact
        ulp = np.spacing(exact.astype(np.float32))
        assert (np.abs(error) <= 0.41 * ulp).all()
        first = np.float32(coefficients[0])
        assert abs(first - np.tanh(centre)) <= 0.01 * np.spacing(first)


def test_float32_tanh_where_its_polynomials_meet():
    """And in the middle of each, and where it becomes 1."""
    middles = [row[0] for row in TANH_ROWS]
    places = np.concatenate([TANH_EDGES[1:], middles, [9.01, 9.02]]).astype(np.float32)
    x = (places.view(np.int32)[:, None] + np.arange(-300, 301, dtype=np.int32)).view(np.float32)
    x = x[np.isfinite(x)]
    check("tanh", x)
    check("tanh", -x)


@pytest.mark.skipif(not has_tables(vector_of(types.float32)), reason="AVX-512 alone has tables")
def test_float32_tanh_never_decreases():
    """From one float to the next, for some of each exponent and where two polynomials meet."""
    starts = np.concatenate([bit_patterns(np.float32, 2000), np.repeat(TANH_EDGES, 2)])
    starts = np.abs(starts[np.abs(starts) < 20]).view(np.int32)
    x = np.maximum(starts[:, None] + np.arange(-300, 301, dtype=np.int32), 0).view(np.float32)
    y = KERNELS["tanh"](x)
    assert (np.diff(y, axis=1) >= 0).all()
    assert y.max() == 1


@each_dtype
def test_exp_overflows_and_underflows_where_numpy_does(dtype):
    info = np.finfo(dtype)
    top = np.log(wide(np.array([info.max]))).astype(dtype)[0]
    bottom = np.log(wide(np.array([info.smallest_subnormal]))).astype(dtype)[0]
    x = np.array([top * (1 - 2 * info.eps), top * (1 + 2 * info.eps), bottom, bottom - 1], dtype)
    largest, beyond, smallest, below = KERNELS["exp"](x)
    assert np.isfinite(largest)
    assert largest > info.max * 0.999
    assert np.isinf(beyond)
    assert smallest == info.smallest_subnormal
    assert below == 0


@each_dtype
def test_log_below_zero_is_nan(dtype):
    info = np.finfo(dtype)
    x = -np.array([np.inf, info.max, 1.0, info.tiny, info.smallest_subnormal], dtype)
    assert np.isnan(KERNELS["log"](x)).all()
    assert_same_bits(KERNELS["log"](np.array([-0.0], dtype)), np.array([-np.inf], dtype))


@each_dtype
def test_expm1_negative_of_positive_is_zero(dtype):
    x = np.array([np.inf, 1.0, np.finfo(dtype).tiny], dtype)
    np.testing.assert_array_equal(KERNELS["expm1_negative"](x), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_bits(dtype, data):
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    x = data.draw(hnp.arrays(unsigned, st.integers(1, 40))).view(dtype)
    for name in FUNCTIONS:
        check(name, x)


@each_dtype
def test_results_stay_in_their_ranges(dtype):
    """A probability is in [0, 1], and a tanh in [-1, 1], however the polynomials round."""
    x = np.concatenate([np.linspace(-120, 120, 50_000), np.linspace(-1, 1, 50_000)]).astype(dtype)
    for name, lowest in (("sigmoid", 0), ("normal_cdf", 0), ("tanh", -1)):
        y = KERNELS[name](x)
        assert y.min() >= lowest
        assert y.max() <= 1
    assert KERNELS["softplus"](x).min() >= 0


@each_dtype
def test_normal_distribution(dtype):
    eps = np.finfo(dtype).eps
    x = np.concatenate([np.linspace(-40, 40, 30_001), np.linspace(-3, 3, 30_000)]).astype(dtype)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    assert np.abs(KERNELS["normal_cdf"](x) - cdf).max() <= 3 * eps
    density = np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)
    assert np.abs(KERNELS["normal_density"](x) - density).max() <= 3 * eps
    ends = np.array([-np.inf, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(KERNELS["normal_cdf"](ends), [0, 1, np.nan])
    np.testing.assert_array_equal(KERNELS["normal_density"](ends), [0, 0, np.nan])


def test_numpy_sees_no_floating_point_error_of_a_kernel():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1.0, 0.0], np.float32)
    with np.errstate(all="raise"):
        for kernel in KERNELS.values():
            kernel(x)
            np.testing.assert_array_equal(np.ones(3) * 2.0, 2)
