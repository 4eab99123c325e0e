"""Matrix products of every shape, within the bound of their rounding and to the same bits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import DTYPES, Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop._kernels import accumulate
from fastbackprop._kernels import gemm as kernels
from fastbackprop._kernels.micro import MR, NV, ROW_NV, panel_product, transpose_block
from fastbackprop._kernels.packing import KC, LARGE_BYTES, pack_right, packed_bytes
from fastbackprop._kernels.records import STOP_WORDS
from fastbackprop._kernels.simd import pointer


@jit
def _panel_product(m, vectors, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k, like):
    out, start = pointer(out, like), pointer(start, like)
    a, b = pointer(a, like), pointer(b, like)
    panel_product(m, vectors, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k)


@jit
def _gemm(out, ld_out, start, ld_start, a, ld_a, is_padded, b, ld_b, m, n, k, scratch, like):
    out, start, scratch = pointer(out, like), pointer(start, like), pointer(scratch, like)
    a, b = pointer(a, like), pointer(b, like)
    kernels.gemm(out, ld_out, start, ld_start, a, ld_a, is_padded, b, ld_b, m, n, k, scratch, 0, 0)


@jit
def _pack_right(panels, b, ld_b, n, k, stop, like):
    pack_right(pointer(panels, like), pointer(b, like), ld_b, n, k, stop)


@jit
def _gemm_transposed(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, like, stop=0):
    out, zeros, scratch = pointer(out, like), pointer(zeros, like), pointer(scratch, like)
    a, b = pointer(a, like), pointer(b, like)
    kernels.gemm_transposed(out, ld_out, zeros, a, ld_a, b, ld_b, m, n, k, scratch, stop)


@jit
def _add_outer_products(w, ld_w, x, ld_x, dz, ld_dz, factor, m, n, k, scratch, like):
    w, scratch = pointer(w, like), pointer(scratch, like)
    x, dz = pointer(x, like), pointer(dz, like)
    accumulate.add_outer_products(w, ld_w, x, ld_x, dz, ld_dz, factor, 0, m, n, k, scratch, 0)


@jit
def _outer_products(
    out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, packs, m, n, k, scratch, like
):
    out, start, scratch = pointer(out, like), pointer(start, like), pointer(scratch, like)
    x, dz = pointer(x, like), pointer(dz, like)
    if packs:
        kernels.pack_gradient(dz, ld_dz, n, k, scratch, 0)
    kernels.outer_products(
        out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, packs, m, n, k, scratch, 0
    )


@jit
def _is_better_swapped(m, n, k, p, like):
    return kernels._is_better_swapped(m, n, k, pointer(p, like))


@jit
def _packs_gradient(ld, m, n, k, p, like):
    return kernels.packs_gradient(ld, m, n, k, pointer(p, like))


@jit
def _product_rows(ld, k, p, like):
    return kernels.product_rows(ld, k, pointer(p, like))


@jit
def _transpose_block(out, ld_out, a, ld_a, like):
    transpose_block(pointer(out, like), ld_out, pointer(a, like), ld_a)


class Shape:
    """Random factors of a product (m, k) @ (k, n), and rows of memory longer than needed."""

    def __init__(self, m, n, k, dtype, *, extra=0, one_start=True):
        rng = np.random.default_rng([m, n, k])
        self.m, self.n, self.k, self.dtype = m, n, k, dtype
        self.columns = whole_vectors(n, dtype)
        self.a_ld = k + extra
        self.b_ld = self.columns + extra
        self.out_ld = self.columns + extra
        self.start_ld = 0 if one_start else self.columns + extra
        self.a, self.b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
        self.start = rng.normal(size=(1 if one_start else m, n))
        self.a, self.b, self.start = (x.astype(dtype) for x in (self.a, self.b, self.start))

    def assert_close(self, out, start, factor=1.0):
        """Each sum of k products and a start is off by at most k + 1 roundings of its terms."""
        a, b = factor * self.a.astype(np.float64), self.b.astype(np.float64)
        bound = (self.k + 3) * np.finfo(self.dtype).eps * (np.abs(start) + np.abs(a) @ np.abs(b))
        assert np.all(np.abs(out[:, : self.n] - (start + a @ b)) <= bound)
        beyond = out[:, self.columns :]
        assert np.isnan(beyond).all(), "written beyond the last vector of a row"


def scratch_of(memory, b, rows):
    """What a network has for products of so many rows with ``b``, and not a byte more."""
    itemsize = b.itemsize
    return memory.empty(packed_bytes(b.shape[1] * itemsize, b.nbytes, rows) // itemsize)


def gemm(shape, rows=None):
    """Out = start + a @ b, all at once or ``rows`` at a time."""
    m, dtype = shape.m, shape.dtype
    with Memory(dtype) as memory:
        out = memory.empty(m, shape.out_ld)
        start = memory.copy(shape.start, max(shape.start_ld, shape.columns))
        a, b = memory.copy(shape.a, shape.a_ld), memory.copy(shape.b, shape.b_ld)
        scratch = scratch_of(memory, b, m)
        for i in range(0, m, rows or max(m, 1)):
            _gemm(
                address(out[i:]),
                shape.out_ld,
                address(start[i:] if shape.start_ld else start),
                shape.start_ld,
                address(a[i:]),
                shape.a_ld,
                shape.a_ld >= whole_vectors(shape.k, dtype),
                address(b),
                shape.b_ld,
                min(rows or m, m - i),
                shape.n,
                shape.k,
                address(scratch),
                dtype(0),
            )
        return out


def gemm_transposed(shape, rows=None):
    """Out = a @ b.T, where ``shape.b`` is that transpose, all at once or ``rows`` at a time."""
    m, dtype = shape.m, shape.dtype
    with Memory(dtype) as memory:
        out = memory.empty(m, shape.out_ld)
        zeros = memory.copy(np.zeros(max(NV * lanes_of(dtype), shape.columns)))
        ld_b = whole_vectors(shape.k, dtype) + shape.b_ld - shape.columns
        ld_a = whole_vectors(shape.a_ld, dtype)
        a, b = memory.copy(shape.a, ld_a), memory.copy(shape.b.T, ld_b)
        scratch = scratch_of(memory, b, m)
        for i in range(0, m, rows or max(m, 1)):
            _gemm_transposed(
                address(out[i:]),
                shape.out_ld,
                address(zeros),
                address(a[i:]),
                ld_a,
                address(b),
                ld_b,
                min(rows or m, m - i),
                shape.n,
                shape.k,
                address(scratch),
                dtype(0),
            )
        return out


FACTOR = -0.3


def add_outer_products(shape, rows=None):
    """W = start + FACTOR · a @ b in place, where ``shape.a`` is given transposed."""
    m, dtype = shape.m, shape.dtype
    with Memory(dtype) as memory:
        w, dz = memory.copy(shape.start, shape.out_ld), memory.copy(shape.b, shape.b_ld)
        x = memory.copy(shape.a.T, m + 3)
        w[:, shape.n : shape.columns] = dz[:, shape.n : shape.columns] = 0
        scratch = scratch_of(memory, dz, len(dz))
        for i in range(0, m, rows or max(m, 1)):
            _add_outer_products(
                address(w[i:]),
                shape.out_ld,
                address(x[:, i:]),
                m + 3,
                address(dz),
                shape.b_ld,
                FACTOR,
                min(rows or m, m - i),
                shape.n,
                shape.k,
                address(scratch),
                dtype(0),
            )
        np.testing.assert_array_equal(w[:, shape.n : shape.columns], 0)
        return w


def edge_shapes(dtype):
    """(m, n, k) around every place where a loop ends: pairs of edges, the third of middle size."""
    L = lanes_of(dtype)
    ms = [0, 1, 2, MR - 1, MR, MR + 1, 2 * MR - 1, 2 * MR, 3 * MR + 2, 5 * MR]
    # And around the wide tiles, which begin with 3 rows and end with 6 of 4 vectors.
    ms += [3, 4, 5, 6, 11, 13]
    ns = [0, 1, L - 1, L, L + 1, 2 * L - 1, 2 * L, 2 * L + 1, 3 * L]
    ns += [4 * L - 1, 4 * L, 4 * L + 1, 7 * L, 8 * L + 1]
    ks = [0, 1, 2, L - 1, L, L + 1, 3 * L + 1, KC - 1, KC, KC + 1, 2 * KC, 2 * KC + 3]
    shapes = {
        *itertools.product(ms, ns, (3, KC + 1)),
        *itertools.product((2, MR + 1, 5 * MR), ns, ks),
        *itertools.product(ms, (1, 2 * L + 1), ks),
    }
    return sorted(shapes)


@each_dtype
@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("one_start", [True, False])
def test_gemm_edges(dtype, extra, one_start):
    for m, n, k in edge_shapes(dtype):
        shape = Shape(m, n, k, dtype, extra=extra, one_start=one_start)
        shape.assert_close(gemm(shape), shape.start)


@each_dtype
@pytest.mark.parametrize("extra", [0, 3])
def test_gemm_transposed_edges(dtype, extra):
    for m, n, k in edge_shapes(dtype):
        if k == 0:  # the outputs of a layer, of which there is at least one
            continue
        shape = Shape(m, n, k, dtype, extra=extra)
        out = gemm_transposed(shape)
        shape.assert_close(out, np.zeros((1, n)))
        np.testing.assert_array_equal(out[:, n : shape.columns], 0)


@each_dtype
@pytest.mark.parametrize("extra", [0, 3])
def test_add_outer_products_edges(dtype, extra):
    for m, n, k in edge_shapes(dtype):
        shape = Shape(m, n, k, dtype, extra=extra, one_start=False)
        shape.assert_close(add_outer_products(shape), shape.start, FACTOR)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=100)
@given(
    m=st.integers(0, 70),
    n=st.integers(1, 70),
    k=st.integers(0, 600),
    extra=st.integers(0, 9),
    one_start=st.booleans(),
)
def test_any_shape(dtype, m, n, k, extra, one_start):
    shape = Shape(m, n, k, dtype, extra=extra, one_start=one_start)
    shape.assert_close(gemm(shape), shape.start)
    if k > 0:
        shape.assert_close(gemm_transposed(shape), np.zeros((1, n)))


@each_dtype
@pytest.mark.parametrize("product", [gemm, gemm_transposed, add_outer_products])
def test_same_bits_however_the_rows_are_split(dtype, product):
    """What lets any number of threads share the work: a row's sums do not depend on its company."""
    L = lanes_of(dtype)
    shapes = [(5 * MR + 3, 2 * L + 1, KC + 7), (3 * MR - 1, 5, 33), (MR, 4 * L, 2 * KC)]
    shapes += [(MR, ROW_NV * L + edge, 33) for edge in (-L, 1 - L, 0, 1, L + 1, ROW_NV * L)]
    for m, n, k in shapes:
        shape = Shape(m, n, k, dtype, one_start=False)
        together = product(shape)[:, :n]
        for rows in (1, 2, 3, MR - 1, MR, MR + 1, 2 * MR + 1):
            assert_same_bits(product(shape, rows)[:, :n], together)


