"""Threads, forks and other processes: right results or a clear refusal, and nothing hangs."""

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import traceback

import numpy as np
import pytest
from comparison import bits
from numba.core.compiler_lock import global_compiler_lock

import fastbackprop as fb
from fastbackprop import cores, division
from fastbackprop.plan import Plan

SEEDS = range(4)

rng = np.random.default_rng(0)
X = rng.standard_normal((300, 20)).astype(np.float32)
Y = rng.integers(0, 5, 300)

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def make_network(seed=0):
    return fb.Network([20, 16, 5], "relu", "cross_entropy", random_state=seed)


def train(net, epochs=2, threads=2, callbacks=()):
    net.fit(X, Y, epochs, 32, threads=threads, callbacks=callbacks, verbose=0)
    return bits(net)


def train_new(seed):
    """A whole life of a network: (its parameters, its outputs, those of a few rows)."""
    net = make_network(seed)
    return train(net, threads=1 + seed % 3), net.predict(X), net.predict(X[:3])


def assert_all_equal(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        for actual, other in zip(result, wanted, strict=True):
            np.testing.assert_array_equal(actual, other)


@pytest.fixture
def impatient():
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# ------------------------------------------------------------------------------------- threads


def test_threads_train_networks_of_their_own(impatient):
    expected = [train_new(seed) for seed in SEEDS]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(train_new, [*SEEDS] * 4))
    assert_all_equal(results, expected * 4)


def test_threads_ask_one_network(impatient):
    net = make_network()
    counts = (1, 2, 17, 300)
    queries = [X.astype(kind)[:n] for n in counts for kind in ("f4", "f8")]

    def ask(_=None):
        answers = []
        for rows in queries:
            y = Y[: len(rows)]
            loss, gradients = net.loss_and_gradients(rows, y)
            answers += [net.predict(rows), net.loss(rows, y), loss, gradients[0][0]]
        return answers

    expected = ask()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(ask, range(30)))
    assert_all_equal(results, [expected] * 30)


def test_a_bad_row_in_one_thread_is_no_other_threads(impatient):
    net = make_network()
    bad = X[:2].copy()
    bad[1, 3] = np.nan
    expected = net.predict(X[:2])

    def ask(number):
        if number % 2:
            with pytest.raises(ValueError, match=r"X contains nan at \[1, 3\]"):
                net.predict(bad)
        else:
            np.testing.assert_array_equal(net.predict(X[:2]), expected)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(400)))


def test_a_table_of_layers_is_not_replaced_by_another_thread():
    """Each store of the table for one call is followed by that of another thread's call."""

    class Disturbed(Plan):
        @property
        def _workspace(self):
            return vars(self).get("latest")

        @_workspace.setter
        def _workspace(self, latest):
            vars(self)["latest"] = latest and (9, self._lay_out(9))

    plan = make_network()._state.plan
    expected = plan.workspace(50)[1:]
    plan.__class__ = Disturbed
    plan.workspace(9)
    assert plan.workspace(50)[1:] == expected


class Pause(fb.Callback):
    """Stands still after the first epoch until it is told to go on."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()

    def on_epoch_end(self, net, epoch, logs):
        self.reached.set()
        assert self.go_on.wait(60)


@pytest.fixture
def in_training():
    """A network that another thread is training, and what that thread returns."""
    net, pause = make_network(), Pause()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(train, net, callbacks=[pause])
        assert pause.reached.wait(60)
        yield net, lambda: (pause.go_on.set(), future.result(60))[1]
        pause.go_on.set()


def test_one_network_is_not_trained_by_two_threads(in_training):
    net, finish = in_training
    batches = iter([(X, Y), (X, Y)])
    for again in (
        lambda: train(net),
        lambda: net.fit(batches, steps_per_epoch=1, epochs=1, verbose=0),
        lambda: net.train_step(X, Y),
        lambda: net.freeze(0),
        lambda: net.unfreeze(),
    ):
        with pytest.raises(RuntimeError, match=r"is being trained: .* train a copy: net.clone\(\)"):
            again()
    assert len(list(batches)) == 2
    assert net.predict(X).shape == (300, 5)
    train(net.clone())
    np.testing.assert_array_equal(finish(), train(make_network()))
    train(net)  # now it can be trained again


def test_a_callback_cannot_train_its_network():
    class Again(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            net.train_step(X, Y)

    net = make_network()
    with pytest.raises(RuntimeError, match="by the fit that called this callback"):
        train(net, callbacks=[Again()])
    train(net)


def test_asking_while_another_thread_trains(impatient):
    net, expected = make_network(), train(make_network(), epochs=30)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(train, net, epochs=30)
        while not future.done():
            assert np.isfinite(net.predict(X[:2])).all()
        np.testing.assert_array_equal(future.result(), expected)


# --------------------------------------------------------------------------------------- forks


def exit_code(work):
    """The exit code of a forked child that does some work: 0 if nothing was raised or hung."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs is killed
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
def test_a_fork_after_use():
    net, twin = make_network(), make_network()
    for each in (net, twin):
        train(each)
        each.predict(X[:2])  # leaves a prepared call
    expected = train(twin), twin.predict(X[:2])

    def work():
        assert_all_equal([(train(net), net.predict(X[:2]))], [expected])
        assert_all_equal([train_new(1)], [in_parent])

    in_parent = train_new(1)
    assert exit_code(work) == 0
    assert_all_equal([(train(net), net.predict(X[:2]))], [expected])


