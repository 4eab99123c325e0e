"""The report of a run: its tables as Markdown, and three plots, with the machine and the date."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from peer_fastbackprop import FastbackpropPeer
from peer_jobs import Job, thread_counts

from fastbackprop import machine
from fastbackprop.cores import available_threads

SIZES = (16, 32, 64, 128, 256, 512, 1024)
EFFORT = machine.Effort(0.01, 5)
SCALING_ROWS = 10_000

# The palette of Okabe and Ito, told apart whatever colours one sees; and a marker each.
STYLES = {
    "fastbackprop": ("#D55E00", "o"),
    "PyTorch eager": ("#0072B2", "s"),
    "JAX, jitted scan": ("#009E73", "^"),
    "scikit-learn": ("#CC79A7", "D"),
    "ONNX Runtime": ("#56B4E9", "P"),
    "NumPy, batched": ("#000000", "v"),
    "NumPy, per sample": ("#999999", "X"),
}
LINE_STYLES = list(STYLES.values())

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}


def write_report(folder: Path, report: dict[str, Any], jobs: Mapping[int, Job]) -> list[Path]:
    """Measure shares of the peak and scaling, and write everything; return the files."""
    folder.mkdir(exist_ok=True)
    threads = available_threads()
    peaks = {
        dtype: machine.peak_flops(dtype, threads, machine.Effort(0.02, 15))
        for dtype in ("float32", "float64")
    }
    training = [entry for entry in report["jobs"] if "flops_per_turn" in entry]
    shares = {dtype: product_shares(dtype, threads, peak) for dtype, peak in peaks.items()}
    text = markdown(report, peaks, threads)
    written = [folder / "peers.md"]
    with mpl.rc_context(STYLE):
        figures = {"peak_share.png": draw_shares(shares, threads)}
        if training:
            figures["epochs.png"] = draw_epochs(training)
        if training and threads > 1:
            speedups = {entry["job"]: scaling(jobs[entry["job"]]) for entry in training}
            figures["scaling.png"] = draw_scaling(speedups, jobs)
        for name, figure in figures.items():
            figure.savefig(folder / name)
            plt.close(figure)
            written.append(folder / name)
            text += f"\n![{name.removesuffix('.png').replace('_', ' ')}]({name})\n"
    written[0].write_text(text, encoding="utf-8")
    return written


# ------------------------------------------------------------------------------------ measurement


def product_shares(dtype: str, threads: int, peak: float) -> dict[str, list[float]]:
    """Share of the peak of the three matrix products, by library and size: geometric means."""
    shares: dict[str, list[float]] = {}
    for size in SIZES:
        layer = machine.LayerProducts(size, size, size, dtype)
        seconds = {
            "fastbackprop": [layer.seconds(p, threads, EFFORT) for p in machine.PRODUCTS],
            "NumPy, batched": call_times(numpy_products(layer.x, layer.w, layer.dz)),
        }
        if products := torch_products(layer, threads):
            seconds["PyTorch eager"] = call_times(products)
        for library, times in seconds.items():
            rate = layer.flops / statistics.geometric_mean(times)
            shares.setdefault(library, []).append(rate / peak)
    return shares


def call_times(calls: Iterable[Callable[[], object]]) -> list[float]:
    return [machine.call_seconds(call, EFFORT) for call in calls]


def numpy_products(x: Any, w: Any, dz: Any) -> list[Callable[[], object]]:
    # Without the padding between rows, which is this package's, and into memory that is there.
    x, w, dz = (np.ascontiguousarray(matrix) for matrix in (x, w, dz))
    z, dw, dx = (np.empty_like(matrix) for matrix in (dz, w, x))
    return [
        lambda: np.matmul(x, w, out=z),
        lambda: np.matmul(x.T, dz, out=dw),
        lambda: np.matmul(dz, w.T, out=dx),
    ]


def torch_products(layer: machine.LayerProducts, threads: int) -> list[Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return []
    torch.set_num_threads(threads)
    x, w, dz = (torch.from_numpy(matrix.copy()) for matrix in (layer.x, layer.w, layer.dz))
    z, dw, dx = (torch.empty_like(matrix) for matrix in (dz, w, x))
    return [
        lambda: torch.mm(x, w, out=z),
        lambda: torch.mm(x.T, dz, out=dw),
        lambda: torch.mm(dz, w.T, out=dx),
    ]


def scaling(job: Job) -> dict[int, float]:
    """Seconds of an epoch of up to 10,000 rows, by the number of threads."""
    seconds = {}
    n = min(job.n, SCALING_ROWS) // job.batch_size * job.batch_size
    for threads in thread_counts():
        peer = FastbackpropPeer()
        peer.setup(job, job.initial_weights())
        history = peer.network.fit(
            job.data.X_train[:n],
            peer.targets[:n],
            epochs=1 + 5 * job.epochs_per_turn,
            batch_size=job.batch_size,
            optimizer=peer.optimizer,
            threads=threads,
            verbose=0,
        )
        seconds[threads] = statistics.median(history["seconds"][1:])
    return seconds


# ------------------------------------------------------------------------------------------ tables


def markdown(report: dict[str, Any], peaks: Mapping[str, float], threads: int) -> str:
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    limits = ", ".join(f"{peak / 1e9:.1f} GFLOP/s in {dtype}" for dtype, peak in peaks.items())
    lines = [
        "# fastbackprop beside other libraries",
        "",
        f"{about['date']}; {about['cpu']}, {about['cores']} core(s), {about['system']};",
        f"{versions}.",
        f"Peak of multiply-adds in registers, {threads} thread(s): {limits}.",
        f"Images: {about['images']}.",
    ]
    for entry in report["jobs"]:
        lines += ["", f"## {entry['title']}", ""]
        if "flops_per_turn" in entry:
            lines += training_table(entry, peaks["float32"])
        else:
            lines += call_table(entry, peaks["float32"])
        lines += [f"\nDisagreement: {line}" for line in entry["disagreements"]]
    return "\n".join(lines) + "\n"


def training_table(entry: dict[str, Any], peak: float) -> list[str]:
    lines = [
        "| | first turn, s | turn, s | times fastbackprop's | share of peak | loss "
        f"| {entry['score']} |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in entry["results"]:
        lines.append(
            f"| {named(result)}{part(result, entry)} "
            f"| {result['seconds'][0]:.3f} | {result['median']:.4f} "
            f"| {ratio(result)} | {entry['flops_per_turn'] / result['median'] / peak:.1%} "
            f"| {result['losses'][-1]:.5f} | {result['score']:.4f} |"
        )
    return lines


def call_table(entry: dict[str, Any], peak: float) -> list[str]:
    lines = ["| | call, µs | times fastbackprop's | share of peak |", "|---|--:|--:|--:|"]
    for result in entry["results"]:
        lines.append(
            f"| {named(result)} | {1e6 * result['median']:.2f} | {ratio(result)} "
            f"| {100 * entry['flops_per_call'] / result['median'] / peak:.3g}% |"
        )
    return lines


def named(result: dict[str, Any]) -> str:
    return result["peer"] + (f", {result['settings']}" if result["settings"] else "")


def part(result: dict[str, Any], entry: dict[str, Any]) -> str:
    """Say so where a peer trained on part of the rows, its seconds scaled to all of them."""
    if result["rows_per_turn"] == max(other["rows_per_turn"] for other in entry["results"]):
        return ""
    return f" (from {result['rows_per_turn']:,} rows)"


def ratio(result: dict[str, Any]) -> str:
    return "-" if result["ratio"] is None else f"{result['ratio']:.2f}"


# ------------------------------------------------------------------------------------------- plots


def draw_epochs(entries: list[dict[str, Any]]) -> Any:
    """A panel a job, a point a peer, on a logarithmic axis of seconds."""
    columns = min(2, len(entries))
    rows = math.ceil(len(entries) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 3 * rows), squeeze=False)
    for axis in axes.flat[len(entries) :]:
        axis.set_visible(False)
    for axis, entry in zip(axes.flat, entries, strict=False):
        network, details = entry["title"].split(": ")[1].split(", ", 1)
        # From where the names of the peers begin, since the second line is longer than the axis.
        axis.set_title(f"{network}\n{details}", fontsize=10, loc="left", x=-0.38)
        results = entry["results"][::-1]
        for y, result in enumerate(results):
            color, marker = STYLES[result["peer"]]
            axis.plot(result["median"], y, marker, color=color, markersize=9)
            text = f"{result['median']:.3g} s"
            if result["ratio"] is not None and result["peer"] != "fastbackprop":
                text += f"  (×{result['ratio']:.3g})"
            axis.annotate(
                text, (result["median"], y), (9, 0), textcoords="offset points", va="center",
                fontsize=10,
            )  # fmt: skip
        axis.set_yticks(range(len(results)), [result["peer"] for result in results])
        axis.set_ylim(-0.6, len(results) - 0.4)
        axis.set_xscale("log")
        medians = [result["median"] for result in results]
        # Room on the right for the text beside the slowest.
        span = max(max(medians) / min(medians), 10.0)
        axis.set_xlim(min(medians) / span**0.08, max(medians) * span**0.7)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("seconds a turn")
    figure.suptitle("Time of a turn (an epoch, or as said), beside fastbackprop's; lower is better")
    return figure


def draw_shares(shares: Mapping[str, Mapping[str, list[float]]], threads: int) -> Any:
    figure, axes = plt.subplots(1, len(shares), figsize=(10, 4), sharey=True)
    for axis, (dtype, of_libraries) in zip(axes, shares.items(), strict=True):
        for library, values in of_libraries.items():
            color, marker = STYLES[library]
            label = library.split(",")[0].removesuffix(" eager")
            axis.plot(SIZES, values, color=color, marker=marker, label=label)
        axis.set_title(dtype)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(SIZES))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("rows = inputs = outputs")
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0].set_ylabel("share of the measured peak")
    axes[0].set_ylim(0, max(1.0, *axes[0].get_ylim()))
    axes[0].legend(loc="upper left", frameon=False)
    plural = "s" if threads > 1 else ""
    figure.suptitle(f"A layer's three matrix products, {threads} thread{plural}; higher is better")
    return figure


def draw_scaling(seconds: Mapping[int, Mapping[int, float]], jobs: Mapping[int, Job]) -> Any:
    figure, axis = plt.subplots(figsize=(10, 4.5))
    counts = thread_counts()
    axis.plot(counts, counts, "--", color="#555555", label="as many times as threads")
    for (number, by_threads), (color, marker) in zip(seconds.items(), LINE_STYLES, strict=False):
        job = jobs[number]
        speedups = [by_threads[1] / by_threads[threads] for threads in counts]
        label = f"{job.network}, batch {job.batch_size:,}"
        axis.plot(counts, speedups, color=color, marker=marker, label=label)
    axis.set_xticks(counts)
    axis.set_ylim(0, None)
    axis.set_xlabel("threads")
    axis.set_ylabel("times as fast as 1 thread")
    axis.set_title("Training on more threads; higher is better", loc="left")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
