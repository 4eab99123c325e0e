"""Batches of an iterable, and files read one by one, train as arrays in the same order do."""

import collections
import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from comparison import bits, make_targets

import fastbackprop as fb
from fastbackprop import sources

N, SIZE = 23, 5


def problem(loss="cross_entropy", layers=None):
    rng = np.random.default_rng(0)
    layers = layers or [fb.Dense(9, 8, "tanh"), fb.Dense(8, 3)]
    net = fb.Network(layers, loss=loss, random_state=0, dtype="float64")
    return net, rng.standard_normal((N, 9)), make_targets(rng, loss, N, 3)


def in_batches(*arrays):
    return [tuple(a[i : i + SIZE] for a in arrays) for i in range(0, len(arrays[0]), SIZE)]


# --------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("optimizer", ["adam", fb.SGD(0.1, momentum=0.9, clip_norm=0.1)], ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_list_of_batches(loss, optimizer, threads):
    net, X, y = problem(loss)
    weights = np.random.default_rng(1).random(N)
    for arrays in ((X, y), (X, y, weights)):
        apart, whole = net.clone(), net.clone()
        options = {"epochs": 3, "optimizer": optimizer, "threads": threads, "verbose": 0}
        batches = [list(batch) for batch in in_batches(*arrays)]
        history = apart.fit(batches, **options)
        sample_weight = arrays[2] if len(arrays) == 3 else None
        expected = whole.fit(
            X, y, batch_size=SIZE, shuffle=False, sample_weight=sample_weight, **options
        )
        np.testing.assert_array_equal(bits(apart), bits(whole))
        assert list(history) == list(expected)
        np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-13)
        assert history["learning_rate"] == expected["learning_rate"]
        assert apart._state.steps == whole._state.steps


def test_accuracy_and_rows_a_second():
    net, X, y = problem()
    labels = y.argmax(axis=1)
    whole = net.clone()
    history = net.fit(in_batches(X, labels), epochs=2, verbose=0)
    expected = whole.fit(X, labels, 2, SIZE, shuffle=False, verbose=0)
    np.testing.assert_allclose(history["accuracy"], expected["accuracy"], rtol=1e-13)
    np.testing.assert_allclose(np.multiply(history["rows_per_second"], history["seconds"]), N)


def test_batches_of_any_sizes_and_types():
    net, X, y = problem("mse")
    stepwise = net.clone()
    types = [np.float64, np.float32, np.uint8, np.int64, np.float16]
    batches, start = [], 0
    for size, dtype in zip([1, 9, 2, 3, 8], types, strict=True):
        rows = slice(start, start + size)
        batches.append(((X[rows] * 10).clip(0).astype(dtype), y[rows]))
        start += size
    batches.append((X[:2].tolist(), y[:2].tolist()))
    net.fit(batches, optimizer="adam", epochs=2, verbose=0)
    for x, t in batches * 2:
        stepwise.train_step(x, t, "adam")
    np.testing.assert_array_equal(bits(net), bits(stepwise))


def test_dropout_masks_differ_from_step_to_step_and_are_those_of_train_step():
    layers = [fb.Dropout(0.5), fb.Dense(9, 3)]
    net, X, y = problem(layers=layers)
    stepwise, batches = net.clone(), in_batches(X, y)
    net.fit(batches, optimizer="adam", epochs=2, verbose=0)
    for x, t in batches * 2:
        stepwise.train_step(x, t, "adam")
    np.testing.assert_array_equal(bits(net), bits(stepwise))


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 12])
def test_steps_per_epoch_goes_on_and_begins_again(steps):
    net, X, y = problem()
    stepwise, batches = net.clone(), in_batches(X, y)
    history = net.fit(batches, epochs=3, steps_per_epoch=steps, verbose=0)
    losses = [
        stepwise.train_step(x, t) for x, t in itertools.islice(itertools.cycle(batches), 3 * steps)
    ]
    np.testing.assert_array_equal(bits(net), bits(stepwise))
    if steps == 1:
        np.testing.assert_allclose(history["loss"], losses, rtol=1e-13)


def test_an_endless_generator():
    net, X, y = problem()
    stepwise, batches = net.clone(), in_batches(X, y)
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield batches[i % len(batches)]

    net.fit(endless(), epochs=3, steps_per_epoch=4, verbose=0)
    assert taken == list(range(12))
    for i in range(12):
        stepwise.train_step(*batches[i % len(batches)])
    np.testing.assert_array_equal(bits(net), bits(stepwise))


