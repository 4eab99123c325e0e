"""Products of layers with one or two outputs, around each place where a loop over them ends."""

import itertools

import numpy as np
import pytest
from kernel_harness import Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

import fastbackprop as fb
from fastbackprop._kernels import narrow
from fastbackprop._kernels.packing import packed_bytes
from fastbackprop._kernels.records import STOP_WORDS
from fastbackprop._kernels.simd import pointer

OUTPUTS = (1, 2)


@jit
def _gemm(out, ld_out, start, a, ld_a, b, ld_b, m, n, k, scratch, like):
    out, start, scratch = pointer(out, like), pointer(start, like), pointer(scratch, like)
    a, b = pointer(a, like), pointer(b, like)
    narrow.narrow_gemm(out, ld_out, start, a, ld_a, b, ld_b, m, n, k, scratch)


@jit
def _gemm_transposed(out, ld_out, a, ld_a, b, ld_b, m, n, k, scratch, stop, like):
    out, scratch = pointer(out, like), pointer(scratch, like)
    a, b = pointer(a, like), pointer(b, like)
    narrow.narrow_gemm_transposed(out, ld_out, a, ld_a, b, ld_b, m, n, k, scratch, stop)


@jit
def _outer_products(out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop, like):
    out, start, scratch = pointer(out, like), pointer(start, like), pointer(scratch, like)
    x, dz = pointer(x, like), pointer(dz, like)
    narrow.narrow_outer_products(
        out, ld_out, start, ld_start, x, ld_x, dz, ld_dz, m, n, k, scratch, stop
    )


def lengths(dtype):
    """Numbers of inputs at the edges of vectors."""
    L = lanes_of(dtype)
    return (1, 2, L - 1, L, L + 1, 3 * L, 3 * L + 1)


def zero_padded(memory, values, extra=0):
    """A copy whose rows are padded to whole vectors of zeros, and ``extra`` that is not there."""
    width = whole_vectors(values.shape[-1], values.dtype)
    copy = memory.copy(values, width + extra)
    copy[..., values.shape[-1] : width] = 0
    return copy


