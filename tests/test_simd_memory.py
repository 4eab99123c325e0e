"""Vectors, tiles and integers in memory: what is read, what is written, and by which thread."""

import platform
import threading

import numpy as np
import pytest
from kernel_harness import (
    Memory,
    address,
    assert_same_bits,
    each_dtype,
    jit,
    lanes_of,
)
from numba import types

import fastbackprop as fb
from fastbackprop._kernels.simd import (
    ELEMENT_TYPES,
    address_of,
    atomic_add,
    atomic_load,
    fill,
    flush_subnormals,
    lanes,
    load,
    load_any,
    pointer,
    restore_subnormals,
    spin_hint,
    square_tile_load,
    store,
    tile_add_product,
    tile_load,
    tile_store,
    transpose,
)


@jit
def _memory(out, x, like):
    out, x = pointer(out, like), pointer(x, like)
    L = lanes(x)
    store(out, load(x + 1))
    store(out + L, fill(x, 5))
    store(out + 2 * L, fill(load(x), 2.5))
    spin_hint()


@each_dtype
def test_load_store_fill(dtype):
    L = lanes_of(dtype)
    x = np.random.default_rng(0).normal(size=2 * L).astype(dtype)
    with Memory(dtype) as memory:
        out = memory.empty(3, L)
        _memory(address(out), address(memory.copy(x)), dtype(0))
        np.testing.assert_array_equal(out, [x[1 : L + 1], [5] * L, [2.5] * L])


@jit
def _load_any(out, one, source, kind, like):
    out, one = pointer(out, like), pointer(one, like)
    store(out, load_any(source, kind, load(out)))
    one[0] = load_any(source, kind, like)


@each_dtype
@pytest.mark.parametrize("kind", range(len(ELEMENT_TYPES)))
def test_load_any_converts_every_element_type(dtype, kind):
    source_type = np.dtype(ELEMENT_TYPES[kind].name).type
    L, rng = lanes_of(dtype), np.random.default_rng(kind)
    if issubclass(source_type, np.integer):
        limits = np.iinfo(source_type)
        values = rng.integers(limits.min, limits.max, 64, source_type, endpoint=True)
        values[:4] = [limits.min, limits.max, limits.max - 1, 1]
    else:
        values = rng.normal(size=64).astype(source_type)
        values[:6] = [np.nan, np.inf, -np.inf, -0.0, np.finfo(source_type).max, 1 / 3]
    with np.errstate(over="ignore"):
        expected = values.astype(dtype)
    with Memory(dtype) as memory:
        source = memory.copy(values) if source_type == dtype else values
        out, one = memory.empty(L), memory.empty(1)
        for i in range(0, 64 - L, 3):  # at any alignment
            _load_any(address(out), address(one), address(source[i:]), kind, dtype(0))
            assert_same_bits(out, expected[i : i + L])
            assert_same_bits(one, expected[i : i + 1])


@jit
def _transpose(out, ld_out, a, ld_a, like):
    tile = square_tile_load(pointer(a, like), ld_a)
    tile_store(transpose(tile), pointer(out, like), ld_out)


@each_dtype
def test_transpose(dtype):
    L = lanes_of(dtype)
    a = np.arange(L * L, dtype=dtype).reshape(L, L)
    with Memory(dtype) as memory:
        source, out = memory.copy(a, L + 3), memory.empty(L, L + 5)
        _transpose(address(out), L + 5, address(source), L + 3, dtype(0))
        np.testing.assert_array_equal(out[:, :L], a.T)
        assert np.isnan(out[:, L:]).all()


@jit
def _tile(out, ld_out, start, ld_start, a, a_stride, b, like):
    tile = tile_load(pointer(start, like), ld_start, (0, 0, 0), (0, 0))
    tile = tile_add_product(tile, pointer(a, like), a_stride, pointer(b, like))
    tile_store(tile, pointer(out, like), ld_out)


@each_dtype
@pytest.mark.parametrize("one_start", [True, False])
def test_tile_is_start_plus_outer_product(dtype, one_start):
    L, rng = lanes_of(dtype), np.random.default_rng(0)
    start, a, b = (rng.integers(-9, 9, shape) * 1.0 for shape in ((3, 2 * L), (3, 1), (2 * L,)))
    with Memory(dtype) as memory:
        out = memory.empty(3, 2 * L + 1)
        _tile(
            address(out),
            2 * L + 1,
            address(memory.copy(start[0] if one_start else start)),
            0 if one_start else 2 * L,
            address(memory.copy(a, 4)),
            4,
            address(memory.copy(b)),
            dtype(0),
        )
        expected = (start[0] if one_start else start) + a * b
        np.testing.assert_array_equal(out[:, : 2 * L], expected)
        assert np.isnan(out[:, 2 * L]).all()


@jit
def _walk(out, x, n, like):
    p = pointer(x, like)
    out = pointer(out, p)
    p += n
    out[0] = p[-1]
    out[1] = (p + -n)[0]
    out[2] = address_of(p) - x
    out[3] = 7  # converted to the element type
    out += 4
    out[0] = p[-n + 1]


@each_dtype
def test_pointers(dtype):
    x = np.arange(10, 20, dtype=dtype)
    with Memory(dtype) as memory:
        out = memory.empty(5)
        _walk(address(out), address(memory.copy(x)), 10, dtype(0))
        assert out.tolist() == [19, 10, 10 * x.itemsize, 7, 11]


@jit
def _count(counter, seen, n, started, thread, threads):
    counter, seen = pointer(counter, types.int64), pointer(seen, types.int64)
    started = pointer(started, types.int64)
    started[thread] = 1
    for other in range(threads):
        while atomic_load(started + other) == 0:
            spin_hint()
    for _ in range(n):
        seen[atomic_add(counter, 1)] += 1
    return atomic_load(counter)


def test_atomic_add_loses_nothing_between_threads():
    n, n_threads = 200_000, 4
    with Memory(np.float64) as memory:
        counter = memory.copy(np.zeros(1, np.int64))
        seen = memory.copy(np.zeros(n * n_threads, np.int64))
        started = memory.copy(np.zeros(n_threads, np.int64))

        def count(n, thread, threads):
            places = address(counter), address(seen)
            return _count(*places, n, address(started), thread, threads)

        assert count(0, 0, 1) == 0
        threads = [
            threading.Thread(target=count, args=(n, number, n_threads))
            for number in range(n_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count(0, 0, 1) == n * n_threads
        np.testing.assert_array_equal(seen, 1)


@jit
def _flush():
    return flush_subnormals()


@jit
def _restore(mode):
    restore_subnormals(mode)


def subnormal_product(dtype):
    tiny = np.finfo(dtype).tiny
    return (np.full(64, tiny, dtype) * dtype(0.5)).max()


@each_dtype
@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64", "aarch64", "arm64"},
    reason="this processor has no such mode that the kernels know",
)
def test_flush_and_restore_subnormals(dtype):
    mode = _flush()
    try:
        flushed = subnormal_product(dtype)
    finally:
        _restore(mode)
    assert flushed == 0
    assert subnormal_product(dtype) > 0
    again = _flush()
    _restore(mode)
    assert again == mode


def test_training_leaves_the_callers_subnormals_alone():
    net = fb.Network([3, 2], random_state=0)
    net.train_step(np.ones((4, 3)), np.ones((4, 2)), fb.SGD(0.1))
    net.predict(np.ones((4, 3)))
    assert subnormal_product(np.float32) > 0
