"""Products of layers with one or two outputs, along their inputs: across, most lanes would idle.

Such layers end most regressions and binary classifications. With 32 inputs and one output, vectors
of outputs took as long as with 16 outputs: a quarter of a step of 2-32-32-1.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    fill,
    fma,
    itemsize,
    lane_index,
    lanes,
    live_lanes,
    load,
    select,
    store,
    sum_lanes,
)
from fastbackprop._kernels.team import is_stopped

_WIDEST = 2

# Rows of a batch between two looks at the request to stop.
_STOP_ROWS = 1024

# What is copied to the scratch memory: the weights of one output. It has room for far more.
_COLUMN_BYTES = 16 * 1024


@kernel
def is_narrow(n_out):
    """Whether gradients of the weights of such a layer are made here.

    That must not depend on how many rows of weights a thread has: here sums have another order.
    """
    return n_out <= _WIDEST


@kernel
def has_few_inputs(n_in, like):
    """Whether a column of weights fits into the scratch memory, as elements of ``like``."""
    return n_in * itemsize(like) <= _COLUMN_BYTES


@kernel
def is_long_and_narrow(n_in, n_out, like):
    """Whether products with the weights of such a layer are made here.

    A sum over the lanes of a vector takes as long as 16 inputs do in tiles.
    """
    return is_narrow(n_out) and n_in >= n_out * lanes(like) and has_few_inputs(n_in, like)


@kernel
def _copy_columns(columns, b, ld_b, k, n):
    """The n columns of b as rows of whole vectors, zero behind the last element."""
    width = (k + lanes(b) - 1) // lanes(b) * lanes(b)
    zero = fill(load(b), 0.0)
    for j in range(n):
        for p in range(0, width, lanes(b)):
            # Lane by lane in a register: the load of a vector waits for stores of its elements.
            column = zero
            for i in range(min(lanes(b), k - p)):
                element = fill(zero, b[(p + i) * ld_b + j])
                column = select(lane_index(zero) == np.uint32(i), element, column)
            store(columns + (j * width + p), column)
    return width


@kernel
def narrow_gemm(out, ld_out, start, a, ld_a, b, ld_b, m, n, k, scratch):
    """out = start + a @ b, by scalar products of rows of a and columns of b.

    out   : (m, n)    overwritten, whole vectors of columns; the padding is zero
    start : (n,)      one row for all
    a     : (m, k)    rows padded to whole vectors
    b     : (k, n)    rows padded to whole vectors

    What pads a row of ``a`` may be NaN, 0 · inf of the product before, so it is not multiplied.
    """
    width = _copy_columns(scratch, b, ld_b, k, n)
    zero = fill(load(out), 0.0)
    inner = k - k % lanes(a)
    live = live_lanes(zero, inner, k)
    whole = m - m % 4
    for i in range(0, whole, 4):
        r0 = a + i * ld_a
        r1 = r0 + ld_a
        r2 = r1 + ld_a
        r3 = r2 + ld_a
        z = out + i * ld_out
        for r in range(4):
            store(z + r * ld_out, zero)
        for j in range(n):
            t0, t1, t2, t3 = zero, zero, zero, zero
            for p in range(0, inner, lanes(a)):
                column = load(scratch + (j * width + p))
                t0 = fma(load(r0 + p), column, t0)
                t1 = fma(load(r1 + p), column, t1)
                t2 = fma(load(r2 + p), column, t2)
                t3 = fma(load(r3 + p), column, t3)
            if inner < k:
                column = load(scratch + (j * width + inner))
                t0 = fma(select(live, load(r0 + inner), 0.0), column, t0)
                t1 = fma(select(live, load(r1 + inner), 0.0), column, t1)
                t2 = fma(select(live, load(r2 + inner), 0.0), column, t2)
                t3 = fma(select(live, load(r3 + inner), 0.0), column, t3)
            z[j] = start[j] + sum_lanes(t0)
            z[ld_out + j] = start[j] + sum_lanes(t1)
            z[2 * ld_out + j] = start[j] + sum_lanes(t2)
            z[3 * ld_out + j] = start[j] + sum_lanes(t3)
    for i in range(whole, m):
        store(out + i * ld_out, zero)
        for j in range(n):
            total = zero
            for p in range(0, inner, lanes(a)):
                total = fma(load(a + (i * ld_a + p)), load(scratch + (j * width + p)), total)
            if inner < k:
                rest = select(live, load(a + (i * ld_a + inner)), 0.0)
                total = fma(rest, load(scratch + (j * width + inner)), total)
            out[i * ld_out + j] = start[j] + sum_lanes(total)


@kernel
def narrow_outer_products(out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop):
    """out = start + x.T @ dz as start + (dz.T @ x).T, in four sums that do not wait for each other.

    out   : (m, n)    overwritten, whole vectors of columns; the padding is zero
    start : (m, n), or one row for all with ld_start 0; may be ``out``
    x     : (k, m)    rows padded to whole vectors
    dz    : (k, n)
    """
    zero = fill(load(out), 0.0)
    whole = k - k % 4
    for first in range(0, m, lanes(x)):
        if is_stopped(stop):
            return
        for j in range(n):
            t0, t1, t2, t3 = zero, zero, zero, zero
            row, factor = x + first, dz + j
            for _ in range(0, whole, 4):
                t0 = fma(fill(zero, factor[0]), load(row), t0)
                t1 = fma(fill(zero, factor[ld_dz]), load(row + ld_x), t1)
                t2 = fma(fill(zero, factor[2 * ld_dz]), load(row + 2 * ld_x), t2)
                t3 = fma(fill(zero, factor[3 * ld_dz]), load(row + 3 * ld_x), t3)
                row += 4 * ld_x
                factor += 4 * ld_dz
            for _ in range(whole, k):
                t0 = fma(fill(zero, factor[0]), load(row), t0)
                row += ld_x
                factor += ld_dz
            store(scratch + j * lanes(x), (t0 + t1) + (t2 + t3))
        for i in range(min(lanes(x), m - first)):
            products = zero
            for j in range(n):
                product = fill(zero, scratch[j * lanes(x) + i])
                products = select(lane_index(zero) == np.uint32(j), product, products)
            place = first + i
            store(out + place * ld_out, load(start + place * ld_start) + products)


@kernel
def narrow_gemm_transposed(out, ld_out, a, ld_a, b, ld_b, m, n, k, scratch, stop):
    """out = a @ b.T, row by row, with the columns of b.

    out : (m, n)    overwritten, whole vectors of columns; the padding is zero
    a   : (m, k)    b : (n, k)    rows padded to whole vectors
    """
    width = _copy_columns(scratch, b, ld_b, n, k)
    zero = fill(load(out), 0.0)
    for i in range(m):
        if i % _STOP_ROWS == 0 and is_stopped(stop):
            return
        # Not a loop over k, which LLVM would prepare for many.
        first, second = fill(zero, a[i * ld_a]), fill(zero, a[i * ld_a + k - 1])
        for j in range(0, width, lanes(out)):
            total = fma(first, load(scratch + j), zero)
            if k == _WIDEST:
                total = fma(second, load(scratch + (width + j)), total)
            store(out + (i * ld_out + j), total)
