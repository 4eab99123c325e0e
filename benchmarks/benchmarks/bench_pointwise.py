"""What is done to each element: activations of a wide layer, optimizers on many parameters."""

import numpy as np

import fastbackprop as fb

from .common import check, check_outputs, normal


class Activations:
    """Outputs of a network of two thin products and 1,024 activations a row."""

    params = [["relu", "sigmoid", "tanh", "softplus", "silu"], ["float32", "float64"]]
    param_names = ["activation", "dtype"]

    def setup(self, activation, dtype):
        self.net = fb.Network([2, 1024, 1], activation, "mse", random_state=0, dtype=dtype)
        self.X = normal(np.random.default_rng(0), (2000, 2), dtype)
        check_outputs(self.net, self.X[:100], activation)

    def time_predict(self, activation, dtype):
        self.net.predict(self.X)


class Optimizers:
    """A step on one row and a million weights, in which the update is nearly all the work."""

    params = [["sgd", "adam", "adamw", "rmsprop"]]
    param_names = ["optimizer"]
    number = 1  # so that setup restores what each step changed

    def setup(self, optimizer):
        self.net = fb.Network([1024, 1024], "identity", "mse", random_state=0)
        self.X, self.y = (normal(np.random.default_rng(i), (1, 1024), "float32") for i in (0, 1))
        error = self.X.astype(np.float64) @ self.net.weights[0] + self.net.biases[0] - self.y
        loss = self.net.train_step(self.X, self.y, optimizer)  # the state is there from now on
        check(loss, np.mean(error**2))

    def time_step(self, optimizer):
        self.net.train_step(self.X, self.y, optimizer)