def assert_close(actual, start, left, right):
    """``actual`` is start + left @ right, within the rounding of its sums; the padding is zero."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    bound = (len(right) + 3) * np.finfo(actual.dtype).eps * (abs(start) + abs(left) @ abs(right))
    n = right.shape[1]
    assert np.all(np.abs(actual[:, :n] - (start + left @ right)) <= bound)
    width = whole_vectors(n, actual.dtype)
    np.testing.assert_array_equal(actual[:, n:width], 0)
    assert np.isnan(actual[:, width:]).all(), "written beyond the last vector of a row"


@each_dtype
def test_gemm(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in itertools.product((0, 1, 3, 4, 5, 9), OUTPUTS, lengths(dtype)):
        x, w, b = (rng.normal(size=size).astype(dtype) for size in ((m, k), (k, n), (n,)))
        with Memory(dtype) as memory:
            out = memory.empty(m, whole_vectors(n, dtype) + 3)
            scratch = memory.empty(packed_bytes(1, 1, 1) // out.itemsize)
            a, start = zero_padded(memory, x, extra=1), memory.copy(b)
            # What is beyond the inputs is not to count: the ones of a bias, or a padding of NaN.
            a[:, k : whole_vectors(k, dtype)] = np.nan
            weights = zero_padded(memory, w, extra=2)
            lds = out.shape[1], a.shape[1], weights.shape[1]
            _gemm(
                address(out),
                lds[0],
                address(start),
                address(a),
                lds[1],
                address(weights),
                lds[2],
                m,
                n,
                k,
                address(scratch),
                dtype(0),
            )
            assert_close(out, b, x, w)


@each_dtype
def test_gemm_transposed(dtype):
    rng = np.random.default_rng(1)
    for m, k, n in itertools.product((0, 1, 3, 4, 9), OUTPUTS, lengths(dtype)):
        dz, w = (rng.normal(size=size).astype(dtype) for size in ((m, k), (n, k)))
        with Memory(dtype) as memory:
            out = memory.empty(m, whole_vectors(n, dtype) + 3)
            scratch = memory.empty(packed_bytes(1, 1, 1) // out.itemsize)
            a, weights = zero_padded(memory, dz, extra=1), zero_padded(memory, w, extra=2)
            lds = out.shape[1], a.shape[1], weights.shape[1]
            _gemm_transposed(
                address(out),
                lds[0],
                address(a),
                lds[1],
                address(weights),
                lds[2],
                m,
                n,
                k,
                address(scratch),
                0,
                dtype(0),
            )
            assert_close(out, 0, dz, w.T)


@each_dtype
@pytest.mark.parametrize("kind", ["from zero", "from rows", "in place"])
def test_outer_products(dtype, kind):
    rng = np.random.default_rng(2)
    for m, n, k in itertools.product(lengths(dtype), OUTPUTS, (0, 1, 3, 4, 5, 64, 67)):
        x, dz = (rng.normal(size=size).astype(dtype) for size in ((k, m), (k, n)))
        before = rng.normal(size=(m, n)).astype(dtype) * (kind != "from zero")
        with Memory(dtype) as memory:
            start = zero_padded(memory, before, extra=3)
            out = start if kind == "in place" else memory.empty(*start.shape)
            scratch = memory.empty(packed_bytes(1, 1, 1) // out.itemsize)
            inputs, deltas = zero_padded(memory, x, extra=1), zero_padded(memory, dz, extra=2)
            _outer_products(
                address(out),
                out.shape[1],
                address(start),
                0 if kind == "from zero" else start.shape[1],
                address(inputs),
                inputs.shape[1],
                address(deltas),
                deltas.shape[1],
                m,
                n,
                k,
                address(scratch),
                0,
                dtype(0),
            )
            assert_close(out, before, x.T, dz)


@pytest.mark.parametrize("n_out", OUTPUTS)
@pytest.mark.parametrize("n_in", [15, 31, 32, 70, 4096, 4097])
def test_any_number_of_threads_gives_the_same_bits(n_in, n_out):
    """Also where each has fewer rows of weights than make a layer narrow, or long."""
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(40, n_out))
    results = []
    for threads in (1, 2, 3, 5):
        net = fb.Network([3, n_in, n_out], "tanh", "mse", random_state=0)
        net.fit(X, Y, epochs=2, batch_size=20, optimizer=fb.Adam(0.01), verbose=0, threads=threads)
        results.append(net.get_parameters())
    for other in results[1:]:
        assert_same_bits(other, results[0])


@each_dtype
@pytest.mark.parametrize("n_in", [31, 70, 257])
def test_units_that_overflow_do_not_spoil_outputs_that_do_not(dtype, n_in):
    """The padding of what a layer takes is 0 · inf where an exp before it overflows."""
    layers = [fb.Dense(1, 1, "exp"), fb.Dense(1, n_in, "tanh"), fb.Dense(n_in, 1)]
    net = fb.Network(layers, loss="mse", random_state=0, dtype=dtype)
    net.weights[0][...] = 1
    predicted = net.predict(np.array([[1000.0]]))[0]
    expected = np.sign(net.weights[1]).astype(np.float64) @ net.weights[2]
    np.testing.assert_allclose(predicted, expected[0], rtol=0, atol=100 * np.finfo(dtype).eps)


@each_dtype
def test_a_request_to_stop_ends_a_product(dtype):
    requested = np.ones(STOP_WORDS, np.int64)
    with Memory(dtype) as memory:
        out = memory.empty(20, lanes_of(dtype))
        x, w = memory.copy(np.ones(out.shape, dtype)), memory.copy(np.ones(out.shape, dtype))
        ld, last = out.shape[1], (address(memory.empty(4 * x.size)), address(requested), dtype(0))
        places = address(out), ld, address(x), ld, address(w), ld
        _gemm_transposed(*places, 20, 10, 1, *last)
        _outer_products(*places[:2], address(x), ld, *places[2:], 10, 1, 20, *last)
        assert np.isnan(out).all()
