"""Register tiles: the innermost loop of every matrix product, a sum of rank-1 updates."""

from __future__ import annotations

from numba import literal_unroll

from fastbackprop._kernels.jit import VECTOR_REGISTERS, kernel
from fastbackprop._kernels.simd import (
    square_tile_load,
    tile_add_product,
    tile_load,
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
def _tile(height, width, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    tile = tile_load(start, ld_start, height, width)
    for _ in range(k):
        tile = tile_add_product(tile, a, a_row, b)
        a += a_k
        b += ld_b
    tile_store(tile, out, ld_out)


@kernel
def tile_product(rows, vectors, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    """out[i, :] = start[i, :] + Σₚ a[i, p] · b[p, :], the sum in the order of p.

    out, start : (rows, vectors of width L)    1 <= rows <= MR, vectors 1 or 2
    a          : (rows, k), element (i, p) at a + i * a_row + p * a_k
    b          : (k, vectors of width L)

    ``ld_*`` are in elements; ``ld_start`` 0 starts every row alike (a bias, zeros). ``start`` may
    be ``out``. Every product is fused into its sum, so the bits do not depend on the tile's shape.
    """
    for height in literal_unroll(_HEIGHTS):
        if rows == len(height):
            if vectors == 2:
                _tile(height, _TWO, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
            else:
                _tile(height, _ONE, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@kernel
def transpose_block(out, ld_out, a, ld_a):
    """out[j, i] = a[i, j] for a square block as wide as a vector."""
    tile_store(transpose(square_tile_load(a, ld_a)), out, ld_out)
