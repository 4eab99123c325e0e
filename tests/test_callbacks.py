"""Callbacks that come with the package: what they do when, and that they go on where they ended."""

import csv
import json
import math
import os

import numpy as np
import pytest
from comparison import bits

import fastbackprop as fb


def problem(dtype="float64"):
    rng = np.random.default_rng(0)
    net = fb.Network([3, 5, 2], "tanh", "cross_entropy", random_state=0, dtype=dtype)
    return net, rng.standard_normal((20, 3)), rng.integers(0, 2, 20)


class Script(fb.Callback):
    """Replaces a measurement, for the callbacks that come after it, by given values."""

    def __init__(self, callback, values, name="val_loss"):
        self.callback, self.values, self.name = callback, list(values), name

    def on_train_begin(self, net):
        self.callback.on_train_begin(net)

    def on_train_end(self, net):
        self.callback.on_train_end(net)

    def on_epoch_begin(self, net, epoch):
        self.callback.on_epoch_begin(net, epoch)

    def on_epoch_end(self, net, epoch, logs):
        self.callback.on_epoch_end(net, epoch, {**logs, self.name: self.values.pop(0)})


def train(net, callback, values, epochs=None, name="val_loss", optimizer="sgd"):
    """Train so that the callback sees the values; the epochs that were done."""
    _, X, y = problem()
    script = Script(callback, values, name)
    count = epochs or len(script.values)
    return net.fit(X, y, count, optimizer=optimizer, callbacks=script, verbose=0)


# ----------------------------------------------------------------------------- stop_training


