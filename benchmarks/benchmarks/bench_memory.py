"""Peak memory of training on bytes, which are never copied whole to float."""

import numpy as np

import fastbackprop as fb


class Training:
    params = [[1_000, 60_000], ["sgd", "adam"]]
    param_names = ["rows", "optimizer"]

    def setup(self, rows, optimizer):
        rng = np.random.default_rng(0)
        self.X = rng.integers(0, 256, (rows, 784), dtype=np.uint8)
        self.y = rng.integers(0, 10, rows)

    def peakmem_fit(self, rows, optimizer):
        layers = [fb.Rescaling(1 / 255), fb.Dense(784, 128, "relu"), fb.Dense(128, 10)]
        net = fb.Network(layers, loss="cross_entropy", random_state=0)
        history = net.fit(self.X, self.y, epochs=1, batch_size=64, optimizer=optimizer, verbose=0)
        z = np.maximum(self.X[:20] / 255.0 @ net.weights[0] + net.biases[0], 0)
        z = z @ net.weights[1] + net.biases[1]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        expected = p / p.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(net.predict(self.X[:20]), expected, atol=1e-4)
        assert np.isfinite(history["loss"]).all()
