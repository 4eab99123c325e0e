"""Every activation and its derivative against plain NumPy, at kinks and at infinity too."""

import numpy as np
import pytest
import reference
from kernel_harness import Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop._kernels import activation as kernels
from fastbackprop._kernels import codes
from fastbackprop._kernels.simd import pointer

ELEMENTWISE = [
    ("identity", 0.0),
    ("relu", 0.0),
    ("leaky_relu", 0.01),
    ("leaky_relu", 0.0),
    ("leaky_relu", 1.5),
    ("sigmoid", 0.0),
    ("tanh", 0.0),
    ("softplus", 0.0),
    ("elu", 1.0),
    ("elu", 0.3),
    ("silu", 0.0),
    ("gelu", 0.0),
    ("exp", 0.0),
]
each_activation = pytest.mark.parametrize(("name", "alpha"), ELEMENTWISE)

# Those whose derivative is told from a = f(z) alone; the kernel gets a for z, as in a network.
FROM_OUTPUT = {"exp", "identity", "relu", "leaky_relu", "sigmoid", "tanh", "elu"}


@jit
def _forward(a, z, ld, first, last, n, code, alpha, like):
    a, z = pointer(a, like), pointer(z, like)
    kernels.activation_forward(a, z, ld, first, last, n, code, alpha)


@jit
def _backward(dz, ld_dz, a, z, ld, first, last, n, code, alpha, like):
    dz, a, z = pointer(dz, like), pointer(a, like), pointer(z, like)
    kernels.activation_backward(dz, ld_dz, a, z, ld, first, last, n, code, alpha)


@jit
def _softmax(a, z, ld, first, last, n, like):
    kernels.softmax_forward(pointer(a, like), pointer(z, like), ld, first, last, n)


def code_of(name):
    return getattr(codes, name.upper())


def forward(name, alpha, z, *, in_place=False):
    """f(z) on all rows of ``z`` but the first and the last, which must stay as they are."""
    (m, n), dtype = z.shape, z.dtype.type
    ld = whole_vectors(n, dtype) + 2
    in_place = in_place or name == "identity"  # which copies nothing
    with Memory(dtype) as memory:
        source = memory.copy(z, ld)
        a = source if in_place else memory.empty(m, ld)
        _forward(address(a), address(source), ld, 1, m - 1, n, code_of(name), alpha, dtype(0))
        first_and_last = z[[0, -1]] if in_place else np.nan
        np.testing.assert_array_equal(a[[0, -1], :n], first_and_last, "written beyond the rows")
        assert np.isnan(a[:, ld - 2 :]).all(), "written beyond the last vector of a row"
        return a[1:-1, :n].copy()


def backward(name, alpha, dz, a, z):
    """Dz · f'(z)."""
    (m, n), dtype = dz.shape, dz.dtype.type
    ld_dz, ld = whole_vectors(n, dtype), whole_vectors(n, dtype) + 3
    with Memory(dtype) as memory:
        out = memory.copy(dz, ld_dz)
        a = memory.copy(a, ld)
        z = a if name in FROM_OUTPUT else memory.copy(z, ld)
        places = address(out), ld_dz, address(a), address(z), ld
        _backward(*places, 0, m, n, code_of(name), alpha, dtype(0))
        return out[:, :n].copy()