def test_a_generator_is_one_epoch():
    net, X, y = problem()
    whole = net.clone()
    assert net.fit(iter(in_batches(X, y)), epochs=1, verbose=0).epoch == [0]
    whole.fit(X, y, 1, SIZE, shuffle=False, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(whole))


def test_an_object_may_give_other_batches_each_time():
    net, X, y = problem()
    stepwise = net.clone()

    class Loader:
        rounds = 0

        def __iter__(self):
            self.rounds += 1
            yield X[: self.rounds], y[: self.rounds]

    loader = Loader()
    net.fit(loader, epochs=3, verbose=0)
    assert loader.rounds == 3
    for n in (1, 2, 3):
        stepwise.train_step(X[:n], y[:n])
    np.testing.assert_array_equal(bits(net), bits(stepwise))


def test_weights_of_a_whole_batch_may_be_0():
    net, X, y = problem()
    weights = np.ones(N)
    weights[SIZE : 2 * SIZE] = 0
    whole = net.clone()
    net.fit(in_batches(X, y, weights), epochs=2, optimizer="sgd", verbose=0)
    whole.fit(X, y, 2, SIZE, "sgd", sample_weight=weights, shuffle=False, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(whole))
    before = bits(net)
    history = net.fit([(X, y, np.zeros(N))], epochs=1, optimizer="sgd", verbose=0)
    assert history["loss"] == [0.0]
    np.testing.assert_array_equal(bits(net), before)


