"""Matrix products of any shape: loops around the register tiles, and packing where it pays.

Where ``stop`` is the address of a flag, and not 0, a product ends when the flag is set, and leaves
its output half done: a product may take seconds, and Ctrl-C must not.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.columns import FIRST_RUN, RUNS
from fastbackprop._kernels.jit import inlined_kernel, kernel
from fastbackprop._kernels.micro import (
    MR,
    NV,
    ROW_NV,
    WIDE_NV,
    copy_rows,
    panel_product,
    row_product,
    transpose_block,
)
from fastbackprop._kernels.narrow import (
    has_few_inputs,
    is_narrow,
    narrow_gemm_transposed,
    narrow_outer_products,
)
from fastbackprop._kernels.simd import (
    fill,
    itemsize,
    lanes,
    load,
    pointer,
    store,
)
from fastbackprop._kernels.team import is_stopped

# Rows of a packed panel of the right matrix, of WIDE_NV vectors: 32 KiB of a 48 KiB L1, or half.
KC = 128

_PANEL_BYTES = KC * WIDE_NV * 64

# Where both matrices are packed, so many panels of each at a time, which wait in L2.
_LEFT_PANELS = _RIGHT_PANELS = 16 // WIDE_NV

# What a product packs lies at the start of the scratch memory: panels of the right matrix, then
# those of the left one.
PACKED_BYTES = (_RIGHT_PANELS + _LEFT_PANELS) * _PANEL_BYTES

# Whole rows of a product that wait in L1 for what is done with them: at least a tile's. Where the
# other factor does not fit into L2 beside them, more rows share each pass over it, and wait in L2.
_PRODUCT_BYTES = 16 * 1024
_LARGE_PRODUCT_BYTES = 1024 * 1024
_LARGE_FACTOR_BYTES = 1024 * 1024


def scratch_bytes(row_bytes: int, rows: int) -> int:
    """Scratch memory of one thread: what is packed, and products for batches of so many rows.

    Rows of parameters, and of a layer's outputs, are ``row_bytes`` long at most.
    """
    is_large = rows * row_bytes > _LARGE_FACTOR_BYTES
    products = _LARGE_PRODUCT_BYTES if is_large else _PRODUCT_BYTES
    return PACKED_BYTES + max(products, MR * row_bytes)


# How the right matrix is read: where it lies, or from packed panels of its rows, of the listed
# ones, or of its columns. It is copied if its rows are so far apart that the processor does not
# foresee the next one, and enough rows of the left one share a copy. Packing always: 6 % slower at
# 64 x 784 x 128, no faster at 128 x 784 x 512 while the weights are in L2.
_IN_PLACE, _COPIED, _LISTED, _TRANSPOSED = range(4)
_PACK_STRIDE = 2048  # bytes
_PACK_ROWS = 32

# Rows of all panels that are copied together: each of them may begin another page of memory.
_COPIED_ROWS = 8

# The left matrix is packed, too, where each of its rows begins another page, and enough panels of
# the right one share that: 2048 x 2048 x 2048 runs at 80 % of the peak, without at 63.
_PACK_LEFT_STRIDE = 4096  # bytes
_PACK_LEFT_PANELS = 8


@kernel
def product_rows(ld, k, p):
    """How many rows of x.T @ dz are multiplied before something is done with them.

    They are ``ld`` elements apart, as those of dz, of which there are ``k``.
    """
    row = ld * itemsize(p)
    if k * row > _LARGE_FACTOR_BYTES:
        most = _LEFT_PANELS * WIDE_NV * lanes(p)
        return max(MR, min(most, _LARGE_PRODUCT_BYTES // row) // MR * MR)
    return max(MR, _PRODUCT_BYTES // row // MR * MR)


@kernel
def panel_width(n, p):
    """Columns of a panel of a matrix with ``n``, and elements from one of its rows to the next.

    Rows of narrow ones lie close: gaps between them would leave part of L1 unused.
    """
    return (NV if n <= NV * lanes(p) else WIDE_NV) * lanes(p)


@kernel
def panel_vectors(n, j, p):
    """How many vectors of columns are left from column ``j``, at most WIDE_NV."""
    return min(WIDE_NV, (n - j + lanes(p) - 1) // lanes(p))


@kernel
def _products(
    out,
    ld_out,
    start,
    ld_start,
    a,
    a_row,
    a_k,
    packs_left,
    b,
    ld_b,
    right,
    columns,
    m,
    n,
    k,
    scratch,
    stop,
):
    """out = start + a @ b, in panels of b within blocks of k.

    Element (i, p) of a is at ``a + i * a_row + p * a_k``; ``right`` says how b is read. A block's
    columns of a stay in L2 for all panels, a panel of b in L1 for all rows.
    """
    ld = panel_width(n, b)
    panels = scratch + _RIGHT_PANELS * _PANEL_BYTES // itemsize(b)
    # Unless the left matrix is packed, all its rows go with one panel of the right one, in place.
    block = _LEFT_PANELS * ld if packs_left else m
    height = ld if packs_left else m
    width = _RIGHT_PANELS * ld if packs_left else ld
    most = KC if right != _IN_PLACE or packs_left or a_k != 1 else k
    # Loops of while: one of range with a step divides, which here took 30 ns in all.
    p = 0
    while p == 0 or p < k:
        depth = min(most, k - p)
        source, ld_source = (start, ld_start) if p == 0 else (out, ld_out)
        i = 0
        while i < m:
            bottom = min(m, i + block)
            if packs_left:
                _pack_left(panels, a + (i * a_row + p * a_k), a_row, a_k, depth, bottom - i)
            first = 0
            while first < n:
                if is_stopped(stop):
                    return
                last = min(n, first + width)
                if right != _IN_PLACE:
                    _pack_right(scratch, ld, b, ld_b, right, columns, p, depth, first, last)
                for j in range(first, last, ld):
                    panel, ld_panel = scratch + (j - first) * KC, ld
                    if right == _IN_PLACE:
                        panel, ld_panel = b + (p * ld_b + j), ld_b
                    top = i
                    while top < bottom:
                        left, row, step = a + (top * a_row + p * a_k), a_row, a_k
                        if packs_left:
                            left, row, step = panels + (top - i) * KC, 1, ld
                        panel_product(
                            min(height, bottom - top),
                            panel_vectors(n, j, b),
                            out + (top * ld_out + j),
                            ld_out,
                            source + (top * ld_source + j),
                            ld_source,
                            left,
                            row,
                            step,
                            panel,
                            ld_panel,
                            depth,
                        )
                        top += height
                first += width
            i = bottom
        p += max(most, 1)


@kernel
def _pack_right(panels, ld, b, ld_b, right, columns, p, depth, first, last):
    """Panels of ``ld`` of columns [first, last) of the right matrix, rows p and those after it."""
    rows = _COPIED_ROWS if right == _COPIED else depth
    top = 0
    while top < depth:
        for j in range(first, last, ld):
            panel = panels + ((j - first) * KC + top * ld)
            vectors = panel_vectors(last, j, b)
            if right == _COPIED:
                _pack(panel, ld, b + ((p + top) * ld_b + j), ld_b, min(rows, depth - top), vectors)
            elif right == _LISTED:
                _pack_listed(panel, ld, b + j, ld_b, columns, p, depth, vectors)
            else:
                _pack_transposed(
                    panel, ld, b + (j * ld_b + p), ld_b, depth, min(ld, last - j), vectors
                )
        top += rows


@kernel
def _packs_left(a, ld_a, m, n):
    """Whether rows of the left matrix are packed: (m, k), ``n`` columns in the right one."""
    shared = n >= _PACK_LEFT_PANELS * NV * lanes(a)
    return shared and m >= _PACK_ROWS and ld_a * itemsize(a) >= _PACK_LEFT_STRIDE


@kernel
def gemm(
    out, ld_out, start, ld_start, a, ld_a, is_padded, b, ld_b, m, n, k, scratch, columns, stop
):
    """out = start + a @ b

    out   : (m, n)    overwritten, whole vectors of columns
    start : (m, n), or one row for all with ld_start 0; not ``out``
    a     : (m, k)    rows padded to whole vectors or, if not ``is_padded``, read up to k only
    b     : (k, n)    rows padded to whole vectors

    ``columns`` is 0, or the address of a list of k columns (see columns.py): then ``a`` has these
    only, side by side, and the rows of ``b`` that belong to them are multiplied.
    """
    right = _IN_PLACE
    if columns != 0:
        right = _LISTED
    elif m >= _PACK_ROWS and ld_b * itemsize(b) >= _PACK_STRIDE:
        right = _COPIED
    done = 0
    if m == 1 and right == _IN_PLACE:
        width = ROW_NV * lanes(b)
        # All vectors are whole, the last one with padding.
        done = (n + lanes(b) - 1) // width * width
        for j in range(0, done, width):
            row_product(out + j, start + j, a, b + j, ld_b, k)
    _products(
        out + done,
        ld_out,
        start + done,
        ld_start,
        a,
        ld_a,
        1,
        is_padded and _packs_left(a, ld_a, m, n),
        b + done,
        ld_b,
        right,
        columns,
        m,
        n - done,
        k,
        scratch,
        stop,
    )


@kernel
def gemm_transposed(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, stop):
    """out = a @ b.T

    out : (m, n)    overwritten, whole vectors of columns; the padding is zero
    a   : (m, k)    b : (n, k)    rows padded to whole vectors

    ``b`` is transposed a panel at a time on the way into the scratch memory: a copy kept beside the
    weights would have to follow every write of theirs.
    """
    if is_narrow(k) and has_few_inputs(n, out):
        narrow_gemm_transposed(out, ld_out, a, ld_a, b, ld_b, m, n, k, scratch, stop)
        return
    _products(
        out,
        ld_out,
        zeros,
        0,
        a,
        ld_a,
        1,
        _packs_left(a, ld_a, m, n),
        b,
        ld_b,
        _TRANSPOSED,
        0,
        m,
        n,
        k,
        scratch,
        stop,
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
    if is_narrow(n):
        narrow_outer_products(
            out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop
        )
        return
    packs_left = n > 2 * NV * lanes(out)
    right = _IN_PLACE
    if m > NV * lanes(out) and ld_dz * itemsize(dz) >= _PACK_STRIDE:
        right = _COPIED
    _products(
        out,
        ld_out,
        start,
        ld_start,
        x,
        1,
        ld_x,
        packs_left,
        dz,
        ld_dz,
        right,
        0,
        m,
        n,
        k,
        scratch,
        stop,
    )


@kernel
def _pack_left(panels, a, a_row, a_k, depth, rows):
    """Panels of WIDE_NV vectors of rows of the left matrix, one by one: panel[p, i] = a[i, p]."""
    ld = WIDE_NV * lanes(a)
    for i in range(0, rows, ld):
        left = min(ld, rows - i)
        vectors = (left + lanes(a) - 1) // lanes(a)
        if a_row == 1:
            _pack(panels + i * KC, ld, a + i, a_k, depth, vectors)
        else:
            _pack_transposed(panels + i * KC, ld, a + i * a_row, a_row, depth, left, vectors)


@inlined_kernel
def _pack(panel, ld, b, ld_b, depth, vectors):
    """panel[p, :] = b[p, :vectors]"""
    pairs = vectors // NV * NV * lanes(b)
    for j in range(0, pairs, NV * lanes(b)):
        copy_rows(panel + j, ld, b + j, ld_b, depth)
    if pairs < vectors * lanes(b):
        for p in range(depth):
            store(panel + (p * ld + pairs), load(b + (p * ld_b + pairs)))


@kernel
def _pack_listed(panel, ld, b, ld_b, columns, p, depth, vectors):
    """Pack the rows of b that belong to the listed columns from number p on, ``depth`` of them."""
    runs = pointer(columns, np.int64(0))
    for k in range(FIRST_RUN, FIRST_RUN + 2 * runs[RUNS], 2):
        place = runs[k + 1]
        begin, end = max(place, p), min(runs[k + 3], p + depth)
        if begin < end:
            row = runs[k] + begin - place
            _pack(panel + (begin - p) * ld, ld, b + row * ld_b, ld_b, end - begin, vectors)


@kernel
def _pack_transposed(panel, ld, b, ld_b, depth, columns, vectors):
    """panel[p, i] = b[i, p] for i < columns, and 0 up to ``vectors`` whole vectors."""
    side = lanes(b)
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
