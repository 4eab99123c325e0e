"""Epochs that are taken together, in one call of the kernel, are those taken one by one."""

import copy
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from comparison import bits, epoch_order
from interruption import run

import fastbackprop as fb
from fastbackprop import epochs, job
from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.data import Targets, TrainingData
from fastbackprop.division import chunks_of
from fastbackprop.epochs import Epochs
from fastbackprop.schedules import CosineDecay
from fastbackprop.sources import ArraySource

CASES = {
    "few rows": {},
    "the most rows of a series": {"n": 512, "batch": 100},
    "more rows than a series has": {"n": 513, "batch": 100},
    "a step an epoch": {"n": 21, "batch": 21},
    "the fewest rows of chunks": {"n": 1024, "batch": 1024},
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


def test_the_bar_counts_all_of_them(calls, monkeypatch):
    net, fit = fit_of()
    advanced = []
    monkeypatch.setattr(
        "fastbackprop.progress.Silent.advance",
        lambda bar, logs, epochs=1: advanced.append((epochs, logs)),
    )
    history = fit(net, 20)
    assert sum(count for count, _ in advanced) == 20
    assert advanced[-1][1] == {name: column[-1] for name, column in history.items()}
    assert [count for count, _ in advanced] == [1, 19]


def test_a_batch_of_all_rows_has_no_order():
    data = TrainingData(np.zeros((37, 5)), Targets(None, np.zeros((37, 3)), SCORE_NONE), None)
    assert ArraySource(data, 37, shuffle=True).together(0, 0, 3).order is None
    assert ArraySource(data, 36, shuffle=True).together(0, 0, 3).order is not None


@pytest.mark.parametrize("n", [2, 16, 17, 37, 512, 513])
def test_orders_follow_from_the_seed_and_the_epoch(n):
    data = TrainingData(np.zeros((n, 5)), Targets(None, np.zeros((n, 3)), SCORE_NONE), None)
    source = ArraySource(data, n - 1, shuffle=True)
    for epoch in (0, 1, 63, 64, 3):
        for seed in (0, 1):
            net = fb.Network([5, 3], random_state=0)
            net._state.seed = seed
            expected = epoch_order(net, epoch, n, n - 1)
            np.testing.assert_array_equal(source.together(seed, epoch, 1).order, expected)
            assert sorted(expected) == list(range(n))


def test_calls_stay_as_long_as_they_may_be(monkeypatch):
    now = [0.0]
    steps = []
    take = Epochs._take_some

    def timed(running, first, last, batch):
        done = take(running, first, last, batch)
        steps.append(done)
        now[0] += 1e-4 * done
        return done

    monkeypatch.setattr(Epochs, "_take_some", timed)
    monkeypatch.setattr(epochs, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    net, fit = fit_of(n=30, batch=10, threads=1)  # an epoch is 0.3 ms
    fit(net, 100)
    assert steps == [3, 99, 99, 99]


def test_the_number_of_threads_follows_from_what_a_call_takes(monkeypatch):
    monkeypatch.setattr("fastbackprop.division.available_threads", lambda: 2)
    net = fb.Network([4, 32, 16, 4], "tanh", "mse", random_state=0)
    X, y = np.zeros((1100, 4)), np.zeros((1100, 4))
    data = TrainingData(X, Targets(None, y, SCORE_NONE), None)
    source = ArraySource(data, 1100, shuffle=False)
    chosen = [Epochs(net._state, source, fb.SGD(), None, most).team.threads for most in (1, 50)]
    assert chosen == [1, 2]


def test_how_many_chunks_there_are():
    def chunks(rows, *layers):
        return chunks_of(fb.Network([*layers])._state.plan, rows)

    # 16 or 8 gradients in float32 must be no more than 512 KiB; rows are padded to 64 bytes.
    small, medium = [fb.Dense(127, 64)], [fb.Dense(255, 64)]
    assert [chunks(rows, *small) for rows in (1023, 1024)] == [0, 16]
    assert chunks(1024, fb.Dense(128, 64)) == chunks(1024, *medium) == 8
    assert chunks(1024, fb.Dense(256, 64)) == 0
    assert chunks(1024, fb.Dropout(0.5), *small) == 0


def test_another_thread_can_stop_them(monkeypatch):
    net, fit = fit_of(threads=1)
    run_several = Epochs.run_several

    def stopping(running, most, record):
        logs = run_several(running, most, record)
        net.stop_training = len(record.epoch) > 3
        return logs

    monkeypatch.setattr(Epochs, "run_several", stopping)
    monkeypatch.setattr(epochs, "_TOGETHER_SECONDS", 1e-9)
    assert len(fit(net, 50).epoch) == 4


@pytest.mark.parametrize("error", [TimeoutError, KeyboardInterrupt])
def test_what_a_handler_of_a_signal_raises_ends_training_at_once(error, calls, monkeypatch):
    net, fit = fit_of(threads=1)
    take, failures = Epochs._take_some, [error]

    def interrupted(running, first, last, batch):
        done = take(running, first, last, batch)
        if last > 8 and failures:
            raise failures.pop()
        assert failures or last == 8
        return done

    monkeypatch.setattr(Epochs, "_take_some", interrupted)
    with pytest.raises(error):
        fit(net, 50)
    monkeypatch.undo()
    twin, fit = fit_of(threads=1)
    assert fit(twin, 50)["loss"] == net.history["loss"]
    np.testing.assert_array_equal(bits(net), bits(twin))
    assert net._state.epoch == 50


def test_what_a_handler_raises_before_the_first_step_is_not_lost(calls, monkeypatch):
    net, fit = fit_of(threads=1)
    rates, failures = net._state.rates, [TimeoutError]

    def interrupted(optimizer, steps):
        if steps > 8 and failures:
            raise failures.pop()
        return rates(optimizer, steps)

    monkeypatch.setattr(net._state, "rates", interrupted)
    with pytest.raises(TimeoutError):
        fit(net, 50)
    assert net.history.epoch == list(range(50))


@pytest.mark.parametrize(
    ("clip_norm", "kind"),
    [(1.0, "the loss became inf"), (None, r"weights\[0\]\[0, 0\] became infinite")],
)
def test_what_is_not_finite_only_once_is_found(clip_norm, kind, calls):
    """A loss, of parameters that are finite; or parameters, by the last step of all."""
    X, y = np.full((4, 1), 1.0), np.zeros((4, 1))
    rate = 1e200 if clip_norm else 1e308

    def rates(step):
        return rate if step == (30 if clip_norm else 39) else 1e-3

    histories = []
    for callbacks in ([], [Unwatched()]):
        net = fb.Network([1, 1], loss="mse", dtype="float64", random_state=0)
        net.weights[0][...] = 3.0
        optimizer = fb.SGD(rates, clip_norm=clip_norm)
        with pytest.raises(fb.DivergenceError, match=kind):
            net.fit(X, y, 20, 2, optimizer, callbacks=callbacks, shuffle=False, verbose=0)
        histories.append((net.history.epoch, net.history["loss"], bits(net).tolist()))
    assert histories[0] == histories[1]
    assert len(histories[0][0]) == (15 if clip_norm else 19)


AT_EACH_LINE = textwrap.dedent(
    """
    # Interrupts epochs that are taken together, at each line in turn.
    import copy
    import sys
    import threading

    import numpy as np
    from interruption import FILES, FILES_OF_HISTORY, InterruptAt

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
            with InterruptAt(lines, files=(*FILES, *FILES_OF_HISTORY)):
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


DIVERGING = textwrap.dedent(
    """
    # Interrupts epochs that diverge when they are taken together, at each line in turn.
    import copy
    import sys

    import numpy as np
    from interruption import InterruptAt

    import fastbackprop as fb
    from fastbackprop import epochs

    epochs._TOGETHER_SECONDS = 1e9
    clip_norm = float(sys.argv[1]) or None
    start = fb.Network([3, 4, 2], "relu", "mse", random_state=0)
    X, y = np.ones((4, 3)), np.ones((4, 2))
    sgd = fb.SGD(lambda step: 0.01 if step < 20 else 1e30, momentum=0.9, clip_norm=clip_norm)
    lines, ended = 0, False
    while not ended:
        net = copy.deepcopy(start)
        try:
            with InterruptAt(lines):
                net.fit(X, y, 20, 2, sgd, verbose=0)
        except fb.DivergenceError:
            ended = True
        except KeyboardInterrupt:
            lines += 1
        assert np.isfinite(net.get_parameters()).all(), lines
        if net.history.epoch:
            assert np.isfinite(net.history["loss"]).all(), lines
            assert len(net.history["loss"]) == len(net.history.epoch) <= 11, lines
    print(lines)
    """
)


@pytest.mark.parametrize("clip_norm", [0, 1])
def test_ctrl_c_at_any_line_of_epochs_that_diverge(clip_norm):
    assert int(run(DIVERGING, clip_norm)) > 100


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


def test_rows_that_are_refused_undo_their_epoch(calls):
    """Those that someone changed to NaN, which only a schedule of the caller's does here."""
    nets = []
    for callbacks in ([], [Unwatched()]):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(37, 5)), rng.integers(0, 3, 37)

        def rate(step, X=X):
            if step == 100:
                X[3, 2] = np.nan
            return 0.01

        net = fb.Network([5, 17, 3], loss="cross_entropy", random_state=3)
        with pytest.raises(ValueError, match=r"X contains nan at \[3, 2\]"):
            net.fit(X, y, 99, 5, fb.Adam(rate), callbacks=callbacks, verbose=0)
        nets.append(net)
    together, one_by_one = nets
    # Rates are asked for ahead, so that the row is there earlier.
    done = len(together.history.epoch)
    assert done == 1
    assert together.history["loss"] == one_by_one.history["loss"][:done]
    assert len(one_by_one.history.epoch) == 12
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(37, 5)), rng.integers(0, 3, 37)
    twin = fb.Network([5, 17, 3], loss="cross_entropy", random_state=3)
    twin.fit(X, y, done, 5, fb.Adam(0.01), verbose=0)
    np.testing.assert_array_equal(bits(together), bits(twin))