# --------------------------------------------------------------------- what is wrong with batches


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda X, y: (X, y + np.nan), ValueError, r"batch 2 of X: y contains nan at \[0, 0\]"),
        (lambda X, y: (X * np.inf, y), ValueError, r"batch 2 of X: X contains -?inf at \[0, 0\]"),
        (lambda X, y: (X[:, 1:], y), ValueError, r"batch 2 of X: X has shape \(5, 8\)"),
        (lambda X, y: (X, y[1:]), ValueError, r"batch 2 of X: y has shape \(4, 3\)"),
        (lambda X, y: (X, y, -np.ones(5)), ValueError, r"batch 2 of X: sample_weight\[0\] is -1"),
        (lambda X, y: X, TypeError, r"batch 2 of X must be \(X, y\) or .* got ndarray"),
        (lambda X, y: (X,), TypeError, r"batch 2 of X must be \(X, y\) or .* got tuple of 1"),
        (lambda X, y: (X.astype(str), y), TypeError, r"batch 2 of X: X has dtype"),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_bad_batch_undoes_its_epoch(wrong, error, message, fresh):
    net, X, y = problem("mse")
    good = in_batches(X, y)
    if not fresh:
        net.fit(good, epochs=2, optimizer="adam", verbose=0)
    bad = [*good[:2], wrong(*good[2]), *good[3:]]
    twin = net.clone(keep_optimizer=True)
    before = bits(net)
    optimizer = fb.Adam()
    with pytest.raises(error, match=message):
        net.fit(bad, epochs=2, optimizer=optimizer, verbose=0)
    np.testing.assert_array_equal(bits(net), before)
    for network in (net, twin):
        network.fit(good, epochs=1, optimizer="adam", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_a_bad_batch_in_a_later_epoch_keeps_the_good_ones():
    net, X, y = problem()
    good = in_batches(X, y)
    twin = net.clone()

    class Loader:
        rounds = 0

        def __iter__(self):
            self.rounds += 1
            yield from good[:3]
            if self.rounds == 3:
                raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        net.fit(Loader(), epochs=5, optimizer="adam", verbose=0)
    assert net.history.epoch == [0, 1]
    twin.fit(good[:3], epochs=2, optimizer="adam", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))
    for network in (net, twin):
        network.fit(good, epochs=1, optimizer="adam", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_divergence():
    net, X, y = problem("mse")
    before = bits(net)
    huge = [(x * 1e200, t) for x, t in in_batches(X, y)]
    with pytest.raises(fb.DivergenceError, match=r"the loss became (inf|nan) in step 1 of epoch 0"):
        net.fit(huge, optimizer=fb.SGD(1e300), verbose=0)
    np.testing.assert_array_equal(bits(net), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": []}, ValueError, "X, a list, gives no batch"),
        ({"X": "text"}, TypeError, "y is missing: .* got str"),
        ({"X": np.zeros((3, 9))}, TypeError, "y is missing: .* got ndarray"),
        ({"X": 3}, TypeError, "y is missing: .* got int"),
        ({"X": iter(in_batches(np.zeros((N, 9)), np.zeros((N, 3))))}, ValueError, "only once"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be a positive integer, got 0"),
        ({"sample_weight": np.ones(N)}, ValueError, "sample_weight does not go with X as list"),
        ({"class_weight": "balanced"}, ValueError, "'balanced' counts the classes of all rows"),
        ({"validation_data": 0.2}, ValueError, r"validation_data=0\.2 takes rows from arrays"),
        ({"shuffle": np.arange(N)}, ValueError, "only where X and y are arrays"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    net, X, y = problem("mse")
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(**{"X": in_batches(X, y), "verbose": 0, **arguments})
    np.testing.assert_array_equal(bits(net), before)


def test_steps_per_epoch_is_not_for_arrays():
    net, X, y = problem()
    with pytest.raises(ValueError, match="steps_per_epoch is 3, but X and y are arrays"):
        net.fit(X, y, steps_per_epoch=3, verbose=0)


def test_a_generator_that_ends_too_early():
    net, X, y = problem()
    before = bits(net)
    with pytest.raises(ValueError, match="ended after 5 batches, too early"):
        net.fit(iter(in_batches(X, y)), epochs=1, steps_per_epoch=6, verbose=0)
    np.testing.assert_array_equal(bits(net), before)


# ---------------------------------------------------------------------------------------- shards


def write(folder, name, arrays):
    paths = [folder / f"{name}{i}.npy" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths


CUTS = (7, 8, 20)


@pytest.mark.parametrize("form", ["files", "array"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards(tmp_path, form, weighted, shuffle):
    net, X, y = problem()
    weights = np.random.default_rng(1).random(N)
    X = X.astype(np.float32)
    parts = [np.split(array, CUTS) for array in (X, y, weights)]
    beside = [y, weights]
    if form == "files":
        beside = [write(tmp_path, name, parts[i]) for i, name in ((1, "y"), (2, "weight"))]
    shards = fb.datasets.Shards(write(tmp_path, "x", parts[0]), *beside[: 1 + weighted])
    assert (len(shards), shards.n_rows, shards.n_in) == (4, N, 9)
    batches, starts = [], [0, *CUTS]
    for epoch in range(2):
        rng = np.random.default_rng([net._state.seed, epoch])
        for file in rng.permutation(4) if shuffle else range(4):
            n = len(parts[0][file])
            rows = starts[file] + (rng.permutation(n) if shuffle else np.arange(n))
            for i in range(0, n, SIZE):
                chosen = rows[i : i + SIZE]
                batch = (X[chosen], y[chosen], weights[chosen])
                batches.append(batch[: 2 + weighted])
    stepwise = net.clone()
    history = net.fit(shards, epochs=2, batch_size=SIZE, shuffle=shuffle, verbose=0)
    for x, t, *w in batches:
        stepwise.train_step(x, t, None, *w)
    np.testing.assert_array_equal(bits(net), bits(stepwise))
    assert history.epoch == [0, 1]


def test_the_order_is_new_in_each_epoch_and_goes_on(tmp_path):
    net, X, y = problem()
    shards = fb.datasets.Shards(write(tmp_path, "x", np.split(X, CUTS)), y)
    twin = net.clone()
    net.fit(shards, epochs=3, batch_size=4, verbose=0)
    for epochs in (1, 2):
        twin.fit(shards, epochs=epochs, batch_size=4, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_dropout_on_shards_has_a_mask_for_each_step(tmp_path):
    layers = [fb.Dropout(0.5), fb.Dense(9, 3)]
    net, X, y = problem(layers=layers)
    same = np.tile(X[:1], (8, 1))
    shards = fb.datasets.Shards(write(tmp_path, "x", np.split(same, 4)), np.tile(y[:1], (8, 1)))
    history = net.fit(shards, epochs=4, batch_size=1, optimizer=fb.SGD(1e-300), verbose=0)
    assert len(set(history["loss"])) > 1  # with one mask for all they would be equal


def test_a_folder_and_reading(tmp_path):
    X = np.arange(12, dtype=np.uint8).reshape(6, 2)
    write(tmp_path, "x", [X[:4], X[4:]])
    (tmp_path / "readme.txt").touch()
    shards = fb.datasets.Shards(tmp_path, np.arange(6))
    assert repr(shards) == "Shards(2 files, 6 rows of 2)"
    np.testing.assert_array_equal(np.concatenate([shard.X for shard in shards]), X)
    np.testing.assert_array_equal(shards[-1].y, [4, 5])
    assert shards[0].sample_weight is None
    with pytest.raises(IndexError, match="there are 2 files, so there is no 2"):
        shards[2]
    single = fb.datasets.Shards(os.fspath(tmp_path / "x0.npy"), np.arange(4))
    assert (len(single), single.n_rows) == (1, 4)


def test_validation_and_class_weight_with_shards(tmp_path):
    net, X, y = problem()
    labels = y.argmax(axis=1)
    shards = fb.datasets.Shards(write(tmp_path, "x", np.split(X, CUTS)), labels)
    history = net.fit(
        shards,
        epochs=2,
        class_weight={0: 2},
        validation_data=(X, labels),
        metrics="f1_macro",
        verbose=0,
    )
    result = net.evaluate(X, labels, metrics="f1_macro")
    assert history["val_f1_macro"][-1] == result["f1_macro"]


def test_a_bad_shard_undoes_its_epoch(tmp_path):
    net, X, y = problem()
    X[-1, 2] = np.nan
    paths = write(tmp_path, "x", np.split(X, CUTS))
    before = bits(net)
    with pytest.raises(ValueError, match=r"x3\.npy: X contains nan at \[2, 2\]"):
        net.fit(fb.datasets.Shards(paths, y), verbose=0)
    np.testing.assert_array_equal(bits(net), before)
    labels = np.full(N, 3)
    with pytest.raises(ValueError, match=r"x\d\.npy: y\[0\] is 3; the network has 3 outputs"):
        net.fit(fb.datasets.Shards(paths, labels), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda x, y, folder: ([], y), ValueError, r"X must name at least one NPY file, got \[\]"),
        (lambda x, y, folder: (3, y), TypeError, "X must be a folder, a path or a list.* got 3"),
        (lambda x, y, folder: ([3], y), TypeError, r"X must be a folder.* got \[3\]"),
        (lambda x, y, folder: (x, y[:1]), ValueError, "y has 1 files, but X has 2"),
        (lambda x, y, folder: (x, y[::-1]), ValueError, r"y1\.npy holds .* \(2,\), but .* 4 rows"),
        (lambda x, y, folder: (x, np.zeros(5)), ValueError, r"y has shape \(5,\).* hold 6 rows"),
        (lambda x, y, folder: (x, y, np.zeros(5)), ValueError, r"sample_weight has shape \(5,\)"),
        (lambda x, y, folder: (y, y), ValueError, r"y0\.npy holds an array of shape \(4,\)"),
        (lambda x, y, folder: ([*x, folder / "none.npy"], y), FileNotFoundError, "none.npy"),
        (lambda x, y, folder: (folder / "empty", y), FileNotFoundError, "no file .*npy in the"),
        (lambda x, y, folder: ([*x, folder / "wide.npy"], y), ValueError, r"wide\.npy.*\(n, 2\)"),
        (lambda x, y, folder: ([folder / "text.npy"], y), ValueError, "text.npy: X has dtype"),
        (lambda x, y, folder: ([folder / "pickle.npy"], y), ValueError, "pickle.npy holds pickled"),
        (lambda x, y, folder: ([folder / "other.npy"], y), ValueError, "other.npy: not an NPY"),
        (lambda x, y, folder: ([folder / "more.npz"], y), ValueError, "more.npz: .*NPZ archive"),
    ],
)
def test_shards_are_checked(tmp_path, arguments, error, message):
    x = write(tmp_path, "x", [np.zeros((4, 2)), np.zeros((2, 2))])
    y = write(tmp_path, "y", [np.zeros(4), np.zeros(2)])
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "wide.npy", np.zeros((4, 3)))
    np.save(tmp_path / "text.npy", np.full((4, 2), "a"))
    np.save(tmp_path / "pickle.npy", np.array([{}, {}]), allow_pickle=True)
    (tmp_path / "other.npy").write_text("1,2,3")
    np.savez(tmp_path / "more.npz", a=np.zeros((4, 2)))
    with pytest.raises(error, match=message):
        fb.datasets.Shards(*arguments(x, y, tmp_path))


def test_shards_must_fit_the_network(tmp_path):
    net, _, _ = problem()
    shards = fb.datasets.Shards(write(tmp_path, "x", [np.zeros((4, 2))]), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"rows of 2\) has 2 columns; layer 0 expects \(n, 9\)"):
        net.fit(shards, verbose=0)
    with pytest.raises(ValueError, match="an epoch takes all files of Shards"):
        net.fit(shards, steps_per_epoch=2, verbose=0)


# ------------------------------------------------------------------------------ larger than memory

LIMITED = textwrap.dedent(
    """
    import resource
    import sys

    import numpy as np

    import fastbackprop as fb

    kind, folder = sys.argv[1:]
    net = fb.Network([1000, 4, 2], loss="cross_entropy", random_state=0)
    net.fit(np.zeros((8, 1000), np.float32), np.zeros(8, int), epochs=1, verbose=0)  # compiles

    def data_size():
        # RLIMIT_DATA counts what this does: private writable memory, not files that are mapped.
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024

    limit = data_size() + 70 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        np.ones(72 * 2**20, np.uint8)
    except MemoryError:
        print("limited")
    paths = [f"{folder}/{i}.npy" for i in range(8)]
    rows = 10_000  # 40 MB a file, of which no two have room, and 320 MB in all
    y = np.arange(8 * rows) % 2
    if kind == "shards":
        history = net.fit(fb.datasets.Shards(paths, y), epochs=2, batch_size=128, verbose=0)
    elif kind == "memmap":
        X = np.memmap(f"{folder}/all.bin", np.float32, "r", shape=(8 * rows, 1000))
        history = net.fit(X, y, epochs=2, batch_size=128, verbose=0)
    else:
        def batches():
            for path in paths:
                X = np.load(path, mmap_mode="r")
                for i in range(0, rows, 100):
                    yield X[i : i + 100], y[i : i + 100]

        history = net.fit(batches(), epochs=1, verbose=0)
    print(np.isfinite(history["loss"]).all(), history["rows_per_second"][0] > 0)
    """
)


@pytest.fixture(scope="module")
def large_files(tmp_path_factory):
    """320 MB that take no room on the disk: files with holes."""
    folder = tmp_path_factory.mktemp("large")
    for i in range(8):
        array = np.lib.format.open_memmap(folder / f"{i}.npy", "w+", np.float32, (10_000, 1000))
        array[::1000] = i
        del array
    with open(folder / "all.bin", "wb") as file:
        file.truncate(8 * 10_000 * 1000 * 4)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts such memory on Linux")
@pytest.mark.parametrize("kind", ["shards", "memmap", "batches"])
def test_data_larger_than_memory(large_files, kind):
    # A compiler would leave memory in the process that is limited, and give it back later.
    fb.Network([2, 2]).predict([[0, 0]])
    output = subprocess.run(
        [sys.executable, "-c", LIMITED, kind, os.fspath(large_files)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert output.stdout == "limited\nTrue True\n", output.stderr


# --------------------------------------------------------------------------------- many rows


def shuffled(seed, epoch, n):
    return sources.shuffled(np.random.default_rng([seed, epoch]), n)


def test_every_order_of_many_rows_is_as_likely(monkeypatch):
    monkeypatch.setattr(sources, "_SHUFFLED_ROWS", 2)
    counts = collections.Counter(tuple(shuffled(0, e, 4).tolist()) for e in range(6000))
    assert len(counts) == 24
    # Chi-squared of 23 degrees of freedom: beyond 50 once in a thousand.
    assert sum((count - 250) ** 2 / 250 for count in counts.values()) < 50


@pytest.mark.parametrize("n", [3, 5, 16, 1000])
def test_many_rows_are_each_taken_once(n, monkeypatch):
    whole = shuffled(5, 6, n)
    np.testing.assert_array_equal(whole, np.random.default_rng([5, 6]).permutation(n))
    monkeypatch.setattr(sources, "_SHUFFLED_ROWS", 2)
    order = shuffled(5, 6, n)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(shuffled(5, 6, n), order)
