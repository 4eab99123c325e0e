"""Train the same networks with several libraries, side by side in one run.

    python benchmarks/peers.py
    python benchmarks/peers.py --jobs 2,3 --peers fastbackprop,torch --epochs 9 --json peers.json

Every peer starts from the same weights, takes the same batches in the same order, and uses the
same loss and optimizer, in float32. The peers take turns, an epoch each, so that a change in the
machine's speed meets all of them. Their training losses in the first and the last epoch and their
final test accuracies must agree (by how much: the tolerances below); if some do not, a warning
says which, and the exit status is 1.

The seconds of an epoch include shuffling and the mean training loss, not the accuracy. The first
epoch, with all compiling and warming up, has its own column; the others give the median.

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
import statistics
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer_jobs import Images, Job, Peer, all_jobs, available_cores
from peer_numpy import NumPyBatchedPeer

from fastbackprop.datasets import load_mnist, load_mnist_small

PEERS = {
    "fastbackprop": ("peer_fastbackprop", "FastbackpropPeer"),
    "torch": ("peer_torch", "TorchPeer"),
    "jax": ("peer_jax", "JaxPeer"),
    "sklearn": ("peer_sklearn", "SklearnPeer"),
    "numpy": ("peer_numpy", "NumPyBatchedPeer"),
    "textbook": ("peer_numpy", "NumPyPerSamplePeer"),
}

# Float32 sums in another order start a drift that grows with every step. Over the first epoch
# libraries that do the same differed by up to 0.1 %, so this is where a wrong formula shows. After
# five epochs a loss of 0.025 differed by up to 0.0025, a larger one by less than 2 %.
FIRST_LOSS_TOLERANCE = 0.01  # relative
FINAL_LOSS_TOLERANCE = 0.02  # relative
FINAL_LOSS_TOLERANCE_ABSOLUTE = 0.005  # whichever is larger
ACCURACY_TOLERANCE = 0.01  # of all test images

WIDTH = 80


@dataclass
class Result:
    """What one peer did in one job; `seconds` are of whole epochs, scaled where need be."""

    label: str
    settings: str
    n_trained: int  # images an epoch
    seconds: list[float]
    losses: list[float]  # mean training loss of each epoch
    accuracy: float

    @property
    def median(self) -> float:
        """Seconds of an epoch in the steady state."""
        return statistics.median(self.seconds[1:])


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
        "Columns: seconds of the first epoch, with compiling; median of the others; its ratio to "
        "fastbackprop's; mean training loss of the last epoch; test accuracy."
    )

    jobs = all_jobs(images)
    reports = []
    for number in args.jobs:
        job = jobs[number]
        taking_part = []
        print("\n" + job.title, flush=True)
        for peer in (peer_class() for peer_class in peers.values()):
            if reason := peer.refusal(job):
                print_wrapped(f"Left out: {peer.label} ({reason})")
            else:
                taking_part.append(peer)
        rng = np.random.default_rng(0)
        orders = [rng.permutation(job.n) for _ in range(args.epochs)]
        results = race(job, taking_part, orders)
        print_table(job, results)
        warnings = disagreements(job, results, orders)
        for line in warnings:
            print_wrapped(f"WARNING: {line}")
        reports.append(job_report(job, results, warnings))

    if args.json:
        report = {"machine": machine, "jobs": reports}
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")
    return 1 if any(report["disagreements"] for report in reports) else 0


def argument_parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--jobs",
        type=lambda text: choices(text, ["1", "2", "3"], int),
        default=[1, 2, 3],
        help="numbers of the jobs to run, with commas (default: 1,2,3)",
    )
    parser.add_argument(
        "--epochs", type=number_of_epochs, default=5, metavar="N", help="at least 2 (default: 5)"
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
    cores = available_cores()
    if n == cores:
        return
    if not 1 <= n < cores:
        raise ValueError(f"--threads must be from 1 to {cores}, the cores available; got {n}")
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--threads needs an operating system that can bind a process to cores")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
    os.execv(sys.executable, sys.orig_argv)


def load_images(folder: str | None, small: bool) -> Images:
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
    return Images(
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
        "cores": available_cores(),
        "cpu": cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "versions": versions,
    }


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


# Seconds before each turn. The thread pools of OpenMP and oneDNN go on spinning for a fifth of a
# second after their work, on cores that the next peer needs.
PAUSE = 0.5


def race(job: Job, peers: list[Peer], orders: list[np.ndarray]) -> list[Result]:
    """Train every peer on every order, taking turns."""
    for peer in peers:
        peer.setup(job, job.initial_weights())
    n_trained = [peer.images_per_epoch(job) for peer in peers]
    seconds: list[list[float]] = [[] for _ in peers]
    losses: list[list[float]] = [[] for _ in peers]
    for order in orders:
        for i, (peer, n) in enumerate(zip(peers, n_trained, strict=True)):
            time.sleep(PAUSE)
            start = time.perf_counter()
            losses[i].append(peer.epoch(order[:n]))
            seconds[i].append((time.perf_counter() - start) * job.n / n)
    return [
        Result(peer.label, peer.settings, n_trained[i], seconds[i], losses[i], peer.accuracy())
        for i, peer in enumerate(peers)
    ]


def final_loss_tolerance(loss: float) -> float:
    return max(FINAL_LOSS_TOLERANCE * loss, FINAL_LOSS_TOLERANCE_ABSOLUTE)


def disagreements(job: Job, results: list[Result], orders: list[np.ndarray]) -> list[str]:
    """Compare each result with the first; one of part of the images, with NumPy on that part."""
    lines = []
    complete = [result for result in results if result.n_trained == job.n]
    for result in results:
        if result.n_trained == job.n:
            expected = complete[0]
        else:
            part = [order[: result.n_trained] for order in orders]
            (expected,) = race(job, [NumPyBatchedPeer()], part)
        first, wanted_first = result.losses[0], expected.losses[0]
        final, wanted_final = result.losses[-1], expected.losses[-1]
        for what, found, wanted, tolerance in (
            ("first training loss", first, wanted_first, FIRST_LOSS_TOLERANCE * wanted_first),
            ("final training loss", final, wanted_final, final_loss_tolerance(wanted_final)),
            ("test accuracy", result.accuracy, expected.accuracy, ACCURACY_TOLERANCE),
        ):
            if not abs(found - wanted) <= tolerance:  # so written, a NaN is a disagreement
                lines.append(
                    f"{result.label}: {what} {found:.5f}, {expected.label}: {wanted:.5f}; "
                    f"they should be within {tolerance:.5f} of each other"
                )
    return lines


def ratio_to_fastbackprop(result: Result, results: list[Result]) -> float | None:
    """Say how many times as long an epoch takes as fastbackprop's, None where it did not run."""
    for other in results:
        if other.label == "fastbackprop":
            return result.median / other.median
    return None


