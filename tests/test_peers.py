"""The side-by-side benchmark: its table, its JSON, and its check that peers agree."""

import dataclasses
import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastbackprop

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROW = re.compile(
    r"(?P<label>\S.*?) +(?P<first>\d+\.\d{3}) +(?P<median>\d+\.\d{4}) +(?P<ratio>-|\d+\.\d\d)"
    r" +(?P<gflops>\d+\.\d) +(?P<loss>\d+\.\d{5}) +(?P<accuracy>\d+\.\d\d)%"
)


def run_peers(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the benchmark with the package under test, and with `path` ahead of everything."""
    root = Path(fastbackprop.__file__).parents[1]
    paths = [str(p) for p in (path, root, os.environ.get("PYTHONPATH")) if p]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",  # threads would wait for each other on a busy machine
    }
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "peers.py"), *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("peers")


def test_numpy_peers_print_a_table_and_agree(tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    run = run_peers(
        "--small", "--epochs=2", "--jobs=1,2,3", "--peers=numpy,textbook", f"--json={output}"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "WARNING" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80

    machine, *jobs = run.stdout.split("\nJob ")
    assert re.match(r"\d+ core\(s\), ", machine)
    assert f"NumPy {np.__version__}" in machine
    assert re.search(r"\d{4}-\d\d-\d\d", machine)
    assert [job[:13] for job in jobs] == ["1: 784-30-10 ", "2: 784-128-10", "3: 784-512-51"]

    report = json.loads(output.read_text())
    for job, entry in zip(jobs, report["jobs"], strict=True):
        rows = [match for line in job.splitlines() if (match := ROW.fullmatch(line))]
        assert [row["label"].removesuffix(" *") for row in rows] == [
            "NumPy, batched",
            "NumPy, per sample",
        ]
        assert [row["ratio"] for row in rows] == ["-", "-"]
        for row, result in zip(rows, entry["results"], strict=True):
            assert len(result["seconds"]) == len(result["losses"]) == 2
            assert row["first"] == f"{result['seconds'][0]:.3f}"
            assert row["median"] == f"{result['seconds'][1]:.4f}"
            assert row["loss"] == f"{result['losses'][-1]:.5f}"
            assert row["accuracy"] == f"{100 * result['score']:.2f}"
            gflops = entry["flops_per_turn"] / result["median"] / 1e9
            assert row["gflops"] == f"{gflops:.1f}"

    # Where both trained on every image, the two ways to sum a gradient differ by rounding only.
    for entry in report["jobs"][:2]:
        batched, per_sample = entry["results"]
        assert batched["rows_per_turn"] == per_sample["rows_per_turn"] == 1000
        np.testing.assert_allclose(per_sample["losses"], batched["losses"], rtol=1e-3)
        assert batched["losses"][1] < batched["losses"][0]
    # The last job is too slow for that: the run says so, and has compared it on fewer images.
    batched, per_sample = report["jobs"][2]["results"]
    assert per_sample["rows_per_turn"] < batched["rows_per_turn"] == 1000
    assert f"* Trained on {per_sample['rows_per_turn']} rows a turn" in jobs[2]


def test_a_library_that_is_not_installed_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "jax.py").write_text("raise ImportError('No module named jax')\n")
    run = run_peers("--small", "--epochs=2", "--jobs=1", "--peers=jax,numpy", path=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Left out: jax (No module named jax)\n" in run.stdout
    assert [m["label"] for m in map(ROW.fullmatch, run.stdout.splitlines()) if m] == [
        "NumPy, batched"
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=1", "expected 2 or more, got '1'"),
        ("--jobs=1,11", "'11' unknown; choose from 1, 2, 3"),
        ("--peers=tensorflow", "'tensorflow' unknown; choose from fastbackprop, torch"),
        ("--threads=0", "--threads must be from 1 to"),
        ("--data=no_such_folder", "no_such_folder is not a folder with train-images"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(argument: str, message: str) -> None:
    run = run_peers(argument)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture
def job(peers: ModuleType) -> Any:
    rng = np.random.default_rng(0)
    images = importlib.import_module("peer_jobs").Data(
        rng.random((40, 784), dtype=np.float32), rng.integers(0, 10, 40),
        rng.random((10, 784), dtype=np.float32), rng.integers(0, 10, 10), "noise",
    )  # fmt: skip
    return peers.all_jobs(images)[1]


def test_flops_of_a_job(job: Any) -> None:
    forward, dw, dx = 784 * 30 + 30 * 10, 784 * 30 + 30 * 10, 30 * 10
    assert job.flops == 2 * 40 * (forward + dw + dx)


def test_ratio_is_of_the_medians_without_the_first_turn(peers: ModuleType) -> None:
    ours = peers.Result("fastbackprop", "", 40, [9.0, 1.0, 3.0, 2.0], [0.1], 0.9)
    other = peers.Result("NumPy, batched", "", 40, [1.0, 8.0, 9.0, 7.0], [0.1], 0.9)
    results = importlib.import_module("peer_results")
    assert results.ratio_to_fastbackprop(other, [ours, other]) == 4.0
    assert results.ratio_to_fastbackprop(other, [other]) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"losses": [0.5, 0.3]}, None),
        ({"losses": [0.503, 0.304]}, None),
        ({"losses": [0.506, 0.3]}, "first training loss 0.50600"),
        ({"losses": [0.5, 0.307]}, "final training loss 0.30700"),
        ({"losses": [0.5, math.nan]}, "final training loss nan"),
        ({"score": 0.905}, None),
        ({"score": 0.88}, "test accuracy 0.88000"),
    ],
)
def test_a_peer_that_disagrees_is_named(
    peers: ModuleType, job: Any, change: dict[str, object], complaint: str | None
) -> None:
    one = peers.Result("one", "", 40, [1.0, 1.0], [0.5, 0.3], 0.9)
    lines = peers.disagreements(job, [one, dataclasses.replace(one, label="two", **change)], [])
    if complaint is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"two: {complaint}")
        assert "one: " in line


def test_a_peer_on_part_of_the_rows_is_compared_on_that_part(peers: ModuleType, job: Any) -> None:
    orders = [np.arange(40), np.arange(40)[::-1]]
    numpy_peer = peers.NumPyBatchedPeer()
    (part,) = peers.race(job, [numpy_peer], [order[:20] for order in orders])
    right = dataclasses.replace(part, label="part", n_trained=20)
    wrong = dataclasses.replace(right, losses=[2 * loss for loss in right.losses])
    assert peers.disagreements(job, [right], orders) == []
    assert len(peers.disagreements(job, [wrong], orders)) == 2


def test_disagreement_exits_1(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    per_sample = importlib.import_module("peer_numpy").NumPyPerSamplePeer
    monkeypatch.setattr(per_sample, "activation_derivative", lambda self, a: a)
    status = peers.main(["--small", "--epochs=2", "--jobs=1", "--peers=numpy,textbook"])
    assert status == 1
    assert "WARNING: NumPy, per sample: first training loss" in capsys.readouterr().out


def test_regression_and_calls_agree(tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    run = run_peers(
        "--small", "--epochs=2", "--jobs=4,5,6,8,10", "--peers=fastbackprop,numpy",
        f"--json={output}",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WARNING" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    waves, exponentials, *calls = json.loads(output.read_text())["jobs"]
    for entry in (waves, exponentials):
        ours, other = entry["results"]
        assert ours["rows_per_turn"] == other["rows_per_turn"]
        np.testing.assert_allclose(ours["losses"], other["losses"], rtol=1e-3)
        assert ours["score"] == pytest.approx(other["score"], rel=1e-3)
    assert exponentials["results"][0]["rows_per_turn"] == 100 * 1000
    assert "full batch of 1,000, 100 epochs a turn" in exponentials["title"]
    # Only fastbackprop takes part where there is dropout, which NumPy's code does not know.
    assert [[result["peer"] for result in entry["results"]] for entry in calls] == [
        ["fastbackprop"],
        ["fastbackprop", "NumPy, batched"],
        ["fastbackprop", "NumPy, batched"],
    ]
    for entry in calls:
        for result in entry["results"]:
            assert len(result["seconds"]) == 2
            assert min(result["seconds"]) > 0


@pytest.fixture
def jobs(peers: ModuleType) -> ModuleType:
    return importlib.import_module("peer_jobs")


def test_flops_of_calls(jobs: ModuleType) -> None:
    gradients, one_row = jobs.CALL_JOBS[6], jobs.CALL_JOBS[7]
    assert gradients.flops == 2 * 200 * (2 * 24 * 8 + 3 * 8 * 2)
    assert one_row.flops == 2 * (784 * 128 + 128 * 10)


@pytest.mark.parametrize("number", [6, 7])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "TorchPeer"), ("jax", "JaxPeer"), ("onnxruntime", "OnnxRuntimePeer"),
        ("fastbackprop", "FastbackpropPeer"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("default")  # those of other libraries are theirs
def test_calls_of_a_peer_are_those_of_numpy(
    jobs: ModuleType, number: int, module: str, name: str
) -> None:
    pytest.importorskip(module)
    if module == "onnxruntime":
        pytest.importorskip("onnx")
    calls = importlib.import_module("peer_calls")
    job = dataclasses.replace(jobs.CALL_JOBS[number], dropout=0.0)
    peer = getattr(importlib.import_module(f"peer_{module}"), name)()
    call = peer.call(job, job.weights())
    if call is None:
        assert (module, job.task) == ("onnxruntime", "gradients")
        return
    numpy_peer = importlib.import_module("peer_numpy").NumPyBatchedPeer()
    expected = calls.arrays(numpy_peer.call(job, job.weights()))
    assert calls.disagreement(peer.label, calls.arrays(call), expected) == []


def test_a_call_that_disagrees_is_named(peers: ModuleType, jobs: ModuleType) -> None:
    calls = importlib.import_module("peer_calls")

    class Wrong(peers.NumPyBatchedPeer):
        label = "wrong"

        def call(self, job: Any, weights: Any) -> Any:
            right = super().call(job, weights)
            return lambda: [1.001 * value for value in right()]

    results, lines = calls.race_calls(jobs.CALL_JOBS[8], [Wrong()], turns=2, pause=0.0)
    assert [result.label for result in results] == ["wrong"]
    (line,) = lines
    assert line.startswith("wrong: result 0 differs from NumPy's by ")
    found, expected = [np.zeros(3)], [np.zeros((3, 1))]
    assert "has the shape (3,), NumPy's has (3, 1)" in calls.disagreement("x", found, expected)[0]
    assert len(calls.disagreement("x", [np.array([np.nan])], [np.array([1.0])])) == 1


def test_a_peer_that_leaves_dropout_out_is_named(jobs: ModuleType) -> None:
    calls = importlib.import_module("peer_calls")

    class Without(importlib.import_module("peer_fastbackprop").FastbackpropPeer):
        def call(self, job: Any, weights: Any) -> Any:
            return super().call(dataclasses.replace(job, dropout=0.0), weights)

    _, lines = calls.race_calls(jobs.CALL_JOBS[6], [Without()], turns=2, pause=0.0)
    assert lines == ["fastbackprop: its loss is that without dropout"]


def test_report(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("matplotlib").use("agg")
    report = importlib.import_module("peer_report")
    monkeypatch.setattr(peers, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(peers, "PAUSE", 0.0)
    monkeypatch.setattr(report, "SIZES", (16, 32))
    monkeypatch.setattr(report, "EFFORT", report.machine.Effort(0.0, 1))
    monkeypatch.setattr(report, "torch_products", lambda layer, threads: [])
    monkeypatch.setattr(report, "thread_counts", lambda: [1, 2])
    arguments = ["--small", "--epochs=2", "--jobs=1,4,7", "--peers=fastbackprop,numpy", "--report"]
    assert peers.main(arguments) == 0
    output = capsys.readouterr().out
    names = {"peers.md", "epochs.png", "peak_share.png"}
    if report.available_threads() > 1:
        names.add("scaling.png")
    assert {path.name for path in (tmp_path / "results").iterdir()} == names
    assert all(f"Wrote {tmp_path / 'results' / name}" in output for name in names)

    text = (tmp_path / "results" / "peers.md").read_text(encoding="utf-8")
    assert f"NumPy {np.__version__}" in text
    assert re.search(r"\d{4}-\d\d-\d\d; ", text)
    assert re.findall(r"^## Job (\d+): ", text, re.MULTILINE) == ["1", "4", "7"]
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 3 * 4  # a head, a rule, two peers
    assert "| test accuracy |" in tables[0]
    assert "| test loss |" in tables[4]
    assert tables[8] == "| | call, µs | times fastbackprop's | share of peak |"
    for name in names - {"peers.md"}:
        assert f"]({name})" in text


def test_report_says_who_trained_on_part_of_the_rows(peers: ModuleType) -> None:
    pytest.importorskip("matplotlib")
    report = importlib.import_module("peer_report")
    whole, part = {"rows_per_turn": 1000}, {"rows_per_turn": 256}
    assert report.part(whole, {"results": [whole, part]}) == ""
    assert report.part(part, {"results": [whole, part]}) == " (from 256 rows)"
