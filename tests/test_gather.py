"""A batch from rows of any type, strides and order is the converted, rescaled rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import DTYPES, Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop._kernels import gather as kernels
from fastbackprop._kernels.records import JOB, job_at
from fastbackprop._kernels.simd import ELEMENT_TYPES, pointer

SOURCE_TYPES = [np.dtype(element.name).type for element in ELEMENT_TYPES]


@jit
def _gather_rows(out, ld_out, left, right, job, first, last, begin, like):
    out = pointer(out, like)
    return kernels.gather_rows(out, ld_out, left, right, job_at(job), first, last, begin)


@jit
def _gather_targets(out, ld_out, n_out, job, first, last, begin, like):
    kernels.gather_targets(pointer(out, like), ld_out, n_out, job_at(job), first, last, begin)


def gather(x, dtype, *, order=None, scale=1.0, offset=0.0, begin=0, n=None):
    """Rows begin, begin + 1, ... of ``x`` in their order, (n, n_in)."""
    job = np.zeros(1, JOB)
    job["x"] = x.__array_interface__["data"][0]
    job["x_kind"] = SOURCE_TYPES.index(x.dtype.type)
    job["x_row"], job["x_column"] = x.strides
    job["x_size"], job["n"] = x.itemsize, len(x)
    job["x_scale"], job["x_offset"] = scale, offset
    job["order"] = address(order)
    n_in = x.shape[1]
    n = len(x) - begin if n is None else n
    ld = whole_vectors(n_in + 1, dtype)
    middle = n_in // 2 // lanes_of(dtype) * lanes_of(dtype)
    with Memory(dtype) as memory:
        # In several calls, as threads that share its rows or its columns would.
        by_rows = [(0, n // 3, 0, n_in), (n // 3, n, 0, n_in)]
        by_columns = [(0, n, middle, n_in), (0, n, 0, middle)]
        results = []
        for parts in (by_rows, by_columns):
            out = memory.empty(n + 1, ld)
            for first, last, left, right in parts:
                finite = _gather_rows(
                    address(out), ld, left, right, address(job), first, last, begin, dtype(0)
                )
                assert finite == np.isfinite(out[first:last, left:right]).all()
            assert np.isnan(out[n]).all(), "written beyond the last row"
            results.append(out[:n, :n_in])
        assert_same_bits(*results)
        return results[0]


def any_values(source_type, shape, seed=0):
    """Values over the whole range of a type, its limits among them."""
    rng = np.random.default_rng(seed)
    if issubclass(source_type, np.integer):
        limits = np.iinfo(source_type)
        x = rng.integers(limits.min, limits.max, shape, source_type, endpoint=True)
        x.flat[:2] = limits.min, limits.max
    else:
        x = rng.normal(size=shape).astype(source_type)
        x.flat[:2] = -0.0, 1e30
    return x


def layouts(x, folder):
    """The same matrix, in every way that memory can hold it."""
    n, n_in = x.shape
    wide = np.zeros((2 * n, 3 * n_in), x.dtype)
    wide[1::2, 1::3] = x
    file = np.memmap(folder / "rows", x.dtype, "w+", shape=x.shape)
    file[:] = x
    return {
        "contiguous": np.ascontiguousarray(x),
        "columns first": np.asfortranarray(x),
        "strided": wide[1::2, 1::3],
        "rows apart": np.ascontiguousarray(np.hstack([x, x]))[:, :n_in],
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "memmap": file,
        "one element off": np.concatenate([x[0, :1], x.ravel()])[1:].reshape(x.shape),
    }


@each_dtype
@pytest.mark.parametrize("source_type", SOURCE_TYPES)
def test_every_type_and_layout(dtype, source_type, tmp_path):
    L = lanes_of(dtype)
    for n_in in (1, L - 1, L, L + 1, 2 * L + 3):
        x = any_values(source_type, (5, n_in))
        with np.errstate(over="ignore"):
            expected = x.astype(dtype)
        for name, layout in layouts(x, tmp_path).items():
            np.testing.assert_array_equal(layout, x, name)
            assert_same_bits(gather(layout, dtype), expected + dtype(0))


@each_dtype
@pytest.mark.parametrize("source_type", [np.uint8, np.int32, np.float32, np.float64])
def test_rescaling_gives_the_same_bits_for_any_strides(dtype, source_type, tmp_path):
    L, eps = lanes_of(dtype), np.finfo(dtype).eps
    scale, offset = 1 / 255, -0.5
    for n_in in (1, L, 2 * L + 3):
        x = np.random.default_rng(0).integers(0, 255, (4, n_in)).astype(source_type)
        exact = x.astype(np.float64) * scale + offset
        first, *others = [
            gather(layout, dtype, scale=scale, offset=offset)
            for layout in layouts(x, tmp_path).values()
        ]
        np.testing.assert_allclose(first, exact, rtol=0, atol=2 * eps)
        for other in others:
            assert_same_bits(other, first)


@each_dtype
@pytest.mark.parametrize("source_type", [np.float32, np.float64])
def test_compressed_rows(dtype, source_type):
    """Only some elements are stored, in any order; those of one column are added up."""
    L = lanes_of(dtype)
    values = np.array([1.5, -2.0, 4.0, 0.5, 8.0], source_type)
    for n_in in (1, L, 2 * L + 3):
        columns = np.array([n_in - 1, 0, n_in // 2, n_in // 2, 0])
        starts = np.array([0, 2, 2, 5])
        x = np.zeros((3, n_in))
        np.add.at(x, ([0, 0, 2, 2, 2], columns), values)
        for order in (None, np.array([2, 0, 1, 2])):
            rows = x if order is None else x[order]
            actual = gather_compressed(values, columns, starts, n_in, dtype, order)
            np.testing.assert_array_equal(actual, rows)
            scaled = gather_compressed(values, columns, starts, n_in, dtype, order, 0.5, -1.0)
            np.testing.assert_array_equal(scaled, rows * 0.5 - 1.0)
        gather_compressed(values * np.nan, columns, starts, n_in, dtype)


def gather_compressed(values, columns, starts, n_in, dtype, order=None, scale=1.0, offset=0.0):
    """All rows, (n, n_in), by a call for the first columns and one for the others."""
    job = np.zeros(1, JOB)
    job["x"], job["x_columns"], job["x_starts"] = map(address, (values, columns, starts))
    job["x_kind"], job["x_size"] = SOURCE_TYPES.index(values.dtype.type), values.itemsize
    job["x_scale"], job["x_offset"] = scale, offset
    job["order"] = address(order)
    n = len(starts) - 1 if order is None else len(order)
    ld = whole_vectors(n_in + 1, dtype)
    middle = n_in // 2 // lanes_of(dtype) * lanes_of(dtype)
    with Memory(dtype) as memory:
        out = memory.empty(n + 1, ld)
        for left, right in ((middle, n_in), (0, middle)):
            finite = _gather_rows(address(out), ld, left, right, address(job), 0, n, 0, dtype(0))
            assert finite == np.isfinite(out[:n, left:right]).all()
        assert np.isnan(out[n]).all(), "written beyond the last row"
        return out[:n, :n_in].copy()


@each_dtype
def test_order_and_begin(dtype):
    x = np.random.default_rng(0).normal(size=(20, 7))
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(gather(x, dtype, order=order), x[order].astype(dtype))
    part = gather(x, dtype, order=order, begin=15, n=4)
    np.testing.assert_array_equal(part, x[order[15:19]].astype(dtype))
    np.testing.assert_array_equal(gather(x, dtype, begin=15, n=4), x[15:19].astype(dtype))
    assert gather(x, dtype, begin=3, n=0).shape == (0, 7)


@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_is_seen_in_any_column(dtype, bad, tmp_path):
    """`gather` compares what the kernel says with what it wrote; 1e300 is no float32."""
    L = lanes_of(dtype)
    for n_in in (1, L, 2 * L - 1):
        for column in range(n_in):
            x = np.ones((2, n_in))
            x[1, column] = bad
            for layout in layouts(x, tmp_path).values():
                with np.errstate(over="ignore"):
                    np.testing.assert_array_equal(gather(layout, dtype), x.astype(dtype))
    # Finite, though neither their sum nor their difference is.
    largest = np.array([[1, -1, 1, 1]], dtype) * np.finfo(dtype).max
    np.testing.assert_array_equal(gather(largest, dtype), largest)


@each_dtype
def test_broadcast_rows(dtype):
    x = np.broadcast_to(np.arange(5.0), (3, 5))
    assert x.strides[0] == 0
    np.testing.assert_array_equal(gather(x, dtype), x)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 9),
    n_in=st.integers(1, 70),
    source_type=st.sampled_from(SOURCE_TYPES),
    steps=st.tuples(st.sampled_from([-3, -1, 1, 2]), st.sampled_from([-2, -1, 1, 3])),
)
def test_any_strides(dtype, n, n_in, source_type, steps):
    rows, columns = steps
    x = any_values(source_type, (n * abs(rows), n_in * abs(columns)), seed=n)[::rows, ::columns]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(gather(x, dtype), x.astype(dtype))


def gather_targets(dtype, n_out, *, labels=None, targets=None, order=None, begin=0, n=1):
    job = np.zeros(1, JOB)
    job["labels"], job["targets"] = address(labels), address(targets)
    job["order"] = address(order)
    ld = whole_vectors(n_out, dtype)
    with Memory(dtype) as memory:
        out = memory.empty(n + 1, ld)
        for first, last in ((0, n // 2), (n // 2, n)):
            _gather_targets(address(out), ld, n_out, address(job), first, last, begin, dtype(0))
        assert np.isnan(out[n]).all(), "written beyond the last row"
        np.testing.assert_array_equal(out[:n, n_out:], 0)
        return out[:n, :n_out]


@each_dtype
@pytest.mark.parametrize("ordered", [False, True])
def test_labels_become_one_hot_rows(dtype, ordered):
    L, rng = lanes_of(dtype), np.random.default_rng(0)
    order = rng.permutation(12) if ordered else None
    for n_out in (1, 2, L - 1, L, L + 1, 2 * L):
        labels = rng.integers(0, n_out, 12)
        labels[:2] = 0, n_out - 1
        expected = np.eye(n_out)[labels if order is None else labels[order]]
        for begin, n in ((0, 12), (5, 7), (12, 0)):
            actual = gather_targets(dtype, n_out, labels=labels, order=order, begin=begin, n=n)
            np.testing.assert_array_equal(actual, expected[begin : begin + n])


@each_dtype
@pytest.mark.parametrize("ordered", [False, True])
def test_dense_targets_are_copied(dtype, ordered):
    L, rng = lanes_of(dtype), np.random.default_rng(0)
    order = rng.permutation(12) if ordered else None
    for n_out in (1, 2, L - 1, L, L + 1, 2 * L):
        targets = rng.normal(size=(12, n_out)).astype(dtype)
        expected = targets if order is None else targets[order]
        for begin, n in ((0, 12), (5, 7), (12, 0)):
            actual = gather_targets(dtype, n_out, targets=targets, order=order, begin=begin, n=n)
            assert_same_bits(actual, expected[begin : begin + n])
