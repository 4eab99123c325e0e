"""The finite-difference check of all gradients of a network."""

import numpy as np

import fastbackprop as fb

from .common import check_outputs, normal


class Check:
    params = [["central", "richardson", "directional"], ["float32", "float64"]]
    param_names = ["method", "dtype"]

    def setup(self, method, dtype):
        if not hasattr(fb, "check_gradients"):
            raise NotImplementedError("this version has no check_gradients")
        rng = np.random.default_rng(0)
        self.net = fb.Network([10, 16, 4], "tanh", "mse", random_state=0, dtype=dtype)
        self.X, self.y = normal(rng, (20, 10), dtype), normal(rng, (20, 4), dtype)
        check_outputs(self.net, self.X, "tanh")
        assert fb.check_gradients(self.net, self.X, self.y, method=method).ok

    def time_check_gradients(self, method, dtype):
        fb.check_gradients(self.net, self.X, self.y, method=method)
