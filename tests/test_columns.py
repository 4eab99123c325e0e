"""Columns of zeros are left out of the first layer's products, and no bit of a result changes."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from comparison import bits
from kernel_harness import (
    Memory,
    address,
    assert_same_bits,
    each_dtype,
    jit,
    lanes_of,
    padded,
)

import fastbackprop as fb
from fastbackprop import plan
from fastbackprop._kernels import columns as kernels
from fastbackprop._kernels.simd import pointer

FIRST_RUN, RUNS, IS_COMPACT = kernels.FIRST_RUN, kernels.RUNS, kernels.IS_COMPACT


# ---------------------------------------------------------------------------------------- kernels


@jit
def _list_columns(columns, marks, x, ld_x, n, vectors, left, right, like):
    columns, marks = pointer(columns, np.int64(0)), pointer(marks, np.int64(0))
    kernels.mark_columns(marks, pointer(x, like), ld_x, n, left, right)
    worth = kernels.list_columns(columns, marks, pointer(x, like), n, vectors, left, right)
    return worth, kernels.live_columns(columns)


@jit
def _compact_rows(out, x, ld, columns, first, last, like):
    columns = pointer(columns, np.int64(0))
    kernels.compact_rows(pointer(out, like), pointer(x, like), ld, columns, first, last)


@jit
def _columns_before(columns, column):
    columns = pointer(columns, np.int64(0))
    return kernels.columns_before(columns, kernels.run_at(columns, FIRST_RUN, column), column)


@jit
def _ranges(columns, left, right, found):
    run, count = FIRST_RUN, 0
    while left < right:
        left, stop, run = kernels.next_columns(columns, run, left, right)
        for column in range(left, stop):
            found[count] = column
            count += 1
        left = stop
    return count


@jit
def _spread_rows(g, ld, rows, count, columns, top, like):
    columns = pointer(columns, np.int64(0))
    run = kernels.run_at(columns, FIRST_RUN, top)
    kernels.spread_rows(pointer(g, like), ld, ld, rows, count, columns, run, top)


def sparse_rows(n, width, dtype, live, seed=0):
    """Rows (n, width), rounded up to whole vectors with NaN, that are zero but in ``live``."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, width))
    for column in live:
        x[rng.integers(n), column] = rng.uniform(1, 2)  # in one row only
    return np.pad(x, ((0, 0), (0, padded(width, dtype) - width)), constant_values=np.nan)