@each_dtype
@pytest.mark.parametrize("product", [gemm, gemm_transposed])
def test_rows_far_apart_and_many_of_them(dtype, product):
    """A right matrix each row of which begins another page: one pass or many, the same bits."""
    page = 4096 // np.dtype(dtype).itemsize
    shape = Shape(5000, 2 * lanes_of(dtype) + 1, KC + 3, dtype, extra=page)
    together = product(shape)
    shape.assert_close(together, shape.start if product is gemm else np.zeros((1, shape.n)))
    assert_same_bits(product(shape, 100)[:, : shape.n], together[:, : shape.n])


@each_dtype
@pytest.mark.parametrize("product", [gemm, gemm_transposed])
def test_both_matrices_packed(dtype, product):
    """Blocks of rows, of columns and of the sum, with what is left over of each; the same bits."""
    L = lanes_of(dtype)
    for m, n, k in [
        (192, 1040, 2 * KC),  # one block of rows of float32, two of float64
        (197, 2051, KC + 9),
        (max(192, 12 * L + 5), max(1040, 133 * L + 1), KC + 5),  # more columns than are kept
    ]:
        shape = Shape(m, n, k, dtype)
        for of_weights in (k * shape.b_ld, n * whole_vectors(k, dtype)):
            assert of_weights * np.dtype(dtype).itemsize > LARGE_BYTES
        together = product(shape)
        shape.assert_close(together, shape.start if product is gemm else np.zeros((1, n)))
        assert_same_bits(product(shape, 31)[:, :n], together[:, :n])


