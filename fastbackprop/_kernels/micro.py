"""A panel of a matrix product, cut into register tiles that are as high as each other."""

from __future__ import annotations

from fastbackprop._kernels.jit import VECTOR_REGISTERS, inlined_kernel, kernel
from fastbackprop._kernels.simd import (
    add_few_products,
    lanes,
    square_tile_load,
    tile_load,
    tile_products,
    tile_store,
    transpose,
)

# A tile of MR rows of NV vectors keeps MR · NV accumulators in registers and needs NV + 1 more. A
# fused multiply-add takes 4 cycles and two start in each, so 8 accumulators hide its latency. With
# up to 12 rows, 784 x 30 on a batch of 10 took 5 % less forward and 10 % more in the update.
NV = 2
MR = 8 if VECTOR_REGISTERS == 32 else 6

# Where there are registers and columns for it, a tile is twice as wide, and less high: 24
# accumulators, with 38 instructions for as many multiply-adds instead of 30 for 16. That is 2 %
# faster, and 27 % while a shared machine runs few instructions a cycle, as if another process had
# the other half of the core. Tiles of 8 x 3 vectors: 24 % then; of 12 x 2: 9 %; of 8 x 2 with each
# element of the left matrix loaded by its multiply-add: -7 % in half of the rows; in all of them
# -12 %, not then.
WIDE_NV = 4 if VECTOR_REGISTERS == 32 else NV
_WIDE_MR = 6
_LEAST_WIDE_ROWS = 3

# A single row has as many accumulators only if its tile is as wide. 784 x 128 took 1.6 times as
# long in tiles of NV.
ROW_NV = 8

# The shape of a tile must be known at compile time. It is told by types: a tuple as long as the
# tile is high, so that one source serves every height.
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10 = ((0,) * length for length in range(1, 11))


@kernel
def _tiles_of(width, rows, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """Choose the compiled tile of ``rows`` rows.

    A chain of conditions takes 2 ns; a loop over the heights by literal_unroll took 30, as long as
    a product with k = 10.
    """
    if count == 0:
        return
    if rows == 8:
        tile_products(_8, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 7:
        tile_products(_7, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 6:
        tile_products(_6, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 5:
        tile_products(_5, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 4:
        tile_products(_4, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 3:
        tile_products(_3, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 2:
        tile_products(_2, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    else:
        tile_products(_1, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@kernel
def _wide_tiles_of(width, rows, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """The same of `_LEAST_WIDE_ROWS` to `_WIDE_MR` rows, of which every greater number is a sum."""
    if count == 0:
        return
    if rows == 6:
        tile_products(_6, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 5:
        tile_products(_5, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    elif rows == 4:
        tile_products(_4, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    else:
        tile_products(_3, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@kernel
def _heights(m, highest):
    """(rows, tiles) of the higher and of the lower tiles of ``m`` rows.

    As few tiles as possible, and all as high as each other or one row less: 10 rows are two tiles
    of 5, since one of 8 and one of 2 would wait for its few sums.
    """
    tiles = (m + highest - 1) // highest
    low = m // tiles
    high_tiles = m - low * tiles
    return low + 1, high_tiles, low, tiles - high_tiles


@kernel
def _panel_of(width, m, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    rows, count, low, rest = _heights(m, MR)
    _tiles_of(width, rows, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    done = rows * count
    out += done * ld_out
    start += done * ld_start
    a += done * a_row
    _tiles_of(width, low, rest, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


# Not one function that takes the choice of a tile as an argument: it would have to be part of its
# callers, with all tiles in each.
@kernel
def _wide_panel_of(width, m, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    rows, count, low, rest = _heights(m, _WIDE_MR)
    _wide_tiles_of(width, rows, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    done = rows * count
    out += done * ld_out
    start += done * ld_start
    a += done * a_row
    _wide_tiles_of(width, low, rest, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@inlined_kernel
def panel_product(m, vectors, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """out[i, :] = start[i, :] + Σₚ a[i, p] · b[p, :], the sum in the order of p.

    out, start : (m, vectors of width L)       vectors 1 to WIDE_NV
    a          : (m, k), element (i, p) at a + i * a_row + p * a_k
    b          : (k, vectors of width L)

    ``ld_*`` are in elements; ``ld_start`` 0 starts every row alike (a bias, zeros). ``start`` may
    be ``out``. Every product is fused into its sum, so the bits do not depend on the tiles.

    It is part of its callers: columns of zeros cut products into some of a few rows, of which one
    more call takes a twentieth.
    """
    if m <= 0:
        return
    if vectors == 2 * NV and m >= _LEAST_WIDE_ROWS:
        _wide_panel_of(_4, m, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
        return
    while vectors >= NV:
        _panel_of(_2, m, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
        vectors -= NV
        out += NV * lanes(out)
        start += NV * lanes(out)
        b += NV * lanes(out)
    if vectors > 0:
        _panel_of(_1, m, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@kernel
def is_few(k):
    """Whether sums of ``k`` products are made by `few_products`: its rows fit into registers.

    Tiles of so short sums wait to be loaded and stored: 784 x 32 with sums of 8 and 10 take 0.71
    and 0.81 of the time this way, with sums of 12 0.93.
    """
    return VECTOR_REGISTERS == 32 and 5 <= k <= 10


@kernel
def few_products(m, w, ld_w, a, ld_a, b, ld_b, k):
    """w[i, :] += Σₚ a[p, i] · b[p, :] for rows of NV vectors; the bits are `panel_product`'s.

    w : (m, NV vectors)    a : (k, m)    b : (k, NV vectors)    k as in `is_few`
    """
    if k == 10:
        add_few_products(_10, _2, m, w, ld_w, a, ld_a, b, ld_b)
    elif k == 9:
        add_few_products(_9, _2, m, w, ld_w, a, ld_a, b, ld_b)
    elif k == 8:
        add_few_products(_8, _2, m, w, ld_w, a, ld_a, b, ld_b)
    elif k == 7:
        add_few_products(_7, _2, m, w, ld_w, a, ld_a, b, ld_b)
    elif k == 6:
        add_few_products(_6, _2, m, w, ld_w, a, ld_a, b, ld_b)
    else:
        add_few_products(_5, _2, m, w, ld_w, a, ld_a, b, ld_b)


@kernel
def row_product(out, start, a, b, ld_b, k):
    """out = start + Σₚ a[p] · b[p, :], one row of ROW_NV vectors; as `panel_product` makes it."""
    tile_products(_1, _8, 1, out, 0, start, 0, a, 0, 1, b, ld_b, k)


@kernel
def transpose_block(out, ld_out, a, ld_a):
    """out[j, i] = a[i, j] for a square block as wide as a vector."""
    tile_store(transpose(square_tile_load(a, ld_a)), out, ld_out)


@kernel
def copy_rows(out, ld_out, a, ld_a, rows):
    """out[i, :] = a[i, :] for rows of NV vectors."""
    whole = rows - rows % 4
    for _ in range(0, whole, 4):
        tile_store(tile_load(a, ld_a, _4, _2), out, ld_out)
        a += 4 * ld_a
        out += 4 * ld_out
    for _ in range(whole, rows):
        tile_store(tile_load(a, ld_a, _1, _2), out, ld_out)
        a += ld_a
        out += ld_out