def patterns(width):
    """Sets of live columns: none, all, ends, single ones, runs across the ends of vectors."""
    rng = np.random.default_rng(width)
    return [
        [],
        range(width),
        [0],
        [width - 1],
        range(0, width, 2),
        range(width // 3, 2 * width // 3),
        sorted({*range(min(5, width)), *range(max(0, width - 9), width)}),
        np.flatnonzero(rng.random(width) < 0.3),
        np.flatnonzero(rng.random(width) < 0.9),
    ]


WIDTHS = [1, 3, 8, 16, 17, 31, 32, 33, 64, 100]


@each_dtype
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_has_the_live_columns(dtype, width, left):
    """Through every function that reads it, from any column on."""
    left *= lanes_of(dtype)
    total = left + width
    for live in patterns(width):
        expected = left + np.asarray(live, int)
        x = sparse_rows(3, total, dtype, expected)
        x[:, :left] = 1.0  # columns of the other half
        with Memory(dtype) as memory:
            x = memory.copy(x)
            columns = memory.empty(kernels.list_words(total), dtype=np.int64)
            marks = memory.empty(-(-total // lanes_of(dtype)), dtype=np.int64)
            _, count = _list_columns(
                address(columns), address(marks), address(x), x.shape[1], 3, 1, left, total,
                dtype(0),
            )  # fmt: skip
        runs = columns[FIRST_RUN : FIRST_RUN + 2 * columns[RUNS] + 2].reshape(-1, 2)
        found = [
            source + i for (source, place), (_, end) in pairwise(runs) for i in range(end - place)
        ]
        assert found == list(expected)
        assert count == len(expected)
        for column in range(left, total + 1):
            before = np.count_nonzero(expected < column)
            assert _columns_before(address(columns), column) == before
        for first, last in [(left, total), (left + 1, total), (left + width // 2, total - 1)]:
            places = np.empty(total, np.int64)
            count = _ranges(address(columns), first, last, places)
            inside = expected[(first <= expected) & (expected < last)]
            np.testing.assert_array_equal(places[:count], inside)


@each_dtype
@pytest.mark.parametrize(
    ("n", "vectors", "expected"),
    [
        (10, 2, False),
        (64, 2, True),
        (64, 1, False),
        (512, 2, True),
        (512, 1, False),
        (8, 8, True),
        (4, 8, False),
    ],
)
def test_what_is_left_out_must_pay_for_the_runs(dtype, n, vectors, expected):
    """784 columns, of which 49 pairs are live, for so many rows and vectors of outputs."""
    live = [column for column in range(784) if column % 16 < 2]
    x = sparse_rows(n, 784, dtype, live)
    with Memory(dtype) as memory:
        x = memory.copy(x)
        columns = memory.empty(kernels.list_words(784), dtype=np.int64)
        marks = memory.empty(-(-784 // lanes_of(dtype)), dtype=np.int64)
        worth, count = _list_columns(
            address(columns), address(marks), address(x), x.shape[1], n, vectors, 0, 784, dtype(0)
        )
    assert count == 98
    assert worth == expected


@each_dtype
@pytest.mark.parametrize("width", [64, 100, 257])
def test_compact_rows(dtype, width):
    for live in patterns(width):
        x = sparse_rows(4, width, dtype, live)
        ld = x.shape[1] + lanes_of(dtype)
        with Memory(dtype) as memory:
            x = memory.copy(x, ld=ld)
            out = memory.empty(4, ld)
            columns = memory.empty(kernels.list_words(ld), dtype=np.int64)
            marks = memory.empty(-(-width // lanes_of(dtype)), dtype=np.int64)
            worth, count = _list_columns(
                address(columns), address(marks), address(x), ld, 4, 1000, 0, width, dtype(0)
            )
            assert bool(columns[IS_COMPACT]) == worth
            assert worth == (count <= width * 7 / 8 and 4 * (width - count) >= 2 * count)
            if worth:
                _compact_rows(address(out), address(x), ld, address(columns), 1, 3, dtype(0))
                assert np.isnan(out[[0, 3]]).all(), "written to other rows"
                assert_same_bits(out[1:3, :count], x[1:3, np.asarray(live, int)])


@each_dtype
@pytest.mark.parametrize("rows", [1, 5, 8, 32])
def test_spread_rows(dtype, rows):
    width, ld = 100, 2 * lanes_of(dtype)
    for live in patterns(width):
        live = np.asarray(live, int)
        x = sparse_rows(1, width, dtype, live)
        with Memory(dtype) as memory:
            x = memory.copy(x)
            columns = memory.empty(kernels.list_words(width), dtype=np.int64)
            marks = memory.empty(-(-width // lanes_of(dtype)), dtype=np.int64)
            _list_columns(
                address(columns), address(marks), address(x), x.shape[1], 1, 1, 0, width, dtype(0)
            )
            for top in (0, 7, width - rows):
                inside = live[(top <= live) & (live < top + rows)]
                expected = np.zeros((rows, ld), dtype)
                expected[inside - top] = np.arange(1, len(inside) + 1)[:, np.newaxis]
                g = memory.empty(rows, ld)
                g[rows - len(inside) :] = expected[inside - top]
                _spread_rows(address(g), ld, rows, len(inside), address(columns), top, dtype(0))
                assert_same_bits(g, expected)


# --------------------------------------------------------------------------------------- networks


def few_columns(n, n_in, share, seed=0):
    """Images with dead borders: live columns in four bands, a few of them in each row."""
    rng = np.random.default_rng(seed)
    bands = [band[: round(share * len(band))] for band in np.array_split(np.arange(n_in), 4)]
    live = rng.integers(n_in // 8) + np.concatenate(bands)
    live = live[live < n_in]
    X = np.zeros((n, n_in), np.uint8)
    X[:, live] = rng.integers(0, 256, (n, len(live))) * (rng.random((n, len(live))) < 0.5)
    return X, rng.integers(0, 3, n)


def one_hot(n, n_in, features=4, seed=0):
    rng = np.random.default_rng(seed)
    X = np.zeros((n, n_in), np.float32)
    for values in np.array_split(np.arange(n_in), features):
        X[np.arange(n), rng.choice(values, n)] = 1.0
    return X, rng.integers(0, 3, n)


def trained(X, y, layers, dtype="float32", **options):
    """Everything that training and prediction leave."""
    net = fb.Network(layers, loss="cross_entropy", random_state=0, dtype=dtype)
    options = {"epochs": 2, "batch_size": 16, "optimizer": fb.Adam(1e-2), "verbose": 0} | options
    net.fit(X, y, **options)
    return np.concatenate([net.get_parameters(), net.predict(X).ravel(), net.history["loss"]])


def whole(monkeypatch, *arguments, **options):
    """The same with every column."""
    with monkeypatch.context() as context:
        context.setattr(plan, "SPARSE_INPUTS", 10**9)
        context.setattr("fastbackprop.job.SPARSE_INPUTS", 10**9)
        return trained(*arguments, **options)


def layers(n_in, hidden=40, *, bias=True, dropout=0.0):
    before = [fb.Dropout(dropout)] if dropout else []
    return [*before, fb.Dense(n_in, hidden, "relu", bias=bias), fb.Dense(hidden, 3)]


OPTIMIZERS = {
    "sgd": fb.SGD(0.01),
    "momentum": fb.SGD(0.01, momentum=0.9, weight_decay=0.01),
    "adam": fb.Adam(0.01),
    "adamw, clipped": fb.AdamW(0.01, weight_decay=0.1, clip_norm=0.1),
    "rmsprop": fb.RMSprop(0.001),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("n_in", [100, 256, 300])
def test_no_bit_changes(monkeypatch, n_in, threads, optimizer):
    """300 and 256 inputs make their sums in two halves, each with live columns of its own."""
    X, y = few_columns(70, n_in, 0.5)
    arguments = X, y, layers(n_in)
    expected = whole(monkeypatch, *arguments, threads=threads, optimizer=optimizer)
    assert_same_bits(trained(*arguments, threads=threads, optimizer=optimizer), expected)


@each_dtype
@pytest.mark.parametrize("batch_size", [1, 7, 32, 70])
@pytest.mark.parametrize("make", [few_columns, one_hot])
def test_no_bit_changes_with_the_batch(monkeypatch, make, batch_size, dtype):
    X, y = make(70, 300, 0.3) if make is few_columns else make(70, 300)
    options = {"batch_size": batch_size, "threads": 1, "dtype": np.dtype(dtype).name}
    arguments = X, y, layers(300, hidden=130)
    assert_same_bits(trained(*arguments, **options), whole(monkeypatch, *arguments, **options))


@pytest.mark.parametrize(
    "make",
    [
        lambda X: layers(X.shape[1], bias=False),
        lambda X: layers(X.shape[1], dropout=0.5),
        lambda X: [fb.Rescaling(1 / 255), *layers(X.shape[1])],
        lambda X: [fb.Rescaling(1 / 255, -0.5), *layers(X.shape[1])],
        lambda X: [fb.Dense(X.shape[1], 3)],
    ],
    ids=["no bias", "dropout", "rescaled", "with an offset", "one layer"],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_changes_with_the_layers(monkeypatch, make, threads):
    X, y = few_columns(70, 300, 0.4)
    arguments = X, y, make(X)
    expected = whole(monkeypatch, *arguments, threads=threads)
    assert_same_bits(trained(*arguments, threads=threads), expected)


def test_columns_that_come_and_go(monkeypatch):
    """Batches with all columns live, after which some are not looked at, and with few or none."""
    X, y = few_columns(640, 300, 0.3)
    X[:64] = np.random.default_rng(1).integers(1, 256, (64, 300))
    X[100:140] = 0
    arguments = X, y, layers(300)
    options = {"batch_size": 8, "shuffle": False, "threads": 2}
    assert_same_bits(trained(*arguments, **options), whole(monkeypatch, *arguments, **options))


def test_the_gradient_of_dead_weights_is_zero():
    """And that of the inputs is not: a column of zeros could become live."""
    X, y = few_columns(20, 100, 0.3)
    net = fb.Network(layers(100), loss="cross_entropy", random_state=0, dtype="float64")
    _, gradients = net.loss_and_gradients(X, y)
    dead = ~X.any(axis=0)
    assert not gradients[0][0][dead].any()
    assert gradients[0][0][~dead].any()
    assert fb.check_gradients(net, X / 255, y, max_per_tensor=50).ok


def test_a_frozen_first_layer(monkeypatch):
    X, y = few_columns(70, 300, 0.3)

    def run():
        net = fb.Network(layers(300), loss="cross_entropy", random_state=0)
        net.freeze(0)
        net.fit(X, y, epochs=2, batch_size=16, optimizer=fb.Adam(0.01), verbose=0)
        return net.get_parameters()

    found = run()
    monkeypatch.setattr(plan, "SPARSE_INPUTS", 10**9)
    monkeypatch.setattr("fastbackprop.job.SPARSE_INPUTS", 10**9)
    assert_same_bits(found, run())


def test_a_network_used_again_with_other_columns():
    """Lists of live columns of one call are not those of the next."""
    X, _ = few_columns(64, 300, 0.2, seed=1)
    Z, _ = few_columns(64, 300, 0.2, seed=2)
    net = fb.Network(layers(300), loss="cross_entropy", random_state=0)
    other = copy.deepcopy(net)
    net.predict(X[:5])
    assert_same_bits(net.predict(Z[:5]), other.predict(Z[:5]))
    net.predict(np.ones((5, 300)))
    assert_same_bits(net.predict(Z[:5]), other.predict(Z[:5]))


@pytest.mark.parametrize("weight", [-0.0, 1e-40, -1e-40])
def test_weights_of_minus_zero_and_subnormal_ones(weight):
    """Adding nothing changes their bits, which leaving columns out must not hide."""
    rng = np.random.default_rng(0)
    X, y = rng.random((64, 128), np.float32), rng.standard_normal((64, 64))
    X[:, 3:] = 0
    results = []
    # Teams of the last two sizes divide this by rows, and leave no column out.
    for threads in (1, 2, 3):
        net = fb.Network([128, 64, 64], "tanh", "mse", random_state=0)
        net.weights[0][...] = weight
        net.fit(X, y, 1, 64, fb.SGD(0.01), threads=threads, verbose=0)
        results.append(bits(net))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