@each_dtype
@pytest.mark.parametrize("product", [gemm, gemm_transposed])
def test_large_matrices_that_are_narrow(dtype, product):
    """Many inputs and few outputs, or the other way around, and room for no more than they need."""
    L = lanes_of(dtype)
    for m, n, k in [(200, 5, 17_000), (200, 17_000, 5), (200, 9 * L, 6000), (200, 6000, 9 * L)]:
        shape = Shape(m, n, k, dtype, extra=60)
        together = product(shape)
        shape.assert_close(together, shape.start if product is gemm else np.zeros((1, n)))
        assert_same_bits(product(shape, 100)[:, :n], together[:, :n])


@each_dtype
@pytest.mark.parametrize("extra", [0, 5])
def test_few_rows_times_a_transposed_matrix(dtype, extra):
    """With fewer rows than columns the product is made the other way around: the same bits."""
    L = lanes_of(dtype)
    for m, n, k in [
        (L, 3 * L, 3 * L),
        (2 * L, 13 * L + 3, 5 * L - 1),
        (4 * L, 9 * L + 1, 9 * L + 2),
        (5 * L - 1, 30 * L + 3, KC),
        (7 * L - 3, 41 * L, 31 * L),
    ]:
        assert _is_better_swapped(m, n, k, 0, dtype(0))
        shape = Shape(m, n, k, dtype, extra=extra)
        together = gemm_transposed(shape)
        shape.assert_close(together, np.zeros((1, n)))
        np.testing.assert_array_equal(together[:, n : shape.columns], 0)
        shape.start[...] = 0
        assert_same_bits(gemm(shape)[:, :n], together[:, :n])


