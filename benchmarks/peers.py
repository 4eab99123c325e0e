"""Train the same networks with several libraries, side by side in one run.

    python benchmarks/peers.py
    python benchmarks/peers.py --jobs 2,3 --peers fastbackprop,torch --epochs 9 --json peers.json

Jobs 1 to 5 train. Every peer starts from the same weights, takes the same batches in the same
order, and uses the same loss and optimizer, in float32. The peers take turns, an epoch each (ten
where one lasts milliseconds, a hundred where the batch is all of the data), so that a change in
the machine's speed meets all of them. Their training losses in the first and the last turn and
their final test scores must agree (by how much: the tolerances below); if some do not, a warning
says which, and the exit status is 1.

The seconds of a turn include shuffling and the mean training loss, not the accuracy. The first
turn, with all compiling and warming up, has its own column; the others give the median.

Jobs 6 to 10 are calls from Python, of outputs or of loss and gradients, on the same weights and
rows. What they return must agree with NumPy, and their turns are as many calls as take 50 ms.

`--report` writes the tables as Markdown, and plots, into `benchmarks/results`.

All the cores the process may use are at every peer's disposal. The images are MNIST: from
`--data`, else as `fastbackprop.datasets.load_mnist` finds them on this machine, else the part of
it that ships with the package.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_calls import race_calls
from peer_jobs import CALL_JOBS, Data, Job, Peer, all_jobs
from peer_numpy import NumPyBatchedPeer
from peer_results import (
    Result,
    call_report,
    job_report,
    print_calls,
    print_table,
    print_wrapped,
)

from fastbackprop.cores import available_threads
from fastbackprop.datasets import load_mnist, load_mnist_small
from fastbackprop.machine import Effort, peak_flops, processor
from fastbackprop.standard_jobs import STANDARD_JOBS

PEERS = {
    "fastbackprop": ("peer_fastbackprop", "FastbackpropPeer"),
    "torch": ("peer_torch", "TorchPeer"),
    "jax": ("peer_jax", "JaxPeer"),
    "sklearn": ("peer_sklearn", "SklearnPeer"),
    "onnxruntime": ("peer_onnxruntime", "OnnxRuntimePeer"),
    "numpy": ("peer_numpy", "NumPyBatchedPeer"),
    "textbook": ("peer_numpy", "NumPyPerSamplePeer"),
}

JOB_NUMBERS = [*STANDARD_JOBS, *CALL_JOBS]

RESULTS = Path(__file__).parent / "results"

# Float32 sums in another order start a drift that grows with every step. Over the first epoch
# libraries that do the same differed by up to 0.1 %, so this is where a wrong formula shows. After
# five epochs a loss of 0.025 differed by up to 0.0025, a larger one by less than 2 %.
FIRST_LOSS_TOLERANCE = 0.01  # relative
FINAL_LOSS_TOLERANCE = 0.02  # relative
FINAL_LOSS_TOLERANCE_ABSOLUTE = 0.005  # whichever is larger
ACCURACY_TOLERANCE = 0.01  # of all test images


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argument_parser()
    args = parser.parse_args(arguments)
    if args.threads is not None:
        try:
            restrict_to_cores(args.threads)
        except ValueError as error:
            parser.error(str(error))
    try:
        images = load_images(args.data, small=args.small)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    peers, missing = load_peers(args.peers)
    machine = describe_machine(peers.values())
    print_wrapped(
        f"{machine['cores']} core(s), {machine['cpu']}, {machine['system']}, {machine['date']}"
    )
    print_wrapped(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print_wrapped(f"Images: {images.source}")
    for line in missing:
        print_wrapped(line)
    print_wrapped(
        "Columns: seconds of the first turn, with compiling; median of the others; its ratio to "
        "fastbackprop's; mean training loss of the last turn; test accuracy, or loss."
    )

    jobs = all_jobs(images)
    reports = []
    for number in args.jobs:
        competitors = [peer_class() for peer_class in peers.values()]
        if number in jobs:
            reports.append(run_job(jobs[number], competitors, args.epochs))
        else:
            reports.append(run_call_job(number, competitors, args.epochs))

    report = {"machine": machine | {"images": images.source}, "jobs": reports}
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")
    if args.report:
        from peer_report import write_report

        for path in write_report(RESULTS, report, jobs):
            print(f"Wrote {path}")
    return 1 if any(report["disagreements"] for report in reports) else 0


def run_job(job: Job, competitors: list[Peer], epochs: int) -> dict[str, Any]:
    """Train with all who can, print the table, and return the numbers."""
    taking_part = []
    print("\n" + job.title, flush=True)
    for peer in competitors:
        if reason := peer.refusal(job):
            print_wrapped(f"Left out: {peer.label} ({reason})")
        else:
            taking_part.append(peer)
    rng = np.random.default_rng(0)
    orders = [job.order(rng) for _ in range(epochs)]
    results = race(job, taking_part, orders, PAUSE)
    print_table(job, results)
    warnings = disagreements(job, results, orders)
    for line in warnings:
        print_wrapped(f"WARNING: {line}")
    return job_report(job, results, warnings)


def run_call_job(number: int, competitors: list[Peer], turns: int) -> dict[str, Any]:
    """Time the calls of all who can make them, print the table, and return the numbers."""
    job = CALL_JOBS[number]
    print("\n" + job.title, flush=True)
    results, warnings = race_calls(job, competitors, turns, PAUSE)
    print_calls(job, results)
    for line in warnings:
        print_wrapped(f"WARNING: {line}")
    return call_report(job, results, warnings)


def argument_parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--jobs",
        type=lambda text: choices(text, map(str, JOB_NUMBERS), int),
        default=JOB_NUMBERS,
        help="numbers of the jobs to run, with commas: 1 to 5 train, 6 to 10 are calls "
        "(default: all)",
    )
    parser.add_argument(
        "--epochs",
        type=number_of_epochs,
        default=5,
        metavar="N",
        help="or turns of small jobs; at least 2 (default: 5)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="run on the first N cores only, which bounds every peer's threads (default: all)",
    )
    parser.add_argument(
        "--peers",
        type=lambda text: choices(text, PEERS, str),
        default=list(PEERS),
        help=f"who takes part, with commas (default: {','.join(PEERS)})",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also write the tables and plots to benchmarks/results; needs matplotlib",
    )
    parser.add_argument("--json", metavar="FILE", help="also write every number to FILE")
    parser.add_argument(
        "--small", action="store_true", help="1,000 training images only, for a quick check"
    )
    parser.add_argument("--data", metavar="FOLDER", help="a folder with the IDX files of MNIST")
    return parser


def choices(text: str, known: Iterable[str], convert: type) -> list[Any]:
    known = list(known)
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, unknown))} unknown; choose from {', '.join(known)}"
        )
    return [convert(name) for name in dict.fromkeys(chosen)]


def number_of_epochs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(
            f"expected 2 or more, got {text!r}; the first epoch is a warm-up"
        )
    return int(text)


def restrict_to_cores(n: int) -> None:
    """Start the program again on the first `n` cores, unless it runs on that many already.

    Most libraries size their thread pools when they are imported, so it is too late by now.
    """
    cores = available_threads()
    if n == cores:
        return
    if not 1 <= n < cores:
        raise ValueError(f"--threads must be from 1 to {cores}, the cores available; got {n}")
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--threads needs an operating system that can bind a process to cores")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
    os.execv(sys.executable, sys.orig_argv)


def load_images(folder: str | None, small: bool) -> Data:
    if small:
        data, source = (
            load_mnist_small(),
            "1,000 for training and 500 for testing, shipped with fastbackprop",
        )
    else:
        try:
            data, source = load_mnist(folder, download=False), "all of MNIST"
        except FileNotFoundError:
            if folder is not None:
                raise
            data = load_mnist_small()
            source = "10,000 of MNIST, shipped with fastbackprop; for all of it, give --data FOLDER"
    (X_train, y_train), (X_test, y_test) = data
    n, n_test = (1_000, 500) if small else (len(X_train), len(X_test))
    scale = np.float32(1 / 255)
    return Data(
        X_train[:n].astype(np.float32) * scale,
        y_train[:n].astype(np.int64),
        X_test[:n_test].astype(np.float32) * scale,
        y_test[:n_test].astype(np.int64),
        source,
    )


def load_peers(names: list[str]) -> tuple[dict[str, type[Peer]], list[str]]:
    """Import the peers; return those that are installed, and a line for each that is not."""
    peers, missing = {}, []
    for name in names:
        module, class_name = PEERS[name]
        try:
            peers[name] = getattr(importlib.import_module(module), class_name)
        except ImportError as error:
            missing.append(f"Left out: {name} ({error})")
    return peers, missing


def describe_machine(peers: Iterable[type[Peer]]) -> dict[str, Any]:
    versions = {"Python": platform.python_version()}
    for peer in peers:
        versions[peer.library] = peer.version
    return {
        "cores": available_threads(),
        "cpu": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "versions": versions,
    }


# Seconds before each turn. The thread pools of OpenMP and oneDNN go on spinning for a fifth of a
# second after their work, on cores that the next peer needs.
PAUSE = 0.5

# Cores that were idle for so long are slow for a while, so all of them compute, for no peer, before
# a turn begins: an epoch of 2-32-32-1 took 4.1 ms instead of 4.5. It takes 2.2 where others went
# before, with its code and data in the caches, which is why a turn has several.
_WAKING = Effort(seconds=0.02, samples=3)


def settle(pause: float) -> None:
    """Let the threads of the last peer fall asleep, and wake the cores for the next."""
    time.sleep(pause)
    if pause > 0.0:
        peak_flops("float32", available_threads(), _WAKING)


def race(
    job: Job, peers: list[Peer], orders: list[np.ndarray], pause: float = PAUSE
) -> list[Result]:
    """Train every peer on every order, taking turns."""
    for peer in peers:
        peer.setup(job, job.initial_weights())
    n_trained = [peer.rows_per_turn(job) for peer in peers]
    seconds: list[list[float]] = [[] for _ in peers]
    losses: list[list[float]] = [[] for _ in peers]
    for order in orders:
        for i, (peer, n) in enumerate(zip(peers, n_trained, strict=True)):
            settle(pause)
            start = time.perf_counter()
            losses[i].append(train_turn(job, peer, order[:n]))
            seconds[i].append((time.perf_counter() - start) * job.rows_per_turn / n)
    return [
        Result(
            peer.label,
            peer.settings,
            n_trained[i],
            seconds[i],
            losses[i],
            job.score(peer.outputs(job.data.X_test)),
        )
        for i, peer in enumerate(peers)
    ]


def train_turn(job: Job, peer: Peer, order: np.ndarray) -> float:
    """Train on the rows of a turn, epoch by epoch, and return their mean loss."""
    rows = len(order) if job.is_full_batch else job.n
    epochs = [order[begin : begin + rows] for begin in range(0, len(order), rows)]
    losses = [peer.epoch(epoch) for epoch in epochs]
    return float(np.average(losses, weights=list(map(len, epochs))))


def final_loss_tolerance(loss: float) -> float:
    return max(FINAL_LOSS_TOLERANCE * loss, FINAL_LOSS_TOLERANCE_ABSOLUTE)


def disagreements(job: Job, results: list[Result], orders: list[np.ndarray]) -> list[str]:
    """Compare each result with the first; one of part of the rows, with NumPy on that part."""
    lines = []
    complete = [result for result in results if result.n_trained == job.rows_per_turn]
    for result in results:
        if result.n_trained == job.rows_per_turn:
            expected = complete[0]
        else:
            part = [order[: result.n_trained] for order in orders]
            (expected,) = race(job, [NumPyBatchedPeer()], part)
        what_score, score_tolerance = "test accuracy", ACCURACY_TOLERANCE
        if job.is_regression:
            what_score, score_tolerance = "test loss", final_loss_tolerance(expected.score)
        first, wanted_first = result.losses[0], expected.losses[0]
        final, wanted_final = result.losses[-1], expected.losses[-1]
        for what, found, wanted, tolerance in (
            ("first training loss", first, wanted_first, FIRST_LOSS_TOLERANCE * wanted_first),
            ("final training loss", final, wanted_final, final_loss_tolerance(wanted_final)),
            (what_score, result.score, expected.score, score_tolerance),
        ):
            if not abs(found - wanted) <= tolerance:  # so written, a NaN is a disagreement
                lines.append(
                    f"{result.label}: {what} {found:.5f}, {expected.label}: {wanted:.5f}; "
                    f"they should be within {tolerance:.5f} of each other"
                )
    return lines


if __name__ == "__main__":
    sys.exit(main())
