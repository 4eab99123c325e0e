"""Train on files of which memory holds one at a time, so that all together may be any size."""

import argparse
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

import fastbackprop as fb


def write_files(folder: Path, files: int, rows: int) -> None:
    """Write X and y, file by file: whether the first half of 100 numbers has the larger sum."""
    rng = np.random.default_rng(0)
    for i in range(files):
        X = rng.standard_normal((rows, 100), np.float32)
        y = X[:, :50].sum(axis=1) > X[:, 50:].sum(axis=1)
        np.save(folder / f"X{i}.npy", X)
        np.save(folder / f"y{i}.npy", y.astype(np.int64))


def main(files: int = 16, rows: int = 10_000, epochs: int = 2) -> tuple[float, float]:
    """Train on all files but the last; return its accuracy, and the share of bytes held at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, files, rows)
        X = [folder / f"X{i}.npy" for i in range(files)]
        y = [folder / f"y{i}.npy" for i in range(files)]
        size = sum(path.stat().st_size for path in [*X, *y])
        training = fb.datasets.Shards(X[:-1], y[:-1])
        validation = fb.datasets.Shards(X[-1:], y[-1:])

        net = fb.Network([100, 32, 2], "relu", "cross_entropy", random_state=0)
        before = net.evaluate(validation)["accuracy"]
        tracemalloc.start()
        net.fit(training, epochs=epochs, batch_size=64, validation_data=validation, verbose=0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        accuracy = net.evaluate(validation)["accuracy"]
    print(f"{training}: {size / 1e6:.0f} MB on disk, at most {peak / 1e6:.0f} MB in memory")
    print(f"Accuracy on {rows:,} other rows: {before:.1%} before, {accuracy:.1%} after training")
    return accuracy, peak / size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--rows", type=int, default=10_000, help="in each file")
    parser.add_argument("--epochs", type=int, default=2)
    main(**vars(parser.parse_args()))
