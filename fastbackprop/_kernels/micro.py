"""Register tiles: the innermost loop of every matrix product, a sum of rank-1 updates."""

from __future__ import annotations

from numba import literal_unroll

from fastbackprop._kernels.jit import VECTOR_REGISTERS, VECTOR_BITS, kernel
from fastbackprop._kernels.simd import tile_add_product, tile_load, tile_store

NV = 2
MR = 8 if VECTOR_REGISTERS == 32 else 4
_HEIGHTS = tuple((0,)*n for n in range(MR,0,-1))
_ONE=(0,)
_TWO=(0,0)

@kernel
def _tile(height, width, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k):
    tile = tile_load(start, ld_start, height, width)
    for _ in range(k):
        tile = tile_add_product(tile, a, a_row, b)
        a += a_k
        b += ld_b
    tile_store(tile, out, ld_out)

@kernel
def tile_product(out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k, rows, vectors):
    for height in literal_unroll(_HEIGHTS):
        if rows == len(height):
            if vectors == 2:
                _tile(height, _TWO, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
            else:
                _tile(height, _ONE, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)
