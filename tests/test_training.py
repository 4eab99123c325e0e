"""Training: trajectories against the reference and PyTorch, and what fit promises around them."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from comparison import (
    LOSSES,
    assert_close,
    bits,
    dropout_masks,
    epoch_order,
    make_targets,
    reference_of,
    reference_optimizer,
    torch_optimizer,
)

import fastbackprop as fb

OPTIMIZERS = [
    fb.SGD(0.1),
    fb.SGD(0.1, momentum=0.9),
    fb.SGD(0.1, momentum=0.9, dampening=0.3),
    fb.SGD(0.1, momentum=0.9, nesterov=True),
    fb.SGD(0.1, momentum=0.5, weight_decay=0.02, clip_norm=0.3),
    fb.Adam(0.01),
    fb.Adam(0.01, betas=(0.7, 0.95), eps=1e-5, weight_decay=0.1),
    fb.Adam(0.01, clip_norm=0.05),
    fb.AdamW(0.01, weight_decay=0.2),
    fb.RMSprop(0.01),
    fb.RMSprop(0.01, alpha=0.9, centered=True),
    fb.RMSprop(0.01, momentum=0.8),
    fb.RMSprop(0.01, centered=True, momentum=0.8, weight_decay=0.05, clip_norm=0.2),
]
SCHEDULES = [
    fb.Constant(0.01),
    fb.StepDecay(0.02, every=7, factor=0.5),
    fb.ExponentialDecay(0.02, decay_steps=10, rate=0.5),
    fb.InverseScaling(0.02),
    fb.CosineDecay(0.02, decay_steps=20),
    fb.OneCycle(0.02, total_steps=30),
    fb.Warmup(fb.CosineDecay(0.02, decay_steps=12), warmup_steps=9),
]


def plain_rate(step):
    return 0.02 / (1 + step)


N = 23  # in batches of 5: four whole ones, and one of three rows


def problem(loss="cross_entropy", activation="tanh", dtype="float64", layers=None, seed=1):
    rng = np.random.default_rng(seed)
    layers = layers or [fb.Dense(9, 17, activation), fb.Dense(17, 8, activation), fb.Dense(8, 3)]
    net = fb.Network(layers, loss=loss, random_state=rng, dtype=dtype)
    X = rng.standard_normal((N, 9))
    return net, X, make_targets(rng, loss, N, 3)


def in_batches(X, y, order, size, weights=None):
    """One epoch for ReferenceNetwork.train."""
    batches = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batches.append((X[rows], y[rows]) if weights is None else (X[rows], y[rows], weights[rows]))
    return batches


def assert_same_parameters(net, twin, tolerance=1e-10):
    for actual, expected in zip(
        [p for pair in zip(net.weights, net.biases, strict=True) for p in pair if p is not None],
        twin.parameters,
        strict=True,
    ):
        assert_close(actual, expected, tolerance)


# ----------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_fit(optimizer):
    net, X, y = problem()
    twin = reference_of(net)
    orders = [epoch_order(net, epoch, N, 5) for epoch in range(4)]
    history = net.fit(X, y, epochs=4, batch_size=5, optimizer=optimizer, verbose=0)
    epochs = [in_batches(X, y, order, 5) for order in orders]
    losses = twin.train(epochs, reference_optimizer(optimizer))
    assert_close(history["loss"], losses, 1e-10)
    assert_same_parameters(net, twin)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_train_step(optimizer):
    net, X, y = problem("mse")
    twin, same = reference_of(net), reference_optimizer(optimizer)
    for step in range(12):
        rows = slice(step, step + 1 + step % 5)
        loss = net.train_step(X[rows], y[rows], optimizer)
        assert_close(loss, twin.train_step(X[rows], y[rows], same), 1e-10)
    assert_same_parameters(net, twin)


@pytest.mark.parametrize("schedule", [*SCHEDULES, plain_rate], ids=[*map(str, SCHEDULES), "plain"])
@pytest.mark.parametrize("optimizer", [fb.SGD, fb.Adam, fb.RMSprop])
def test_schedules(optimizer, schedule):
    net, X, y = problem()
    twin, spec = reference_of(net), optimizer(schedule)
    history = net.fit(X, y, epochs=3, batch_size=5, optimizer=spec, shuffle=False, verbose=0)
    twin.train([in_batches(X, y, np.arange(N), 5)] * 3, reference_optimizer(spec))
    assert_same_parameters(net, twin)
    assert history["learning_rate"] == [schedule(4), schedule(9), schedule(14)]


@pytest.mark.parametrize("optimizer", [OPTIMIZERS[4], OPTIMIZERS[5], OPTIMIZERS[12]], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights_and_losses(loss, optimizer):
    net, X, y = problem(loss, "silu")
    weights = np.random.default_rng(2).random(N)
    weights[3] = 0
    weights[5:10] = 0  # the whole of the second batch: a step whose gradient is 0
    twin = reference_of(net)
    history = net.fit(X, y, 3, 5, optimizer, shuffle=False, sample_weight=weights, verbose=0)
    losses = twin.train(
        [in_batches(X, y, np.arange(N), 5, weights)] * 3, reference_optimizer(optimizer)
    )
    assert_close(history["loss"], losses, 1e-10)
    assert_same_parameters(net, twin)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_single_precision_stays_near(optimizer):
    double, X, y = problem()
    single, _, _ = problem(dtype="float32")
    for net in (double, single):
        net.fit(X, y, epochs=2, batch_size=5, optimizer=optimizer, shuffle=False, verbose=0)
    assert_close(single.get_parameters(), double.get_parameters(), 3e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_pytorch(optimizer):
    torch = pytest.importorskip("torch")
    net, X, y = problem(activation="gelu")
    modules = []
    for w, b in zip(net.weights, net.biases, strict=True):
        linear = torch.nn.Linear(*w.shape, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b.copy()))
        modules += [linear, torch.nn.GELU()]
    model = torch.nn.Sequential(*modules[:-1])
    peer = torch_optimizer(optimizer, model.parameters())
    net.fit(X, y, epochs=3, batch_size=5, optimizer=optimizer, shuffle=False, verbose=0)
    for x, t in in_batches(torch.from_numpy(X), torch.from_numpy(y), np.arange(N), 5) * 3:
        peer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), t).backward()
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        peer.step()
    for i, linear in enumerate(model[::2]):
        assert_close(net.weights[i], linear.weight.detach().numpy().T, 1e-10)
        assert_close(net.biases[i], linear.bias.detach().numpy(), 1e-10)


# ---------------------------------------------------------------------------- order and batches


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 24, 10**9])
def test_batches(batch_size):
    net, X, y = problem()
    twin = reference_of(net)
    history = net.fit(
        X, y, epochs=2, batch_size=batch_size, optimizer=fb.SGD(0.1), shuffle=False, verbose=0
    )
    losses = twin.train(
        [in_batches(X, y, np.arange(N), batch_size)] * 2, reference_optimizer(fb.SGD(0.1))
    )
    assert_close(history["loss"], losses, 1e-10)
    assert_same_parameters(net, twin)


def test_a_given_order_may_repeat_rows():
    net, X, y = problem()
    twin = reference_of(net)
    order = np.random.default_rng(0).integers(0, N, N).astype(np.uint8)
    net.fit(X, y, epochs=2, batch_size=5, optimizer="sgd", shuffle=order, verbose=0)
    twin.train([in_batches(X, y, order, 5)] * 2, reference_optimizer(fb.SGD()))
    assert_same_parameters(net, twin)


def test_each_epoch_has_its_own_order_over_all_calls():
    net, X, y = problem()
    together = copy.deepcopy(net)
    together.fit(X, y, epochs=4, batch_size=5, optimizer="adam", verbose=0)
    for epochs in (1, 2, 1):
        net.fit(X, y, epochs=epochs, batch_size=5, optimizer="adam", verbose=0)
    np.testing.assert_array_equal(bits(net), bits(together))
    orders = {tuple(epoch_order(net, epoch, N, 5)) for epoch in range(4)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(N)) for order in orders)


# ----------------------------------------------------------------------------- optimizer state


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_state_goes_on_with_an_equal_optimizer(optimizer):
    net, X, y = problem()
    apart = copy.deepcopy(net)
    net.fit(X, y, 2, 5, optimizer, shuffle=False, verbose=0)
    for x, t in in_batches(X, y, np.arange(N), 5):
        apart.train_step(x, t, copy.deepcopy(optimizer))
    apart.fit(X, y, 1, 5, copy.deepcopy(optimizer), shuffle=False, verbose=0)
    np.testing.assert_array_equal(bits(apart), bits(net))


def test_state_begins_afresh_with_another_optimizer():
    net, X, y = problem()
    net.fit(X, y, 1, 5, fb.Adam(0.01), verbose=0)
    twin = reference_of(net)
    net.train_step(X, y, fb.Adam(0.02))
    twin.train_step(X, y, reference_optimizer(fb.Adam(0.02)))
    assert_same_parameters(net, twin)
    net.train_step(X, y, fb.Adam(0.01))  # nothing is left of the first one either
    twin.train_step(X, y, reference_optimizer(fb.Adam(0.01)))
    assert_same_parameters(net, twin)


def test_the_default_is_adam():
    net, X, y = problem()
    same, named = copy.deepcopy(net), copy.deepcopy(net)
    net.train_step(X, y)
    same.train_step(X, y, fb.Adam())
    named.train_step(X, y, "adam")
    np.testing.assert_array_equal(bits(net), bits(same))
    np.testing.assert_array_equal(bits(net), bits(named))


# ----------------------------------------------------------------------- history and validation


def test_history():
    net, X, y = problem()
    labels = y.argmax(axis=1)
    first = net.fit(X, labels, epochs=2, batch_size=5, verbose=0)
    assert list(first) == ["loss", "accuracy", "learning_rate", "seconds", "rows_per_second"]
    assert first.epoch == [0, 1]
    assert first["learning_rate"] == [1e-3, 1e-3]
    assert all(seconds > 0 for seconds in first["seconds"])
    np.testing.assert_allclose(np.multiply(first["rows_per_second"], first["seconds"]), N)
    second = net.fit(X, labels, epochs=1, validation_data=(X, labels), verbose=0)
    assert second.epoch == [2]
    assert net.history.epoch == [0, 1, 2]
    assert net.history["loss"] == first["loss"] + second["loss"]
    np.testing.assert_array_equal(np.isnan(net.history["val_loss"]), [True, True, False])
    assert "3 epochs" in repr(net.history)
    with pytest.raises(KeyError, match="'val_loss' was not measured; there are: loss, accuracy"):
        first["val_loss"]


def test_training_accuracy_is_that_of_each_batch_before_its_step():
    net, X, y = problem()
    labels = y.argmax(axis=1)
    weights = np.random.default_rng(3).random(N)
    stepwise = copy.deepcopy(net)
    history = net.fit(X, labels, 1, 5, fb.SGD(0.5), shuffle=False, sample_weight=weights, verbose=0)
    right = []
    for x, t, w in in_batches(X, labels, np.arange(N), 5, weights):
        right += list(stepwise.predict_classes(x) == t)
        stepwise.train_step(x, t, fb.SGD(0.5), w)
    assert history["accuracy"] == [pytest.approx(np.average(right, weights=weights))]


def test_validation_data_of_the_caller():
    net, X, y = problem()
    rng = np.random.default_rng(3)
    Xv, yv, weights = rng.standard_normal((70, 9)), rng.integers(0, 3, 70), rng.random(70)
    for data in ((Xv, yv), [Xv, yv], (Xv, yv, None), (Xv, yv, weights)):
        history = net.fit(X, y, epochs=2, validation_data=data, verbose=0)
        expected = net.evaluate(*data)
        assert history["val_loss"][-1] == expected["loss"]
        assert history["val_accuracy"][-1] == expected["accuracy"]


def test_validation_does_not_change_training():
    net, X, y = problem()
    plain = copy.deepcopy(net)
    net.fit(X, y, epochs=3, batch_size=5, validation_data=(X, y), verbose=0)
    plain.fit(X, y, epochs=3, batch_size=5, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(plain))


@pytest.mark.parametrize(("fraction", "held"), [(0.2, 5), (0.5, 12), (0.03, 1), (0.95, 22)])
def test_a_fraction_holds_back_the_last_rows(fraction, held):
    net, X, y = problem()
    weights = np.random.default_rng(3).random(N)
    same = copy.deepcopy(net)
    history = net.fit(X, y, 2, 5, validation_data=fraction, sample_weight=weights, verbose=0)
    kept = slice(None, N - held)
    rest = slice(N - held, None)
    expected = same.fit(
        X[kept],
        y[kept],
        2,
        5,
        validation_data=(X[rest], y[rest], weights[rest]),
        sample_weight=weights[kept],
        verbose=0,
    )
    np.testing.assert_array_equal(bits(net), bits(same))
    assert history["val_loss"] == expected["val_loss"]


# ----------------------------------------------------------------------------------- callbacks


class Recorder(fb.Callback):
    """Notes every call."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def on_train_begin(self, net):
        self.calls.append((self.name, "train begin"))

    def on_train_end(self, net):
        self.calls.append((self.name, "train end"))

    def on_epoch_begin(self, net, epoch):
        self.calls.append((self.name, "begin", epoch))

    def on_epoch_end(self, net, epoch, logs):
        self.calls.append((self.name, "end", epoch, logs))


