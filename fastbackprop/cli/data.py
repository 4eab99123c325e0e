"""What ``--data`` stands for: a data set by its name, or a user's own files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop import datasets
from fastbackprop.datasets import Dataset, Table
from fastbackprop.plan import Array
from fastbackprop.specs import unknown

_BYTE_SCALE = 1 / 255
_DIGITS_SCALE = 1 / 16

NAMES = ("mnist-small", "mnist", "digits")
"""The data sets that have a name."""


class Task(NamedTuple):
    """A training and a test set, and what they ask of a network.

    Attributes
    ----------
    name : str
        As the user wrote it.
    train, test : tuple of (X, y)
        X has shape (n, n_in), y (n,) or (n, n_out).
    n_out : int
        Outputs that the network needs.
    scale : float or None
        What brings the inputs to [0, 1]; None if they are used as they are.
    classes : sequence or None
        What the labels 0, 1, ... stand for; None in a regression.
    """

    name: str
    train: tuple[Array, Array]
    test: tuple[Array, Array]
    n_out: int
    scale: float | None
    classes: Sequence[Any] | None

    @property
    def n_in(self) -> int:
        """Inputs that the network needs."""
        return int(self.train[0].shape[1])

    @property
    def rows(self) -> str:
        """What a row is called."""
        return "rows" if self.scale is None else "images"


def load_task(data: str, *, regression: bool = False) -> Task:
    """Load what the argument of ``--data`` names.

    Bytes (uint8, or the whole numbers 0 to 255 of a table that reaches 255) are scaled to [0, 1];
    other numbers are used as they are.

    Parameters
    ----------
    data : str
        One of `NAMES`, an NPZ or CSV file, or a folder of IDX files.
    regression : bool, default False
        Whether the labels of a file are numbers to predict rather than classes.

    Raises
    ------
    ValueError
        The name is unknown, or a file is not what it should be.
    OSError
        A file is missing or cannot be read, or a download failed.
    ImportError
        A package that the data set needs is not installed.
    """
    path = Path(data)
    if data == "mnist-small":
        return _of_images(data, datasets.load_mnist_small())
    if data == "mnist":
        return _of_images(data, datasets.load_mnist())
    if data == "digits":
        return _of_images(data, datasets.load_digits(), _DIGITS_SCALE)
    if path.suffix.lower() == ".npz":
        return _of_table(data, datasets.read_npz, regression)
    if path.suffix.lower() == ".csv":
        return _of_table(data, datasets.read_csv, regression)
    if path.is_dir():
        return _of_images(data, datasets.load_mnist(path))
    if path.is_file():
        raise ValueError(f"{path}: a file to train on ends in .npz or .csv")
    raise ValueError(f"{unknown('data', data, NAMES)}, FILE.npz, FILE.csv, or a folder")


def _of_images(name: str, dataset: Dataset, scale: float = _BYTE_SCALE) -> Task:
    (X, y), (X_test, y_test) = dataset
    n_classes = int(max(y.max(), y_test.max())) + 1
    return Task(name, (X, y), (X_test, y_test), n_classes, scale, range(n_classes))


def _of_table(name: str, read: Callable[..., Table], regression: bool) -> Task:
    (X, y), (X_test, y_test), classes = read(name, regression=regression)
    if classes is None:
        y, y_test = y.reshape(len(y), -1), y_test.reshape(len(y_test), -1)
    n_out = y.shape[1] if classes is None else len(classes)
    scale = _BYTE_SCALE if _holds_bytes(X) else None
    names = None if classes is None else classes.tolist()
    return Task(name, (X, y), (X_test, y_test), n_out, scale, names)


def _holds_bytes(X: Array) -> bool:
    """Tell images from other numbers; those of MNIST are often passed around as CSV."""
    if X.dtype == np.uint8:
        return bool(X.max() > 1)
    return bool(X.max() == 255 and X.min() >= 0 and np.all(np.floor(X) == X))
