"""Dropout: the generator against published numbers, the mask against a plain Threefry-2x32-13."""

import numpy as np
import pytest
from kernel_harness import Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop._kernels import dropout as kernels
from fastbackprop._kernels.simd import lane_index, load, pointer, store

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


@jit
def _random_bits(out, other, key, pair, column, like):
    columns = lane_index(load(pointer(out, like))) + np.uint32(column)
    words = kernels.random_bits(key, pair, columns)
    store(pointer(out, np.uint32(0)), words[0])
    store(pointer(other, np.uint32(0)), words[1])


@jit
def _key(seed, epoch, step, layer):
    return kernels.dropout_key(seed, epoch, step, layer)


@jit
def _dropout(out, x, ld, first, last, left, right, key, keep_below, keep_scale, like):
    out, x = pointer(out, like), pointer(x, like)
    kernels.dropout(out, x, ld, first, last, left, right, key, keep_below, keep_scale)


@jit
def _dropout_backward(dx, ld_dx, x, ld_x, first, last, left, right, keep_scale, like):
    dx, x = pointer(dx, like), pointer(x, like)
    kernels.dropout_backward(dx, ld_dx, x, ld_x, first, last, left, right, keep_scale)


def threefry(key, counter):
    """Both words of Threefry-2x32-13 for arrays of counters (word 0, word 1)."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    keys = [np.uint32(k) for k in (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)]
    x0, x1 = (np.asarray(word, np.uint32) for word in counter)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for number in range(13):
        rotation = ROTATIONS[number % 8]
        x0 = x0 + x1
        x1 = (x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation)) ^ x0
        if number % 4 == 3:
            turn = number // 4 + 1
            x0 = x0 + keys[turn % 3]
            x1 = x1 + keys[(turn + 1) % 3] + np.uint32(turn)
    return x0, x1


# Random123's kat_vectors: counter word 0 and 1, key word 0 and 1, result word 0 and 1.
KNOWN_ANSWERS = [
    (0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x9D1C5EC6, 0x8BD50731),
    (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFD36D048, 0x2D17272C),
    (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xBA3E4725, 0xF27D669E),
]


def random_bits(key, pair, column, dtype):
    """The bits of as many columns as a vector has lanes, of both rows of a pair."""
    words = np.zeros((2, 2 * lanes_of(dtype)), np.uint32)
    with np.errstate(over="ignore"):
        _random_bits(*map(address, words), np.uint64(key), pair, column, dtype(0))
    return words[:, : lanes_of(dtype)]


@each_dtype
@pytest.mark.parametrize(("c0", "c1", "k0", "k1", "r0", "r1"), KNOWN_ANSWERS)
def test_known_answers(dtype, c0, c1, k0, k1, r0, r1):
    key = k0 | k1 << 32
    with np.errstate(over="ignore"):
        plain = threefry(key, (np.array([c0]), np.array([c1])))
    assert [int(word[0]) for word in plain] == [r0, r1]
    np.testing.assert_array_equal(random_bits(key, c1, c0, dtype)[:, 0], [r0, r1])


@each_dtype
def test_every_lane_is_a_counter_of_its_own(dtype):
    rng = np.random.default_rng(0)
    for _ in range(20):
        key = int(rng.integers(0, 2**64, dtype=np.uint64))
        pair, column = (int(v) for v in rng.integers(0, 2**31, 2))
        columns = column + np.arange(lanes_of(dtype))
        expected = threefry(key, (columns, np.full(lanes_of(dtype), pair)))
        np.testing.assert_array_equal(random_bits(key, pair, column, dtype), expected)


def splitmix64(x):
    """The output of SplitMix64 from state ``x``."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_key_chains_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first output for seed 0, as published
    for words in [(0, 0, 0, 0), (7, 3, 100, 2), (2**62, -1, 5, 1), (-3, 0, 0, 9)]:
        key = 0
        for word in words:
            key = splitmix64(key ^ word % 2**64)
        assert int(np.uint64(_key(*words))) == key


def test_keys_differ_in_each_of_their_words():
    keys = {
        int(np.uint64(_key(seed, epoch, step, layer)))
        for seed in range(4)
        for epoch in range(4)
        for step in range(4)
        for layer in range(4)
    }
    assert len(keys) == 4**4


KEY = 0x0123456789ABCDEF


