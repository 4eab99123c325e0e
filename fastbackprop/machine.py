"""What this machine can do, measured: arithmetic, copies, barriers, and matrix products alone."""

from __future__ import annotations

import platform
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels import measure
from fastbackprop._kernels.gemm import scratch_bytes
from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop._kernels.micro import MR, NV
from fastbackprop._kernels.team import BARRIER_WORDS
from fastbackprop.cores import spread, unbind
from fastbackprop.plan import Array, aligned_zeros, leading_dimension

_VECTOR_BYTES = VECTOR_BITS // 8

PRODUCTS = {
    "z = x w": measure.FORWARD,
    "dw = x' dz": measure.WEIGHTS,
    "dx = dz w'": measure.INPUTS,
}


class Effort(NamedTuple):
    """How long something is measured.

    Parameters
    ----------
    seconds : float
        A sample takes at least as long.
    samples : int
        The result is the median of as many.
    """

    seconds: float
    samples: int


def processor() -> str:
    """The name of the processor, as far as the system tells it.

    Examples
    --------
    >>> processor() != ""
    True
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def median_seconds(run: Callable[[int], float], effort: Effort) -> float:
    """The median time of one repeat.

    Parameters
    ----------
    run : callable
        Takes a number of repeats; returns the seconds that they took.
    effort : Effort
        How long and how often.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> median_seconds(lambda repeats: 0.5 * repeats, Effort(2.0, 3))
    0.5
    """
    run(1)  # which may compile, and touches the memory
    repeats = 1
    while (seconds := run(repeats)) < effort.seconds:
        repeats *= max(2, min(16, int(effort.seconds / max(seconds, 1e-9))))
    return statistics.median(run(repeats) for _ in range(effort.samples)) / repeats


def call_seconds(call: Callable[[], object], effort: Effort) -> float:
    """The median time of one call from Python, in seconds."""

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start

    return median_seconds(run, effort)


def compile_kernels() -> None:
    """Compile the kernels that measure, or fetch them from the disk."""
    once = Effort(0.0, 1)
    for dtype in ("float32", "float64"):
        peak_flops(dtype, 1, once)
        LayerProducts(1, 1, 1, dtype).result("z = x w")
    copy_bandwidth(0, once)
    barrier_seconds(2, once)


def _counter() -> Array:
    return aligned_zeros(BARRIER_WORDS, np.dtype(np.int64))


def _team_seconds(work: Callable[[int], None], threads: int) -> float:
    """The time of ``work(thread)`` by threads that begin together, until the last has ended."""
    if threads == 1:
        start = time.perf_counter()
        work(0)
        return time.perf_counter() - start
    begin, end = _counter(), _counter()

    def take_part(thread: int) -> float:
        unbind(spread({thread: threading.get_native_id()}, threads, -1))  # as training does
        measure.barriers(begin.ctypes.data, threads, 1)
        start = time.perf_counter()
        work(thread)
        measure.barriers(end.ctypes.data, threads, 1)
        return time.perf_counter() - start

    with ThreadPoolExecutor(threads) as pool:
        return max(pool.map(take_part, range(threads)))


def peak_flops(dtype: Any, threads: int, effort: Effort) -> float:
    """The rate of fused multiply-adds whose operands stay in registers: the arithmetic limit.

    Parameters
    ----------
    dtype : dtype_like
        float32 or float64.
    threads : int
        Threads that compute at the same time.
    effort : Effort
        How long and how often.

    Returns
    -------
    float
        Operations a second, in all threads together; a multiply-add is two.
    """
    dtype = np.dtype(dtype)
    lanes = _VECTOR_BYTES // dtype.itemsize
    tiles = [aligned_zeros(MR * NV * lanes, dtype) for _ in range(threads)]
    factors = aligned_zeros(NV * lanes, dtype)
    factors[:] = 1e-3
    one = dtype.type(1)

    def work(thread: int, rounds: int) -> None:
        measure.multiply_add(tiles[thread].ctypes.data, factors.ctypes.data, rounds, one)

    seconds = median_seconds(
        lambda rounds: _team_seconds(lambda thread: work(thread, rounds), threads), effort
    )
    return threads * 2 * MR * NV * lanes / seconds


def copy_bandwidth(size: int, effort: Effort) -> float:
    """The rate at which one thread copies within a level of the cache, or within memory.

    Parameters
    ----------
    size : int
        Bytes of the source and the copy together.
    effort : Effort
        How long and how often.

    Returns
    -------
    float
        Bytes a second, those read and those written.
    """
    row = NV * _VECTOR_BYTES
    rows = max(size // 2 // row, 1)
    memory = aligned_zeros(2 * rows * row, np.dtype(np.uint8))
    memory[:] = 1  # pages that were never written to are one page of zeros
    one = np.float32(1)
    out = memory.ctypes.data
    source = out + rows * row

    def run(repeats: int) -> float:
        start = time.perf_counter()
        measure.copy(out, source, rows, repeats, one)
        return time.perf_counter() - start

    return 2 * rows * row / median_seconds(run, effort)


def barrier_seconds(threads: int, effort: Effort) -> float:
    """The time of one barrier of a team of ``threads`` threads, 2 or more, in seconds."""

    def run(count: int) -> float:
        counter = _counter()
        return _team_seconds(
            lambda thread: measure.barriers(counter.ctypes.data, threads, count), threads
        )

    return median_seconds(run, effort)


class LayerProducts:
    """Random operands of one layer's three matrix products, and the time that each takes.

    Parameters
    ----------
    n, n_in, n_out : int
        Rows of the batch; inputs and outputs of the layer.
    dtype : dtype_like
        float32 or float64.

    Attributes
    ----------
    x : ndarray, (n, n_in)
        Views of the operands.
    w : ndarray, (n_in, n_out)
    dz : ndarray, (n, n_out)
    flops : int
        Operations of each of the three products.

    Examples
    --------
    >>> layer = LayerProducts(4, 8, 3, "float64")
    >>> z = layer.result("z = x w")
    >>> bool(np.allclose(z, layer.x @ layer.w))
    True
    """

    def __init__(self, n: int, n_in: int, n_out: int, dtype: Any) -> None:
        self._dtype = np.dtype(dtype)
        self._sizes = n, n_in, n_out
        self._ld_in = leading_dimension(n_in, self._dtype)
        self._ld_out = leading_dimension(n_out, self._dtype)
        rng = np.random.default_rng([n, n_in, n_out])
        self._x, self.x = self._matrix(n, n_in, self._ld_in)
        self._w, self.w = self._matrix(n_in, n_out, self._ld_out)
        self._dz, self.dz = self._matrix(n, n_out, self._ld_out)
        for matrix in (self.x, self.w, self.dz):
            matrix[...] = rng.standard_normal(matrix.shape)
        self._zeros = aligned_zeros(max(self._ld_in, self._ld_out) + 64, self._dtype)
        self.flops = 2 * n * n_in * n_out

    def _matrix(self, rows: int, columns: int, ld: int) -> tuple[Array, Array]:
        size = rows * ld
        # Packing reads whole vectors, from any column on; in a workspace other matrices follow.
        flat = aligned_zeros(size + _VECTOR_BYTES // self._dtype.itemsize, self._dtype)
        return flat, flat[:size].reshape(rows, ld)[:, :columns]

    def _operands(self, product: str) -> tuple[Array, Array, Array, Array]:
        """The output, as memory and as a matrix; the left and the right operand."""
        n, n_in, n_out = self._sizes
        shapes = {
            measure.FORWARD: ((n, n_out, self._ld_out), self._x, self._w),
            measure.WEIGHTS: ((n_in, n_out, self._ld_out), self._x, self._dz),
            measure.INPUTS: ((n, n_in, self._ld_in), self._dz, self._w),
        }
        shape, left, right = shapes[PRODUCTS[product]]
        return *self._matrix(*shape), left, right

    def result(self, product: str, threads: int = 1) -> Array:
        """Return one of the `PRODUCTS`."""
        out, view, left, right = self._operands(product)
        self._run(product, threads, 1, out, left, right)
        return view

    def seconds(self, product: str, threads: int, effort: Effort) -> float:
        """Return the median time of one of the `PRODUCTS`, in seconds."""
        out, _, left, right = self._operands(product)
        return median_seconds(
            lambda repeats: self._run(product, threads, repeats, out, left, right), effort
        )

    def _run(
        self, product: str, threads: int, repeats: int, out: Array, left: Array, right: Array
    ) -> float:
        itemsize = self._dtype.itemsize
        size = scratch_bytes(self._ld_out * itemsize, self._w.nbytes, self._sizes[0])
        scratch = [aligned_zeros(size, np.dtype(np.uint8)) for _ in range(threads)]
        counter = _counter()
        one = self._dtype.type(1)

        def work(thread: int, repeats: int, team: tuple[int, int, int]) -> None:
            measure.products(
                PRODUCTS[product],
                *(array.ctypes.data for array in (out, left, right, self._zeros, scratch[thread])),
                *self._sizes,
                self._ld_in,
                self._ld_out,
                team,
                repeats,
                one,
            )

        return _team_seconds(
            lambda thread: work(thread, repeats, (counter.ctypes.data, threads, thread)), threads
        )