def test_callbacks():
    net, X, y = problem()
    net.fit(X, y, epochs=1, verbose=0)
    calls = []
    history = net.fit(
        X,
        y,
        epochs=2,
        validation_data=0.2,
        callbacks=[Recorder("a", calls), Recorder("b", calls)],
        verbose=0,
    )
    assert [call[:3] for call in calls] == [
        ("a", "train begin"),
        ("b", "train begin"),
        ("a", "begin", 1),
        ("b", "begin", 1),
        ("a", "end", 1),
        ("b", "end", 1),
        ("a", "begin", 2),
        ("b", "begin", 2),
        ("a", "end", 2),
        ("b", "end", 2),
        ("a", "train end"),
        ("b", "train end"),
    ]
    logs = [call[3] for call in calls if call[:2] == ("a", "end")]
    for row in (0, 1):
        assert logs[row] == {name: column[row] for name, column in history.items()}
    assert list(logs[0]) == [
        "loss",
        "accuracy",
        "learning_rate",
        "seconds",
        "rows_per_second",
        "val_loss",
        "val_accuracy",
    ]


def test_one_callback_needs_no_list():
    net, X, y = problem()
    calls = []
    net.fit(X, y, epochs=1, callbacks=Recorder("a", calls), verbose=0)
    assert len(calls) == 4


