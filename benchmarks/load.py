"""How much load the package bears, as the Markdown table of the README.

    python benchmarks/load.py [--quick] [--rows predictions fits memmap large deep threads]

Each row is measured in a process of its own, on Linux. Its memory is what the process has for
itself (RssAnon in /proc/self/status, looked at every 5 ms and at the end), above what it had when
the package was imported and its kernels compiled. The pages of a mapped file are not in it: they
are the system's to drop. For `memmap` the system also has to refuse private memory beyond 1 GiB
(RLIMIT_DATA), all of the interpreter's included. All rows take about five minutes, 2 GB of
temporary files and 1 GB of memory; --quick takes a fiftieth of the work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastbackprop as fb

MB = 1e6


class Row(NamedTuple):
    """A line of the table."""

    load: str
    time: str
    memory: str


def private_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say how much memory is a process's own")


class Peak:
    """The most private memory within a block, in bytes above what there was at ``base``."""

    def __init__(self, base: int) -> None:
        self._base, self._most, self._ended = base, 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self._most = max(self._most, private_bytes())

    def __enter__(self) -> Peak:
        self._watcher.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self._ended.set()
        self._watcher.join()
        self._most = max(self._most, private_bytes())

    @property
    def bytes(self) -> int:
        """The result."""
        return self._most - self._base


def warm_up() -> int:
    """Compile, and return the private memory of a process that has."""
    net = fb.Network([4, 4], loss="mse", random_state=0)
    net.fit(np.ones((4, 4)), np.ones((4, 4)), 2, optimizer=fb.Adam(), threads=2, verbose=0)
    net.predict(np.ones((1, 4)))
    return private_bytes()


def again_and_again(call: Callable[[], object], times: int) -> tuple[float, int]:
    """Seconds of so many calls, and by how many bytes memory grew after the first tenth."""
    start = time.perf_counter()
    for _ in range(times // 10):
        call()
    before = private_bytes()
    for _ in range(times - times // 10):
        call()
    return time.perf_counter() - start, private_bytes() - before


def predictions(share: float) -> Row:
    """One sample at a time."""
    times = round(1_000_000 * share)
    net = fb.Network([784, 30, 10], random_state=0)
    x = np.random.default_rng(0).random((1, 784), np.float32)
    warm_up()
    seconds, grown = again_and_again(lambda: net.predict(x), times)
    return Row(
        f"{times:,} predictions of one sample, 784-30-10",
        f"{seconds:.0f} s ({seconds / times * 1e6:.1f} µs each)",
        f"{grown / MB:+.1f} MB after the first tenth",
    )


def fits(share: float) -> Row:
    """Networks that are made, trained and dropped."""
    times = round(10_000 * share)
    rng = np.random.default_rng(0)
    X, y = rng.random((256, 20), np.float32), rng.integers(0, 3, 256)
    warm_up()

    def fit() -> None:
        net = fb.Network([20, 32, 3], "relu", "cross_entropy", random_state=0)
        net.fit(X, y, 2, 32, validation_data=0.25, threads=2, verbose=0)

    seconds, grown = again_and_again(fit, times)
    return Row(
        f"{times:,} networks made and fitted, 20-32-3, 2 threads",
        f"{seconds:.0f} s ({seconds / times * 1e3:.2f} ms each)",
        f"{grown / MB:+.1f} MB after the first tenth",
    )


def memmap(share: float) -> Row:
    """Rows in a file that is larger than the memory allowed."""
    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
    n, n_in, part = round(5_000_000 * share), 100, 50_000
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder, "X.npy"), np.random.default_rng(0)
        X = np.lib.format.open_memmap(path, "w+", np.float32, (n, n_in))
        for start in range(0, n, part):
            X[start : start + part] = rng.random((min(part, n - start), n_in), np.float32)
        X.flush()
        del X
        X = np.load(path, mmap_mode="r")
        y = np.concatenate([X[at : at + part, :10].argmax(axis=1) for at in range(0, n, part)])
        net = fb.Network([n_in, 64, 10], "relu", "cross_entropy", random_state=0)
        warm_up()
        with Peak(0) as peak:
            history = net.fit(X, y, 1, 256, verbose=0)
        assert np.isfinite(history["loss"]).all()
        size = path.stat().st_size
    return Row(
        f"an epoch on {n:,} × {n_in} float32 rows in a memmap of {size / MB:,.0f} MB, shuffled",
        f"{peak.seconds:.1f} s",
        f"{peak.bytes / MB:.0f} MB at most in the whole process, under a limit of 1 GiB",
    )


def large(share: float) -> Row:
    """A network of very many parameters."""
    width = round(3536 * share**0.5)
    X = np.random.default_rng(0).random((64, width), np.float32)
    base = warm_up()
    net = fb.Network([width] * 5, "relu", "mse", random_state=0)
    size = net.n_parameters * 4
    with tempfile.TemporaryDirectory() as folder:
        with Peak(base) as adam:
            net.fit(X, X, 2, 32, fb.Adam(1e-5), verbose=0)
        with Peak(base) as saving:
            net.save(Path(folder, "net.safetensors"))
    return Row(
        f"{net.n_parameters:,} parameters ({size / MB:.0f} MB), Adam, and saved",
        f"{adam.seconds / 4:.2f} s a step of 32 rows, {saving.seconds:.1f} s to save",
        f"{adam.bytes / size:.2f} × the parameters to train, {saving.bytes / size:.2f} × to save",
    )


def deep(share: float) -> Row:
    """A network of very many layers."""
    n_layers, width = round(1000 * max(share, 0.1)), 64
    X = np.random.default_rng(0).random((64, width), np.float32)
    base = warm_up()
    with tempfile.TemporaryDirectory() as folder, Peak(base) as peak:
        net = fb.Network([width] * (n_layers + 1), "relu", "mse", random_state=0)
        net.train_step(X, X)
        net.save(Path(folder, "net.safetensors"))
        other = fb.load(Path(folder, "net.safetensors"))
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
    size = net.n_parameters * 4
    return Row(
        f"{n_layers:,} layers of {width} units: built, trained a step, saved, loaded",
        f"{peak.seconds:.2f} s",
        f"{peak.bytes / MB:.0f} MB at most, of which two networks are {2 * size / MB:.0f}",
    )


def threads(share: float) -> Row:
    """More threads than cores, and another process on one of them."""
    rng = np.random.default_rng(0)
    n = 2000 if share == 1 else 500
    X, y = rng.random((n, 784), np.float32), rng.integers(0, 10, n)
    cores = len(os.sched_getaffinity(0))
    counts = (1, cores, 2 * cores, 4 * cores)

    def epochs() -> list[float]:
        """Median seconds of an epoch for each number of threads."""
        result = []
        for count in counts:
            net = fb.Network([784, 128, 10], "relu", "cross_entropy", random_state=0)
            result.append(np.median(net.fit(X, y, 15, 64, threads=count, verbose=0)["seconds"]))
        return result

    warm_up()
    alone = epochs()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        beside = epochs()
    finally:
        other.kill()
        other.wait()
    listed = "/".join(map(str, counts))
    times = [" / ".join(f"{seconds * 1e3:.1f}" for seconds in each) for each in (alone, beside)]
    return Row(
        f"784-128-10, batch 64, {n:,} rows, by {listed} threads on {cores} cores",
        f"{times[0]} ms an epoch; beside a process that keeps a core busy {times[1]} ms",
        "",
    )


ROWS = {row.__name__: row for row in (predictions, fits, memmap, large, deep, threads)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the work")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--inside", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(ROWS[options.inside](0.02 if options.quick else 1.0)))
        return
    print("| load | time | memory |\n|---|---|---|")
    for name in options.rows:
        command = [sys.executable, __file__, "--inside", name, *["--quick"] * options.quick]
        row = Row(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(f"| {row.load} | {row.time} | {row.memory} |", flush=True)


if __name__ == "__main__":
    main()
