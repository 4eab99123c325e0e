"""``fastbackprop bench``: what the machine can do, and what share of it the network's work gets."""

import argparse
import platform
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from fastbackprop import inference, machine
from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop._version import __version__
from fastbackprop.cli import arguments
from fastbackprop.cli.compilation import compiling
from fastbackprop.cli.output import Output
from fastbackprop.cores import available_threads
from fastbackprop.datasets import load_mnist_small
from fastbackprop.job import compile_kernels
from fastbackprop.machine import Effort
from fastbackprop.network import Network
from fastbackprop.optimizers import SGD, Adam, Optimizer
from fastbackprop.plan import Array
from fastbackprop.standard_jobs import STANDARD_JOBS, StandardJob

_OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}
_DTYPES = ("float32", "float64")
_COPIES = tuple(2**power for power in range(14, 27, 2))  # 16 KiB to 64 MiB
_SHAPES = (  # n, n_in, n_out
    (32, 32, 32),
    (64, 784, 128),
    (128, 784, 512),
    (128, 512, 512),
    (256, 256, 256),
    (1024, 1024, 1024),
)
_QUICK_SHAPES = _SHAPES[:2]
_PREDICTORS = ((784, 128, 10), (4, 32, 32, 2))
_GRADIENT_SIZES, _GRADIENT_ROWS = (24, 8, 2), 200

_DESCRIPTION = """\
Measure the machine, then the work of training and prediction on it. Every rate
of the latter is also given as a share of the arithmetic limit: the matrix
products that the job must do, at the rate of multiply-adds that the same run
measured in registers with as many threads. All figures are medians.
"""

_EPILOG = """\
A cache that is slower than the arithmetic, work that waits for other threads or
for Python, and everything that is not a matrix product make the share smaller.
Other programs do, too: run it on an idle machine.

examples:
  fastbackprop bench --quick
  fastbackprop bench --threads 1
  fastbackprop bench --json > bench.jsonl
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure the machine, and training on it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--quick", action="store_true", help="in less than half the time: fewer and shorter samples"
    )
    parser.add_argument(
        "--threads",
        type=arguments.integer(1),
        metavar="N",
        help="measure with 1 and with N threads (default: as many as there are cores)",
    )
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measure the machine, then the work, section by section."""
    cores = available_threads()
    if options.threads is not None and options.threads > cores:
        raise ValueError(
            f"--threads must be at most {cores}, the cores that this process may use, got "
            f"{options.threads}; more threads than cores only wait for each other"
        )
    output = Output(options.style)
    with compiling(output, seconds=20):
        compile_kernels(np.dtype("float32"))
        machine.compile_kernels()
    bench = _Bench(output, options.threads or cores, quick=options.quick)
    bench.machine(cores)
    bench.products()
    bench.training()
    bench.calls()
    bench.peak_again()
    return 0


