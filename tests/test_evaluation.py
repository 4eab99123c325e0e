"""Measures over batches and files, one by one, are those of all rows in arrays."""

import itertools

import numpy as np
import pytest
from comparison import bits

import fastbackprop as fb
from fastbackprop import inference

N, SIZE = 23, 5


def problem(loss="cross_entropy"):
    rng = np.random.default_rng(0)
    net = fb.Network([4, 6, 3], "tanh", loss, random_state=0, dtype="float64")
    X = rng.standard_normal((N, 4))
    y = rng.integers(0, 3, N) if loss == "cross_entropy" else rng.standard_normal((N, 3))
    return net, X, y, rng.random(N)


def in_batches(*arrays):
    return [tuple(a[i : i + SIZE] for a in arrays) for i in range(0, len(arrays[0]), SIZE)]


def shards(folder, *arrays):
    """The batches as files."""
    paths = []
    for name, array in zip("Xyw", arrays, strict=False):
        (folder / name).mkdir()
        for i in range(0, N, SIZE):
            np.save(folder / name / f"{i:02}.npy", array[i : i + SIZE])
        paths.append(folder / name)
    return fb.datasets.Shards(*paths)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_streams_equal_arrays(tmp_path, loss, weighted):
    net, X, y, weights = problem(loss)
    arrays = (X, y, weights) if weighted else (X, y)
    metrics = ["f1_macro", "recall_macro"] if loss == "cross_entropy" else ["r2", "rmse"]
    expected = net.evaluate(*arrays, metrics=metrics)
    streams = in_batches(*arrays), iter(in_batches(*arrays)), shards(tmp_path, *arrays)
    for stream in streams:
        measured = net.evaluate(stream, metrics=metrics)
        assert list(measured) == list(expected)
        assert measured == pytest.approx(expected, rel=1e-12)
    assert net.loss(streams[2]) == pytest.approx(expected["loss"], rel=1e-12)


def test_weights_in_some_batches_only():
    net, X, y, _ = problem()
    batches = [(X[:5], y[:5]), (X[5:], y[5:], np.full(18, 0.5))]
    weights = np.r_[np.ones(5), np.full(18, 0.5)]
    expected = net.evaluate(X, y, weights, metrics=["f1_macro"])
    assert net.evaluate(batches, metrics=["f1_macro"]) == pytest.approx(expected, rel=1e-12)


def test_validation_after_each_epoch(tmp_path):
    net, X, y, weights = problem()
    options = {"epochs": 3, "metrics": ["recall_macro"], "verbose": 0}
    twins = [net.clone() for _ in range(2)]
    expected = net.fit(X, y, validation_data=(X, y, weights), **options)

    class Batches:
        def __iter__(self):
            return iter(in_batches(X, y, weights))

    for twin, stream in zip(twins, (Batches(), shards(tmp_path, X, y, weights)), strict=True):
        history = twin.fit(X, y, validation_data=stream, **options)
        np.testing.assert_array_equal(bits(twin), bits(net))
        for name in ("val_loss", "val_accuracy", "val_recall_macro"):
            assert history[name] == pytest.approx(expected[name], rel=1e-12)


def test_a_generator_validates_one_epoch():
    net, X, y, _ = problem()
    history = net.fit(X, y, 1, validation_data=iter(in_batches(X, y)), verbose=0)
    assert history["val_loss"][0] == pytest.approx(net.loss(X, y), rel=1e-12)
    with pytest.raises(ValueError, match="validation_data is a list_iterator, which can be read"):
        net.fit(X, y, 2, validation_data=iter(in_batches(X, y)), verbose=0)


def test_errors_name_the_batch(tmp_path):
    net, X, y, _ = problem()
    spoiled = X.copy()
    spoiled[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"^batch 1 of X: X contains nan at \[2, 2\]"):
        net.evaluate(in_batches(spoiled, y))
    with pytest.raises(ValueError, match=r"05\.npy: X contains nan at \[2, 2\]"):
        net.evaluate(shards(tmp_path, spoiled, y))
    with pytest.raises(ValueError, match=r"^batch 0 of validation_data: X has shape"):
        net.fit(X, y, 1, validation_data=iter(in_batches(X[:, :3], y)), verbose=0)
    assert net._state.epoch == 0


