"""Each activation beside its derivative, on vectors and on rows."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels import vmath
from fastbackprop._kernels.codes import (
    ELU,
    GELU,
    IDENTITY,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
)
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    address_of,
    fill,
    fma,
    lane_index,
    lanes,
    larger,
    largest_lane,
    load,
    select,
    store,
    sum_lanes,
)


@kernel
def activate(code, alpha, z):
    """A = f(z)"""
    if code == RELU:
        return larger(fill(z, 0.0), z)  # in this order NaN stays NaN
    if code == LEAKY_RELU:
        return select(z < 0.0, z * alpha, z)
    if code == SIGMOID:
        return vmath.sigmoid(z)
    if code == TANH:
        return vmath.tanh(z)
    if code == SOFTPLUS:
        return vmath.softplus(z)
    if code == ELU:
        return select(z < 0.0, vmath.expm1_negative(z) * alpha, z)
    if code == SILU:
        return z * vmath.sigmoid(z)
    if code == GELU:
        return z * vmath.normal_cdf(z)
    return z


@kernel
def derivative(code, alpha, a, z):
    """f'(z), from a = f(z) where that is enough.

    At the kink of relu and leaky_relu it is the left one, as in PyTorch.
    """
    one = fill(a, 1.0)
    if code == RELU:
        return select(a > 0.0, one, 0.0)
    if code == LEAKY_RELU:
        return select(a > 0.0, one, alpha)
    if code == SIGMOID:
        return a * (1.0 - a)
    if code == TANH:
        return fma(-a, a, one)
    if code == SOFTPLUS:
        return vmath.sigmoid(z)
    if code == ELU:
        return select(a > 0.0, one, a + alpha)
    if code == SILU:
        s = vmath.sigmoid(z)
        return s * fma(z, 1.0 - s, one)
    if code == GELU:
        return fma(z, vmath.normal_density(z), vmath.normal_cdf(z))
    return one


@kernel
def activation_forward(a, z, ld, first, last, n, code, alpha):
    """A = f(z) on rows [first, last) of (rows, n), whole vectors; ``a`` may be ``z``."""
    if code == IDENTITY and address_of(a) == address_of(z):
        return
    for i in range(first, last):
        for j in range(0, n, lanes(a)):
            place = i * ld + j
            store(a + place, activate(code, alpha, load(z + place)))


@kernel
def activation_backward(dz, ld_dz, a, z, ld, first, last, n, code, alpha):
    """Dz *= f'(z) on rows [first, last) of (rows, n), whole vectors."""
    if code == IDENTITY:
        return
    for i in range(first, last):
        for j in range(0, n, lanes(dz)):
            place = i * ld + j
            slope = derivative(code, alpha, load(a + place), load(z + place))
            store(dz + (i * ld_dz + j), load(dz + (i * ld_dz + j)) * slope)


@kernel
def live_lanes(v, j, n):
    """Which lanes of the vector ``v`` at column ``j`` are columns below ``n``."""
    return lane_index(v) < np.uint32(min(n - j, lanes(v)))


@kernel
def softmax_exponentials(out, z, n):
    """Out = exp(z - max z) over one row of ``n``, 0 in the padding; returns (max z, Σ out).

    Subtracting the maximum leaves the quotient as it is and keeps exp from overflowing.
    """
    highest = fill(load(z), -np.inf)
    for j in range(0, n, lanes(z)):
        v = load(z + j)
        highest = larger(select(live_lanes(v, j, n), v, -np.inf), highest)
    top = largest_lane(highest)
    total = fill(load(z), 0.0)
    for j in range(0, n, lanes(z)):
        v = load(z + j)
        e = select(live_lanes(v, j, n), vmath.exp(v - top), 0.0)
        store(out + j, e)
        total = total + e
    return top, sum_lanes(total)


@kernel
def softmax_forward(a, z, ld, first, last, n):
    """A = softmax(z) on rows [first, last) of (rows, n); ``a`` may be ``z``."""
    for i in range(first, last):
        row = a + i * ld
        _, total = softmax_exponentials(row, z + i * ld, n)
        for j in range(0, n, lanes(a)):
            store(row + j, load(row + j) / total)
