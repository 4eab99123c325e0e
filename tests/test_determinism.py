"""One seed, one result: the same bits at any number of threads, in any run, from any copy."""

import copy
import hashlib
import itertools
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from comparison import ELEMENTWISE, LOSSES, bits, each_copy, make_targets

import fastbackprop as fb
from fastbackprop import inference

DTYPES = ("float32", "float64")
OPTIMIZERS = [
    fb.SGD(0.05),
    fb.SGD(0.05, momentum=0.9, nesterov=True),
    fb.Adam(0.01),
    fb.AdamW(0.01),
    fb.RMSprop(0.01, centered=True, momentum=0.5, weight_decay=0.01),
    fb.Adam(0.01, clip_norm=0.1),
]
N, N_IN, N_OUT = 150, 33, 7

rng = np.random.default_rng(0)
BYTES = rng.integers(0, 256, (N, N_IN), dtype=np.uint8)
WEIGHTS = rng.random(N)


def make_network(loss="cross_entropy", dtype="float32", activation="tanh"):
    layers = [
        fb.Rescaling(1 / 255, -0.5),
        fb.Dropout(0.1),
        fb.Dense(N_IN, 47, activation),
        fb.Dropout(0.5),
        fb.Dense(47, 20, activation, bias=False),
        fb.Dense(20, N_OUT),
    ]
    return fb.Network(layers, loss=loss, random_state=5, dtype=dtype)


def trained(net, X=BYTES, optimizer=None, threads=None, epochs=2):
    """Train, and return the parameters and the whole history to the last bit."""
    y = make_targets(np.random.default_rng(1), net.loss_function.name, N, N_OUT)
    history = net.fit(
        X,
        y,
        epochs=epochs,
        batch_size=32,
        optimizer=optimizer or fb.Adam(0.01),
        validation_data=0.3,
        sample_weight=WEIGHTS,
        threads=threads,
        verbose=0,
    )
    measured = [history[name] for name in history if name not in ("seconds", "rows_per_second")]
    return bits(net), np.array(measured).view(np.uint64)