def test_errors_in_validation_data_are_found_before_training(tmp_path):
    net, X, y, _ = problem()
    before = bits(net)
    folders = map(tmp_path.joinpath, map(str, itertools.count()))

    def files(*arrays):
        folder = next(folders)
        folder.mkdir()
        return shards(folder, *arrays)

    spoiled = X.copy()
    spoiled[7, 2] = np.nan
    first = iter([(spoiled[7:], y[7:]), (X, y)])
    none = np.zeros(len(X))
    for validation, message in (
        ((spoiled, y), r"^validation_data: X contains nan at \[7, 2\]"),
        (first, r"^batch 0 of validation_data: X contains nan at \[0, 2\]"),
        (files(spoiled, y), r"05\.npy: X contains nan at \[2, 2\]"),
        (files(X, y + 1), r"\.npy: y\[1\] is 3; the network has 3 outputs"),
        (files(X, y, none), r"^sample_weight is 0 for every row of validation_data"),
    ):
        with pytest.raises(ValueError, match=message):
            net.fit(X, y, 1, validation_data=validation, verbose=0)
    # The rows that are held back are none that training would meet.
    with pytest.raises(ValueError, match=r"^rows 7 and later, held back by .*nan at \[0, 2\]"):
        net.fit(spoiled, y, 1, validation_data=16 / 23, verbose=0)
    for stream in (iter(in_batches(X, y)), files(X, y)):
        with pytest.raises(ValueError, match="the metric 'rmse' is about numbers"):
            net.fit(X, y, 1, validation_data=stream, metrics=["rmse"], verbose=0)
    np.testing.assert_array_equal(bits(net), before)
    assert net._state.epoch == 0


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        ([], ValueError, "X, a list, gives no batch"),
        (5, TypeError, "y is missing"),
        (np.ones((3, 4)), TypeError, "y is missing"),
        ([(np.ones((2, 4)), [0, 1], [0.0, 0.0])], ValueError, "is 0 for every row"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated(stream, error, message):
    net = problem()[0]
    with pytest.raises(error, match=message):
        net.evaluate(stream)


def test_metrics_need_one_form_of_targets():
    net, X, y, _ = problem()
    batches = [(X[:5], y[:5]), (X[5:], np.eye(3)[y[5:]])]
    assert net.evaluate(batches) == pytest.approx(net.evaluate(X, y), rel=1e-12)
    with pytest.raises(ValueError, match="class labels in some batches"):
        net.evaluate(batches, metrics=["f1_macro"])
    with pytest.raises(ValueError, match="accuracy"):
        problem("mse")[0].evaluate([(X, X[:, :3])], metrics=["accuracy"])


@pytest.mark.parametrize("wrong", [[1], "text", np.ones(3), {"X": 1}, 3], ids=str)
def test_validation_data_is_checked(wrong):
    net, X, y, _ = problem()
    with pytest.raises(TypeError, match="validation_data must be"):
        net.fit(X, y, validation_data=wrong, verbose=0)


# ------------------------------------------------------------------ rows used where they lie

SIZES = [[4, 32, 2], [100, 9, 3], [300, 140, 3]]  # no look for zeros, one, sums in halves
N_ROWS = 200  # several blocks


def network_and_rows(sizes, dtype, **options):
    rng = np.random.default_rng(0)
    chain = [fb.Dense(sizes[0], sizes[1], "sigmoid"), fb.Dense(sizes[1], sizes[2])]
    net = fb.Network(chain, loss="mse", random_state=0, dtype=dtype, **options)
    return net, rng.standard_normal((N_ROWS, sizes[0])).astype(dtype)


def layouts(X, folder):
    """The same rows in memory of other kinds, which need no conversion either."""
    n, n_in = X.shape
    np.save(folder / "X.npy", X)
    apart = np.full((2 * n, n_in + 3), np.nan, X.dtype)
    apart[::2, 1 : n_in + 1] = X
    odd = np.zeros(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)
    odd[...] = X
    return {
        "contiguous": X,
        "memmap": np.load(folder / "X.npy", mmap_mode="r"),
        "apart": apart[::2, 1 : n_in + 1],
        "from the last": X[::-1].copy()[::-1],
        "unaligned": odd,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_that_need_no_conversion(sizes, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_STAGED_BYTES", 0)
    net, X = network_and_rows(sizes, dtype)
    X[64:128, ::3] = 0  # of which columns are left out in a block that is looked at
    expected = net.predict(np.asfortranarray(X))
    y = expected + 1
    loss = net.loss(np.asfortranarray(X), y)
    for name, rows in layouts(X, tmp_path).items():
        np.testing.assert_array_equal(net.predict(rows), expected, err_msg=name)
        assert net.loss(rows, y) == loss, name
    same = net.predict(np.broadcast_to(X[0], X.shape))
    np.testing.assert_array_equal(same, np.repeat(expected[:1], N_ROWS, axis=0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_value_that_is_not_finite_in_rows_used_in_place(sizes, bad, monkeypatch):
    monkeypatch.setattr(inference, "_STAGED_BYTES", 0)
    net, X = network_and_rows(sizes, "float32")
    net.weights[0][sizes[0] - 1] = 0  # infinity times zero is NaN
    for row, column in [(0, 0), (63, sizes[0] - 1), (64, sizes[0] // 2), (N_ROWS - 1, 1)]:
        spoiled = X.copy()
        spoiled[row, column] = bad
        with pytest.raises(ValueError, match=rf"contains {bad} at \[{row}, {column}\]"):
            net.predict(spoiled)


@pytest.mark.parametrize("sizes", SIZES)
def test_products_that_overflow_are_no_bad_rows(sizes, monkeypatch):
    monkeypatch.setattr(inference, "_STAGED_BYTES", 0)
    net, X = network_and_rows(sizes, "float32")
    net.weights[0][...] = 1e38
    X[...] = 1e38
    with np.errstate(over="ignore"):
        expected = net.predict(np.asfortranarray(X))
    np.testing.assert_array_equal(net.predict(X), expected)
    assert np.isfinite(expected).all()
