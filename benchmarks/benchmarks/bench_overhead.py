"""What a call costs where there is next to nothing to compute: from Python, from compiled code."""

import time

import numpy as np

import fastbackprop as fb
from fastbackprop._kernels.jit import entry_point
from fastbackprop._kernels.run import run
from fastbackprop.probe import Probe

from .common import check, check_outputs


def tiny():
    """Return a network of 2, 2 and 1 units and four rows."""
    rng = np.random.default_rng(0)
    net = fb.Network([2, 2, 1], "tanh", "mse", random_state=0)
    X, y = rng.standard_normal((4, 2), dtype=np.float32), np.ones((4, 1), np.float32)
    check_outputs(net, X, "tanh")
    check(net.loss(X, y), np.mean((net.predict(X).astype(np.float64) - y) ** 2))
    return net, X, y


class FromPython:
    def setup(self):
        self.net, self.X, self.y = tiny()

    def time_predict(self):
        self.net.predict(self.X)

    def time_loss_and_gradients(self):
        self.net.loss_and_gradients(self.X, self.y)

    def time_construct(self):
        fb.Network([2, 2, 1], "tanh", "mse", random_state=0)


class StepFromPython:
    number = 1  # so that setup restores what each step changed

    def setup(self):
        self.net, self.X, self.y = tiny()
        self.net.train_step(self.X, self.y)

    def time_train_step(self):
        self.net.train_step(self.X, self.y)


class EpochFromPython:
    """An epoch of a step on four rows, among 10,000 that nothing comes between."""

    def setup(self):
        self.net, self.X, self.y = tiny()
        twin = self.net.clone()
        losses = [twin.train_step(self.X, self.y) for _ in range(100)]
        check(self.epochs(100)["loss"], losses)

    def epochs(self, count):
        """Train a copy, so that what is trained is always the same."""
        return self.net.clone().fit(self.X, self.y, epochs=count, batch_size=4, verbose=0)

    def track_microseconds(self):
        trials = []
        for _ in range(5):
            start = time.perf_counter()
            self.epochs(10_000)
            trials.append(time.perf_counter() - start)
        return 1e6 * sorted(trials)[2] / 10_000

    track_microseconds.unit = "µs"


@entry_point  # kept on disk: Numba compiles what it calls once more, into it
def run_times(job_address, times, like):
    for _ in range(times):
        run(job_address, 0, like)


class FromCompiledCode:
    """Loss and gradients of 200 rows through 24-8-2, and of four through 2-2-1."""

    params = [["24-8-2, 200 rows", "2-2-1, 4 rows"]]
    param_names = ["network"]
    timeout = 120

    def setup(self, network):
        self.net, X, y = tiny()
        if network.startswith("24"):
            rng = np.random.default_rng(0)
            self.net = fb.Network([24, 8, 2], "tanh", "mse", random_state=0)
            X = rng.standard_normal((200, 24), dtype=np.float32)
            y = rng.standard_normal((200, 2), dtype=np.float32)
            check_outputs(self.net, X, "tanh")
        self.probe = Probe(self.net._state, self.net._data(X, y, None), threads=1)
        expected = np.mean((self.net.predict(X).astype(np.float64) - y) ** 2)
        check(self.probe.differentiate(), expected)
        self.run_job(1)  # compiles

    def run_job(self, times):
        job = self.probe._job
        job.begin()
        run_times(job._address, times, np.float32(1))

    def track_microseconds(self, network):
        times = 2_000
        trials = []
        for _ in range(5):
            start = time.perf_counter()
            self.run_job(times)
            trials.append(time.perf_counter() - start)
        return 1e6 * sorted(trials)[2] / times

    track_microseconds.unit = "µs"
