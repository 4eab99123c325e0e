"""How the cost of training grows: with rows, with parameters, and over odd sizes.

    python benchmarks/growth.py
    python benchmarks/growth.py --parts sizes --points 300 --seed 1

`rows` is nanoseconds a row as the data grow, `parameters` picoseconds a parameter and row as the
layers widen, beside PyTorch where it is installed. `sizes` draws networks of any size, and compares
the arithmetic a second of each with that of its neighbours, one unit or row larger or smaller: a
network at under half of their median is slow. It is timed again before it is called so, and makes
the exit status 1.

Writes `growth.md` and `growth.png` into `benchmarks/results`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_fastbackprop import FastbackpropPeer
from peer_jobs import Data, Job, Peer
from peers import RESULTS, choices, describe_machine, load_peers

PARTS = ("rows", "parameters", "sizes")

ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
WIDTHS = (64, 128, 256, 512, 1024, 2048)
LARGEST_SIZE, LARGEST_BATCH = 600, 300
SLOW = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--parts", type=lambda text: choices(text, PARTS, str), default=list(PARTS),
        help=f"with commas (default: {','.join(PARTS)})",
    )  # fmt: skip
    parser.add_argument("--points", type=int, default=100, help="networks of odd sizes")
    parser.add_argument("--seed", type=int, default=0, help="of the odd sizes")
    args = parser.parse_args(arguments)

    peers, _ = load_peers(["fastbackprop", "torch"])
    about = describe_machine(peers.values())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "# How the cost of training grows",
        "",
        f"{about['date']}; {about['cpu']}, {about['cores']} core(s), {about['system']};",
        f"{versions}.",
    ]
    by_rows, by_width, slow = {}, {}, []
    if "rows" in args.parts:
        by_rows = {n: seconds_of(rows_job(n), FastbackpropPeer()) / n for n in ROWS}
        lines += ["", f"## Rows: {rows_job(1000).network}, batch 64", ""]
        lines += table(["rows", "ns a row"], [(n, 1e9 * s) for n, s in by_rows.items()])
    if "parameters" in args.parts:
        by_width = {width: widths(width, peers) for width in WIDTHS}
        lines += ["", "## Parameters: two layers as wide as their input, Adam, batch 128", ""]
        lines += table(
            ["width", "parameters", *(f"{name}, ps a parameter and row" for name in peers)],
            [
                (width, width_job(width).n_parameters, *(1e12 * s for s in seconds.values()))
                for width, seconds in by_width.items()
            ],
        )
    if "sizes" in args.parts:
        worst, slow = odd_sizes(args.points, args.seed)
        lines += ["", f"## Odd sizes: the slowest of {args.points} networks", ""]
        lines += table(["n_in", "n_out", "batch", "rate / neighbours'"], worst)
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if by_rows and by_width:
        draw(by_rows, by_width, RESULTS / "growth.png")
    for sizes in slow:
        print(f"WARNING: slow: n_in, n_out, batch = {sizes}")
    return 1 if slow else 0


# ------------------------------------------------------------------------------------ measurement


def regression(sizes: tuple[int, ...], n: int, batch_size: int, learning_rate: float = 1e-4) -> Job:
    """A job on random numbers, none of them zero."""
    rng = np.random.default_rng(0)
    X, y = (rng.standard_normal((n, width), np.float32) for width in (sizes[0], sizes[-1]))
    data = Data(X, y, X[:1], y[:1], "random numbers")
    return Job(0, sizes, "tanh", "mse", "adam", learning_rate, batch_size, n, data=data)


def rows_job(n: int) -> Job:
    return regression((20, 64, 2), n, 64)


def width_job(width: int) -> Job:
    # As many rows as take some tenths of a second, and enough steps to forget the first.
    rows = int(np.clip(2e10 / (12 * width**2), 2_560, 20_480))
    return regression((width, width, width), rows // 128 * 128, 128)


def widths(width: int, peers: dict[str, type[Peer]]) -> dict[str, float]:
    """Seconds a parameter and row by library, which take turns."""
    job = width_job(width)
    competitors = {name: peer() for name, peer in peers.items()}
    runs = {name: runner(job, peer) for name, peer in competitors.items()}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(5):
        for name, run in runs.items():
            time.sleep(0.3)  # until the pools of other libraries' threads no longer spin
            seconds[name].append(run())
    scale = job.n_parameters * job.rows_per_turn
    return {name: statistics.median(values) / scale for name, values in seconds.items()}


def runner(job: Job, peer: Peer) -> Callable[[], float]:
    """A function that trains for a turn and returns its seconds; the first turn is done."""
    peer.setup(job, job.initial_weights())
    order = job.order(np.random.default_rng(0))

    def run() -> float:
        start = time.perf_counter()
        peer.epoch(order)
        return time.perf_counter() - start

    run()
    return run


def seconds_of(job: Job, peer: Peer, turns: int = 3) -> float:
    """The least of a few turns."""
    run = runner(job, peer)
    return min(run() for _ in range(turns))


def rate(sizes: tuple[int, int, int], turns: int = 3) -> float:
    """Arithmetic a second of training a network of two layers on a few steps."""
    n_in, n_out, batch = sizes
    flops = 2 * batch * (2 * n_in + 3 * n_out) * n_out
    steps = int(np.clip(2e8 / flops, 4, 500))
    job = regression((n_in, n_out, n_out), steps * batch + 1, batch)  # not one full batch
    return job.flops / seconds_of(job, FastbackpropPeer(), turns)


def share_of_neighbours(sizes: tuple[int, int, int], turns: int = 3) -> float:
    """The rate of a network over the median of those with one more or less of one size."""
    neighbours = []
    for axis in range(3):
        for step in (-1, 1):
            moved = list(sizes)
            moved[axis] += step
            if moved[axis] > 0:
                neighbours.append(rate((moved[0], moved[1], moved[2]), turns))
    return rate(sizes, turns) / statistics.median(neighbours)


def odd_sizes(points: int, seed: int) -> tuple[list[Any], list[Any]]:
    """The ten networks with the least share of their neighbours' rate, and those that are slow."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(points):
        # As many small sizes as large ones: tiles and vectors end at small ones.
        limits = (LARGEST_SIZE, LARGEST_SIZE, LARGEST_BATCH)
        drawn = [round(limit ** rng.random()) for limit in limits]
        sizes = drawn[0], drawn[1], drawn[2]
        share = share_of_neighbours(sizes)
        if share < SLOW:
            share = statistics.median(share_of_neighbours(sizes, 10) for _ in range(3))
        found.append((*sizes, share))
    found.sort(key=lambda row: row[-1])
    return found[:10], [row[:-1] for row in found if row[-1] < SLOW]