def dropout(x, rate, *, key=KEY, splits=(), in_place=False):
    """The kernel on a matrix: its rows shared among calls that end at ``splits``, in two halves."""
    (n, width), dtype = x.shape, x.dtype.type
    ld = whole_vectors(width, dtype)
    with Memory(dtype) as memory:
        source = memory.copy(x, ld)
        source[:, width:] = 0
        out = source if in_place else memory.empty(n, ld)
        middle = width // 2 // lanes_of(dtype) * lanes_of(dtype)
        for first, last in zip((0, *splits), (*splits, n), strict=True):
            for left, right in ((middle, width), (0, middle)):
                _dropout(
                    address(out),
                    address(source),
                    ld,
                    first,
                    last,
                    left,
                    right,
                    np.uint64(key),
                    round((1 - rate) * 2**32),
                    1 / (1 - rate) if rate < 1 else 0.0,
                    dtype(0),
                )
        return out[:, :width].copy()


def plain_mask(n, width, rate, key=KEY):
    rows, columns = np.mgrid[:n, :width]
    even, odd = threefry(key, (columns, rows // 2))
    bits = np.where(rows % 2 == 0, even, odd)
    return bits < round((1 - rate) * 2**32)


@each_dtype
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1e-6])
def test_mask_and_scale(dtype, rate):
    """The mask is that of 32-bit integers, so neither the float type nor the width matters."""
    L = lanes_of(dtype)
    for n, width in [(1, 1), (7, L - 1), (3, L), (5, 3 * L + 1), (40, 100)]:
        x = np.random.default_rng(0).normal(size=(n, width)).astype(dtype)
        x[0, :2] = [0.0, -0.0][:width]
        kept = x * dtype(1 / (1 - rate)) + dtype(0)  # of zeros, only what is dropped is -0
        expected = np.where(plain_mask(n, width, rate), kept, dtype(-0.0))
        actual = dropout(x, rate)
        assert_same_bits(actual, expected)
        assert_same_bits(dropout(x, rate, in_place=True), actual)
        if n > 1:
            assert_same_bits(dropout(x, rate, splits=(1, n - 1)), actual)


@each_dtype
def test_the_limit_itself_is_dropped(dtype):
    x = np.ones((1, lanes_of(dtype)), dtype)
    bits = random_bits(KEY, 0, 0, dtype)[0]
    for limit in (int(bits[0]), int(bits[0]) + 1, 0, 2**32 - 1):
        kept = dropout(x, 1 - limit / 2**32) != 0
        np.testing.assert_array_equal(kept[0], bits < limit)


@each_dtype
def test_a_dropped_value_is_zero_whatever_it_was(dtype):
    x = np.full((8, 50), np.inf, dtype)
    x[:, ::2] = np.nan
    actual, mask = dropout(x, 0.5), plain_mask(8, 50, 0.5)
    np.testing.assert_array_equal(actual[~mask], 0)
    np.testing.assert_array_equal(actual[mask], x[mask])


@each_dtype
def test_rate_zero_writes_nothing(dtype):
    x = np.ones((3, 5), dtype)
    assert np.isnan(dropout(x, 0.0)).all()
    np.testing.assert_array_equal(dropout(x, 0.0, in_place=True), x)


@each_dtype
def test_backward_has_the_mask_of_forward(dtype):
    rng = np.random.default_rng(0)
    for n, width in [(1, 1), (7, lanes_of(dtype) - 1), (5, 3 * lanes_of(dtype) + 1)]:
        x, dx = rng.normal(size=(2, n, width)).astype(dtype)
        x[:, ::3] = 0  # kept or dropped, it is zero
        dropped = dropout(x, 0.4)
        ld_dx, ld_x = whole_vectors(width, dtype), whole_vectors(width, dtype) + 3
        with Memory(dtype) as memory:
            out, inputs = memory.copy(dx, ld_dx), memory.copy(dropped, ld_x)
            _dropout_backward(
                address(out), ld_dx, address(inputs), ld_x, 0, n, 0, width, 1 / 0.6, dtype(0)
            )
            expected = np.where(plain_mask(n, width, 0.4), dx * dtype(1 / 0.6), dtype(0))
            assert_same_bits(out[:, :width].copy(), expected)


@each_dtype
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_statistics(dtype, rate):
    """Five sigma, of numbers that are always the same."""
    n, width = 400, 500
    kept = dropout(np.ones((n, width), dtype), rate) != 0
    sigma = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < 5 * sigma / np.sqrt(kept.size)
    assert np.abs(kept.mean(axis=0) - (1 - rate)).max() < 5 * sigma / np.sqrt(n)
    assert np.abs(kept.mean(axis=1) - (1 - rate)).max() < 5 * sigma / np.sqrt(width)
    # Neighbours are independent, in rows, in columns and from key to key.
    deviation = (kept - (1 - rate)) / sigma
    other = (dropout(np.ones((n, width), dtype), rate, key=KEY + 1) != 0) - (1 - rate)
    for product in (
        deviation[1:] * deviation[:-1],
        deviation[:, 1:] * deviation[:, :-1],
        deviation * other / sigma,
    ):
        assert abs(product.mean()) < 5 / np.sqrt(product.size)
