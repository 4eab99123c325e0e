"""What the benchmarks share: the answers in NumPy, the peers of ../peers.py, shares of the peak."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fastbackprop as fb
from fastbackprop import machine
from fastbackprop.cores import available_threads

sys.path.append(str(Path(__file__).parents[1]))  # the peers

EFFORT = machine.Effort(0.005, 5)

# 1 and as many as there are cores; the name of a parameter must not depend on the machine.
THREADS = ["one", "all"]

FORMULAS = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "softplus": lambda z: np.logaddexp(0, z),
    "silu": lambda z: z / (1 + np.exp(-z)),
}


def thread_count(name: str) -> int:
    """Return how many threads one of THREADS is; skip "all" where that is one, too."""
    threads = 1 if name == "one" else available_threads()
    if name == "all" and threads == 1:
        raise NotImplementedError("one core only")
    return threads


def share_of_peak(flops: float, seconds: float, dtype: str, threads: int) -> float:
    """Return the rate as a share of what this process measures in registers, now."""
    peak = machine.peak_flops(dtype, threads, machine.Effort(0.01, 9))
    return flops / seconds / peak


def installed(name: str) -> ModuleType:
    """Import a library or a peer; asv skips the benchmark where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotImplementedError(str(error)) from error


def check(found: Any, expected: Any, dtype: str = "float32") -> None:
    """Refuse to time a wrong answer."""
    expected = np.asarray(expected, dtype=np.float64)
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


def check_outputs(net: fb.Network, X: np.ndarray, activation: str) -> None:
    """Compare the outputs of a network whose last layer is linear with NumPy's in float64."""
    a = X.astype(np.float64)
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        a = a @ w.astype(np.float64) + b
        if i < len(net.weights) - 1:
            a = FORMULAS[activation](a)
    check(net.predict(X), a, str(net.dtype))


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)