def print_table(job: Job, results: list[Result]) -> None:
    """Print one line a peer, with its seconds an epoch and where they lead."""
    print(f"{'':26}{'first s':>9}{'median s':>10}{'ratio':>8}{'GFLOP/s':>9}{'loss':>9}{'test':>9}")
    notes = []
    for result in results:
        label = result.label
        if result.settings:
            label += f", {result.settings}"
        if result.n_trained < job.n:
            label += " *"
            notes.append(
                f"* Trained on {result.n_trained:,} images an epoch; its seconds are scaled to "
                f"{job.n:,}. Its loss is checked against NumPy, batched, on the same images."
            )
        ratio = ratio_to_fastbackprop(result, results)
        print(
            f"{label:26}{result.seconds[0]:9.3f}{result.median:10.4f}"
            f"{'-' if ratio is None else format(ratio, '.2f'):>8}"
            f"{job.flops / result.median / 1e9:9.1f}{result.losses[-1]:9.5f}{result.accuracy:9.2%}"
        )
    for note in notes:
        print_wrapped(note)


def job_report(job: Job, results: list[Result], warnings: list[str]) -> dict[str, Any]:
    """Return the job's numbers for JSON."""
    return {
        "job": job.number,
        "title": job.title,
        "flops_per_epoch": job.flops,
        "results": [
            {
                "peer": result.label,
                "settings": result.settings,
                "images_per_epoch": result.n_trained,
                "seconds": result.seconds,
                "median": result.median,
                "ratio": ratio_to_fastbackprop(result, results),
                "losses": result.losses,
                "accuracy": result.accuracy,
            }
            for result in results
        ],
        "disagreements": warnings,
    }


def print_wrapped(text: str) -> None:
    print(textwrap.fill(text, WIDTH, subsequent_indent="  "))


if __name__ == "__main__":
    sys.exit(main())