@each_dtype
def test_a_request_to_stop_ends_products_and_packing(dtype):
    requested, like = np.ones(STOP_WORDS, np.int64), dtype(0)
    with Memory(dtype) as memory:
        m, n, k = lanes_of(dtype), 3 * lanes_of(dtype), 3 * lanes_of(dtype)
        assert _is_better_swapped(m, n, k, 0, like)
        out, a, b = memory.empty(m, n), memory.copy(np.ones((m, k))), memory.copy(np.ones((n, k)))
        zeros, scratch = memory.copy(np.zeros(n)), scratch_of(memory, b, m)
        stop = address(requested)
        places = address(zeros), address(a), k, address(b), k, m, n, k, address(scratch)
        _gemm_transposed(address(out), n, *places, like, stop)
        assert np.isnan(out).all()
        packed = memory.empty(4 * b.size)
        _pack_right(address(packed), address(b), k, n, n, stop, like)
        assert np.isnan(packed).all()


@each_dtype
@pytest.mark.parametrize("k", range(4, 12))
def test_short_sums_have_the_bits_of_long_ones(dtype, k):
    """Batches of 5 to 10 rows are added to the weights without tiles, by whole pairs of vectors."""
    L = lanes_of(dtype)
    for m, n in itertools.product((0, 1, 2, MR + 1, 50), (1, L, 2 * L, 3 * L - 1, 4 * L, 5 * L)):
        shape = Shape(m, n, k, dtype, extra=1, one_start=False)
        out = add_outer_products(shape)
        shape.assert_close(out, shape.start, FACTOR)
        if dtype is np.float64:
            continue
        # One multiply-add after the other, each rounded once: products are exact in float64.
        expected, scaled = shape.start, shape.b * dtype(FACTOR)
        for p in range(k):
            product = np.multiply.outer(*(v.astype(np.float64) for v in (shape.a[:, p], scaled[p])))
            expected = (product + expected).astype(dtype)
        assert_same_bits(out[:, :n].copy(), expected)


@each_dtype
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_panel_product(dtype, vectors, transposed):
    """Both readings of the left matrix: by rows (x @ w) and by columns (x.T @ dz)."""
    n = vectors * lanes_of(dtype)
    for m, k in itertools.product((0, 1, 2, MR - 1, MR, MR + 1, 3 * MR + 1), (0, 1, 5, KC + 1)):
        shape = Shape(m, n, k, dtype, extra=5, one_start=False)
        with Memory(dtype) as memory:
            out = memory.copy(shape.start, shape.out_ld)  # the sum goes on in place
            a = memory.copy(shape.a.T, m + 2) if transposed else memory.copy(shape.a, k + 2)
            b = memory.copy(shape.b, shape.b_ld)
            _panel_product(
                m,
                vectors,
                address(out),
                shape.out_ld,
                address(out),
                shape.out_ld,
                address(a),
                1 if transposed else k + 2,
                m + 2 if transposed else 1,
                address(b),
                shape.b_ld,
                k,
                dtype(0),
            )
            shape.assert_close(out, shape.start)