# ----------------------------------------------------------------------------------------- results


def table(header: list[str], rows: Sequence[Sequence[float]]) -> list[str]:
    lines = [" | ".join(["", *header, ""]).strip(), "|" + "--:|" * len(header)]
    for row in rows:
        cells = [f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}" for cell in row]
        lines.append(" | ".join(["", *cells, ""]).strip())
    return lines


def draw(by_rows: dict[int, float], by_width: dict[int, dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot as plt
    from peer_report import STYLE, STYLES

    labels = {"fastbackprop": "fastbackprop", "torch": "PyTorch eager"}
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
        color, marker = STYLES["fastbackprop"]
        left.plot(list(by_rows), [1e9 * s for s in by_rows.values()], color=color, marker=marker)
        left.set_xlabel("rows")
        left.set_ylabel("nanoseconds a row")
        left.set_title(f"{rows_job(1000).network}, batch 64", loc="left", fontsize=11)
        parameters = [width_job(width).n_parameters for width in by_width]
        for name in next(iter(by_width.values())):
            color, marker = STYLES[labels[name]]
            values = [1e12 * seconds[name] for seconds in by_width.values()]
            right.plot(parameters, values, color=color, marker=marker, label=labels[name])
        right.set_xlabel("parameters")
        right.set_ylabel("picoseconds a parameter and row")
        right.set_title("two square layers, Adam, batch 128", loc="left", fontsize=11)
        right.legend(frameon=False)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_ylim(0, None)
        figure.suptitle("The cost of training as work grows; flat is linear")
        figure.savefig(path)
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
