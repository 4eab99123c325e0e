"""Epochs that are taken together, in one call of the kernel, are those taken one by one."""

import copy
import textwrap

import numpy as np
import pytest
from comparison import bits
from interruption import run

import fastbackprop as fb
from fastbackprop import epochs, job
from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.data import Targets, TrainingData
from fastbackprop.epochs import Epochs
from fastbackprop.schedules import CosineDecay
from fastbackprop.sources import ArraySource

CASES = {
    "few rows": {},
    "more rows than a series has": {"n": 530, "batch": 100},
    "a step an epoch": {"n": 21, "batch": 21},
    "chunks": {"n": 1100, "batch": 1100},
    "chunks and a rest": {"n": 2300, "batch": 1100},
    "in order": {"shuffle": False},
    "in an order of the caller's": {"shuffle": np.arange(37)[::-1]},
    "dropout": {"layers": [fb.Dense(5, 17, "tanh"), fb.Dropout(0.3), fb.Dense(17, 3)]},
    "dropout of a batch of all rows": {
        "layers": [fb.Dropout(0.3), fb.Dense(5, 17, "tanh"), fb.Dense(17, 3)],
        "n": 21,
        "batch": 21,
    },
    "momentum": {"optimizer": fb.SGD(0.1, momentum=0.9)},
    "plain": {"optimizer": fb.SGD(0.1)},
    "a schedule": {"optimizer": fb.Adam(CosineDecay(0.01, 30))},
    "the norm clipped": {"optimizer": fb.Adam(clip_norm=0.01)},
    "weights": {"weights": np.random.default_rng(1).random(37)},
}


class Unwatched(fb.Callback):
    """Does nothing, but an epoch must end for it."""


