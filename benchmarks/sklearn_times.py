"""Fit and predict times of MLPClassifier and MLPRegressor beside scikit-learn's own.

    python benchmarks/sklearn_times.py
    python benchmarks/sklearn_times.py --data iris,digits --epochs 50
    python benchmarks/sklearn_times.py --one-thread

Tables are standardised, MNIST is scaled to [0, 1], and a quarter (of MNIST its own 10,000 images)
is for the test. The two libraries take turns with the same parameters, seed and number of epochs in
float64, which is what their users have; the best of the turns of each counts. MNIST needs
FASTBACKPROP_DATA or a download, and takes some minutes.

With ``--one-thread`` each has one thread, and its CPU time counts: that is nearly the same whatever
else the machine does meanwhile.

Writes `sklearn_times.md` into `benchmarks/results`, or another file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn.datasets
import sklearn.neural_network as theirs
from peers import RESULTS, choices, describe_machine, load_peers
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import fastbackprop.sklearn as ours

TABLES = {
    "iris": sklearn.datasets.load_iris,
    "digits": sklearn.datasets.load_digits,
    "breast cancer": sklearn.datasets.load_breast_cancer,
    "wine": sklearn.datasets.load_wine,
    "diabetes": sklearn.datasets.load_diabetes,
}
DATA = (*TABLES, "mnist")
SIZES = {(100,): 5.0, (256, 256): 2.0}  # hidden layers: how many times as fast they are meant to be
PREDICTIONS = 10  # in each turn, since most take less time than a clock or a cache is off by


class Data(NamedTuple):
    X: np.ndarray
    X_test: np.ndarray
    y: np.ndarray
    y_test: np.ndarray


class Times(NamedTuple):
    fit: float  # seconds
    predict: float
    score: float


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=200, help="a twentieth of it for mnist")
    parser.add_argument(
        "--data", type=lambda text: choices(text, DATA, str), default=list(DATA),
        help=f"with commas (default: {','.join(DATA)})",
    )  # fmt: skip
    parser.add_argument("--one-thread", action="store_true", help="CPU time of one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS / "sklearn_times.md", metavar="FILE")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # a given number of epochs does not converge
    compile_kernels()
    lines = [*heading(options), *table_head()]
    print("\n".join(lines), flush=True)
    for name in options.data:
        data = load(name)
        for sizes, goal in SIZES.items():
            epochs = max(1, options.epochs // 20) if name == "mnist" else options.epochs
            estimators = make_estimators(name, sizes, epochs, options.one_thread)
            with threadpool_limits(1 if options.one_thread else None):
                clock = time.process_time if options.one_thread else time.perf_counter
                times = compare(estimators, data, options.turns, clock)
            lines.append(row(name, sizes, goal, times))
            print(lines[-1], flush=True)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


# ------------------------------------------------------------------------------------ measurement


def compile_kernels() -> None:
    ours.MLPRegressor(hidden_layer_sizes=(1,), max_iter=1).fit([[0.0], [1.0]], [0.0, 1.0])


def load(name: str) -> Data:
    if name == "mnist":
        from fastbackprop.datasets import load_mnist

        (X, y), (X_test, y_test) = load_mnist()
        return Data(X / 255.0, X_test / 255.0, y, y_test)
    X, y = TABLES[name](return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    scaler = StandardScaler().fit(X)
    return Data(scaler.transform(X), scaler.transform(X_test), y, y_test)


def make_estimators(name: str, sizes: tuple[int, ...], epochs: int, one_thread: bool) -> list[Any]:
    """fastbackprop's and scikit-learn's, with the same parameters."""
    kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
    options = {"hidden_layer_sizes": sizes, "random_state": 0, "max_iter": epochs}
    options |= {"tol": 0.0, "n_iter_no_change": epochs}
    if kind == "MLPRegressor":
        options["learning_rate_init"] = 0.01
    mine = getattr(ours, kind)(**options, n_threads=1 if one_thread else None)
    return [mine, getattr(theirs, kind)(**options)]


def compare(
    estimators: list[Any], data: Data, turns: int, clock: Callable[[], float]
) -> tuple[Times, Times]:
    """The times of two estimators that take turns."""
    times: list[list[Times]] = [[], []]
    for _ in range(turns):
        for estimator, its_times in zip(estimators, times, strict=True):
            time.sleep(0.3)  # until the other library's threads no longer spin
            its_times.append(turn(estimator, data, clock))
    first, second = (Times(*map(min, zip(*its_times, strict=True))) for its_times in times)
    return first, second


def turn(estimator: Any, data: Data, clock: Callable[[], float]) -> Times:
    start = clock()
    estimator.fit(data.X, data.y)
    fit = clock() - start
    predictions = []
    for _ in range(PREDICTIONS):
        start = clock()
        estimator.predict(data.X_test)
        predictions.append(clock() - start)
    return Times(fit, min(predictions), estimator.score(data.X_test, data.y_test))


# ----------------------------------------------------------------------------------------- results


def heading(options: argparse.Namespace) -> list[str]:
    epochs = options.epochs
    peers, _ = load_peers(["fastbackprop", "sklearn"])
    about = describe_machine(peers.values())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [
        "# MLPClassifier and MLPRegressor beside scikit-learn's",
        "",
        f"{about['date']}; {about['cpu']}, {about['cores']} core(s), {about['system']};",
        f"{versions}; {load_of_machine()}.",
        "",
        "CPU time of one thread each." if options.one_thread else "Threads as each chooses.",
        f"Adam, {epochs} epochs (MNIST: {max(1, epochs // 20)}), batches of 200, float64. In "
        "brackets how many times as long as",
        "fastbackprop scikit-learn takes; * where that is less than the goal, "
        + ", ".join(f"{goal:g} with {named(sizes)}" for sizes, goal in SIZES.items())
        + ". Scores are accuracies, of diabetes R².",
        "",
    ]


def load_of_machine() -> str:
    """How much else the machine has to do: far from 0, times are too long, and ratios off."""
    if not hasattr(os, "getloadavg"):
        return "its load is not known"
    return f"load average before {os.getloadavg()[0]:.1f}"


def table_head() -> list[str]:
    columns = ["data", "hidden", "fit, s", "scikit-learn's", "predict, ms", "scikit-learn's"]
    columns += ["score", "scikit-learn's"]
    return ["| " + " | ".join(columns) + " |", "|---|---|" + "--:|" * 6]


def row(name: str, sizes: tuple[int, ...], goal: float, times: tuple[Times, Times]) -> str:
    mine, others = times

    def ratio(a: float, b: float) -> str:
        return f"({b / a:.1f}{'*' if b < goal * a else ''})"

    cells = [
        name,
        named(sizes),
        f"{mine.fit:.4f}",
        f"{others.fit:.4f} {ratio(mine.fit, others.fit)}",
        f"{1e3 * mine.predict:.3f}",
        f"{1e3 * others.predict:.3f} {ratio(mine.predict, others.predict)}",
        f"{mine.score:.4f}",
        f"{others.score:.4f}",
    ]
    return "| " + " | ".join(cells) + " |"


def named(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))


if __name__ == "__main__":
    sys.exit(main())
