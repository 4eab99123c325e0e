"""Kernels with one wrong line each: the check fails, and names the layer and the tensor."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastbackprop as fb

PACKAGE = Path(fb.__file__).parent

# The layers are of other shapes, functions and places, so that what a mutation breaks tells it.
CHECK = """
import json, sys
import numpy as np
import fastbackprop as fb
from fastbackprop import Dense

rng = np.random.default_rng(0)
net = fb.Network({layers}, loss="mse", random_state=0, dtype="float64")
X, y = rng.normal(size=(7, net.sizes[0])), rng.normal(size=(7, net.sizes[-1]))
report = fb.check_gradients(net, X, y)
try:
    report.raise_for_failure()
    message = None
except fb.GradientMismatch as error:
    message = str(error)
failed = [(e.tensor_name, e.index) for e in report.entries if e.verdict == "fail"]
decided = all(e.verdict in ("pass", "fail") for e in report.entries)
print(json.dumps(dict(ok=report.ok, message=message, failed=failed, decided=decided,
                      bad_steps=[c.what for c in report.comparisons if not c.ok])))
"""

BELOW = {"layers.0.weight", "layers.0.bias", "X"}
TWO = "[Dense(5, 9, 'sigmoid'), Dense(9, 3, 'tanh')]"


def checked(folder, layers, file, line, wrong):
    """Check a network with a copy of the package in which one line is another."""
    copy = folder / "fastbackprop"
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(PACKAGE, copy, ignore=ignored)
    path = copy / "_kernels" / file
    source = path.read_text(encoding="utf-8")
    assert source.count(line) == 1, f"{file} has this {source.count(line)} times: {line}"
    path.write_text(source.replace(line, wrong), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "c")}
    process = subprocess.run(
        [sys.executable, "-c", CHECK.format(layers=layers)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def assert_caught(result, tensors):
    assert not result["ok"]
    assert result["decided"]
    assert {tensor for tensor, _ in result["failed"]} == tensors
    assert result["message"].split("[")[0] in tensors
    assert "backward gives" in result["message"]


def test_a_scale_error_of_1_percent(tmp_path):
    result = checked(
        tmp_path,
        TWO,
        "activation.py",
        "    return a * (1.0 - a)\n",
        "    return a * (1.01 - a * 1.01)\n",
    )
    assert_caught(result, BELOW)
    assert "(relative error 1e-02 > 1e-06)" in result["message"]


def test_a_dropped_bias_gradient(tmp_path):
    result = checked(
        tmp_path,
        "[Dense(5, 9, 'tanh'), Dense(9, 8, 'tanh', bias=False), Dense(8, 3)]",
        "steps.py",
        "    bottom = min(bottom, layer.n_in + layer.has_bias)\n    code =",
        "    bottom = min(bottom, layer.n_in)\n    code =",
    )
    assert_caught(result, {"layers.0.bias", "layers.2.bias"})
    assert len(result["failed"]) == 9 + 3
    assert result["bad_steps"] == []  # training drops it, too


def test_a_transposed_weight(tmp_path):
    result = checked(
        tmp_path,
        "[Dense(3, 16, 'tanh'), Dense(16, 16, 'tanh'), Dense(16, 1)]",
        "micro.py",
        "tile_store(transpose(square_tile_load(a, ld_a)), out, ld_out)",
        "tile_store(square_tile_load(a, ld_a), out, ld_out)",
    )
    assert not result["ok"]
    failed = {tensor for tensor, _ in result["failed"]}
    assert {"layers.0.weight", "layers.0.bias"} < failed
    assert not failed & {"layers.2.weight", "layers.2.bias"}
    assert result["message"].split("[")[0] in failed


def test_a_missing_1_over_n(tmp_path):
    result = checked(
        tmp_path,
        TWO,
        "loss.py",
        "    factor, scale = mean, 1.0 / total_weight * mean\n",
        "    factor, scale = mean, mean\n",
    )
    assert_caught(result, BELOW | {"layers.1.weight", "layers.1.bias"})
    assert "(relative error 9e-01 > 1e-06)" in result["message"]  # 7 rows: 6/7


def test_the_derivative_of_another_activation(tmp_path):
    result = checked(
        tmp_path,
        "[Dense(5, 9, 'tanh'), Dense(9, 7, 'gelu'), Dense(7, 6, 'tanh'), Dense(6, 3, 'silu')]",
        "activation.py",
        "_apply_slope(_gelu_slope, ",
        "_apply_slope(_silu_slope, ",
    )
    assert_caught(result, BELOW | {"layers.1.weight", "layers.1.bias"})


def test_an_off_by_one_in_the_last_tile(tmp_path):
    result = checked(
        tmp_path,
        TWO,
        "packing.py",
        "        for i in range(whole, columns):\n",
        "        for i in range(whole, columns - 1):\n",
    )
    assert_caught(result, BELOW)
    # Only the last unit of the layer, and the last input.
    last = {"layers.0.weight": 8, "layers.0.bias": 8, "X": 4}
    own = [(tensor, index) for tensor, index in result["failed"] if tensor != "X"]
    assert {(tensor, index[-1]) for tensor, index in own} == {
        (tensor, last[tensor]) for tensor in ("layers.0.weight", "layers.0.bias")
    }
    assert ["X", [0, 4]] in result["failed"]


def test_a_stale_transposed_copy_of_w(tmp_path):
    result = checked(
        tmp_path,
        "[Dense(4, 40, 'tanh'), Dense(40, 3)]",
        "gemm.py",
        "pack_transposed(panel, ld, b + (j * ld_b + p), ld_b, depth, width, vectors)\n",
        "pack_transposed(panel, ld, b + p, ld_b, depth, width, vectors)\n",
    )
    assert not result["ok"]
    # The first panel of the layer's units is right, and X hangs on all of them.
    failed = {tensor for tensor, _ in result["failed"]}
    assert failed == BELOW
    columns = {index[-1] for tensor, index in result["failed"] if tensor == "layers.0.bias"}
    assert columns == set(range(min(columns), 40))
    assert min(columns) in (4, 8, 16, 32)
    assert result["message"].split("[")[0] in BELOW