@forks
def test_a_fork_while_another_thread_trains(in_training):
    net, finish = in_training

    def work():
        with pytest.raises(RuntimeError, match="or when this process was forked"):
            train(net)
        train(net.clone())
        net.predict(X)

    assert exit_code(work) == 0
    np.testing.assert_array_equal(finish(), train(make_network()))


@forks
def test_a_fork_within_a_callback():
    """Both processes go on with the same training; the child has to begin a new team."""
    expected = train(make_network(), epochs=3)

    class Fork(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            if epoch == 0:
                self.child = os.fork()
                if self.child == 0:
                    signal.alarm(60)  # a child that hangs is killed

    def work():
        fork = Fork()
        result = train(make_network(), epochs=3, callbacks=[fork])
        np.testing.assert_array_equal(result, expected)
        if fork.child:
            assert os.waitpid(fork.child, 0)[1] == 0

    assert exit_code(work) == 0


@forks
def test_a_fork_waits_until_no_thread_compiles():
    ended = threading.Event()

    def compile_on():
        while not ended.is_set():
            with global_compiler_lock:
                sum(range(10_000))

    def work():
        assert global_compiler_lock._lock.acquire(blocking=False)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(compile_on)
        codes = [exit_code(work) for _ in range(10)]
        ended.set()
        future.result()
    assert codes == [0] * 10


# ----------------------------------------------------------------------------- start methods


def go_on_training(net):
    return train(net), net.predict(X[:2])


def available_threads(_=None):
    return cores.available_threads()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_methods(method):
    net = make_network()
    train(net)
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        results = [pool.submit(train_new, 1), pool.submit(go_on_training, net)]
        results = [future.result(120) for future in results]
    assert_all_equal(results, [train_new(1), go_on_training(net)])


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend):
    joblib = pytest.importorskip("joblib")
    parallel = joblib.Parallel(2, backend=backend, timeout=120)
    results = parallel(joblib.delayed(train_new)(seed) for seed in (0, 1))
    assert_all_equal(results, [train_new(0), train_new(1)])


def test_the_number_of_threads_can_be_bounded(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)
    monkeypatch.setattr(cores.config, "NUMBA_NUM_THREADS", 100)
    assert cores.available_threads() == 48
    monkeypatch.setattr(cores.config, "NUMBA_NUM_THREADS", 3)
    assert cores.available_threads() == 3
    plan = fb.Network([1000, 1000, 1000])._state.plan
    assert division.training_threads(None, plan, 10_000) <= 3
    assert division.call_threads(None, plan, 10_000) <= 3


def test_a_short_epoch_is_left_to_one_thread(monkeypatch):
    monkeypatch.setattr(division, "available_threads", lambda: 2)
    monkeypatch.setattr(division, "VECTOR_BITS", 512)
    plan = fb.Network([4, 32, 16, 4])._state.plan
    assert division.epoch_threads(None, plan, 10_000, 10_000) == 1
    assert division.epoch_threads(None, plan, 10_000, 50_000) == 2
    assert division.epoch_threads(3, plan, 1000, 1000) == 3


def test_joblib_shares_the_cores():
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        assert joblib.Parallel()(joblib.delayed(available_threads)() for _ in range(2)) == [1, 1]
