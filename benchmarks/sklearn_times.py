"""Fit and predict times of MLPClassifier and MLPRegressor beside scikit-learn's own.

    python benchmarks/sklearn_times.py [--repeats 3] [--epochs 200] [--data iris digits ...]

Each data set is standardised (MNIST is scaled to [0, 1]) and split in four parts, of which one is
for the test. The two libraries take turns with the same parameters and seed for the same number of
epochs; the best time of each counts. MNIST needs FASTBACKPROP_DATA or a download, and takes some
minutes. It prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import sklearn.datasets
import sklearn.neural_network as peers
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import fastbackprop.sklearn as ours

TABLES = {
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
    "breast cancer": sklearn.datasets.load_breast_cancer,
    "diabetes": sklearn.datasets.load_diabetes,
    "digits": sklearn.datasets.load_digits,
}
SIZES = [(100,), (256, 256)]
PREDICTIONS = 10  # in each repeat, since most take less time than a clock or a cache is off by


def load(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X, X_test, y, y_test."""
    if name == "mnist":
        from fastbackprop.datasets import load_mnist

        (X, y), (X_test, y_test) = load_mnist()
        return X / 255.0, X_test / 255.0, y, y_test
    X, y = TABLES[name](return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(X_test), y, y_test


def best_times(estimators: list, data: tuple, repeats: int) -> list[tuple[float, float, float]]:
    """(seconds of fit, seconds of predict, score) of each estimator."""
    X, X_test, y, y_test = data
    times = [[np.inf, np.inf, 0.0] for _ in estimators]
    for _ in range(repeats):
        for best, estimator in zip(times, estimators, strict=True):
            start = time.perf_counter()
            estimator.fit(X, y)
            best[0] = min(best[0], time.perf_counter() - start)
            for _ in range(PREDICTIONS):
                start = time.perf_counter()
                estimator.predict(X_test)
                best[1] = min(best[1], time.perf_counter() - start)
            best[2] = estimator.score(X_test, y_test)
    return [tuple(best) for best in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=200, help="a twentieth of it for mnist")
    parser.add_argument("--data", nargs="+", default=[*TABLES, "mnist"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # so few epochs do not converge
    ours.MLPRegressor(hidden_layer_sizes=(1,), max_iter=1).fit(
        [[0.0], [1.0]], [0.0, 1.0]
    )  # compiles the kernels
    print("In brackets, how many times as long as fastbackprop scikit-learn takes")
    print()
    print(
        "| data | hidden layers | fit, s | scikit-learn's | predict, ms | scikit-learn's "
        "| score | scikit-learn's |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.data:
        data = load(name)
        for sizes in SIZES:
            kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
            epochs = max(1, options.epochs // 20) if name == "mnist" else options.epochs
            shared = {"hidden_layer_sizes": sizes, "random_state": 0, "max_iter": epochs}
            shared |= {"tol": 0.0, "n_iter_no_change": epochs}
            if kind == "MLPRegressor":
                shared["learning_rate_init"] = 0.01
            estimators = [getattr(library, kind)(**shared) for library in (ours, peers)]
            mine, theirs = best_times(estimators, data, options.repeats)
            print(
                f"| {name} | {'-'.join(map(str, sizes))} "
                f"| {mine[0]:.4f} | {theirs[0]:.4f} ({theirs[0] / mine[0]:.1f}) "
                f"| {1e3 * mine[1]:.3f} | {1e3 * theirs[1]:.3f} ({theirs[1] / mine[1]:.1f}) "
                f"| {mine[2]:.4f} | {theirs[2]:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