class _Bench:
    """The sections of the command, each printed as it is measured."""

    def __init__(self, output: Output, threads: int, *, quick: bool) -> None:
        self._output, self._threads, self._quick = output, threads, quick
        self._counts = sorted({1, threads})
        self._effort = Effort(0.002, 3) if quick else Effort(0.005, 5)
        self._peaks: dict[tuple[str, int], float] = {}

    # ------------------------------------------------------------------------------- the machine

    def machine(self, cores: int) -> None:
        """Peak of arithmetic, bandwidth of copies, latency of barriers."""
        versions = {
            "fastbackprop": __version__,
            "Numba": numba.__version__,
            "NumPy": np.__version__,
            "Python": platform.python_version(),
        }
        name = machine.processor()
        self._say(f"{name}, {cores} core{'s' * (cores > 1)}, vectors of {VECTOR_BITS} bits"[:80])
        self._say(", ".join(f"{library} {version}" for library, version in versions.items()))
        self._output.event(
            "machine", processor=name, cores=cores, vector_bits=VECTOR_BITS, versions=versions
        )

        self._head("Multiply-adds in registers, GFLOP/s", (_threads(n) for n in self._counts), 12)
        for dtype in _DTYPES:
            for threads in self._counts:
                peak = self._peak(dtype, threads)
                self._peaks[dtype, threads] = peak
                self._output.event("peak", dtype=dtype, threads=threads, flops_per_second=peak)
            peaks = (f"{self._peaks[dtype, threads] / 1e9:.1f}" for threads in self._counts)
            self._row(f"  {dtype}", peaks, 12)

        self._say("\nCopying by 1 thread, read and written, GB/s")
        rates = []
        for size in _COPIES:
            rates.append(machine.copy_bandwidth(size, self._effort))
            self._output.event("copy", bytes=size, bytes_per_second=rates[-1])
        self._row("  both arrays", map(_binary, _COPIES), 9)
        self._row("", (f"{rate / 1e9:.0f}" for rate in rates), 9)

        if self._threads > 1:
            self._say("\nBarrier of a team, ns")
            for threads in sorted({2, self._threads}):
                seconds = machine.barrier_seconds(threads, self._effort)
                self._row(f"  {_threads(threads)}", [f"{1e9 * seconds:.0f}"], 12)
                self._output.event("barrier", threads=threads, seconds=seconds)

    def _peak(self, dtype: str, threads: int) -> float:
        # Longer than the rest: every share that follows is divided by it.
        effort = Effort(2 * self._effort.seconds, 3 * self._effort.samples)
        return machine.peak_flops(dtype, threads, effort)

    def peak_again(self) -> None:
        """Whether the machine is as fast as it was when the limit was measured."""
        before = self._peaks["float32", self._threads]
        after = self._peak("float32", self._threads)
        self._output.event(
            "peak_again", dtype="float32", threads=self._threads, flops_per_second=after
        )
        self._say(
            f"\nThe peak of float32 by {_threads(self._threads)} is now {after / 1e9:.1f} GFLOP/s, "
            f"{after / before - 1:+.0%}."
        )

    # ---------------------------------------------------------------------------------- the work

    def products(self) -> None:
        """A layer's three matrix products."""
        self._say("\nMatrix products, GFLOP/s and share of the peak")
        self._row(f"{'n':>6}{'n_in':>6}{'n_out':>6}", machine.PRODUCTS, 14)
        for n, n_in, n_out in _QUICK_SHAPES if self._quick else _SHAPES:
            for dtype in _DTYPES:
                layer = machine.LayerProducts(n, n_in, n_out, dtype)
                for threads in self._counts:
                    cells = []
                    for product in machine.PRODUCTS:
                        rate = layer.flops / layer.seconds(product, threads, self._effort)
                        share = rate / self._peaks[dtype, threads]
                        cells.append(f"{rate / 1e9:.1f}{share:>6.0%}")
                        self._output.event(
                            "product",
                            product=product,
                            n=n,
                            n_in=n_in,
                            n_out=n_out,
                            dtype=dtype,
                            threads=threads,
                            flops_per_second=rate,
                            share=share,
                        )
                    shape = f"{n:>6}{n_in:>6}{n_out:>6}"
                    self._row(f"{shape}  {dtype} x{threads}", cells, 14)

    def training(self) -> None:
        """Steps of the standard jobs, in float32."""
        self._head("Training in float32", ("µs a step", "GFLOP/s", "share"), 11)
        for job in STANDARD_JOBS.values():
            X, y = self._data(job)
            for threads in self._counts:
                seconds = self._epoch_seconds(job, X, y, threads)
                steps = -(-len(X) // job.batch_size)
                self._report(
                    "training",
                    f"  {job.network} {job.activation}, batch {job.batch_size:,}",
                    threads,
                    seconds / steps,
                    job.flops_per_row * len(X) / steps,
                    job=job.number,
                    network=job.network,
                    batch_size=job.batch_size,
                )

    def _data(self, job: StandardJob) -> tuple[Array, Array]:
        """As many rows as a measurement needs: whole batches."""
        n = max(2_000 if self._quick else 5_000, job.batch_size) // job.batch_size * job.batch_size
        if job.make_rows is not None:
            return job.make_rows(n, 0)
        (X, labels), _ = load_mnist_small()
        X = X[:n].astype(np.float32) / np.float32(255)
        if job.loss == "cross_entropy":
            return X, labels[:n]
        return X, np.eye(job.sizes[-1], dtype=np.float32)[labels[:n]]

    def _epoch_seconds(self, job: StandardJob, X: Array, y: Array, threads: int) -> float:
        net = Network(list(job.sizes), job.activation, job.loss, random_state=0)
        optimizer = _OPTIMIZERS[job.optimizer](job.learning_rate)
        epochs = 1 + (self._effort.samples if len(X) > job.batch_size else 100)
        history = net.fit(X, y, epochs, job.batch_size, optimizer, threads=threads, verbose=0)
        return statistics.median(history["seconds"][1:])

    def calls(self) -> None:
        """Calls from Python, with all that the package does before and after its kernels."""
        self._head("Calls from Python in float32", ("µs a call", "GFLOP/s", "share"), 11)
        rng = np.random.default_rng(0)
        for sizes in _PREDICTORS:
            net = Network(list(sizes), "relu", "cross_entropy", random_state=0)
            flops = 2 * sum(n_in * n_out for n_in, n_out in pairwise(sizes))
            rows = rng.standard_normal((10_000, sizes[0]), dtype=np.float32)
            name = "-".join(map(str, sizes))
            self._call(name, "predict", 1, 1, flops, partial(net.predict, rows[:1]))
            for threads in self._counts:
                predict = partial(inference.outputs, net._state, rows, threads)
                self._call(name, "predict", len(rows), threads, flops * len(rows), predict)
        n_in, hidden, n_out = _GRADIENT_SIZES
        net = Network(list(_GRADIENT_SIZES), "tanh", "mse", random_state=0)
        X = rng.standard_normal((_GRADIENT_ROWS, n_in), dtype=np.float32)
        y = rng.standard_normal((_GRADIENT_ROWS, n_out), dtype=np.float32)
        flops = 2 * _GRADIENT_ROWS * (2 * n_in * hidden + 3 * hidden * n_out)
        name = "-".join(map(str, _GRADIENT_SIZES))
        gradients = partial(net.loss_and_gradients, X, y)
        self._call(name, "gradients", _GRADIENT_ROWS, 1, flops, gradients)

    def _call(
        self,
        network: str,
        what: str,
        rows: int,
        threads: int,
        flops: float,
        call: Callable[[], object],
    ) -> None:
        seconds = machine.call_seconds(call, self._effort)
        text = f"  {network} {what}, {rows:,} row{'s' * (rows > 1)}"
        self._report("call", text, threads, seconds, flops, network=network, what=what, rows=rows)

    # ---------------------------------------------------------------------------------- printing

    def _report(
        self, event: str, text: str, threads: int, seconds: float, flops: float, **facts: object
    ) -> None:
        rate = flops / seconds
        share = rate / self._peaks["float32", threads]
        cells = (f"{1e6 * seconds:,.1f}", f"{rate / 1e9:.2f}", f"{100 * share:.3g}%")
        self._row(f"{text:<38} x{threads}", cells, 11)
        self._output.event(
            event, **facts, threads=threads, seconds=seconds, flops_per_second=rate, share=share
        )

    def _say(self, text: str) -> None:
        self._output.result(text)

    def _head(self, title: str, columns: Iterable[str], width: int) -> None:
        self._say("")
        self._row(title, columns, width)

    def _row(self, label: str, cells: Iterable[str], width: int) -> None:
        line = "".join(f"{cell:>{width}}" for cell in cells)
        self._say(f"{label:<{max(len(label), 80 - len(line))}}{line}")


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _binary(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
