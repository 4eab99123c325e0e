"""Register tiles: the innermost loop of every matrix product, a sum of rank-1 updates."""

from __future__ import annotations

from numba import literal_unroll

from fastbackprop._kernels.jit import VECTOR_REGISTERS, kernel
from fastbackprop._kernels.simd import (
    address_of,
    square_tile_load,
    tile_add_product,
    tile_load,
    tile_prefetch,
    tile_store,
    transpose,
)

# A tile of MR rows of NV vectors keeps MR · NV accumulators in registers and needs NV + 1 more. A
# fused multiply-add takes 4 cycles and two start in each, so 8 accumulators hide its latency.
NV = 2
MR = 8 if VECTOR_REGISTERS == 32 else 6

# The shape of a tile must be known at compile time. It is told by types: a tuple as long as the
# tile is high, so that one source serves every height.
_HEIGHTS = tuple((0,) * height for height in range(MR, 0, -1))
_ONE = (0,)
_TWO = (0, 0)


@kernel
def _tiles(height, width, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """``count`` tiles one below the other."""
    rows = len(height)
    for _ in range(count):
        tile = tile_load(start, ld_start, height, width)
        tile_prefetch(start + rows * ld_start, ld_start, height, width)
        left, right = a, b
        # Counted by address, so that LLVM cannot know how often and does not unroll: four steps
        # need more addresses than there are registers, and reloading them takes the load ports.
        stop = address_of(a + k * a_k)
        while address_of(left) != stop:
            tile = tile_add_product(tile, left, a_row, right)
            left += a_k
            right += ld_b
        tile_store(tile, out, ld_out)
        out += rows * ld_out
        start += rows * ld_start
        a += rows * a_row


@kernel
def _tiles_of(rows, vectors, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """Choose the compiled tile of ``rows`` rows and ``vectors`` vectors."""
    for height in literal_unroll(_HEIGHTS):
        if rows == len(height):
            if vectors == 2:
                _tiles(height, _TWO, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
            else:
                _tiles(height, _ONE, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@kernel
def panel_product(m, vectors, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """out[i, :] = start[i, :] + Σₚ a[i, p] · b[p, :], the sum in the order of p.

    out, start : (m, vectors of width L)       vectors 1 or 2
    a          : (m, k), element (i, p) at a + i * a_row + p * a_k
    b          : (k, vectors of width L)

    ``ld_*`` are in elements; ``ld_start`` 0 starts every row alike (a bias, zeros). ``start`` may
    be ``out``. Every product is fused into its sum, so the bits do not depend on the tiles.
    """
    if m <= 0:
        return
    # As few tiles as possible, and all as high as each other or one row less: 10 rows are two
    # tiles of 5, since one of 8 and one of 2 would wait for its few sums.
    tiles = (m + MR - 1) // MR
    low = m // tiles
    high_tiles = m - low * tiles
    _tiles_of(low + 1, vectors, high_tiles, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
    done = high_tiles * (low + 1)
    _tiles_of(
        low,
        vectors,
        tiles - high_tiles,
        out + done * ld_out,
        ld_out,
        start + done * ld_start,
        ld_start,
        a + done * a_row,
        a_row,
        a_k,
        b,
        ld_b,
        k,
    )


@kernel
def transpose_block(out, ld_out, a, ld_a):
    """out[j, i] = a[i, j] for a square block as wide as a vector."""
    tile_store(transpose(square_tile_load(a, ld_a)), out, ld_out)


@kernel
def copy_rows(out, ld_out, a, ld_a, rows):
    """out[i, :] = a[i, :] for rows of NV vectors."""
    whole = rows - rows % MR
    for _ in range(0, whole, MR):
        tile_store(tile_load(a, ld_a, _HEIGHTS[0], _TWO), out, ld_out)
        a += MR * ld_a
        out += MR * ld_out
    for _ in range(whole, rows):
        tile_store(tile_load(a, ld_a, _ONE, _TWO), out, ld_out)
        a += ld_a
        out += ld_out