def test_a_callback_sees_and_may_change_the_parameters():
    class Freeze(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            net.weights[0][...] = 0.5
            logs.clear()  # its own copy

    net, X, y = problem()
    calls = []
    history = net.fit(X, y, epochs=2, callbacks=[Freeze(), Recorder("b", calls)], verbose=0)
    assert (net.weights[0] == 0.5).all()
    assert [call[3]["loss"] for call in calls if call[1] == "end"] == history["loss"]


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_callback_that_raises_stops_training(hook, threads):
    class Stop(fb.Callback):
        pass

    def fail(self, net, epoch=1, logs=None):
        if epoch == 1:
            raise LookupError("enough")

    setattr(Stop, hook, fail)
    net, X, y = problem()
    before = threading.active_count()
    with pytest.raises(LookupError, match="enough"):
        net.fit(X, y, epochs=5, callbacks=[Stop()], threads=threads, verbose=0)
    assert threading.active_count() == before
    done = {"on_train_begin": 0, "on_epoch_begin": 1, "on_epoch_end": 2}[hook]
    assert net.history.epoch == list(range(done))
    assert np.isfinite(net.get_parameters()).all()
    history = net.fit(X, y, epochs=1, threads=threads, verbose=0)
    assert history.epoch == [done]


# ---------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_divergence(dtype, threads):
    net, X, y = problem("mse", "identity", dtype)
    net.fit(X, y, epochs=2, batch_size=5, optimizer=fb.SGD(0.01), verbose=0)
    before = bits(net)
    with pytest.raises(
        fb.DivergenceError, match=r"the loss became (inf|nan) in step \d+ of epoch 2\b.*Try a small"
    ):
        net.fit(X, y, 5, 1, fb.SGD(1e12, momentum=0.9), threads=threads, verbose=0)
    np.testing.assert_array_equal(bits(net), before)
    assert net.history.epoch == [0, 1]
    history = net.fit(X, y, epochs=1, optimizer=fb.SGD(0.01), verbose=0)
    assert np.isfinite(history["loss"]).all()


def test_divergence_keeps_the_good_epochs():
    def rate(step):
        return 0.01 if step < 10 else 1e200

    net, X, y = problem("mse", "identity")
    good = copy.deepcopy(net)
    good.fit(X, y, epochs=2, batch_size=5, optimizer=fb.SGD(0.01), verbose=0)
    with pytest.raises(fb.DivergenceError, match="step 1 of epoch 2"):
        net.fit(X, y, epochs=9, batch_size=5, optimizer=fb.SGD(rate), verbose=0)
    np.testing.assert_array_equal(bits(net), bits(good))
    assert net.history["loss"] == good.history["loss"]


def test_a_schedule_that_fails_later_leaves_the_optimizer_as_it_is():
    def rate(step):
        return 0.01 if step < 10 else -1.0

    net, X, y = problem()
    good = copy.deepcopy(net)
    optimizer = fb.Adam(rate)
    with pytest.raises(ValueError, match="rate of step 10 must be a number >= 0, got -1"):
        net.fit(X, y, epochs=9, batch_size=5, optimizer=optimizer, verbose=0)
    good.fit(X, y, epochs=2, batch_size=5, optimizer=optimizer, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(good))
    assert net._state.steps == 10
    assert net._state.optimizer is optimizer


def test_divergence_in_the_last_step_of_an_epoch():
    net, X, y = problem("mse", "identity")
    before = bits(net)
    with pytest.raises(
        fb.DivergenceError, match=r"weights\[0\]\[0, 0\] became infinite or NaN in epoch 0"
    ):
        net.fit(X * 1e10, y, epochs=2, batch_size=N, optimizer=fb.SGD(1e308), verbose=0)
    np.testing.assert_array_equal(bits(net), before)


def test_divergence_of_a_step():
    net, X, y = problem("mse", "identity")
    net.train_step(X, y, fb.SGD(0.01, momentum=0.9))
    before = bits(net)
    with pytest.raises(fb.DivergenceError, match=r"the step diverged.*as they were"):
        net.train_step(X * 1e10, y, fb.SGD(1e308))
    np.testing.assert_array_equal(bits(net), before)
    assert np.isfinite(net.train_step(X, y, fb.SGD(0.01, momentum=0.9)))


# ------------------------------------------------------------------------------------- dropout


DROPOUT = [
    fb.Dropout(0.2),
    fb.Dense(9, 17, "softplus"),
    fb.Dropout(0.5),
    fb.Dense(17, 33, "relu"),
    fb.Dense(33, 8, "tanh"),
    fb.Dropout(0.9),
    fb.Dense(8, 3),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_masks_forward_and_backward(threads, dtype):
    # With seed 1 a bias is 1e-6 off in float32: large terms cancel, ten times as large by dropout.
    net, X, y = problem(layers=DROPOUT, dtype=dtype, seed=2)
    twin, same = reference_of(net), reference_optimizer(fb.SGD(0.1))
    orders = [epoch_order(net, epoch, N, 5) for epoch in (0, 1)]
    history = net.fit(X, y, 2, 5, fb.SGD(0.1), threads=threads, verbose=0)
    losses = np.zeros(2)
    for epoch, order in enumerate(orders):
        for step, (x, t) in enumerate(in_batches(X, y, order, 5)):
            masks = dropout_masks(net, epoch, step, len(x))
            losses[epoch] += len(x) * twin.train_step(x, t, same, masks=masks) / N
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    assert_close(history["loss"], losses, tolerance)
    assert_same_parameters(net, twin, tolerance)


def test_dropout_in_train_step():
    net, X, y = problem(layers=DROPOUT)
    twin, same = reference_of(net), reference_optimizer(fb.Adam(0.01))
    for step in range(3):
        masks = dropout_masks(net, -1 - step, 0, N)  # never those of an epoch of fit
        expected = twin.train_step(X, y, same, masks=masks)
        assert_close(net.train_step(X, y, fb.Adam(0.01)), expected, 1e-10)
    assert_same_parameters(net, twin)


def test_dropout_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, 9)), rng.integers(0, 3, N)
    losses = []
    for seed in (0, 0, 1):
        net = fb.Network(DROPOUT, loss="cross_entropy", random_state=seed)
        net.set_parameters(np.linspace(-1, 1, net.n_parameters))
        losses.append(net.fit(X, y, epochs=2, shuffle=False, verbose=0)["loss"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert losses[0][0] != net.loss(X, y)


def test_dropout_keeps_the_mean_and_the_share():
    n, rate = 1000, 0.3
    net = fb.Network([fb.Dropout(rate), fb.Dense(100, 1)], loss="mse", random_state=0)
    masks = dropout_masks(net, 0, 0, n)[0]
    share = np.mean(masks == 0)
    deviation = np.sqrt(rate * (1 - rate) / masks.size)
    assert abs(share - rate) < 5 * deviation
    assert set(np.unique(masks)) == {0.0, 1 / (1 - rate)}
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize("rate", [0.0, 1e-11])
def test_dropout_of_next_to_no_rate_changes_nothing(rate):
    """The smaller rate would drop less than one of 2³³ values, and bits for that there are not."""
    dense = fb.Dense(9, 8, "tanh"), fb.Dense(8, 3)
    net, X, y = problem(layers=[fb.Dropout(rate), dense[0], fb.Dropout(rate), dense[1]])
    plain, _, _ = problem(layers=[fb.Dense(9, 8, "tanh"), fb.Dense(8, 3)])
    for network in (net, plain):
        network.fit(X, y, epochs=2, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_array_equal(bits(net), bits(plain))


# --------------------------------------------------------------------- threads and interruption


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_threads_do_not_outlive_fit(threads):
    net, X, y = problem()
    before = threading.enumerate()
    seen = []

    class Count(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            seen.append(threading.active_count() - len(before))

    net.fit(X, y, epochs=2, threads=threads, callbacks=[Count()], verbose=1)
    assert threading.enumerate() == before
    assert seen == [(threads or 1) - 1] * 2  # of short work the caller does a share


def test_one_network_is_trained_by_one_thread_at_a_time():
    net, X, y = problem()
    errors = []

    class Meddle(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            def attempt(call):
                try:
                    call(X, y)
                except RuntimeError as error:
                    errors.append(str(error))

            for call in (net.fit, net.train_step):
                other = threading.Thread(target=attempt, args=(call,))
                other.start()
                other.join()
            net.predict(X)  # asking is allowed

    net.fit(X, y, epochs=1, callbacks=[Meddle()], verbose=0)
    assert len(errors) == 2
    assert all("being trained: by another thread, by the fit" in text for text in errors)
    net.fit(X, y, epochs=1, verbose=0)


def test_two_networks_train_at_once():
    nets = [problem()[0] for _ in range(3)]
    _, X, y = problem()
    jobs = [
        threading.Thread(
            target=net.fit,
            args=(X, y),
            kwargs={"epochs": 20, "threads": 2, "verbose": 0, "shuffle": False},
        )
        for net in nets[1:]
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    nets[0].fit(X, y, epochs=20, shuffle=False, verbose=0)
    for net in nets[1:]:
        np.testing.assert_array_equal(bits(net), bits(nets[0]))


INTERRUPTED = textwrap.dedent(
    """
    import sys
    import threading

    import numpy as np

    import fastbackprop as fb

    rows, threads = int(sys.argv[1]), int(sys.argv[2])
    net = fb.Network([512, 1024, 1024, 10], "relu", "cross_entropy", random_state=0)
    # One row repeated without memory, so that an epoch can be as long as we like.
    X = np.broadcast_to(np.arange(512, dtype=np.uint8), (rows, 512))
    y = np.zeros(rows, np.uint8)
    options = {"optimizer": fb.SGD(1e-6), "shuffle": False, "verbose": 0}

    def announce(before):
        while np.array_equal(net.biases[-1], before):
            pass
        print("training", flush=True)

    net.fit(X[:10], y[:10], epochs=1, **options)
    watcher = threading.Thread(target=announce, args=(net.biases[-1].copy(),))
    watcher.start()
    try:
        net.fit(X, y, epochs=10**6, threads=threads, **options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    watcher.join()
    assert threading.active_count() == 1
    assert np.isfinite(net.get_parameters()).all()
    if rows > 10**6:
        assert net.history.epoch == [0]
    epochs = len(net.history.epoch)
    net.fit(X[:10], y[:10], epochs=1, threads=threads, verbose=0)
    assert len(net.history.epoch) == epochs + 1
    print("usable", flush=True)
    """
)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [10, 10**7], ids=["short epochs", "one endless epoch"])
def test_ctrl_c(rows, threads):
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(rows), str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "training\n", process.stderr.read()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert output == "interrupted\nusable\n", errors
    assert process.returncode == 0
    assert errors == ""


# ------------------------------------------------------------------------------------- progress


def test_nothing_is_printed_without_a_terminal(capfd):
    net, X, y = problem()
    net.fit(X, y, epochs=2, verbose=1)
    net.fit(X, y, epochs=2, verbose=0)
    assert capfd.readouterr() == ("", "")


WATCHED = textwrap.dedent(
    """
    import numpy as np

    import fastbackprop as fb

    rng = np.random.default_rng(0)
    net = fb.Network([4, 3, 2], loss="cross_entropy", random_state=0)
    X, y = rng.random((20, 4)), rng.integers(0, 2, 20)
    net.fit(X, y, epochs=3, validation_data=0.2)
    net.fit(X, y, epochs=3, verbose=0)
    """
)


def test_a_bar_in_a_terminal():
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    import fcntl
    import struct
    import termios

    columns = 140
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED], stdout=subprocess.PIPE, stderr=end, text=True
    )
    os.close(end)
    received = b""
    while chunk := _read(terminal):
        received += chunk
    os.close(terminal)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert output == ""
    assert received.endswith(b"\r\n")
    states = received.decode().strip().split("\r")
    assert states[-1].startswith("epochs: 100%|")
    assert "3/3" in states[-1]
    for name in ("loss=", "accuracy=", "val_loss=", "val_accuracy="):
        assert name in states[-1]
    assert all(len(state) <= columns for state in states)


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_an_order_that_a_callback_changes():
    """The kernels follow a copy: a row number beyond the data would be read as an address."""
    X, y = np.eye(4), np.arange(4)
    order = np.arange(4)

    def spoil(epoch, logs):
        order[:] = 10**12

    first, second = (fb.Network([4, 4], loss="cross_entropy", random_state=0) for _ in range(2))
    first.fit(X, y, 3, 2, shuffle=np.arange(4), verbose=0)
    callback = fb.LambdaCallback(on_epoch_end=lambda net, epoch, logs: spoil(epoch, logs))
    second.fit(X, y, 3, 2, shuffle=order, callbacks=[callback], verbose=0)
    np.testing.assert_array_equal(second.get_parameters(), first.get_parameters())
