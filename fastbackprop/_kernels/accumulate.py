"""Products added to the weights in registers, as plain SGD does: w += factor · x.T @ dz."""

from __future__ import annotations

from fastbackprop._kernels.columns import FIRST_RUN, next_columns
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.micro import NV, few_products, is_few, panel_product
from fastbackprop._kernels.packing import KC, panel_vectors, panel_width
from fastbackprop._kernels.simd import absolute, any_lane, lanes, load, store
from fastbackprop._kernels.vmath import smallest_normal


@kernel
def add_outer_products(w, ld_w, x, ld_x, dz, ld_dz, factor, first, last, n, k, scratch, columns):
    """w += factor · x.T @ dz on rows [first, last) of w; of these the listed, if there is a list.

    w  : (last, n)    x : (k, last)    dz : (k, n)    rows padded to whole vectors

    ``columns`` is 0, or the address of a list of those columns of x that are not zero.
    """
    ld = panel_width(n, w)
    for j in range(0, n, ld):
        vectors = panel_vectors(n, j, w)
        for p in range(0, k, KC):
            depth = min(KC, k - p)
            for i in range(depth):
                for v in range(0, vectors * lanes(w), lanes(w)):
                    store(scratch + (i * ld + v), load(dz + ((p + i) * ld_dz + j + v)) * factor)
            top, run = first, FIRST_RUN
            while top < last:
                bottom = last
                if columns != 0:
                    begin, bottom, run = next_columns(columns, run, top, last)
                    _add_zeros(
                        begin - top,
                        vectors,
                        w + (top * ld_w + j),
                        ld_w,
                        x + (p * ld_x + top),
                        ld_x,
                        scratch,
                        ld,
                        depth,
                    )
                    top = begin
                rows, place = bottom - top, w + (top * ld_w + j)
                left = x + (p * ld_x + top)
                done = 0
                if is_few(depth):
                    done = vectors // NV * NV
                    for v in range(0, done * lanes(w), NV * lanes(w)):
                        few_products(rows, place + v, ld_w, left, ld_x, scratch + v, ld, depth)
                rest = place + done * lanes(w)
                panel_product(
                    rows,
                    vectors - done,
                    rest,
                    ld_w,
                    rest,
                    ld_w,
                    left,
                    1,
                    ld_x,
                    scratch + done * lanes(w),
                    ld,
                    depth,
                )
                top = bottom


@kernel
def _add_zeros(rows, vectors, w, ld_w, x, ld_x, dz, ld_dz, depth):
    """w += x.T @ dz on rows of w whose columns of x are zero: nothing is added to most of them.

    But a weight of -0 may become 0, and a subnormal one does. Teams that divide by rows of the
    batch know of no columns of zeros, and their bits are to be the same.
    """
    for i in range(rows):
        row = w + i * ld_w
        small = absolute(load(row)) < smallest_normal(load(row))
        if vectors >= NV:
            v = load(row + lanes(w))
            small = small | (absolute(v) < smallest_normal(v))
        for j in range(NV * lanes(w), vectors * lanes(w), lanes(w)):
            v = load(row + j)
            small = small | (absolute(v) < smallest_normal(v))
        if any_lane(small):
            panel_product(1, vectors, row, ld_w, row, ld_w, x + i, 1, ld_x, dz, ld_dz, depth)