def test_stop_training_ends_fit_in_good_order():
    calls = []

    class Stop(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            net.stop_training = epoch == 1

    watch = fb.LambdaCallback(
        on_epoch_end=lambda net, epoch, logs: calls.append(epoch),
        on_train_end=lambda net: calls.append("end"),
    )
    net, X, y = problem()
    history = net.fit(X, y, 10, callbacks=[Stop(), watch], verbose=0)
    assert history.epoch == [0, 1]
    assert calls == [0, 1, "end"]
    assert net.stop_training
    assert net.fit(X, y, 2, verbose=0).epoch == [2, 3]
    assert not net.stop_training


def test_stop_before_the_first_epoch():
    net, X, y = problem()
    before = bits(net)
    stop = fb.LambdaCallback(on_train_begin=lambda net: setattr(net, "stop_training", True))
    assert net.fit(X, y, 5, callbacks=stop, verbose=0).epoch == []
    np.testing.assert_array_equal(bits(net), before)


# ----------------------------------------------------------------------------- EarlyStopping


@pytest.mark.parametrize(
    ("values", "options", "done"),
    [
        ([5, 4, 3, 2, 1, 0], {"patience": 1}, 6),
        ([5, 4, 4, 3], {"patience": 1}, 3),
        ([5, 6, 7, 4, 5, 6, 7, 1], {"patience": 3}, 7),
        ([5, 4.5, 3.9, 3, 2.8], {"patience": 2, "min_delta": 1}, 5),
        ([5, 4, 4, 1], {"patience": 2, "min_delta": 1}, 3),
        ([5, math.nan, math.nan, 1], {"patience": 2}, 3),
        ([math.nan, 5, 4, 3], {"patience": 2}, 4),
        ([1, 2, 3, 2, 1], {"patience": 2, "mode": "max"}, 5),
        ([1, 2, 3, 2, 1, 9], {"patience": 2, "mode": "max"}, 5),
    ],
)
def test_early_stopping(values, options, done):
    net, _, _ = problem()
    stopping = fb.EarlyStopping(**options)
    history = train(net, stopping, values)
    assert len(history.epoch) == done
    assert stopping.stopped_epoch == (done - 1 if net.stop_training else None)


@pytest.mark.parametrize(
    ("name", "grows"),
    [
        ("val_accuracy", True),
        ("accuracy", True),
        ("val_f1_macro", True),
        ("val_top_3_accuracy", True),
        ("val_rmse", False),
        ("loss", False),
        ("val_mine", False),
    ],
)
def test_the_direction_follows_from_the_name(name, grows):
    net, _, _ = problem()
    rising = train(net, fb.EarlyStopping(name, patience=1), [1, 2, 3], name=name)
    assert len(rising.epoch) == (3 if grows else 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stops", [True, False])
def test_the_best_weights_are_restored(stops, dtype):
    net, X, y = problem(dtype)
    twin = net.clone()
    values = [5, 3, 1, 2, 2, 2] if stops else [5, 3, 1, 2]
    stopping = fb.EarlyStopping(patience=3, restore_best_weights=True)
    history = train(net, stopping, values)
    assert len(history.epoch) == len(values)
    assert (stopping.best, stopping.best_epoch) == (1.0, 2)
    twin.fit(X, y, 3, optimizer="sgd", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_without_restoring_the_last_weights_stay():
    net, X, y = problem()
    twin = net.clone()
    train(net, fb.EarlyStopping(patience=3), [5, 3, 1, 2])
    twin.fit(X, y, 4, optimizer="sgd", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_a_later_fit_goes_on():
    net, _, _ = problem()
    stopping = fb.EarlyStopping(patience=3)
    assert len(train(net, stopping, [5, 1, 2, 2]).epoch) == 4
    assert len(train(net, stopping, [2, 0, 0]).epoch) == 1  # the third in a row
    assert len(train(net, stopping, [2, 2, 2, 0]).epoch) == 3  # with patience anew
    assert (stopping.best, stopping.best_epoch) == (1.0, 1)


def test_another_network_begins_afresh():
    stopping = fb.EarlyStopping(patience=2, restore_best_weights=True)
    for first in (1, 5):
        net, X, y = problem()
        twin = net.clone()
        assert len(train(net, stopping, [first, first + 1, first + 2, 0]).epoch) == 3
        assert stopping.best == first
        twin.fit(X, y, 1, optimizer="sgd", verbose=0)
        np.testing.assert_array_equal(bits(net), bits(twin))


def test_with_real_validation_data():
    net, X, y = problem()
    stopping = fb.EarlyStopping("val_f1", patience=4, restore_best_weights=True)
    history = net.fit(
        X, y, 300, validation_data=(X, y), metrics="f1", callbacks=stopping, verbose=0
    )
    assert len(history.epoch) < 300
    assert stopping.best == max(history["val_f1"])
    assert net.evaluate(X, y, metrics="f1")["f1"] == stopping.best


# ------------------------------------------------------------------------- ReduceLROnPlateau


@pytest.mark.parametrize(
    ("values", "options", "factors"),
    [
        ([5, 4, 3, 2], {"patience": 1}, [1, 1, 1, 1]),
        ([5, 5, 5, 5], {"patience": 1, "factor": 0.5}, [1, 1, 0.5, 0.25]),
        ([5, 5, 5, 5, 5], {"patience": 2, "factor": 0.5}, [1, 1, 1, 0.5, 0.5]),
        (
            [5, 5, 5, 5, 5, 5, 5],
            {"patience": 1, "cooldown": 2, "factor": 0.5},
            [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25],
        ),
        ([5, 5, 5, 5, 5], {"patience": 1, "min_learning_rate": 0.03}, [1, 1, 0.3, 0.3, 0.3]),
        ([5, 5, 5], {"patience": 1, "min_learning_rate": 0.2}, [1, 1, 1]),
        ([5, 4.99995, 4.9999], {"patience": 1}, [1, 1, 0.1]),
    ],
)
def test_reduce_lr_on_plateau(values, options, factors):
    net, X, y = problem()
    callback = fb.ReduceLROnPlateau(**options)
    history = train(net, callback, values, optimizer=fb.SGD(0.1))
    np.testing.assert_allclose(history["learning_rate"], 0.1 * np.array(factors), rtol=1e-15)
    # The rates are those of the steps: with them, the bits are the same.
    twin, _, _ = problem()
    rates = history["learning_rate"]
    twin.fit(X, y, len(values), optimizer=fb.SGD(lambda step: rates[step]), verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


def test_it_composes_with_a_schedule():
    net, _, _ = problem()
    schedule = fb.ExponentialDecay(0.1, decay_steps=1, rate=0.9)
    callback = fb.ReduceLROnPlateau(factor=0.5, patience=2)
    history = train(net, callback, [5, 5, 5, 5, 5, 5], optimizer=fb.Adam(schedule))
    expected = [schedule(step) * factor for step, factor in enumerate([1, 1, 1, 0.5, 0.5, 0.25])]
    assert history["learning_rate"] == expected


def test_the_factor_goes_on_with_an_equal_optimizer():
    net, X, y = problem()
    train(net, fb.ReduceLROnPlateau(factor=0.5, patience=1), [5, 5], optimizer=fb.SGD(0.1))
    assert net.learning_rate_factor == 0.5
    assert net.fit(X, y, 1, optimizer=fb.SGD(0.1), verbose=0)["learning_rate"] == [0.05]
    before = net.get_parameters()
    gradients = net.loss_and_gradients(X, y)[1]
    net.train_step(X, y, fb.SGD(0.1))
    np.testing.assert_allclose(
        net.get_parameters(),
        before - 0.05 * np.concatenate([p.ravel() for pair in gradients for p in pair]),
        rtol=1e-12,
    )
    assert net.clone(keep_optimizer=True).learning_rate_factor == 0.5
    assert net.clone().learning_rate_factor == 1.0
    assert net.fit(X, y, 1, optimizer=fb.SGD(0.2), verbose=0)["learning_rate"] == [0.2]
    assert net.learning_rate_factor == 1.0


def test_the_factor_can_be_set():
    net, X, y = problem()
    with pytest.raises(RuntimeError, match="there is none yet"):
        net.learning_rate_factor = 0.5
    halve = fb.LambdaCallback(
        on_epoch_end=lambda net, epoch, logs: setattr(
            net, "learning_rate_factor", net.learning_rate_factor / 2
        )
    )
    history = net.fit(X, y, 3, optimizer=fb.SGD(0.4), callbacks=halve, verbose=0)
    assert history["learning_rate"] == [0.4, 0.2, 0.1]
    for value, error in ((-1, ValueError), ("1", TypeError), (math.inf, ValueError)):
        with pytest.raises(error, match="learning_rate_factor must be a number >= 0"):
            net.learning_rate_factor = value
    assert net.learning_rate_factor == 0.125


def test_refused_data_put_the_factor_back():
    net, X, y = problem()
    adam = fb.Adam(0.01)
    net.fit(X, y, 1, optimizer=adam, verbose=0)
    net.learning_rate_factor = 0.5
    X[3, 1] = np.nan
    for optimizer in (adam, fb.SGD(0.1)):
        with pytest.raises(ValueError, match=r"X contains nan at \[3, 1\]"):
            net.fit(X, y, 1, optimizer=optimizer, verbose=0)
        with pytest.raises(ValueError, match=r"X contains nan at \[3, 1\]"):
            net.train_step(X, y, optimizer=optimizer)
        assert net.learning_rate_factor == 0.5


# --------------------------------------------------------------------------- state and resume

STATEFUL = [
    lambda: fb.EarlyStopping(patience=3),
    lambda: fb.EarlyStopping(patience=3, restore_best_weights=True),
    lambda: fb.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=2),
]
VALUES = [5, 4, 4, 4, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("make", STATEFUL)
@pytest.mark.parametrize("split", range(1, 8))
def test_restored_callbacks_go_on_alike(make, split):
    whole, callback, saved = problem()[0], make(), {}

    class Checkpoint(Script):
        def on_epoch_end(self, net, epoch, logs):
            super().on_epoch_end(net, epoch, logs)
            if epoch == split - 1:
                saved.update(callback.state())
                saved["net"] = net.clone(keep_optimizer=True)

    _, X, y = problem()
    script = Checkpoint(callback, VALUES)
    done = whole.fit(X, y, len(VALUES), optimizer="sgd", callbacks=script, verbose=0).epoch
    resumed, restored = saved.pop("net"), make()
    if "best_parameters" not in saved:
        saved = json.loads(json.dumps(saved, allow_nan=False))
    restored.restore(saved)
    again = train(resumed, restored, VALUES[split:]).epoch
    assert list(range(split)) + again == done
    np.testing.assert_array_equal(bits(resumed), bits(whole))


def test_a_new_callback_has_a_plain_state():
    for make in STATEFUL:
        state = make().state()
        json.dumps(state, allow_nan=False)
        other = make()
        other.restore(state)
        assert other.state() == state
    assert fb.Callback().state() == {}
    fb.Callback().restore({})


# ---------------------------------------------------------------------------- LambdaCallback


def test_lambda_callback():
    calls = []
    callback = fb.LambdaCallback(
        on_train_begin=lambda net: calls.append(("train begin", net)),
        on_epoch_begin=lambda net, epoch: calls.append(("begin", epoch)),
        on_epoch_end=lambda net, epoch, logs: calls.append(("end", epoch, logs)) or True,
        on_train_end=lambda net: calls.append(("train end", net)),
    )
    net, X, y = problem()
    history = net.fit(X, y, 2, callbacks=callback, verbose=0)
    assert [call[:2] for call in calls] == [
        ("train begin", net),
        ("begin", 0),
        ("end", 0),
        ("begin", 1),
        ("end", 1),
        ("train end", net),
    ]
    assert [call[2]["loss"] for call in calls if call[0] == "end"] == history["loss"]
    net.fit(X, y, 1, callbacks=fb.LambdaCallback(), verbose=0)


# --------------------------------------------------------------------------------- CSVLogger


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_logger(tmp_path):
    path = tmp_path / "log, of training.csv"
    path.write_text("old\n1\n")
    net, X, y = problem()
    logger = fb.CSVLogger(path)
    net.fit(X, y, 2, validation_data=(X, y), metrics="f1", callbacks=logger, verbose=0)
    net.fit(X, y, 1, callbacks=logger, verbose=0)
    rows = read(path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for name, column in net.history.items():
        values = [float(row[name]) if row[name] else math.nan for row in rows]
        np.testing.assert_array_equal(values, column)
    assert rows[2]["val_f1"] == ""


def test_csv_logger_appends(tmp_path):
    path = tmp_path / "log.csv"
    net, X, y = problem()
    for _ in range(2):
        net.fit(X, y, 1, callbacks=fb.CSVLogger(os.fspath(path), append=True), verbose=0)
    assert [row["epoch"] for row in read(path)] == ["0", "1"]
    with pytest.raises(ValueError, match=r"no column for 'val_loss'; there are: epoch, loss"):
        net.fit(X, y, 1, validation_data=0.5, callbacks=fb.CSVLogger(path, append=True), verbose=0)
    empty = tmp_path / "empty.csv"
    empty.touch()
    net.fit(X, y, 1, callbacks=fb.CSVLogger(empty, append=True), verbose=0)
    assert len(read(empty)) == 1


def test_csv_logger_begins_again_where_its_file_is_gone(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log.csv"
    net, X, y = problem()
    logger = fb.CSVLogger(path)
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        net.fit(X, y, 1, callbacks=logger, verbose=0)
    folder.mkdir()
    for epoch in ("1", "2"):
        net.fit(X, y, 1, callbacks=logger, verbose=0)
        assert [row["epoch"] for row in read(path)] == [epoch]
        path.unlink()


def test_refused_data_leave_the_file_alone(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("precious")
    net, X, y = problem()
    X[0] = np.inf
    with pytest.raises(ValueError, match="X contains inf"):
        net.fit(X, y, callbacks=fb.CSVLogger(path), verbose=0)
    assert path.read_text() == "precious"


# ------------------------------------------------------------------------------ MetricLogger


class Writer:
    def __init__(self):
        self.calls = []

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.calls.append((tag, scalar_value, global_step))


class Tracker:
    def __init__(self):
        self.calls = []

    def log_metric(self, key, value, step=None):
        self.calls.append((key, value, step))


@pytest.mark.parametrize("kind", [Writer, Tracker])
def test_metric_logger(kind):
    target = kind()
    net, X, y = problem()
    history = net.fit(X, y, 2, callbacks=fb.MetricLogger(target, "a/"), verbose=0)
    expected = [(f"a/{name}", history[name][row], row) for row in range(2) for name in history]
    assert target.calls == expected


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: fb.EarlyStopping(3),
            TypeError,
            "monitor must be a name such as",
        ),
        (lambda: fb.EarlyStopping(patience=0), ValueError, "patience must be a positive integer"),
        (lambda: fb.EarlyStopping(min_delta=-1), ValueError, "min_delta must be a number >= 0"),
        (lambda: fb.EarlyStopping(mode="maximum"), ValueError, "unknown mode 'maximum'; did you"),
        (
            lambda: fb.EarlyStopping(restore_best_weights=1),
            TypeError,
            "restore_best_weights must be True or False, got 1",
        ),
        (lambda: fb.ReduceLROnPlateau(factor=1), ValueError, "factor must be a number between 0"),
        (lambda: fb.ReduceLROnPlateau(cooldown=-1), ValueError, "cooldown must be an integer >= 0"),
        (
            lambda: fb.ReduceLROnPlateau(min_learning_rate=-1),
            ValueError,
            "min_learning_rate must be a number >= 0",
        ),
        (
            lambda: fb.LambdaCallback(on_epoch_end=3),
            TypeError,
            "on_epoch_end must be a function or None, got 3",
        ),
        (lambda: fb.CSVLogger(3), TypeError, "path must be the path of a file, got 3"),
        (lambda: fb.CSVLogger("/no/such/folder/log.csv"), FileNotFoundError, "no folder"),
        (lambda: fb.CSVLogger("log.csv", append="yes"), TypeError, "append must be True or False"),
        (lambda: fb.MetricLogger(3), TypeError, r"add_scalar.*log_metric.*got 3"),
        (lambda: fb.MetricLogger(Writer(), 3), TypeError, "prefix must be a string, got 3"),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("kind", [fb.EarlyStopping, fb.ReduceLROnPlateau])
def test_what_is_monitored_must_be_measured(kind):
    net, X, y = problem()
    message = f"{kind.__name__} monitors 'val_loss', which is not measured; there are: loss, "
    with pytest.raises(ValueError, match=message + ".*Pass validation_data"):
        net.fit(X, y, callbacks=kind(), verbose=0)
    with pytest.raises(ValueError, match=r"monitors 'val_f1', which is not measured; .*, val_loss"):
        net.fit(X, y, callbacks=kind("val_f1"), validation_data=(X, y), verbose=0)
    assert net.history.epoch == []  # it is found before the first epoch