def fit_of(
    layers=(5, 17, 3),
    n=37,
    batch=5,
    shuffle=True,
    optimizer=None,
    weights=None,
    threads=None,
):
    """A network and what trains it; n_epochs and callbacks are still to be given."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, 5)), rng.integers(0, 3, n)
    net = fb.Network(list(layers), loss="cross_entropy", random_state=3)
    options = {
        "batch_size": batch,
        "optimizer": optimizer or fb.Adam(0.01),
        "shuffle": shuffle,
        "sample_weight": weights,
        "threads": threads,
        "verbose": 0,
    }
    return net, lambda net, n_epochs, **more: net.fit(X, y, n_epochs, **options, **more)


@pytest.fixture
def calls(monkeypatch):
    """Epochs however long are taken together; the numbers of steps that calls take."""
    taken = []
    point = job.Job.run

    def counted(asked, thread):
        point(asked, thread)
        if thread == 0:
            taken.append(asked.steps_done)

    monkeypatch.setattr(epochs, "_TOGETHER_SECONDS", 1e9)
    monkeypatch.setattr(job.Job, "run", counted)
    return taken


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_together_they_are_those_one_by_one(case, threads, calls):
    net, fit = fit_of(**case, threads=threads)
    twin = copy.deepcopy(net)
    # The first of a call is alone, and the next are more than a series of orders.
    history = [fit(net, 1), fit(net, 70)]
    assert max(calls) > min(calls)
    for part in history:
        expected = fit(twin, len(part.epoch), callbacks=[Unwatched()])
        np.testing.assert_array_equal(part["loss"], expected["loss"])
        np.testing.assert_array_equal(part["accuracy"], expected["accuracy"])
        np.testing.assert_array_equal(part["learning_rate"], expected["learning_rate"])
    np.testing.assert_array_equal(bits(net), bits(twin))
    assert net.history.epoch == twin.history.epoch == list(range(71))
    assert net._state.steps == twin._state.steps
    assert min(net.history["seconds"]) > 0
    n = case.get("n", 37)
    rows = np.multiply(net.history["seconds"], net.history["rows_per_second"])
    np.testing.assert_allclose(rows, n)


def test_they_are_one_call(calls):
    net, fit = fit_of(threads=1)
    fit(net, 50)
    steps = -(-37 // 5)
    assert calls == [steps, 49 * steps]


def test_they_end_one_by_one_where_something_looks(calls):
    net, fit = fit_of(threads=1)
    fit(net, 4, callbacks=[Unwatched()])
    fit(net, 4, validation_data=(np.zeros((2, 5)), [0, 1]))
    assert max(calls) <= -(-37 // 5)


def test_they_are_no_longer_than_ctrl_c_may_wait(calls, monkeypatch):
    monkeypatch.setattr(epochs, "short_rows", lambda plan: 40 * 4)
    net, fit = fit_of(threads=1)
    fit(net, 10)
    assert calls == [8 * k for k in (1, 4, 4, 1)]


def test_those_of_a_large_network_end_one_by_one(calls, monkeypatch):
    net, fit = fit_of(threads=1)
    monkeypatch.setattr(epochs, "_TOGETHER_BYTES", net._state.params.nbytes - 1)
    fit(net, 3)
    assert calls == [8] * 3
    monkeypatch.setattr(epochs, "_TOGETHER_BYTES", net._state.params.nbytes)
    fit(net, 3)
    assert calls[3:] == [8, 16]


def test_those_that_diverge_end_as_one_by_one(calls):
    # The rate grows until the loss, which is squared, is infinite: in the middle of an epoch.
    def rate(step):
        return 0.01 * 3.0 ** max(0, step - 100)

    X = np.random.default_rng(0).normal(size=(37, 5))
    nets, messages = [], []
    for callbacks in ([], [Unwatched()]):
        net = fb.Network([5, 4, 2], "relu", "mse", random_state=0)
        net.fit(X, X[:, :2], 2, 5, fb.SGD(rate, momentum=0.5), callbacks=callbacks, verbose=0)
        with pytest.raises(fb.DivergenceError) as caught:
            net.fit(X, X[:, :2], 99, 5, fb.SGD(rate, momentum=0.5), callbacks=callbacks, verbose=0)
        nets.append(net)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert nets[0].history.epoch == nets[1].history.epoch
    assert len(nets[0].history.epoch) > 10
    np.testing.assert_array_equal(nets[0].history["loss"], nets[1].history["loss"])
    np.testing.assert_array_equal(bits(nets[0]), bits(nets[1]))
    assert nets[0]._state.epoch == nets[1]._state.epoch
    assert nets[0]._state.optimizer is None


def test_a_schedule_that_fails_leaves_the_epochs_before(calls):
    def rate(step):
        if step >= 100:
            raise LookupError(step)
        return 0.01

    nets = []
    for callbacks in ([], [Unwatched()]):
        net, fit = fit_of(optimizer=fb.Adam(rate))
        with pytest.raises(LookupError):
            fit(net, 99, callbacks=callbacks)
        nets.append(net)
    assert nets[0].history.epoch == nets[1].history.epoch == list(range(12))
    np.testing.assert_array_equal(bits(nets[0]), bits(nets[1]))
    assert nets[0]._state.steps == nets[1]._state.steps == 12 * 8


def test_the_order_of_one_epoch_is_not_copied():
    data = TrainingData(np.zeros((37, 5)), Targets(None, np.zeros((37, 3)), SCORE_NONE), None)
    order = np.arange(37)
    source = ArraySource(data, 5, order)
    assert source.together(0, 0, 1).order is order
    np.testing.assert_array_equal(source.together(0, 0, 3).order, np.tile(order, 3))


def test_the_bar_counts_all_of_them(calls, capsys, monkeypatch):
    net, fit = fit_of()
    advanced = []
    monkeypatch.setattr(
        "fastbackprop.progress.Silent.advance",
        lambda bar, logs, epochs=1: advanced.append((epochs, logs)),
    )
    history = fit(net, 20)
    assert sum(count for count, _ in advanced) == 20
    assert advanced[-1][1] == history.last


AT_EACH_LINE = textwrap.dedent(
    """
    # Interrupts epochs that are taken together, at each line in turn.
    import copy
    import sys
    import threading

    import numpy as np
    from interruption import InterruptAt

    import fastbackprop as fb
    from fastbackprop import epochs

    epochs._TOGETHER_SECONDS = 1e9
    threads = int(sys.argv[1])
    start = fb.Network([3, 40, 2], loss="cross_entropy", random_state=0)
    X, y = np.eye(3), np.array([0, 1, 1])
    momentum = fb.SGD(0.1, momentum=0.9)
    options = dict(shuffle=False, verbose=0)
    twin, states = copy.deepcopy(start), []
    for _ in range(9 * 3):
        states.append(twin.get_parameters().tobytes())
        row = len(states) % 3 - 1
        twin.train_step(X[row : row + 1 or None], y[row : row + 1 or None], momentum)

    lines, completed, counts = 0, False, set()
    while not completed:
        net = copy.deepcopy(start)
        try:
            with InterruptAt(lines):
                net.fit(X, y, 6, 1, momentum, threads=threads, **options)
            completed = True
        except KeyboardInterrupt:
            lines += 1
        assert threading.active_count() == 1
        steps = net._state.steps
        assert states[steps] == net.get_parameters().tobytes(), lines
        assert net.history.epoch == list(range(len(net.history.epoch))), lines
        assert len(net.history.epoch) <= net._state.epoch <= steps // 3, lines
        counts.add(len(net.history.epoch))
        assert net.fit(X, y, 1, 1, momentum, **options).epoch[0] == net._state.epoch - 1
        assert {len(column) for column in net.history.values()} == {len(net.history.epoch)}, lines
    print(lines, sorted(counts))
    """
)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_at_any_line(threads):
    lines, counts = run(AT_EACH_LINE, threads).split(maxsplit=1)
    assert int(lines) > 100
    assert counts.strip() == "[0, 1, 6]"


def test_a_stop_within_them_keeps_those_that_are_whole(monkeypatch, calls):
    net, fit = fit_of(threads=1)
    fit(net, 1)
    take = Epochs._take_some

    def some(running, first, last, batch):
        done = take(running, first, min(last, first + 30), batch)
        if first + done >= 60:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Epochs, "_take_some", some)
    with pytest.raises(KeyboardInterrupt):
        fit(net, 50)
    monkeypatch.undo()
    # The first epoch has 8 steps; of those together 60 were taken, which are 7 epochs and a half.
    assert net.history.epoch == list(range(9))
    assert net._state.epoch == 9
    assert net._state.steps == 8 + 8 + 60
    twin, fit = fit_of(threads=1)
    assert fit(twin, 9)["loss"] == net.history["loss"]
