"""Matrix products of any shape: loops around the register tiles, and packing where it pays.

Where ``stop`` is the address of a flag, and not 0, a product ends when the flag is set, and leaves
its output half done: a product may take seconds, and Ctrl-C must not.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.columns import FIRST_RUN, RUNS, next_columns
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.micro import (
    MR,
    NV,
    ROW_NV,
    copy_rows,
    panel_product,
    row_product,
    transpose_block,
)
from fastbackprop._kernels.simd import fill, itemsize, lanes, load, pointer, store
from fastbackprop._kernels.team import is_stopped

# Rows of a packed panel: KC · NV vectors of 64 bytes are 32 KiB, which leaves room in a 48 KiB L1.
KC = 256

PANEL_BYTES = KC * NV * 64

# Whole rows of a product that wait in L1 for what is done with them: at least a tile's. Where the
# other factor does not fit into L2 beside them, more rows share each pass over it, and wait in L2:
# 1024 x 1024 x 1024 then runs at 55 % of the peak, else at 34 %.
_PRODUCT_BYTES = 16 * 1024
_LARGE_PRODUCT_BYTES = 128 * 1024
_LARGE_FACTOR_BYTES = 1024 * 1024


def scratch_bytes(row_bytes: int) -> int:
    """Scratch memory of one thread: a packed panel, and products with rows of up to this size."""
    return PANEL_BYTES + max(_LARGE_PRODUCT_BYTES, MR * row_bytes)


# The right matrix is read in place, unless its rows are so far apart that the processor does not
# foresee the next one, and enough rows of the left one share a copy. Packing always: 6 % slower
# at 64 x 784 x 128, no faster at 128 x 784 x 512 while the weights are in L2.
_PACK_STRIDE = 2048  # bytes
_PACK_ROWS = 32


@kernel
def product_rows(ld, k, p):
    """How many rows of x.T @ dz are multiplied before something is done with them.

    They are ``ld`` elements apart, as those of dz, of which there are ``k``.
    """
    row = ld * itemsize(p)
    if k * row > _LARGE_FACTOR_BYTES:
        return max(MR, min(NV * lanes(p), _LARGE_PRODUCT_BYTES // row) // MR * MR)
    return max(MR, _PRODUCT_BYTES // row // MR * MR)


@kernel
def panel_vectors(n, j, p):
    """How many vectors of columns are left from column ``j``, at most NV."""
    return min(NV, (n - j + lanes(p) - 1) // lanes(p))


@kernel
def gemm(out, ld_out, start, ld_start, a, ld_a, b, ld_b, m, n, k, scratch, columns, stop):
    """out = start + a @ b

    out   : (m, n)    overwritten, whole vectors of columns
    start : (m, n), or one row for all with ld_start 0; not ``out``
    a     : (m, k)
    b     : (k, n)    rows padded to whole vectors

    ``columns`` is 0, or the address of a list of k columns (see columns.py): then ``a`` has these
    only, side by side, and the rows of ``b`` that belong to them are multiplied.
    """
    pack = columns != 0 or (m >= _PACK_ROWS and ld_b * itemsize(b) >= _PACK_STRIDE)
    ld = NV * lanes(b)
    if not pack or k == 0 or m == 0:
        done = 0
        if m == 1:
            width = ROW_NV * lanes(b)
            # All vectors are whole, the last one with padding.
            done = (n + lanes(b) - 1) // width * width
            for j in range(0, done, width):
                row_product(out + j, start + j, a, b + j, ld_b, k)
        for j in range(done, n, ld):
            if is_stopped(stop):
                return
            vectors = panel_vectors(n, j, b)
            panel_product(
                m, vectors, out + j, ld_out, start + j, ld_start, a, ld_a, 1, b + j, ld_b, k
            )
        return
    # Panels within blocks of k: the block's columns of a stay in L2 for all panels.
    source, ld_source = start, ld_start
    for p in range(0, k, KC):
        depth = min(KC, k - p)
        for j in range(0, n, ld):
            if is_stopped(stop):
                return
            vectors = panel_vectors(n, j, b)
            if columns != 0:
                _pack_listed(scratch, b + j, ld_b, columns, p, depth, vectors)
            else:
                _pack(scratch, b + (p * ld_b + j), ld_b, depth, vectors)
            panel_product(
                m,
                vectors,
                out + j,
                ld_out,
                source + j,
                ld_source,
                a + p,
                ld_a,
                1,
                scratch,
                ld,
                depth,
            )
        source, ld_source = out, ld_out


@kernel
def gemm_transposed(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, stop):
    """out = a @ b.T

    out : (m, n)    overwritten, whole vectors of columns; the padding is zero
    a   : (m, k)
    b   : (n, k)    rows padded to whole vectors

    ``b`` is transposed a panel at a time on the way into the scratch memory: a copy kept beside the
    weights would have to follow every write of theirs.
    """
    ld = NV * lanes(b)
    for p in range(0, k, KC):
        depth = min(KC, k - p)
        for j in range(0, n, ld):
            if is_stopped(stop):
                return
            vectors = panel_vectors(n, j, b)
            _pack_transposed(scratch, b + (j * ld_b + p), ld_b, depth, min(ld, n - j), vectors)
            panel_product(
                m,
                vectors,
                out + j,
                ld_out,
                zeros if p == 0 else out + j,
                0 if p == 0 else ld_out,
                a + p,
                ld_a,
                1,
                scratch,
                ld,
                depth,
            )


@kernel
def outer_products(out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop):
    """out = start + x.T @ dz

    out   : (m, n)    overwritten, whole vectors of columns
    start : (m, n), or one row for all with ld_start 0; may be ``out``
    x     : (k, m)    dz : (k, n)    rows padded to whole vectors

    The columns of x, each element of which lies in another line, are packed where several panels
    share the copy: 784 x 128 x 512 takes 6 % less.
    """
    width = NV * lanes(out)
    pack = n > 2 * width and m <= width
    for p in range(0, k, KC):
        if is_stopped(stop):
            return
        depth = min(KC, k - p)
        left, ld_left = x + p * ld_x, ld_x
        if pack:
            _pack(scratch, left, ld_x, depth, 1 if m <= lanes(out) else 2)
            left, ld_left = scratch, width
        for j in range(0, n, width):
            panel_product(
                m,
                panel_vectors(n, j, out),
                out + j,
                ld_out,
                (start if p == 0 else out) + j,
                ld_start if p == 0 else ld_out,
                left,
                1,
                ld_left,
                dz + (p * ld_dz + j),
                ld_dz,
                depth,
            )


@kernel
def add_outer_products(w, ld_w, x, ld_x, dz, ld_dz, factor, first, last, n, k, scratch, columns):
    """w += factor · x.T @ dz on rows [first, last) of w; of these the listed, if there is a list.

    w  : (last, n)    x : (k, last)    dz : (k, n)    rows padded to whole vectors

    ``columns`` is 0, or the address of a list of those columns of x that are not zero.
    """
    ld = NV * lanes(w)
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
                    top, bottom, run = next_columns(columns, run, top, last)
                rows, place = bottom - top, w + (top * ld_w + j)
                left = x + (p * ld_x + top)
                panel_product(
                    rows, vectors, place, ld_w, place, ld_w, left, 1, ld_x, scratch, ld, depth
                )
                top = bottom


@kernel
def _pack(panel, b, ld_b, depth, vectors):
    """panel[p, :] = b[p, :vectors]"""
    ld = NV * lanes(b)
    if vectors == NV:
        copy_rows(panel, ld, b, ld_b, depth)
    else:
        for p in range(depth):
            store(panel + p * ld, load(b + p * ld_b))


@kernel
def _pack_listed(panel, b, ld_b, columns, p, depth, vectors):
    """Pack the rows of b that belong to the listed columns from number p on, ``depth`` of them."""
    ld = NV * lanes(b)
    runs = pointer(columns, np.int64(0))
    for k in range(FIRST_RUN, FIRST_RUN + 2 * runs[RUNS], 2):
        place = runs[k + 1]
        begin, end = max(place, p), min(runs[k + 3], p + depth)
        if begin < end:
            row = runs[k] + begin - place
            _pack(panel + (begin - p) * ld, b + row * ld_b, ld_b, end - begin, vectors)


@kernel
def _pack_transposed(panel, b, ld_b, depth, columns, vectors):
    """panel[p, i] = b[i, p] for i < columns, and 0 up to ``vectors`` whole vectors."""
    side = lanes(b)
    ld = NV * side
    whole = columns - columns % side
    for i in range(0, whole, side):
        # Rows of b are padded to whole vectors, and the panel has room for as many.
        for p in range(0, depth, side):
            transpose_block(panel + (p * ld + i), ld, b + (i * ld_b + p), ld_b)
    if whole < vectors * side:
        for p in range(depth):
            store(panel + (p * ld + whole), fill(load(panel), 0.0))
        for i in range(whole, columns):
            for p in range(depth):
                panel[p * ld + i] = b[i * ld_b + p]
