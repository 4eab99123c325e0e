"""Matrix products of any shape: loops around the register tiles, and packing where it pays.

Where ``stop`` is the address of a flag, and not 0, a product ends when the flag is set, and leaves
its output half done: a product may take seconds, and Ctrl-C must not.
"""

from __future__ import annotations

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.micro import (
    MR,
    ROW_NV,
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
from fastbackprop._kernels.packing import (
    KC,
    LARGE_BYTES,
    is_large,
    left_panels,
    left_rows,
    left_width,
    pack_copied,
    pack_left,
    pack_listed,
    pack_right,
    pack_transposed,
    packed_bytes,
    packed_columns,
    panel_vectors,
    panel_width,
    shared_columns,
    shared_panels,
    shares_left,
)
from fastbackprop._kernels.simd import fill, itemsize, lanes, load, store
from fastbackprop._kernels.team import is_stopped

# How the right matrix is read: where it lies, or from panels of its rows, of the listed ones, or of
# its columns; or they are packed already.
_IN_PLACE, _COPIED, _LISTED, _TRANSPOSED, _PACKED = range(5)

# Rows of a panel that is made by transposing, for few rows of the left matrix: it is read while L1
# has it. 100 x 300 x 500 takes 5 % less, 512 x 512 x 512 would take 5 % more.
_TRANSPOSED_KC = 128
_FEW_ROWS = 192

# Whole rows of x.T @ dz that wait for what is done with them; where dz is large, more share each
# pass over it. In 16 KiB, as L1 has room for, 128 x 512 x 512 took 8 % longer.
_PRODUCT_BYTES = 64 * 1024
_LARGE_PRODUCT_BYTES = 4 * 1024 * 1024
_TILE_ROWS = 24  # a multiple of the heights of tiles


def scratch_bytes(row_bytes: int, weight_bytes: int, rows: int) -> int:
    """Scratch memory of one thread: the `packed_bytes`, and behind them products that wait."""
    large = rows * row_bytes > LARGE_BYTES
    products = _LARGE_PRODUCT_BYTES if large else _PRODUCT_BYTES
    return packed_bytes(row_bytes, weight_bytes, rows) + max(products, MR * row_bytes)


@kernel
def product_rows(ld, k, p):
    """How many rows of x.T @ dz are multiplied before something is done with them.

    They are ``ld`` elements apart, as those of dz, of which there are ``k``.
    """
    row = ld * itemsize(p)
    rows = _PRODUCT_BYTES // row
    if k * row > LARGE_BYTES:
        rows = min(left_rows(p), _LARGE_PRODUCT_BYTES // row)
    unit = _TILE_ROWS if rows >= _TILE_ROWS else MR
    return max(MR, rows // unit * unit)


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

    Element (i, p) of a is at ``a + i * a_row + p * a_k``; ``right`` says how b is read. Where both
    are packed, panels stream from L2, and a block of those of ``a`` stays there for all of b's.
    """
    ld, panels = panel_width(n, b), left_panels(scratch)
    # Unless the left matrix is packed, all its rows go with one panel of the right one.
    block = left_rows(a) if packs_left else m
    height = left_width(a) if packs_left else m
    width = shared_columns(n, b) if block < m else n
    most = KC
    if not packs_left and a_k == 1:
        if right == _IN_PLACE:
            most = k
        elif right == _TRANSPOSED and m < _FEW_ROWS:
            most = _TRANSPOSED_KC
    # Loops of while: one of range with a step divides, which here took 30 ns in all.
    p = 0
    while p == 0 or p < k:
        depth = min(most, k - p)
        source, ld_source = (start, ld_start) if p == 0 else (out, ld_out)
        first = 0
        while first < n:
            last, i = min(n, first + width), 0
            while i < m:
                bottom = min(m, i + block)
                if packs_left and (first == 0 or block < m):
                    pack_left(panels, a + (i * a_row + p * a_k), a_row, a_k, depth, bottom - i)
                for j in range(first, last, ld):
                    if is_stopped(stop):
                        return
                    vectors = panel_vectors(n, j, b)
                    panel, ld_panel = scratch, ld
                    if right == _IN_PLACE:
                        panel, ld_panel = b + (p * ld_b + j), ld_b
                    elif right == _PACKED:
                        panel = shared_panels(scratch) + (p * packed_columns(n, b) + j * depth)
                    else:
                        if block < m:
                            panel = shared_panels(scratch) + (j - first) * KC
                        if i == 0:
                            wide = min(ld, n - j)
                            _pack_panel(
                                panel, ld, b, ld_b, right, columns, p, depth, j, wide, vectors
                            )
                    top = i
                    while top < bottom:
                        left, row, step = a + (top * a_row + p * a_k), a_row, a_k
                        if packs_left:
                            left, row, step = panels + (top - i) * KC, 1, height
                        panel_product(
                            min(height, bottom - top),
                            vectors,
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
                i = bottom
            first += width
        p += max(most, 1)


@kernel
def _pack_panel(panel, ld, b, ld_b, right, columns, p, depth, j, width, vectors):
    """A panel of ``width`` columns of the right matrix from j on, and ``depth`` rows from p on."""
    if right == _COPIED:
        pack_copied(panel, ld, b + (p * ld_b + j), ld_b, depth, vectors)
    elif right == _LISTED:
        pack_listed(panel, ld, b + j, ld_b, columns, p, depth, vectors)
    else:
        pack_transposed(panel, ld, b + (j * ld_b + p), ld_b, depth, width, vectors)


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
    elif is_padded and is_large(m, n, k, ld_b, b):
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
        right == _COPIED,
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


# What copying an element into its transposed place costs, in multiply-adds. 256 rows times the
# transpose of 16384 x 512, which goes through L2 for each 64 of them, took 1.3 times as long; of
# 4096 x 512 less.
_TRANSPOSING = 10
_MOST_SWAPPED_BYTES = 16 * 1024 * 1024


@kernel
def _is_better_swapped(m, n, k, like):
    """Whether a @ b.T is better made as (b @ a.T).T, which transposes a and the product, not b.

    They are ``m`` rows of k and of n numbers, and whole vectors of rows are multiplied. Only
    products with more columns than rows are.
    """
    waste = (-m % lanes(like)) * n * k
    fits = k <= KC and n * k * itemsize(like) <= _MOST_SWAPPED_BYTES
    return fits and waste + _TRANSPOSING * m * (n + k) < _TRANSPOSING * n * k


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
    if _is_better_swapped(m, n, k, out):
        _swapped_products(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, stop)
        return
    _products(
        out,
        ld_out,
        zeros,
        0,
        a,
        ld_a,
        1,
        is_large(m, n, n, ld_b, b),
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
def _swapped_products(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, stop):
    """out = (b @ a.T).T for k up to KC, a panel of a.T with a few rows of b at a time.

    As `gemm_transposed`; the order of sums, and so the bits, are the same.
    """
    ld, height, products = panel_width(m, a), left_width(a), left_panels(scratch)
    for i in range(0, m, ld):
        rows, vectors = min(ld, m - i), panel_vectors(m, i, a)
        pack_transposed(scratch, ld, a + i * ld_a, ld_a, k, rows, vectors)
        for j in range(0, n, height):
            if is_stopped(stop):
                return
            columns = min(height, n - j)
            panel_product(
                columns, vectors, products, ld, zeros, 0, b + j * ld_b, ld_b, 1, scratch, ld, k
            )
            for p in range(columns, (columns + lanes(a) - 1) // lanes(a) * lanes(a)):
                for v in range(0, vectors * lanes(a), lanes(a)):
                    store(products + (p * ld + v), fill(load(scratch), 0.0))
            _store_transposed(out + (i * ld_out + j), ld_out, products, ld, rows, columns, height)


@kernel
def _store_transposed(out, ld_out, products, ld, rows, columns, height):
    """out[i, j] = products[j, i] for i < rows, and whole vectors of ``columns``.

    What is left of the rows goes through a block behind the ``height`` rows of products.
    """
    side = lanes(out)
    whole = rows - rows % side
    block = products + height * ld
    for j in range(0, columns, side):
        for i in range(0, whole, side):
            transpose_block(out + (i * ld_out + j), ld_out, products + (j * ld + i), ld)
        if whole < rows:
            transpose_block(block, side, products + (j * ld + whole), ld)
            for i in range(rows - whole):
                store(out + ((whole + i) * ld_out + j), load(block + i * side))


@kernel
def packs_gradient(ld_dz, m, n, k, p):
    """Whether dz is packed, for all ``m`` rows of x.T @ dz together: if it is large."""
    return is_large(m, n, k, ld_dz, p)


@kernel
def pack_gradient(dz, ld_dz, n, k, scratch, stop):
    """Pack dz for `outer_products`."""
    pack_right(shared_panels(scratch), dz, ld_dz, n, k, stop)


@kernel
def outer_products(
    out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, is_packed, m, n, k, scratch, stop
):
    """out = start + x.T @ dz

    out   : (m, n)    overwritten, whole vectors of columns
    start : (m, n), or one row for all with ld_start 0; may be ``out``
    x     : (k, m)    dz : (k, n)    rows padded to whole vectors

    ``is_packed`` says that `pack_gradient` was called for this dz.
    """
    if is_narrow(n):
        narrow_outer_products(
            out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop
        )
        return
    _products(
        out,
        ld_out,
        start,
        ld_start,
        x,
        1,
        ld_x,
        shares_left(n, out),
        dz,
        ld_dz,
        _PACKED if is_packed else _IN_PLACE,
        0,
        m,
        n,
        k,
        scratch,
        stop,
    )
