"""``fastbackprop bench``: its two outputs, its arguments, and the kernels that it measures with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_harness import each_dtype

import fastbackprop as fb
from fastbackprop import machine, standard_jobs
from fastbackprop._kernels import measure
from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop._kernels.micro import MR, NV
from fastbackprop.cores import available_threads


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastbackprop", "bench", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(fb.__file__).parents[1])},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


class TestCommand:
    def test_json_is_one_object_a_line_with_a_share_for_each_figure(self):
        process = bench("--quick", "--json")
        assert process.returncode == 0, process.stderr
        events = [json.loads(line) for line in process.stdout.splitlines()]
        by_name = {}
        for event in events:
            by_name.setdefault(event["event"], []).append(event)
        counts = {1, available_threads()}
        barrier = ["barrier"] if len(counts) > 1 else []
        assert list(by_name) == [
            "machine", "peak", "copy", *barrier, "product", "training", "call", "peak_again",
        ]  # fmt: skip
        assert {(e["dtype"], e["threads"]) for e in by_name["peak"]} == {
            (dtype, threads) for dtype in ("float32", "float64") for threads in counts
        }
        assert by_name["copy"][0]["bytes"] == 16 * 1024
        assert by_name["copy"][-1]["bytes"] == 64 * 1024**2
        assert {e["job"] for e in by_name["training"]} == set(standard_jobs.STANDARD_JOBS)
        assert {(e["what"], e["rows"]) for e in by_name["call"]} == {
            ("predict", 1), ("predict", 10_000), ("gradients", 200),
        }  # fmt: skip

        # A share may be anything where other programs slowed the machine while it was measured.
        peaks = {(e["dtype"], e["threads"]): e["flops_per_second"] for e in by_name["peak"]}
        for event in (*by_name["product"], *by_name["training"], *by_name["call"]):
            peak = peaks[event.get("dtype", "float32"), event["threads"]]
            assert event["share"] == pytest.approx(event["flops_per_second"] / peak)
            assert event["share"] > 0

    def test_text_fits_80_columns_and_has_every_section(self):
        process = bench("--quick", "--threads", "1")
        assert process.returncode == 0, process.stderr
        lines = process.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        heads = [line for before, line in zip(["", *lines], lines, strict=False) if not before]
        titles = ("Multiply-adds", "Copying", "Matrix products", "Training", "Calls", "The peak")
        for title in titles:
            assert any(head.startswith(title) for head in heads), title
        for job in standard_jobs.STANDARD_JOBS.values():
            assert sum(line.startswith(f"  {job.network} {job.activation}") for line in lines) == 1

    def test_more_threads_than_cores_are_refused(self):
        process = bench("--threads", "1000")
        assert process.returncode == 2
        assert process.stdout == ""
        assert "--threads must be at most" in process.stderr
        assert "got 1000" in process.stderr
        assert "Traceback" not in process.stderr


class TestKernels:
    @each_dtype
    def test_multiply_add_does_each_of_the_operations_it_is_timed_for(self, dtype):
        columns = NV * VECTOR_BITS // (8 * np.dtype(dtype).itemsize)
        start = np.arange(MR * columns, dtype=dtype).reshape(MR, columns)
        tile, factors = start.copy(), np.arange(1, columns + 1, dtype=dtype)
        measure.multiply_add(tile.ctypes.data, factors.ctypes.data, 10, dtype(1))
        np.testing.assert_array_equal(tile, start + 10 * factors[0] * factors)

    def test_copy_copies_whole_rows_and_nothing_more(self):
        columns = NV * VECTOR_BITS // 32
        source = np.arange(8 * columns, dtype=np.float32)
        out = np.full_like(source, np.nan)
        measure.copy(out.ctypes.data, source.ctypes.data, 7, 2, np.float32(1))
        np.testing.assert_array_equal(out[: 7 * columns], source[: 7 * columns])
        assert np.isnan(out[7 * columns :]).all()

    @each_dtype
    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 13, 5), (33, 130, 70), (40, 300, 17)])
    def test_products_are_those_of_numpy_by_any_number_of_threads(self, dtype, threads, sizes):
        layer = machine.LayerProducts(*sizes, dtype)
        x, w, dz = (matrix.astype(np.float64) for matrix in (layer.x, layer.w, layer.dz))
        expected = {"z = x w": x @ w, "dw = x' dz": x.T @ dz, "dx = dz w'": dz @ w.T}
        assert list(expected) == list(machine.PRODUCTS)
        for product, values in expected.items():
            result = layer.result(product, threads)
            tolerance = 20 * np.finfo(dtype).eps * np.sqrt(max(sizes))
            np.testing.assert_allclose(result, values, rtol=tolerance, atol=20 * tolerance)


class TestMeasurement:
    def test_the_median_leaves_out_one_slow_sample_and_the_warm_up(self):
        extra = iter([50.0, 0.0, 0.0, 0.0, 9.0, 0.0])
        asked = []

        def run(repeats):
            asked.append(repeats)
            return 0.25 * repeats + next(extra)

        assert machine.median_seconds(run, machine.Effort(0.3, 3)) == 0.25
        assert asked == [1, 1, 2, 2, 2, 2]  # the slow first one did not count as long enough

    def test_rates_are_positive(self):
        effort = machine.Effort(0.0, 1)
        assert machine.peak_flops("float64", 2, effort) > 0
        assert machine.copy_bandwidth(16 * 1024, effort) > 0
        assert machine.barrier_seconds(2, effort) > 0
        assert machine.call_seconds(lambda: None, effort) > 0


class TestJobs:
    def test_arithmetic_of_a_row_is_that_of_the_three_products_but_the_first_dx(self):
        job = standard_jobs.STANDARD_JOBS[3]
        products = np.array([784 * 512, 512 * 512, 512 * 10])
        assert job.flops_per_row == 2 * (3 * products.sum() - 784 * 512)
        assert job.n_parameters == products.sum() + 512 + 512 + 10

    def test_matrix_exponentials_are_those_of_the_series(self):
        X, y = standard_jobs.matrix_exponentials(200, seed=1)
        matrices = X.astype(np.float64).reshape(-1, 2, 2)
        total = term = np.broadcast_to(np.eye(2), matrices.shape)
        for k in range(1, 60):
            term = term @ matrices / k
            total = total + term
        np.testing.assert_allclose(y, total.reshape(-1, 4), rtol=1e-5, atol=1e-4)

    def test_waves(self):
        X, y = standard_jobs.waves(50, seed=2)
        assert X.dtype == y.dtype == np.float32
        np.testing.assert_allclose(y[:, 0], np.sin(3 * X[:, 0]) * np.cos(2 * X[:, 1]), atol=1e-6)