def rows_of(z, columns):
    """``z`` as a matrix with a row before and one after."""
    z = np.resize(z, (-(-z.size // columns), columns))
    return np.concatenate([z[:1], z, z[-1:]])


def preactivations(dtype):
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            np.linspace(-12, 12, 481),  # with both zeros of relu and elu's kink
            rng.normal(size=500),
            rng.normal(scale=1e-3, size=200),
            rng.normal(scale=100, size=200),
            [0.0, -0.0, 1e30, -1e30, np.finfo(dtype).tiny, -np.finfo(dtype).tiny],
        ]
    ).astype(dtype)


@each_activation
@each_dtype
def test_values_and_derivatives(name, alpha, dtype):
    eps = np.finfo(dtype).eps
    for columns in (1, lanes_of(dtype), 2 * lanes_of(dtype) + 1):
        z = rows_of(preactivations(dtype), columns)
        if name == "exp":  # below its overflow, where differences are no longer numbers
            z = np.minimum(z, dtype(np.log(np.finfo(dtype).max) - 1))
        inner = z[1:-1]
        a = forward(name, alpha, z)
        with np.errstate(over="ignore"):
            expected = reference.activation(name, inner, alpha)
            slopes = reference.activation_derivative(name, inner, alpha)
        # gelu's tail is 1 less a number near 1, so it is exact to eps of 1, not of itself.
        scale = np.maximum(np.abs(expected), name == "gelu")
        # Where a factor of z is subnormal it has few digits.
        floor = 2 * float(np.finfo(dtype).smallest_subnormal) * np.maximum(np.abs(inner), 1)
        assert np.all(np.abs(a - expected) <= 4 * eps * scale + floor)
        assert_same_bits(forward(name, alpha, z, in_place=True), a)

        dz = np.random.default_rng(1).normal(size=inner.shape).astype(dtype)
        actual = backward(name, alpha, dz, a, inner)
        # f' is told from a rounded a (as 1 - a², say), so it is exact to eps of 1; silu's, which
        # multiplies 1 - a by z, of z as long as a is not 1.
        scale = np.maximum(np.abs(slopes), max(alpha, 1.0))
        if name == "silu":
            scale = np.maximum(scale, np.minimum(np.abs(inner), -np.log(eps)))
        assert np.all(np.abs(actual - dz * slopes) <= 6 * eps * scale * np.abs(dz))


@each_dtype
@pytest.mark.parametrize(
    ("name", "alpha", "at_zero"),
    [("relu", 0.0, 0.0), ("leaky_relu", 0.01, 0.01), ("elu", 0.7, 0.7)],
)
def test_the_slope_at_a_kink_is_the_left_one(name, alpha, at_zero, dtype):
    z = np.array([[0.0, -0.0]] * 3, dtype)
    a = forward(name, alpha, z)
    np.testing.assert_array_equal(a, 0)
    slopes = backward(name, alpha, np.ones((1, 2), dtype), a, z[:1])
    np.testing.assert_array_equal(slopes, dtype(at_zero))


@each_activation
@each_dtype
def test_nan_and_infinity(name, alpha, dtype):
    z = np.array([[np.nan, np.inf, -np.inf]] * 3, dtype)
    a = forward(name, alpha, z)
    with np.errstate(all="ignore"):
        expected = reference.activation(name, z[1:2], alpha)
        slopes = reference.activation_derivative(name, z[1:2], alpha)
    if name == "relu":
        expected[0, 0] = np.nan  # a NaN must not look like a dead unit
    np.testing.assert_allclose(a, expected)
    if name in {"relu", "leaky_relu", "elu"}:
        a, z, slopes = a[:, 1:], z[:, 1:], slopes[:, 1:]  # beyond both kinks lies no NaN
    actual = backward(name, alpha, np.ones_like(a), a, z[1:2])
    np.testing.assert_allclose(actual, slopes, atol=np.finfo(dtype).eps)


def softmax(z, *, in_place=False, padding=np.nan):
    (m, n), dtype = z.shape, z.dtype.type
    ld = whole_vectors(n, dtype)
    with Memory(dtype) as memory:
        source = memory.copy(z, ld)
        source[:, n:] = padding
        a = source if in_place else memory.empty(m, ld)
        _softmax(address(a), address(source), ld, 0, m, n, dtype(0))
        finite = np.isfinite(a[:, :n]).all(axis=1)
        np.testing.assert_array_equal(a[finite, n:], 0)
        return a[:, :n].copy()


@each_dtype
def test_softmax(dtype):
    L, eps = lanes_of(dtype), np.finfo(dtype).eps
    for n in (1, 2, L - 1, L, L + 1, 3 * L, 3 * L + 2):
        for scale in (1e-3, 1.0, 30.0):
            z = np.random.default_rng(n).normal(scale=scale, size=(9, n)).astype(dtype)
            a = softmax(z)
            expected = reference.softmax(z.astype(np.float64))
            # A difference of logits is rounded to eps of itself before it is an exponent.
            reach = np.abs(z - z.max(axis=1, keepdims=True)) + 4
            assert np.all(np.abs(a - expected) <= reach * eps * expected + np.finfo(dtype).tiny)
            np.testing.assert_allclose(a.sum(axis=1), 1, rtol=4 * eps)
            assert_same_bits(softmax(z, in_place=True), a)
            assert_same_bits(softmax(z, padding=1e30), a)


@each_dtype
def test_softmax_of_extreme_logits(dtype):
    largest = float(np.finfo(dtype).max)
    z = np.array(
        [
            [largest, 0, -largest],
            [largest, largest, -np.inf],
            [-largest, -largest, -largest],
            [1000, 1000, 999],
            [-np.inf, 0, -np.inf],
            [np.nan, 0, 1],
            [-np.inf, -np.inf, -np.inf],
            [np.inf, 0, 0],
        ],
        dtype,
    )
    e = np.exp(-1)
    expected = [
        [1, 0, 0],
        [0.5, 0.5, 0],
        [1 / 3, 1 / 3, 1 / 3],
        [1 / (2 + e), 1 / (2 + e), e / (2 + e)],
        [0, 1, 0],
        *[[np.nan] * 3] * 3,
    ]
    a = softmax(z)
    np.testing.assert_allclose(a[:-1], expected[:-1], rtol=4 * np.finfo(dtype).eps)
    assert np.isnan(a[-1]).any()


@each_dtype
def test_softmax_does_not_change_with_the_rows_around(dtype):
    z = np.random.default_rng(0).normal(size=(6, 11)).astype(dtype)
    rows = [softmax(z[i : i + 1]) for i in range(6)]
    assert_same_bits(softmax(z), np.concatenate(rows))
