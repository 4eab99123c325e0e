"""One dense layer: its loss and its gradients, as one call from Python."""

import numpy as np

import fastbackprop as fb
from fastbackprop import machine
from fastbackprop.cores import available_threads

from .common import EFFORT, check, normal, share_of_peak


class Gradients:
    params = [[(64, 784, 128), (128, 512, 512), (1, 32, 32)], ["float32", "float64"]]
    param_names = ["n, n_in, n_out", "dtype"]

    def setup(self, shape, dtype):
        n, n_in, n_out = shape
        rng = np.random.default_rng(0)
        self.net = net = fb.Network([n_in, n_out], "identity", "mse", random_state=0, dtype=dtype)
        self.X, self.y = X, y = normal(rng, (n, n_in), dtype), normal(rng, (n, n_out), dtype)
        loss, [(dw, db)] = net.loss_and_gradients(X, y)
        error = X.astype(np.float64) @ net.weights[0] + net.biases[0] - y
        check(loss, np.mean(error**2), dtype)
        dz = 2 * error / error.size
        check(dw, X.astype(np.float64).T @ dz, dtype)
        check(db, dz.sum(axis=0), dtype)

    def time_loss_and_gradients(self, shape, dtype):
        self.net.loss_and_gradients(self.X, self.y)

    def track_share_of_peak(self, shape, dtype):
        seconds = machine.call_seconds(lambda: self.net.loss_and_gradients(self.X, self.y), EFFORT)
        return share_of_peak(2 * 2 * np.prod(shape), seconds, dtype, available_threads())

    track_share_of_peak.unit = "of the measured peak"
