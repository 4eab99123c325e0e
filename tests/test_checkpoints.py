"""Checkpoints: a training that ended anywhere goes on with the bits of one that never did."""

import copy
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from comparison import bits
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastbackprop as fb
from fastbackprop import checkpoints

TIMES = ("seconds", "rows_per_second")
ROWS = 40


class CrashError(Exception):
    """What ends a training in these tests."""


class CrashBefore(fb.Callback):
    """Ends training with an exception when an epoch begins."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, epoch):
        if epoch == self.epoch:
            raise CrashError


def data(rows=ROWS):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((rows, 5)).astype(np.float32)
    return X, rng.integers(0, 3, rows)


def network(dtype="float32", loss="cross_entropy", seed=0):
    chain = [fb.Dense(5, 16, "tanh"), fb.Dropout(0.3), fb.Dense(16, 8, "relu"), fb.Dense(8, 3)]
    return fb.Network(chain, loss=loss, random_state=seed, dtype=dtype)


def without_times(history):
    return history.epoch, {name: column for name, column in history.items() if name not in TIMES}


def assert_same(net, other):
    """Two networks agree in all that training goes on from."""
    np.testing.assert_array_equal(bits(net), bits(other))
    mine, theirs = net._state, other._state
    assert mine.slots.keys() == theirs.slots.keys()
    for name, slot in mine.slots.items():
        np.testing.assert_array_equal(slot, theirs.slots[name])
    for name in ("steps", "epoch", "rate_factor", "frozen", "seed", "optimizer"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert without_times(net.history) == without_times(other.history)


OPTIMIZERS = {
    "sgd": fb.SGD(0.05),
    "momentum": fb.SGD(fb.OneCycle(0.1, 200), momentum=0.9, dampening=0.1),
    "adam": fb.Adam(fb.CosineDecay(0.01, 100)),
    "adamw, clipped": fb.AdamW(0.01, clip_norm=0.1),
    "rmsprop": fb.RMSprop(0.003, centered=True, momentum=0.5),
    "function": fb.Adam(lambda step: 0.01 / (1 + step)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_has_the_same_bits(tmp_path, name, dtype):
    X, y = data()
    options = {"batch_size": 7, "optimizer": OPTIMIZERS[name], "verbose": 0}
    options["validation_data"] = (X[:9], y[:9])
    whole = network(dtype)
    whole.freeze(1)
    expected = whole.fit(X, y, 8, **options)

    folder = tmp_path / "run"
    broken = network(dtype)
    broken.freeze(1)
    with pytest.raises(CrashError):
        broken.fit(X, y, 8, callbacks=[CrashBefore(5), fb.Checkpoint(folder)], **options)
    resumed = network(dtype, seed=9)
    history = resumed.fit(X, y, 8, resume_from=folder, threads=2, **options)
    assert_same(resumed, whole)
    assert without_times(history) == without_times(expected)
    assert history["seconds"][:5] == broken.history["seconds"]


@pytest.mark.parametrize("crash", range(1, 9))
def test_all_callbacks_go_on(tmp_path, crash):
    X, y = data()

    def train(folder, *more, **options):
        folder.mkdir(exist_ok=True)
        net = network()
        # A checkpoint holds what callbacks after it remember, too.
        callbacks = [
            fb.Checkpoint(folder / "run", every=2, monitor="val_accuracy"),
            fb.EarlyStopping("val_loss", patience=8, restore_best_weights=True),
            fb.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, cooldown=1),
            fb.CSVLogger(folder / "log.csv"),
            *more,
        ]
        history = net.fit(
            X[:20],
            y[:20],
            30,
            batch_size=6,
            optimizer=fb.Adam(0.02),
            validation_data=(X[20:], y[20:]),
            callbacks=callbacks,
            resume_from=folder / "run",
            verbose=0,
            **options,
        )
        return net, history, callbacks

    def log_of(folder):
        lines = (folder / "log.csv").read_text().splitlines()
        columns = lines[0].split(",")
        kept = [i for i, name in enumerate(columns) if name not in TIMES]
        return [[line.split(",")[i] for i in kept] for line in lines]

    whole, expected, reference = train(tmp_path / "whole")
    assert crash < len(expected.epoch) < 30  # stopped early
    with pytest.raises(CrashError):
        train(tmp_path / "broken", CrashBefore(crash))
    resumed, history, callbacks = train(tmp_path / "broken")
    assert_same(resumed, whole)
    assert without_times(history) == without_times(expected)
    for callback, other in zip(callbacks, reference, strict=True):
        for name, value in callback.state().items():
            if name != "size":  # of the log, in which times have more digits or fewer
                np.testing.assert_array_equal(value, other.state()[name])
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "whole")
    names = [
        {file.name for file in (tmp_path / run / "run").iterdir()} for run in ("whole", "broken")
    ]
    assert names[0] == names[1]
    best = [fb.load(tmp_path / run / "run" / "best.safetensors") for run in ("whole", "broken")]
    np.testing.assert_array_equal(bits(best[0]), bits(best[1]))

    # Run again, the script has nothing left to do, and gives the same.
    again, history, _ = train(tmp_path / "broken")
    assert_same(again, whole)
    assert without_times(history) == without_times(expected)


def shards(folder):
    X, y = data()
    for i in range(4):
        np.save(folder / f"x{i}.npy", X[10 * i : 10 * i + 10])
    return fb.datasets.Shards(sorted(folder.glob("x*.npy")), y), {}


def endless(folder):
    def batches():
        rng = np.random.default_rng(3)
        while True:
            yield rng.standard_normal((6, 5)), rng.integers(0, 3, 6)

    return batches(), {"steps_per_epoch": 3}


def rounds(folder):
    X, y = data()
    return [(X[i : i + 8], y[i : i + 8]) for i in range(0, ROWS, 8)], {"steps_per_epoch": 3}


@pytest.mark.parametrize("make", [shards, endless, rounds])
def test_sources_go_on_where_they_were(tmp_path, make):
    def train(net, **options):
        source, more = make(tmp_path)
        net.fit(source, epochs=7, batch_size=4, verbose=0, **more, **options)

    whole, resumed, folder = network(), network(), tmp_path / "run"
    train(whole)
    with pytest.raises(CrashError):
        train(network(), callbacks=[CrashBefore(4), fb.Checkpoint(folder)])
    train(resumed, resume_from=folder)
    assert_same(resumed, whole)


def test_a_later_fit_resumes_its_own_epochs(tmp_path):
    X, y = data()
    whole, folder = network(), tmp_path / "run"
    whole.fit(X, y, 3, optimizer="sgd", validation_data=0.2, verbose=0)
    broken = copy.deepcopy(whole)
    expected = whole.fit(X, y, 6, verbose=0)
    with pytest.raises(CrashError):
        broken.fit(X, y, 6, callbacks=[CrashBefore(7), fb.Checkpoint(folder)], verbose=0)
    resumed = network()
    history = resumed.fit(X, y, 6, resume_from=folder, verbose=0)
    assert history.epoch == [3, 4, 5, 6, 7, 8]
    assert list(history) == list(expected)
    np.testing.assert_equal(without_times(resumed.history), without_times(whole.history))
    np.testing.assert_array_equal(bits(resumed), bits(whole))


# ------------------------------------------------------------------------------------- files


def epochs_in(folder):
    return list(checkpoints.numbered(folder))


@pytest.mark.parametrize(
    ("every", "keep", "epochs", "expected"),
    [(1, 3, 7, [5, 6, 7]), (1, 1, 2, [2]), (3, 2, 10, [9, 10]), (3, 9, 10, [3, 6, 9, 10])],
)
def test_how_many_are_kept(tmp_path, every, keep, epochs, expected):
    net = network()
    checkpoint = fb.Checkpoint(str(tmp_path), every, keep)
    net.fit(*data(), epochs, callbacks=checkpoint, verbose=0)
    assert epochs_in(tmp_path) == expected
    for epoch in expected:
        assert fb.load(checkpoints.file_for(tmp_path, epoch))._state.epoch == epoch
    np.testing.assert_array_equal(bits(fb.load(checkpoints.newest(tmp_path))), bits(net))
    assert (checkpoint.best, checkpoint.best_epoch) == (None, None)
    # A later call goes on in the same folder.
    net.fit(*data(), 1, callbacks=checkpoint, verbose=0)
    assert epochs_in(tmp_path)[-1] == epochs + 1


def test_the_best_is_kept(tmp_path):
    seen = {}

    class Keep(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            seen[epoch] = logs["val_accuracy"], bits(net)

    X, y = data()
    checkpoint = fb.Checkpoint(tmp_path, every=4, keep=1, monitor="val_accuracy")
    options = {"optimizer": fb.Adam(0.05), "validation_data": (X[20:], y[20:]), "verbose": 0}
    network(seed=4).fit(X[:20], y[:20], 12, callbacks=[checkpoint, Keep()], **options)
    best = max(seen, key=lambda epoch: seen[epoch][0])
    assert 0 < best < 11
    assert (checkpoint.best, checkpoint.best_epoch) == (seen[best][0], best)
    kept = fb.load(tmp_path / "best.safetensors")
    np.testing.assert_array_equal(bits(kept), seen[best][1])
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "epoch-000012.safetensors"]
    # One can go on from it.
    resumed = network(seed=4)
    again = resumed.fit(
        X[:20], y[:20], 12, callbacks=Keep(), resume_from=tmp_path / "best.safetensors", **options
    )
    assert again.epoch == list(range(12))
    np.testing.assert_array_equal(bits(resumed), bits(fb.load(checkpoints.newest(tmp_path))))


def test_what_is_monitored_must_be_measured(tmp_path):
    with pytest.raises(ValueError, match=r"Checkpoint monitors 'val_loss', which is not.*Pass"):
        network().fit(*data(), 1, callbacks=fb.Checkpoint(tmp_path, monitor="val_loss"), verbose=0)


def test_remains_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".epoch-000003.safetensors.a1b2c3").write_bytes(b"half of it")
    (tmp_path / ".best.safetensors.a1b2c3").write_bytes(b"half of it")
    (tmp_path / "notes.txt").write_text("mine")
    network().fit(*data(), 1, callbacks=fb.Checkpoint(tmp_path), verbose=0)
    assert sorted(os.listdir(tmp_path)) == ["epoch-000001.safetensors", "notes.txt"]


@pytest.mark.parametrize("arguments", [{"path": 3}, {"path": "a", "monitor": 3}])
def test_arguments_of_the_wrong_type(arguments):
    with pytest.raises(TypeError, match=r"(path|monitor) must be .* got 3"):
        fb.Checkpoint(**arguments)


@pytest.mark.parametrize("name", ["every", "keep"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got 0"):
        fb.Checkpoint("a", **{name: 0})


# ----------------------------------------------------------------------- where there is nothing


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_checkpoint_training_begins(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    net, plain = network(), network()
    history = net.fit(
        *data(), 2, callbacks=fb.Checkpoint(folder), resume_from=str(folder), verbose=0
    )
    plain.fit(*data(), 2, verbose=0)
    assert_same(net, plain)
    assert history.epoch == [0, 1]
    assert epochs_in(folder) == [1, 2]


def refused(net, error, match, **changes):
    """`fit` raises, and changes nothing."""
    X, y = data()
    options = {"X": X, "y": y, "epochs": 5, "verbose": 0, **changes}
    before = copy.deepcopy(net)
    with pytest.raises(error, match=match):
        net.fit(**options)
    assert_same(net, before)
    assert np.isfinite(net.fit(X, y, 1, verbose=0)["loss"]).all()


def test_a_named_file_must_exist(tmp_path):
    missing = tmp_path / "epoch-000009.safetensors"
    refused(network(), FileNotFoundError, "epoch-000009", resume_from=missing)
    refused(network(), TypeError, "resume_from must be the path.*got 3", resume_from=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the checkpoints of three epochs of Adam in batches of 32."""
    folder = tmp_path_factory.mktemp("trained")
    X, y = data()
    options = {"validation_data": (X, y), "verbose": 0}
    callbacks = [fb.Checkpoint(folder), fb.EarlyStopping(restore_best_weights=True)]
    network().fit(X, y, 3, callbacks=callbacks, **options)
    return folder


