"""Memory stays flat over many fits, predictions, failures, copies and files in one process.

FASTBACKPROP_LONG_RUN is for how many seconds; an hour where FASTBACKPROP_FULL is set.
"""

import gc
import os
import pickle
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

import fastbackprop as fb

FULL = "FASTBACKPROP_FULL" in os.environ
SECONDS = float(os.environ.get("FASTBACKPROP_LONG_RUN", 3600 if FULL else 2))
N_KINDS = 12  # rounds that differ; each has come once before the memory is looked at
OPTIMIZERS = [fb.SGD(0.01, momentum=0.9), fb.Adam(0.01), fb.RMSprop(0.01), fb.SGD(1, clip_norm=1)]


def one_round(number, folder):
    """All that a program may do with a network, for one of several shapes, types and teams."""
    rng = np.random.default_rng(number % N_KINDS)
    sizes = [int(rng.integers(1, 80)), int(rng.choice([3, 40, 300])), 3]
    dtype = ("float32", "float64")[number % 2]
    net = fb.Network(sizes, "relu", "cross_entropy", random_state=0, dtype=dtype)
    X, y = rng.random((100, sizes[0])), rng.integers(0, 3, 100)
    optimizer = OPTIMIZERS[number % 4]
    net.fit(X, y, 2, 16, optimizer, validation_data=0.2, threads=1 + number % 3, verbose=0)
    net.train_step(X, y, optimizer)
    for row in range(30):
        net.predict(X[row : row + 1])
    net.evaluate(X, y)
    net.loss_and_gradients(X, y)
    path = folder / "net.safetensors"
    net.save(path)
    for other in (fb.load(path), pickle.loads(pickle.dumps(net)), net.clone()):
        other.predict(X)
    with pytest.raises(ValueError, match="nan"):
        net.fit(np.full_like(X, np.nan), y, 1, verbose=0)
    path.write_bytes(b"damaged")
    with pytest.raises(fb.FileFormatError):
        fb.load(path)


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def measures():
    """Bytes in memory, bytes that Python's objects and arrays hold, and threads."""
    gc.collect()
    return np.array([resident(), tracemalloc.get_traced_memory()[0], threading.active_count()])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    tracemalloc.start()
    try:
        for number in range(N_KINDS):
            one_round(number, tmp_path)
        before, end, number = measures(), time.monotonic() + SECONDS, 0
        while time.monotonic() < end or number < 2 * N_KINDS:
            one_round(number, tmp_path)
            number += 1
            if number % 1000 == 0:
                print(f"{number} rounds: {measures() - before}", flush=True)
        grown, held, threads = measures() - before
    finally:
        tracemalloc.stop()
    print(f"{number} rounds: {grown:+} bytes in memory, {held:+} held by objects")
    assert held < 100_000
    assert grown < 5_000_000
    assert threads == 0