@each_dtype
def test_rows_of_products_fit_into_the_scratch_memory(dtype):
    """Behind what is packed: whole tiles, and one at least however long the rows are."""
    itemsize = np.dtype(dtype).itemsize
    for ld, k in itertools.product((16, 48, 128, 528, 4096, 100_000), (1, 300, 10_000)):
        rows, row = _product_rows(ld, k, 0, dtype(0)), ld * itemsize
        assert rows >= MR
        assert rows % MR == 0
        sizes = row, 100 * row, k
        assert packed_bytes(*sizes) + rows * row <= kernels.scratch_bytes(*sizes)


def outer_products(shape, *, packs, goes_on):
    """Out = start + a @ b, where ``shape.a`` is given transposed; in place if it ``goes_on``."""
    m, n, k, dtype = shape.m, shape.n, shape.k, shape.dtype
    with Memory(dtype) as memory:
        out, ld = memory.empty(m, shape.out_ld), shape.out_ld
        start = out if goes_on else memory.copy(shape.start, shape.out_ld)
        if goes_on:
            out[:, :n] = shape.start
        x = memory.copy(shape.a.T, whole_vectors(m, dtype) + NV * lanes_of(dtype))
        dz = memory.copy(shape.b, shape.b_ld)
        _outer_products(
            address(out),
            ld,
            address(start),
            ld if goes_on else 0,
            address(x),
            x.shape[1],
            address(dz),
            shape.b_ld,
            packs,
            m,
            n,
            k,
            address(scratch_of(memory, dz, k)),
            dtype(0),
        )
        return out


@each_dtype
@pytest.mark.parametrize("goes_on", [False, True])
def test_outer_products(dtype, goes_on):
    L = lanes_of(dtype)
    for m, n, k in itertools.product(
        (1, MR, NV * L, 3 * L, 8 * NV * L + 3),
        (1, NV * L, 2 * NV * L + 1, 8 * L + 1),
        (1, 9, KC, KC + 1),
    ):
        shape = Shape(m, n, k, dtype, extra=L, one_start=not goes_on)
        shape.assert_close(outer_products(shape, packs=False, goes_on=goes_on), shape.start)


@each_dtype
def test_outer_products_with_a_large_gradient(dtype):
    """The gradient is packed, once for all calls; the bits are those of the other way."""
    L, itemsize = lanes_of(dtype), np.dtype(dtype).itemsize
    for m, n, k in [(192, 33 * L + 1, 3 * KC + 5), (12 * L + 7, 65 * L, KC + 3)]:
        extra = max(L, LARGE_BYTES // itemsize // k + 1 - whole_vectors(n, dtype))
        shape = Shape(max(m, 192), n, k, dtype, extra=extra)
        assert _packs_gradient(shape.b_ld, shape.m, n, k, 0, dtype(0))
        packed = outer_products(shape, packs=True, goes_on=False)
        shape.assert_close(packed, shape.start)
        in_place = outer_products(shape, packs=False, goes_on=False)
        assert_same_bits(packed[:, :n].copy(), in_place[:, :n].copy())


@each_dtype
def test_nan_and_infinity_go_where_they_belong(dtype):
    m, n, k = MR + 1, lanes_of(dtype) + 1, 4
    shape = Shape(m, n, k, dtype)
    shape.a[2, 1], shape.b[3, n - 1] = np.nan, np.inf
    for out in (gemm(shape), gemm_transposed(shape)):
        assert np.isnan(out[2, :n]).all()
        others = np.delete(out[:, :n], 2, axis=0)
        assert np.isfinite(others[:, :-1]).all()
        assert np.isinf(others[:, -1]).all()


@each_dtype
def test_transpose_block(dtype):
    L = lanes_of(dtype)
    a = np.random.default_rng(0).normal(size=(L, L)).astype(dtype)
    with Memory(dtype) as memory:
        out, source = memory.empty(L, L + 1), memory.copy(a, L + 2)
        _transpose_block(address(out), L + 1, address(source), L + 2, dtype(0))
        np.testing.assert_array_equal(out[:, :L], a.T)
        assert np.isnan(out[:, L]).all()