DENSE = [layer for layer in network().layers if isinstance(layer, fb.Dense)]
OTHERS = {
    "sizes": ({"net": fb.Network([5, 9, 3], loss="cross_entropy")}, r"sizes is \[5, 16, 8, 3\] in"),
    "dtype": ({"net": network("float64")}, "dtype is 'float32' in the checkpoint, but 'float64'"),
    "loss": ({"net": network(loss="mse")}, "loss is .*'cross_entropy'.*'mse'"),
    "dropout": (
        {"net": fb.Network(DENSE, loss="cross_entropy")},
        "the dropout before layer 1 is 0.3 in the checkpoint, but 0.0 here",
    ),
    "optimizer": ({"optimizer": "sgd"}, "the optimizer's type is 'Adam'.*'SGD'"),
    "rate": ({"optimizer": fb.Adam(0.1)}, "the optimizer's learning_rate is 0.001.* but 0.1"),
    "function": ({"optimizer": fb.Adam(lambda step: 0.1)}, "learning_rate is 0.001.*'a function'"),
    "rows": ({"X": data(41)[0], "y": data(41)[1]}, "rows is 40 in the checkpoint, but 41 here"),
    "batch size": ({"batch_size": 8}, "batch_size is 32 in the checkpoint, but 8 here"),
    "order": ({"shuffle": False}, "shuffle is True in the checkpoint, but False here"),
    "source": ({"X": [data()], "y": None}, "rows is 40 in the checkpoint, but None here"),
    "fewer epochs": ({"epochs": 2}, "the checkpoint has 3 epochs, more than epochs=2"),
    "callbacks": ({}, "state of a EarlyStopping, for which callbacks has no taker"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_training_is_refused(trained, case):
    changes, message = OTHERS[case]
    changes = dict(changes)
    net = copy.deepcopy(changes.pop("net", None) or network(seed=4))
    net.fit(*data(), 1, verbose=0)
    message = rf"epoch-000003\.safetensors: .*{message}"
    refused(net, ValueError, message, resume_from=trained, **changes)


def test_a_folder_of_another_training_is_refused(trained, tmp_path):
    message = "holds checkpoints of another training.*has 0: pass resume_from=.*or delete them"
    refused(network(), ValueError, message, callbacks=fb.Checkpoint(trained))
    assert epochs_in(trained) == [1, 2, 3]
    shutil.copy(trained / "epoch-000002.safetensors", tmp_path / "best.safetensors")
    refused(network(), ValueError, message, callbacks=fb.Checkpoint(tmp_path))


def test_a_network_is_no_checkpoint(tmp_path):
    path = tmp_path / "net.safetensors"
    network().save(path)
    refused(network(), fb.FileFormatError, r"net\.safetensors.*no training", resume_from=path)


# ----------------------------------------------------------------------------- damaged files


@pytest.fixture
def copied(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    return folder


def resume(folder, net=None):
    X, y = data()
    callbacks = fb.EarlyStopping(restore_best_weights=True)
    options = {"callbacks": callbacks, "validation_data": (X, y), "verbose": 0}
    net = net or network()
    return net.fit(X, y, 5, resume_from=folder, **options)


def test_a_damaged_newest_file_is_named(copied):
    path = copied / "epoch-000003.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    net = network()
    before = bits(net)
    with pytest.raises(
        fb.FileFormatError,
        match=r"epoch-000003\.safetensors: .*the one before, epoch-000002\.safetensors, delete it",
    ):
        resume(copied, net)
    np.testing.assert_array_equal(bits(net), before)
    path.unlink()
    assert resume(copied, net).epoch == [0, 1, 2, 3, 4]


def change_training(path, change):
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fastbackprop"])
    tensors = load_file(path)
    change(header["training"], tensors)
    save_file(tensors, path, {"fastbackprop": json.dumps(header)})


def setting(key, value):
    return lambda training, tensors: training.__setitem__(key, value)


def tensor(key, value):
    return lambda training, tensors: tensors.__setitem__(f"training.{key}", value)


BAD = {
    "no steps": (lambda training, tensors: training.pop("steps"), "description lacks 'steps'"),
    "steps": (setting("steps", -1), "steps must be an integer >= 0, got -1"),
    "rate_factor": (setting("rate_factor", float("nan")), "rate_factor must be a number >= 0"),
    "frozen": (setting("frozen", [3]), r"frozen is \[3\]; there are 3 Dense layers"),
    "frozen list": (setting("frozen", 3), "frozen must be a list, got 3"),
    "facts": (setting("facts", []), "facts must be a dict"),
    "slots": (setting("slots", ["first_moment"]), "unexpected tensors.*second_moment"),
    "slot names": (setting("slots", ["a", "a"]), "slots must be different names"),
    "no slot": (setting("slots", ["a"]), "there is no tensor training.slots.a"),
    "slot shape": (tensor("slots.first_moment", np.zeros(2, "f4")), r"float32 \(2,\); expected"),
    "slot dtype": (tensor("slots.first_moment", np.zeros(259)), "first_moment is float64"),
    "extra": (tensor("more", np.zeros(2)), r"unexpected tensors \['training.more'\]"),
    "ended": (setting("ended", 1), "ended must be True or False, got 1"),
    "callbacks": (setting("callbacks", [3]), "a callback must be a dict, got 3"),
    "column": (tensor("record.0", np.zeros(7)), r"record.0 is float64 \(7,\)"),
    "epochs": (tensor("record.epoch", np.zeros(3)), "record.epoch is float64"),
    "not a dict": (lambda training, tensors: None, "training must be a dict"),
    "state": (
        lambda training, tensors: training["callbacks"][1]["state"].clear(),
        "the state of EarlyStopping is not one that it can go on from",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_contents(copied, case):
    change, message = BAD[case]
    path = copied / "epoch-000003.safetensors"
    if case == "not a dict":
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["fastbackprop"])
        header["training"] = 3
        save_file(load_file(path), path, {"fastbackprop": json.dumps(header)})
    else:
        change_training(path, change)
    with pytest.raises(fb.FileFormatError, match=rf"epoch-000003\.safetensors: .*{message}"):
        resume(copied)


@pytest.mark.parametrize("value", [{1, 2}, np.array(["a"]), np.array([1j])])
def test_a_callback_with_a_state_that_no_file_can_hold(value, tmp_path):
    class Odd(fb.Callback):
        def state(self):
            return {"seen": value}

    net = network()
    with pytest.raises(TypeError, match=r"under 'seen'|cannot be saved"):
        net.fit(*data(), 3, callbacks=[Odd(), fb.Checkpoint(tmp_path)], verbose=0)
    assert net.history.epoch == [0]
    assert os.listdir(tmp_path) == []


def test_any_other_state_survives(tmp_path):
    values = {
        "none": None,
        "flag": True,
        "number": 0.1,
        "infinite": float("inf"),
        "text": "äöü",
        "list": [1, {"a": 2}],
        "scalar": np.float32(0.5),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "empty": np.zeros((0, 3)),
        "foreign": np.arange(3, dtype=">f4"),
        "deep": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        "flags": np.array([True, False]),
    }
    restored = {}

    class Own(fb.Callback):
        def state(self):
            return values

        def restore(self, state):
            restored.update(state)

    network().fit(*data(), 1, callbacks=[Own(), fb.Checkpoint(tmp_path)], verbose=0)
    network().fit(*data(), 2, callbacks=[Own()], resume_from=tmp_path, verbose=0)
    assert restored.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(restored[name], value)
    assert restored["array"].dtype == np.int16


# -------------------------------------------------------------------------- disks that refuse


def fail_to_write(tmp_path, monkeypatch, error, match, breaks):
    """The third checkpoint cannot be written: `fit` says so, and all else is as it should be."""
    folder = tmp_path / "run"

    class Break(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            if epoch == 2:
                breaks(folder)

    net, twin = network(), network()
    callbacks = [Break(), fb.Checkpoint(folder)]
    with monkeypatch.context(), pytest.raises(error, match=match) as caught:
        net.fit(*data(), 9, callbacks=callbacks, verbose=0)
    monkeypatch.undo()
    twin.fit(*data(), 3, verbose=0)
    assert_same(net, twin)
    assert caught.value.filename.endswith("epoch-000003.safetensors")
    if folder.exists():
        assert sorted(os.listdir(folder)) == [f"epoch-00000{i}.safetensors" for i in (1, 2)]
        twin.fit(*data(), 2, verbose=0)
        resumed = network()
        resumed.fit(*data(), 5, resume_from=folder, verbose=0)
        assert_same(resumed, twin)
    net.fit(*data(), 1, verbose=0)


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
def test_a_disk_that_fails(tmp_path, monkeypatch, function):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    fail_to_write(
        tmp_path,
        monkeypatch,
        OSError,
        r"No space left on device: '.*epoch-000003\.safetensors'",
        lambda folder: monkeypatch.setattr(os, function, fail),
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_full_disk(tmp_path, monkeypatch):
    make = tempfile.mkstemp

    def make_full(**options):
        handle, name = make(**options)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    fail_to_write(
        tmp_path,
        monkeypatch,
        OSError,
        r"No space left on device: '.*epoch-000003\.safetensors'",
        lambda folder: monkeypatch.setattr(tempfile, "mkstemp", make_full),
    )


def test_a_folder_that_vanishes(tmp_path, monkeypatch):
    fail_to_write(tmp_path, monkeypatch, FileNotFoundError, "epoch-000003", shutil.rmtree)


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.mark.skipif(os.name == "nt" or is_root(), reason="permissions that bind this user")
def test_a_folder_that_becomes_read_only(tmp_path, monkeypatch):
    fail_to_write(
        tmp_path, monkeypatch, PermissionError, "epoch-000003", lambda folder: folder.chmod(0o500)
    )


def test_a_folder_that_cannot_be_written_is_found_out_before_training(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/abc")

    with monkeypatch.context() as broken:
        broken.setattr(tempfile, "TemporaryFile", refuse)
        net = network()
        with pytest.raises(PermissionError, match=rf"'{tmp_path / 'run'}'"):
            net.fit(*data(), 1, callbacks=fb.Checkpoint(tmp_path / "run"), verbose=0)
    assert net.history.epoch == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        net.fit(*data(), 1, callbacks=fb.Checkpoint(tmp_path / "file"), verbose=0)


# ------------------------------------------------------------------------------------ the log


def test_a_log_of_other_columns_is_left_alone(tmp_path):
    log = tmp_path / "log.csv"
    callbacks = [fb.CSVLogger(log), fb.Checkpoint(tmp_path / "run")]
    network().fit(*data(), 2, callbacks=callbacks, verbose=0)
    log.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"log\.csv has the columns a, b, but the log of the tra"):
        network().fit(*data(), 3, callbacks=fb.CSVLogger(log), resume_from=tmp_path / "run")
    assert log.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("remains", [None, "", "epoch,loss,acc"])
def test_a_log_that_was_lost_begins_again(tmp_path, remains):
    log = tmp_path / "log.csv"
    callbacks = [fb.CSVLogger(log), fb.Checkpoint(tmp_path / "run")]
    network().fit(*data(), 2, callbacks=callbacks, verbose=0)
    log.unlink()
    if remains == "":
        log.write_text("")
    net = network()
    net.fit(*data(), 3, callbacks=fb.CSVLogger(log), resume_from=tmp_path / "run", verbose=0)
    lines = log.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "2"]


# -------------------------------------------------------------------------------------- kills

KILLED = textwrap.dedent(
    """
    # Forks a process that trains, kills it at a random moment, and again when it has resumed.
    import json
    import os
    import random
    import signal
    import sys
    import time
    from pathlib import Path

    import numpy as np

    import fastbackprop as fb
    from fastbackprop import checkpoints

    folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 20), dtype="float32"), rng.integers(0, 3, 300)
    TIMES = "seconds", "rows_per_second"


    def train(place, epochs=25):
        place.mkdir(exist_ok=True)
        chain = [fb.Dense(20, 64, "relu"), fb.Dropout(0.2), fb.Dense(64, 64, "relu"),
                 fb.Dropout(0.2), fb.Dense(64, 3)]
        net = fb.Network(chain, loss="cross_entropy", random_state=0)
        callbacks = [
            fb.Checkpoint(place / "run", keep=2, monitor="val_loss"),
            fb.EarlyStopping(patience=20, restore_best_weights=True),
            fb.ReduceLROnPlateau(factor=0.5, patience=2),
            fb.CSVLogger(place / "log.csv"),
        ]
        history = net.fit(
            X[:200], y[:200], epochs, batch_size=8, verbose=0, callbacks=callbacks,
            optimizer=fb.Adam(fb.CosineDecay(0.01, 1000)), validation_data=(X[200:], y[200:]),
            resume_from=place / "run",
        )
        return net, history, callbacks


    def outcome(place):
        net, history, callbacks = train(place)
        state = net._state
        best = fb.load(place / "run/best.safetensors").weights[0]
        arrays = [state.params, *state.slots.values(), best]
        columns = {k: v for k, v in history.items() if k not in TIMES}
        log = [line.split(",") for line in (place / "log.csv").read_text().splitlines()]
        kept = [i for i, name in enumerate(log[0]) if name not in TIMES]
        states = [{k: np.asarray(v).tolist() for k, v in c.state().items() if k != "size"}
                  for c in callbacks]
        return [a.tobytes() for a in arrays], [
            history.epoch, columns, net.history.epoch, [[row[i] for i in kept] for row in log],
            states, state.steps, state.epoch, state.rate_factor, sorted(os.listdir(place / "run")),
        ]


    def begin(place):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(place)
                code = 0
            finally:
                os._exit(code)
        return child


    expected = outcome(folder / "whole")
    seconds = []
    for i in range(3):
        start = time.perf_counter()
        os.waitpid(begin(folder / f"timed{i}"), 0)
        seconds.append(time.perf_counter() - start)
    whole = min(seconds)
    draw = random.Random(0)
    kills = runs = writing = 0
    epochs = []
    while kills < wanted:
        place = folder / str(runs)
        runs += 1
        while True:
            child = begin(place)
            # A random moment of what is left, so that kills fall on all of a training.
            time.sleep(draw.random() * whole)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            run = place / "run"
            newest = checkpoints.newest(run) if run.exists() else None
            if newest is not None:
                checkpoints.read(newest)  # always whole
                fb.load(newest)
            if not os.WIFSIGNALED(status):
                assert status == 0
                break
            kills += 1
            epochs.append(max(checkpoints.numbered(run), default=0) if run.exists() else 0)
            writing += run.exists() and any(name[0] == "." for name in os.listdir(run))
            if draw.random() < 0.3:
                break
        arrays, values = outcome(place)
        assert values == expected[1], (values, expected[1])
        assert arrays == expected[0], (runs, kills)
    print(json.dumps({"kills": kills, "runs": runs, "while writing": writing, "epochs": epochs}))
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    kills = 200 if os.environ.get("FASTBACKPROP_FULL") else 12
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": str(Path(fb.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= kills
    assert len(set(report["epochs"])) > 3  # they fell on different moments
    print(report)


def test_batches_of_different_sizes(tmp_path):
    """Whether a step is cut into chunks follows from its own rows, not from those before it."""
    rng = np.random.default_rng(0)
    batches = [(rng.random((n, 20)), rng.integers(0, 3, n)) for n in (100, 2000, 400)]
    start = fb.Network([20, 32, 3], "relu", "cross_entropy", random_state=0)
    whole, by_steps, resumed = start.clone(), start.clone(), start.clone()
    whole.fit(batches, epochs=4, verbose=0)
    for _ in range(4):
        for X, y in batches:
            by_steps.train_step(X, y)
    np.testing.assert_array_equal(bits(by_steps), bits(whole))
    resumed.fit(batches, epochs=2, callbacks=[fb.Checkpoint(tmp_path)], verbose=0)
    again = start.clone()
    again.fit(batches, epochs=4, resume_from=tmp_path, verbose=0)
    np.testing.assert_array_equal(bits(again), bits(whole))
