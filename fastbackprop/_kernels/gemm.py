"""Matrix products of any shape: loops around the register tiles, and packing where it pays."""

from __future__ import annotations

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.micro import MR, NV, tile_product, transpose_block
from fastbackprop._kernels.simd import fill, itemsize, lanes, load, store

# Rows of a packed panel: KC · NV vectors of 64 bytes are 32 KiB, which leaves room in a 48 KiB L1.
KC = 256

# A thread's scratch memory, in bytes: a packed panel, and one tile.
PANEL_BYTES = KC * NV * 64
SCRATCH_BYTES = PANEL_BYTES + MR * NV * 64

# The right matrix is read in place unless its rows are so far apart that a panel touches a page in
# every row, and enough rows of the left one share the copy.
_PACK_ROW_BYTES = 4096
_PACK_ROWS = 4 * MR


@kernel
def panel_vectors(n, j, p):
    """How many vectors of columns are left from column ``j``, at most NV."""
    return min(NV, (n - j + lanes(p) - 1) // lanes(p))


@kernel
def _tiles(out, ld_out, start, ld_start, a, a_row, b, ld_b, m, vectors, k):
    """One panel of columns, tile by tile down the rows."""
    for i in range(0, m, MR):
        tile_product(
            min(MR, m - i),
            vectors,
            out + i * ld_out,
            ld_out,
            start + i * ld_start,
            ld_start,
            a + i * a_row,
            a_row,
            1,
            b,
            ld_b,
            k,
        )


@kernel
def gemm(out, ld_out, start, ld_start, a, ld_a, b, ld_b, m, n, k, scratch):
    """Out = start + a @ b

    out   : (m, n)    overwritten, whole vectors of columns
    start : (m, n), or one row for all with ld_start 0; not ``out``
    a     : (m, k)
    b     : (k, n)    rows padded to whole vectors
    """
    pack = ld_b * itemsize(b) >= _PACK_ROW_BYTES and m >= _PACK_ROWS
    for j in range(0, n, NV * lanes(b)):
        vectors = panel_vectors(n, j, b)
        if not pack:
            _tiles(out + j, ld_out, start + j, ld_start, a, ld_a, b + j, ld_b, m, vectors, k)
            continue
        _tiles(out + j, ld_out, start + j, ld_start, a, ld_a, b, ld_b, m, vectors, 0)
        for p in range(0, k, KC):
            depth = min(KC, k - p)
            _pack(scratch, b + (p * ld_b + j), ld_b, depth, vectors)
            ld = NV * lanes(b)
            _tiles(out + j, ld_out, out + j, ld_out, a + p, ld_a, scratch, ld, m, vectors, depth)


@kernel
def gemm_transposed(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch):
    """Out = a @ b.T

    out : (m, n)    overwritten, whole vectors of columns; the padding is zero
    a   : (m, k)
    b   : (n, k)    rows padded to whole vectors

    ``b`` is transposed a panel at a time on the way into the scratch memory: a copy kept beside the
    weights would have to follow every write of theirs.
    """
    ld = NV * lanes(b)
    for j in range(0, n, ld):
        vectors = panel_vectors(n, j, b)
        for p in range(0, k, KC):
            depth = min(KC, k - p)
            _pack_transposed(scratch, b + (j * ld_b + p), ld_b, depth, min(ld, n - j), vectors)
            if p == 0:
                _tiles(out + j, ld_out, zeros, 0, a, ld_a, scratch, ld, m, vectors, depth)
            else:
                _tiles(
                    out + j, ld_out, out + j, ld_out, a + p, ld_a, scratch, ld, m, vectors, depth
                )
    # Nothing to sum: the product is still defined.
    if k == 0:
        _clear(out, ld_out, m, n)


@kernel
def _clear(out, ld_out, m, n):
    for i in range(m):
        for j in range(0, n, lanes(out)):
            store(out + (i * ld_out + j), fill(load(out), 0.0))


@kernel
def _pack(panel, b, ld_b, depth, vectors):
    """panel[p, :] = b[p, :vectors]"""
    for p in range(depth):
        for v in range(vectors):
            store(panel + (p * NV + v) * lanes(b), load(b + (p * ld_b + v * lanes(b))))


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