def assert_same(result, expected):
    for actual, wanted in zip(result, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_any_number_of_threads_and_any_optimizer(optimizer, dtype):
    expected = trained(make_network(dtype=dtype), optimizer=optimizer, threads=1)
    for threads in (*range(1, 9), None):
        result = trained(make_network(dtype=dtype), optimizer=optimizer, threads=threads)
        assert_same(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_any_number_of_threads_and_any_loss(loss, dtype):
    expected = trained(make_network(loss, dtype), threads=1)
    for threads in (2, 3):
        assert_same(trained(make_network(loss, dtype), threads=threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_any_number_of_threads_and_any_activation(activation, dtype):
    expected = trained(make_network(dtype=dtype, activation=activation), threads=1)
    result = trained(make_network(dtype=dtype, activation=activation), threads=3)
    assert_same(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_more_threads_than_rows(batch_size, dtype):
    results = []
    for threads in (1, 7):
        net = make_network(dtype=dtype)
        net.fit(BYTES[:9], np.arange(9) % 7, 2, batch_size, threads=threads, verbose=0)
        results.append(bits(net))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_wide_enough_to_be_blocked_and_packed(dtype):
    X = np.random.default_rng(2).random((600, 530))
    results = []
    for threads in (1, 2, 3):  # dz is packed, or a thread's share of the weights is too small
        net = fb.Network([530, 1100, 300, 3], "relu", "mse", random_state=0, dtype=dtype)
        net.fit(
            X, X[:, :3], 1, 600, "adam", validation_data=(X, X[:, :3]), threads=threads, verbose=0
        )
        results.append((bits(net), net.history["val_loss"]))
    for result in results[1:]:
        assert_same(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_batch_has_the_gradient_of_its_pieces(dtype):
    """The gradient dz of the whole is packed, that of a piece is not."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((600, 600)), rng.standard_normal((600, 5))
    net = fb.Network([600, 1000, 5], "tanh", "mse", random_state=0, dtype=dtype)
    _, gradients = net.loss_and_gradients(X, y)
    pieces = [net.loss_and_gradients(X[i : i + 60], y[i : i + 60])[1] for i in range(0, 600, 60)]
    for layer, (dw, db) in enumerate(gradients):
        for whole, part in ((dw, 0), (db, 1)):
            mean = np.mean([piece[layer][part] for piece in pieces], axis=0, dtype=np.float64)
            bound = 100 * np.finfo(dtype).eps * np.abs(mean).max()
            np.testing.assert_allclose(whole, mean, rtol=0, atol=bound)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_row_is_evaluated_once(threads):
    """Threads take several blocks of rows at a time where there are many."""
    n = 7001
    X, y = np.random.default_rng(4).standard_normal((n, 5)), np.arange(n) % 3
    net = fb.Network([5, 8, 3], "relu", "cross_entropy", random_state=0)
    outputs = inference.outputs(net._state, X, threads)
    pieces = [net.predict(X[i : i + 100]) for i in range(0, n, 100)]
    assert_same(outputs, np.concatenate(pieces))
    expected = -np.log(outputs[np.arange(n), y].astype(np.float64)).mean()
    assert net.evaluate(X, y)["loss"] == pytest.approx(expected, rel=1e-6)


WIDE = [
    fb.Dropout(0.1),
    fb.Dense(300, 270, "gelu"),
    fb.Dropout(0.5),
    fb.Dense(270, 33, "relu", bias=False),
    fb.Dense(33, 400, "tanh"),
    fb.Dense(400, 5),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_both_ways_to_divide_a_step(monkeypatch, optimizer, dtype):
    """By rows of the batch; or the first layers, whose sums are in two halves, by their inputs."""
    X = np.random.default_rng(2).random((50, 300))
    results = []
    for threads, by_inputs in [(1, 0)] + [(t, b) for t in (2, 3, 5) for b in (0, 1, 2)]:
        monkeypatch.setattr(
            "fastbackprop.epochs.layers_by_inputs", lambda *_, choice=by_inputs: choice
        )
        net = fb.Network(WIDE, loss="cross_entropy", random_state=0, dtype=dtype)
        net.fit(X, np.arange(50) % 5, 2, 32, optimizer, threads=threads, verbose=0)
        results.append((bits(net), net.history["loss"]))
    for result in results[1:]:
        assert_same(result, results[0])


def in_turns(monkeypatch, steps):
    """Let one thread, and then the whole team, take the next ``steps`` steps."""
    turns = itertools.count()

    def next_steps(pace, left, batch):
        return (1, pace.most)[next(turns) % 2], min(left, steps)

    monkeypatch.setattr("fastbackprop.epochs.Pace.next", next_steps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_threads_that_change_between_steps(monkeypatch, optimizer, dtype):
    """Also where columns of zeros are left out, which threads find and remember for some steps."""
    rng = np.random.default_rng(2)
    X = rng.random((160, 300)) * (rng.random(300) < 0.3)
    X[100:] = rng.random((60, 300))
    results = []
    for threads, steps in [(1, 9), (2, 1), (2, 3), (3, 1), (3, 3), (5, 2)]:
        in_turns(monkeypatch, steps)
        net = fb.Network(WIDE, loss="cross_entropy", random_state=0, dtype=dtype)
        y = np.arange(160) % 5
        net.fit(X, y, 3, 16, optimizer, shuffle=False, threads=threads, verbose=0)
        results.append((bits(net), net.history["loss"], net.history["accuracy"]))
    for result in results[1:]:
        assert_same(result, results[0])


def test_threads_that_change_between_full_batches(monkeypatch):
    results = []
    for threads in (1, 2, 3):
        in_turns(monkeypatch, 1)
        net = fb.Network([3, 4], random_state=0)
        rng = np.random.default_rng(2)
        net.fit(
            rng.random((3000, 3)), rng.integers(0, 4, 3000), 5, 1100, threads=threads, verbose=0
        )
        results.append((bits(net), net.history["loss"]))
    for result in results[1:]:
        assert_same(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_large_batch_in_chunks(monkeypatch, optimizer, dtype):
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((1100 + 5, 9)), rng.standard_normal((1100 + 5, 4))

    def train(threads):
        net = fb.Network([9, 20, 4], "tanh", "mse", random_state=0, dtype=dtype)
        # The last batch of five rows has fewer than there are chunks.
        net.fit(X, y, 2, 1100, optimizer, sample_weight=X[:, 0] ** 2, threads=threads, verbose=0)
        net.train_step(X, y, optimizer)
        return bits(net), net.history["loss"]

    results = [train(threads) for threads in (1, 2, 3, 8, 9, None)]
    for result in results[1:]:
        assert_same(result, results[0])
    monkeypatch.setattr("fastbackprop.division._CHUNKED_ROWS", 10**9)
    whole, losses = train(1)
    within = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
        results[0][0].view(dtype), whole.view(dtype), rtol=within, atol=within
    )
    np.testing.assert_allclose(results[0][1], losses, rtol=within)


def test_a_bad_row_in_a_chunk_stops_before_the_step():
    X = np.random.default_rng(2).random((2000, 3))
    X[1500, 1] = np.inf
    for threads in (1, 3):
        net = fb.Network([3, 4], random_state=0)
        before = bits(net)
        with pytest.raises(ValueError, match=r"X contains inf at \[1500, 1\]"):
            net.fit(X, np.zeros(2000, int), 1, 2000, threads=threads, verbose=0)
        np.testing.assert_array_equal(bits(net), before)


@pytest.mark.parametrize("layers", [[300, 4], [300, 20, 4], [300, 270, 4]])
def test_a_bad_row_stops_both_ways_before_the_step(monkeypatch, layers):
    X = np.random.default_rng(2).random((64, layers[0]))
    X[40, -1] = np.nan
    for by_inputs in (0, 1):
        monkeypatch.setattr(
            "fastbackprop.epochs.layers_by_inputs", lambda *_, choice=by_inputs: choice
        )
        for threads in (2, 3):
            net = fb.Network(layers, random_state=0)
            before = bits(net)
            with pytest.raises(ValueError, match=r"X contains nan at \[40, "):
                net.fit(X, np.zeros(64, int), 1, 16, threads=threads, verbose=0)
            np.testing.assert_array_equal(bits(net), before)


# ---------------------------------------------------------------------------------- the matrix


def every_way(make, optimizer, folder):
    """All ways to train one network, which must not matter: (name, network, data, options)."""
    np.save(folder / "X.npy", BYTES)
    for threads in range(1, 9):
        yield f"{threads} threads", make(), BYTES, {"threads": threads}
    yield "once more", make(), BYTES, {"threads": 8}
    for kind in ("float32", "int64"):
        yield kind, make(), BYTES.astype(kind), {"threads": 2}
    yield "memmap", make(), np.load(folder / "X.npy", mmap_mode="r"), {"threads": 2}
    yield "strided", make(), np.repeat(BYTES.astype("f4"), 2, axis=0)[::2], {"threads": 2}
    make().save(folder / "net.safetensors")
    yield "saved before", fb.load(folder / "net.safetensors"), BYTES, {"threads": 3}
    yield "pickled before", pickle.loads(pickle.dumps(make())), BYTES, {"threads": 3}
    for duplicate in (copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), keep_all):
        net = make()
        trained(net, optimizer=optimizer, epochs=1)
        yield "copied midway", duplicate(net), BYTES, {"threads": 2, "epochs": 1}


def keep_all(net):
    """A clone that goes on as its original would."""
    return net.clone(keep_optimizer=True)


KINDS = (OPTIMIZERS, ELEMENTWISE, LOSSES, ("dropout", "no dropout"), DTYPES)
if os.environ.get("FASTBACKPROP_FULL"):
    CELLS = list(itertools.product(*KINDS))
else:  # each kind at least once
    CELLS = [tuple(kind[i % len(kind)] for kind in KINDS) for i in range(max(map(len, KINDS)))]


@pytest.mark.parametrize(("optimizer", "activation", "loss", "dropout", "dtype"), CELLS, ids=str)
def test_matrix(tmp_path, optimizer, activation, loss, dropout, dtype):
    rate = 0.3 if dropout == "dropout" else 0.0
    layers = [
        fb.Rescaling(1 / 255, -0.5),
        fb.Dropout(rate),
        fb.Dense(N_IN, 47, activation),
        fb.Dropout(rate),
        fb.Dense(47, N_OUT),
    ]

    def make():
        return fb.Network(layers, loss=loss, random_state=5, dtype=dtype)

    expected = None
    for name, net, X, options in every_way(make, optimizer, tmp_path):
        parameters, measured = trained(net, X, optimizer, **options)
        result = parameters, measured.reshape(-1, options.get("epochs", 2))[:, -1]
        expected = expected or result
        for actual, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=name)


# ------------------------------------------------------------------------------- the same data


def unaligned(array):
    """A copy whose elements lie between the addresses that their type asks for."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def strided(array):
    spacious = np.zeros((2 * len(array), 3 * array.shape[1]), array.dtype)
    view = spacious[1::2, 2::3]
    view[...] = array
    return view


def packed(array):
    """A field of packed records: elements at distances that are no multiple of their size."""
    records = np.zeros(array.shape, np.dtype([("flag", "u1"), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


LAYOUTS = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "reversed": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "strided": strided,
    "unaligned": unaligned,
    "packed records": packed,
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "list": np.ndarray.tolist,
}
TYPES = ["u1", "u2", "i2", "u4", "i4", "u8", "i8", "q", "Q", "f2", "f4", "f8", "g", ">i4", ">f4"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("element", TYPES)
def test_any_element_type(element, dtype):
    expected = trained(make_network(dtype=dtype))
    assert_same(trained(make_network(dtype=dtype), BYTES.astype(element)), expected)


@pytest.mark.parametrize("element", ["u1", "i8", "f4", "f8", ">f8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_in_memory(layout, element):
    expected = trained(make_network())
    X = LAYOUTS[layout](BYTES.astype(element))
    assert_same(trained(make_network(), X), expected)
    predicted = make_network().predict(X)
    np.testing.assert_array_equal(predicted, make_network().predict(BYTES))


@pytest.mark.parametrize("element", ["u1", "f4"])
def test_memmap(tmp_path, element):
    np.save(tmp_path / "X.npy", BYTES.astype(element))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert isinstance(X, np.memmap)
    assert_same(trained(make_network(), X), trained(make_network()))


def test_half_of_the_rows_of_a_larger_array():
    twice = np.repeat(BYTES, 2, axis=0)
    assert_same(trained(make_network(), twice[::2]), trained(make_network()))


# -------------------------------------------------------------------------- runs and copies


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@each_copy
def test_a_copy_goes_on_as_the_original_would(duplicate, optimizer, dtype):
    net = make_network(dtype=dtype)
    trained(net, optimizer=optimizer, epochs=1)
    other = duplicate(net)
    for _ in range(2):
        assert_same(trained(other, optimizer=optimizer), trained(net, optimizer=optimizer))
    step = BYTES[:5], np.arange(5), optimizer
    assert other.train_step(*step) == net.train_step(*step)
    np.testing.assert_array_equal(bits(other), bits(net))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_network_goes_on_without_optimizer_state(tmp_path, dtype):
    net = make_network(dtype=dtype)
    trained(net, optimizer=fb.SGD(0.05), epochs=1)
    net.save(tmp_path / "net.safetensors")
    other = fb.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(bits(other), bits(net))
    # SGD has no state; the order of rows and the dropout masks go on.
    result, expected = (trained(each, optimizer=fb.SGD(0.05)) for each in (other, net))
    assert_same(result, expected)


def test_asking_changes_nothing():
    quiet, asked = make_network(), make_network()
    for net in (quiet, asked):
        trained(net, epochs=1)
        if net is asked:
            net.predict(BYTES)
            net.evaluate(BYTES, np.zeros(N, int))
            net.loss_and_gradients(BYTES, np.zeros(N, int))
            net.input_gradient(BYTES, np.zeros(N, int))
            net.jacobian(BYTES[0])
            net.summary()
            net.get_parameters()
    assert_same(trained(asked), trained(quiet))


OTHER_PROCESS = textwrap.dedent(
    """
    import sys

    sys.path.insert(0, sys.argv[1])
    from test_determinism import all_digests

    print(all_digests())
    """
)


def all_digests():
    digest = hashlib.sha256()
    for dtype in DTYPES:
        for optimizer in OPTIMIZERS:
            for part in trained(make_network(dtype=dtype), optimizer=optimizer, threads=2):
                digest.update(part.tobytes())
    return digest.hexdigest()


def test_another_process(request):
    output = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(request.path.parent)],
        env=os.environ | {"NUMBA_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.strip() == all_digests()
