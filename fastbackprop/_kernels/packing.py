"""Panels: parts of a matrix copied side by side, in the order in which the tiles read them.

The scratch memory begins with one panel of the right matrix, which is used up before the next one
is packed. Behind it are panels of the left matrix, as many as stay in L2, or products that are
still to be transposed; and, for large products, those panels of the right one that several blocks
of rows share: of so many columns of weights, or of the whole gradient dz.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.columns import FIRST_RUN, RUNS
from fastbackprop._kernels.jit import VECTOR_BITS, inlined_kernel, kernel
from fastbackprop._kernels.micro import NV, WIDE_NV, copy_rows, transpose_block
from fastbackprop._kernels.simd import fill, itemsize, lanes, load, pointer, store
from fastbackprop._kernels.team import is_stopped

# Rows of a panel of the right matrix, of WIDE_NV vectors: 128 KiB where they have 512 bits, which
# stream from L2. Panels of 128 rows, which L1 holds, were slower: 6 % in the tiles alone, since
# sums wait in memory after so few products.
KC = 512
_PANEL_BYTES = KC * WIDE_NV * 64

# Rows of a panel of the left matrix, in vectors: tiles of 6 rows fill it. So many of them are
# packed at a time: with 2 and with 12, 2048 x 2048 x 2048 took 3 and 4 % longer.
_LEFT_NV = 3
_LEFT_PANELS = 4
_LEFT_BYTES = _LEFT_PANELS * KC * _LEFT_NV * 64

# With more vectors of columns in the right matrix, rows of the left one are packed whose elements
# lie in different lines: 128 x 784 x 512 takes 6 % less.
_SHARED_NV = 8

# At least, there is room for the products of one such panel with one of the right matrix, and for a
# square block of vectors.
_SWAPPED_BYTES = (_LEFT_NV * WIDE_NV + 1) * (VECTOR_BITS // 8) ** 2 // 4

# Panels of the right matrix that are packed at a time, where several blocks of rows of the left one
# share them: 2,048 columns of float32, in vectors of 512 bits.
_RIGHT_PANELS = 32

# A matrix of so many bytes fits into L2 beside what else is there, and is best read where it lies.
# A larger one is packed if a product has enough rows to share the copy, 64 x 1024 x 1024 not: its
# rows come from other pages, and the processor does not foresee the next.
LARGE_BYTES = 2 * 1024 * 1024
_LARGE_ROWS = 192


def packed_bytes(row_bytes: int, weight_bytes: int, rows: int) -> int:
    """Scratch memory for panels, where batches have so many ``rows``.

    Rows of parameters, and of dz, are ``row_bytes`` long at most; matrices of parameters have at
    most ``weight_bytes``.
    """
    large = rows >= _LARGE_ROWS and weight_bytes > LARGE_BYTES
    shares = row_bytes > _SHARED_NV * VECTOR_BITS // 8
    left = _LEFT_BYTES if large or shares else _SWAPPED_BYTES
    shared = _RIGHT_PANELS * _PANEL_BYTES if large else 0
    if rows * row_bytes > LARGE_BYTES:
        shared = max(shared, rows * (row_bytes + WIDE_NV * 64))
    return _PANEL_BYTES + left + shared


@kernel
def shares_left(n, p):
    """Whether enough panels of a matrix with ``n`` columns share packed rows of the left one."""
    return n > _SHARED_NV * lanes(p)


@kernel
def is_large(m, n, rows, ld, p):
    """Whether a product, (m, n), with a matrix of so many ``rows`` in memory, has both packed."""
    return m >= _LARGE_ROWS and shares_left(n, p) and rows * ld * itemsize(p) > LARGE_BYTES


@kernel
def left_width(p):
    """Rows of the left matrix in a panel."""
    return _LEFT_NV * lanes(p)


@kernel
def left_rows(p):
    """Rows of the left matrix that are packed at a time."""
    return _LEFT_PANELS * left_width(p)


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
def packed_columns(n, p):
    """Columns of all panels of a matrix with ``n``."""
    ld = panel_width(n, p)
    return (n + ld - 1) // ld * ld


@kernel
def shared_columns(n, p):
    """Columns of the right matrix, of ``n``, whose panels are packed at a time."""
    return _RIGHT_PANELS * panel_width(n, p)


@kernel
def left_panels(scratch):
    """Where the panels of the left matrix are packed."""
    return scratch + _PANEL_BYTES // itemsize(scratch)


@kernel
def shared_panels(scratch):
    """Where those panels of the right matrix are packed that several blocks of rows share."""
    return scratch + (_PANEL_BYTES + _LEFT_BYTES) // itemsize(scratch)


@kernel
def pack_left(panels, a, a_row, a_k, depth, rows):
    """Panels of rows of the left matrix, each with room for KC rows: panel[p, i] = a[i, p].

    Element (i, p) is at ``a + i * a_row + p * a_k``; there are ``depth`` of each row.
    """
    ld = left_width(a)
    for i in range(0, rows, ld):
        left = min(ld, rows - i)
        vectors = (left + lanes(a) - 1) // lanes(a)
        if a_row == 1:
            _pack(panels + i * KC, ld, a + i, a_k, depth, vectors)
        else:
            pack_transposed(panels + i * KC, ld, a + i * a_row, a_row, depth, left, vectors)


@kernel
def pack_right(panels, b, ld_b, n, k, stop):
    """All panels of ``b``, (k, n): those of its first KC rows, then those of the next.

    As in a product, ``stop`` is 0 or the address of a flag that ends it.
    """
    ld = panel_width(n, b)
    for p in range(0, k, KC):
        if is_stopped(stop):
            return
        depth = min(KC, k - p)
        for j in range(0, n, ld):
            pack_copied(panels, ld, b + (p * ld_b + j), ld_b, depth, panel_vectors(n, j, b))
            panels += ld * depth


@kernel
def pack_copied(panel, ld, b, ld_b, depth, vectors):
    """panel[p, :] = b[p, :vectors]"""
    _pack(panel, ld, b, ld_b, depth, vectors)


@inlined_kernel
def _pack(panel, ld, b, ld_b, depth, vectors):
    pairs = vectors // NV * NV * lanes(b)
    for j in range(0, pairs, NV * lanes(b)):
        copy_rows(panel + j, ld, b + j, ld_b, depth)
    if pairs < vectors * lanes(b):
        for p in range(depth):
            store(panel + (p * ld + pairs), load(b + (p * ld_b + pairs)))


@kernel
def pack_listed(panel, ld, b, ld_b, columns, p, depth, vectors):
    """Pack the rows of b that belong to the listed columns from number p on, ``depth`` of them."""
    runs = pointer(columns, np.int64(0))
    for k in range(FIRST_RUN, FIRST_RUN + 2 * runs[RUNS], 2):
        place = runs[k + 1]
        begin, end = max(place, p), min(runs[k + 3], p + depth)
        if begin < end:
            row = runs[k] + begin - place
            _pack(panel + (begin - p) * ld, ld, b + row * ld_b, ld_b, end - begin, vectors)


@kernel
def pack_transposed(panel, ld, b, ld_b, depth, columns, vectors):
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
