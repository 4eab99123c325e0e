"""From the start of a process to a trained epoch of 1,000 images: cold, warm, and import alone."""

import os
import subprocess
import sys
import time

IMPORT = "import fastbackprop"
TRAIN = """
import numpy as np
import fastbackprop as fb
(X, y), _ = fb.datasets.load_mnist_small()
layers = [fb.Rescaling(1 / 255), fb.Dense(784, 128, "relu"), fb.Dense(128, 10)]
net = fb.Network(layers, loss="cross_entropy", random_state=0)
history = net.fit(X[:1000], y[:1000], epochs=1, batch_size=64, verbose=0)
z = np.maximum(X[:50] / 255.0 @ net.weights[0] + net.biases[0], 0) @ net.weights[1] + net.biases[1]
p = np.exp(z - z.max(1, keepdims=True))
assert np.allclose(net.predict(X[:50]), p / p.sum(1, keepdims=True), atol=1e-5)
"""


def process_seconds(code, cache):
    """Run a program in a new process that keeps compiled kernels in the folder `cache`."""
    # The same fastbackprop as here, installed or not.
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment = os.environ | paths | {"NUMBA_CACHE_DIR": cache}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - start


class Startup:
    timeout = 300

    def setup_cache(self):
        """Fill a folder with compiled kernels; return how long that took, and where it is."""
        cache = os.path.abspath("numba-cache")  # in a folder that asv removes
        cold = process_seconds(TRAIN, cache)
        return cold, cache

    def track_cold_compile(self, cold_and_cache):
        return cold_and_cache[0]

    def track_warm_start(self, cold_and_cache):
        return min(process_seconds(TRAIN, cold_and_cache[1]) for _ in range(3))

    def track_import(self, cold_and_cache):
        return min(process_seconds(IMPORT, cold_and_cache[1]) for _ in range(3))

    track_cold_compile.unit = track_warm_start.unit = track_import.unit = "s"
