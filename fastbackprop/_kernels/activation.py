"""Each activation beside its derivative, on vectors and on rows."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels import vmath
from fastbackprop._kernels.codes import (
    ELU,
    EXP,
    GELU,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
)
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    fill,
    fma,
    lanes,
    larger,
    largest_lane,
    live_lanes,
    load,
    select,
    store,
    sum_lanes,
)


@kernel
def _relu(z, alpha):
    return larger(fill(z, 0.0), z)  # in this order NaN stays NaN


@kernel
def _relu_slope(a, z, alpha):
    return select(a > 0.0, fill(a, 1.0), 0.0)  # at the kink the left one, as in PyTorch


@kernel
def _leaky_relu(z, alpha):
    return select(z < 0.0, z * alpha, z)


@kernel
def _leaky_relu_slope(a, z, alpha):
    return select(a > 0.0, fill(a, 1.0), alpha)


@kernel
def _sigmoid(z, alpha):
    return vmath.sigmoid(z)


@kernel
def _sigmoid_slope(a, z, alpha):
    return a * (1.0 - a)


@kernel
def _tanh(z, alpha):
    return vmath.tanh(z)


@kernel
def _tanh_slope(a, z, alpha):
    return fma(-a, a, fill(a, 1.0))


@kernel
def _softplus(z, alpha):
    return vmath.softplus(z)


@kernel
def _softplus_slope(a, z, alpha):
    return vmath.sigmoid(z)


@kernel
def _elu(z, alpha):
    return select(z < 0.0, vmath.expm1_negative(z) * alpha, z)


@kernel
def _elu_slope(a, z, alpha):
    return select(a > 0.0, fill(a, 1.0), a + alpha)


@kernel
def _silu(z, alpha):
    return z * vmath.sigmoid(z)


@kernel
def _silu_slope(a, z, alpha):
    s = vmath.sigmoid(z)
    return s * fma(z, 1.0 - s, fill(z, 1.0))


@kernel
def _gelu(z, alpha):
    return z * vmath.normal_cdf(z)


@kernel
def _gelu_slope(a, z, alpha):
    return fma(z, vmath.normal_density(z), vmath.normal_cdf(z))


@kernel
def _exp(z, alpha):
    return vmath.exp(z)


@kernel
def _exp_slope(a, z, alpha):
    return a


@kernel
def _apply(f, a, z, ld, first, last, n, alpha):
    for i in range(first, last):
        for j in range(i * ld, i * ld + n, lanes(a)):
            store(a + j, f(load(z + j), alpha))


@kernel
def _apply_slope(slope, dz, ld_dz, a, z, ld, first, last, n, alpha):
    for i in range(first, last):
        for j in range(0, n, lanes(dz)):
            place = dz + (i * ld_dz + j)
            factor = slope(load(a + (i * ld + j)), load(z + (i * ld + j)), alpha)
            store(place, load(place) * factor)


@kernel
def activation_forward(a, z, ld, first, last, n, code, alpha):
    """a = f(z) on rows [first, last) of (rows, n), whole vectors; ``a`` may be ``z``.

    Identity is for ``a`` that is ``z``: nothing is copied.
    """
    if code == RELU:
        _apply(_relu, a, z, ld, first, last, n, alpha)
    elif code == LEAKY_RELU:
        _apply(_leaky_relu, a, z, ld, first, last, n, alpha)
    elif code == SIGMOID:
        _apply(_sigmoid, a, z, ld, first, last, n, alpha)
    elif code == TANH:
        _apply(_tanh, a, z, ld, first, last, n, alpha)
    elif code == SOFTPLUS:
        _apply(_softplus, a, z, ld, first, last, n, alpha)
    elif code == ELU:
        _apply(_elu, a, z, ld, first, last, n, alpha)
    elif code == SILU:
        _apply(_silu, a, z, ld, first, last, n, alpha)
    elif code == GELU:
        _apply(_gelu, a, z, ld, first, last, n, alpha)
    elif code == EXP:
        _apply(_exp, a, z, ld, first, last, n, alpha)


@kernel
def activation_backward(dz, ld_dz, a, z, ld, first, last, n, code, alpha):
    """dz *= f'(z) on rows [first, last) of (rows, n), whole vectors.

    f' comes from a = f(z) where that is enough; ``z`` may be ``a`` there. Identity and softmax,
    whose derivative is not one factor an output, leave dz as it is.
    """
    if code == RELU:
        _apply_slope(_relu_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == LEAKY_RELU:
        _apply_slope(_leaky_relu_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == SIGMOID:
        _apply_slope(_sigmoid_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == TANH:
        _apply_slope(_tanh_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == SOFTPLUS:
        _apply_slope(_softplus_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == ELU:
        _apply_slope(_elu_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == SILU:
        _apply_slope(_silu_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == GELU:
        _apply_slope(_gelu_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)
    elif code == EXP:
        _apply_slope(_exp_slope, dz, ld_dz, a, z, ld, first, last, n, alpha)


@kernel
def largest_of(row, n):
    """The largest of n elements but NaN; -inf where there is no other."""
    highest = fill(load(row), -np.inf)
    for j in range(0, n, lanes(row)):
        v = load(row + j)
        highest = larger(select(live_lanes(v, j, n), v, -np.inf), highest)
    return largest_lane(highest)


@kernel
def softmax_exponentials(out, z, n):
    """out = exp(z - max z) over one row of ``n``, 0 in the padding; returns (max z, Σ out).

    Subtracting the maximum leaves the quotient as it is and keeps exp from overflowing.
    """
    top = largest_of(z, n)
    total = fill(load(z), 0.0)
    for j in range(0, n, lanes(z)):
        v = load(z + j)
        e = select(live_lanes(v, j, n), vmath.exp(v - top), 0.0)
        store(out + j, e)
        total = total + e
    return top, sum_lanes(total)


@kernel
def softmax_forward(a, z, ld, first, last, n):
    """a = softmax(z) on rows [first, last) of (rows, n); ``a`` may be ``z``."""
    for i in range(first, last):
        row = a + i * ld
        _, total = softmax_exponentials(row, z + i * ld, n)
        for j in range(0, n, lanes(a)):
            store(row + j, load(row + j) / total)
