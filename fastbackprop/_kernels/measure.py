"""Kernels that measure: arithmetic in registers, copies, barriers, and matrix products alone.

No kernel of a network imports these, so a fit compiles none of them.
"""

from __future__ import annotations

from fastbackprop._kernels.gemm import (
    gemm,
    gemm_transposed,
    outer_products,
    pack_gradient,
    packs_gradient,
    product_rows,
)
from fastbackprop._kernels.jit import entry_point, kernel
from fastbackprop._kernels.micro import MR, NV, copy_rows
from fastbackprop._kernels.simd import (
    itemsize,
    lanes,
    pointer,
    tile_add_product,
    tile_load,
    tile_store,
)
from fastbackprop._kernels.team import SPINS_ALONE, barrier, share

# The three matrix products of a layer.
FORWARD, WEIGHTS, INPUTS = range(3)

# The shape of a tile is told by the lengths of tuples.
_ROWS, _VECTORS = (0,) * MR, (0,) * NV


@entry_point
def multiply_add(tile_address, factors_address, rounds, like):
    """tile[i, :] += rounds · factors[0] · factors[:], by ``rounds`` fused multiply-adds

    tile    : (MR, NV vectors), in registers all the while
    factors : (NV vectors,); nothing writes to memory meanwhile, so they are loaded once

    The chains of additions are as many as in a matrix product, which hides their latency.
    """
    place, factors = pointer(tile_address, like), pointer(factors_address, like)
    ld = NV * lanes(place)
    tile = tile_load(place, ld, _ROWS, _VECTORS)
    for _ in range(rounds):
        tile = tile_add_product(tile, factors, 0, factors)
    tile_store(tile, place, ld)


@entry_point
def copy(out_address, source_address, rows, repeats, like):
    """out[:] = source[:], ``repeats`` times; rows of NV vectors"""
    out, source = pointer(out_address, like), pointer(source_address, like)
    ld = NV * lanes(out)
    for _ in range(repeats):
        copy_rows(out, ld, source, ld, rows)


@entry_point
def barriers(counter, threads, count):
    """Pass ``count`` barriers with the other threads; the counter begins at 0."""
    arrivals = threads
    for _ in range(count):
        arrivals = barrier(counter, threads, arrivals, SPINS_ALONE)


@kernel
def _weights_product(dw, zeros, x, ld_x, dz, ld_dz, top, bottom, n_out, n, scratch):
    """Rows [top, bottom) of dw = x.T @ dz, a few at a time, as in training."""
    block = product_rows(ld_dz, n, dw)
    is_packed = packs_gradient(ld_dz, bottom - top, n_out, n, dw)
    if is_packed:
        pack_gradient(dz, ld_dz, n_out, n, scratch, 0)
    for i in range(top, bottom, block):
        rows = min(block, bottom - i)
        out, left = dw + i * ld_dz, x + i
        outer_products(
            out, ld_dz, zeros, 0, left, ld_x, dz, ld_dz, is_packed, rows, n_out, n, scratch, 0
        )


@entry_point
def products(
    product, out, left, right, zeros, scratch, n, n_in, n_out, ld_in, ld_out, team, repeats, like
):
    """One of a layer's matrix products, ``repeats`` times, this thread's share of it.

        product    out             left           right
        FORWARD    z  (n, n_out)   x  (n, n_in)   w  (n_in, n_out)    z = x @ w
        WEIGHTS    dw (n_in, n_out)   x           dz (n, n_out)       dw = x.T @ dz
        INPUTS     dx (n, n_in)    dz             w                   dx = dz @ w.T

    Rows are ``ld_in`` elements apart in x and dx, ``ld_out`` in all others. ``team`` is (address of
    the barrier's counter, threads, thread); a barrier ends each product, as in training.
    """
    counter, threads, thread = team
    arrivals = threads
    out, left, right = pointer(out, like), pointer(left, like), pointer(right, like)
    zeros, scratch = pointer(zeros, like), pointer(scratch, like)
    first, last = share(n, 1, threads, thread)
    top, bottom = share(n_in, 64 // itemsize(out), threads, thread)
    rows = last - first
    for _ in range(repeats):
        if product == FORWARD:
            gemm(
                out + first * ld_out,
                ld_out,
                zeros,
                0,
                left + first * ld_in,
                ld_in,
                True,
                right,
                ld_out,
                rows,
                n_out,
                n_in,
                scratch,
                0,
                0,
            )
        elif product == WEIGHTS:
            _weights_product(out, zeros, left, ld_in, right, ld_out, top, bottom, n_out, n, scratch)
        else:
            gemm_transposed(
                out + first * ld_in,
                ld_in,
                zeros,
                left + first * ld_out,
                ld_out,
                right,
                ld_out,
                rows,
                n_in,
                n_out,
                scratch,
                0,
            )
        arrivals = barrier(counter, threads, arrivals, SPINS_ALONE)
