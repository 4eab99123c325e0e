"""Data larger than memory, in NPY files that are read one after another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop.errors import FileFormatError
from fastbackprop.npy import read_array, read_header
from fastbackprop.plan import Array

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class Shard(NamedTuple):
    """The rows of one file, in memory."""

    X: Array
    y: Array
    sample_weight: Array | None


class Shards:
    """Rows in several NPY files, of which a network holds one in memory at a time.

    They are what `Network.fit` learns from or validates with, and what `Network.evaluate` measures.

    In training, rows are shuffled within each file, and the files among each other, anew in each
    epoch, as a function of the network's seed and the epoch. The last step on each file takes what
    is left of it, so that files should hold many batches each. If neighbouring rows of your files
    are alike, such as those of one class, shuffle once before writing them.

    Parameters
    ----------
    X : path, or sequence of paths
        NPY files with arrays (n, n_in) of any real type, as `numpy.save` writes them; or a folder
        whose files ``*.npy`` are taken in the order of their names.
    y : path, sequence of paths, or ndarray
        As many files, with as many rows each; or one array for all rows, in the order of the
        files.
    sample_weight : path, sequence of paths, or ndarray, optional
        Likewise, (n,).

    Attributes
    ----------
    n_rows : int
        Rows in all files.
    n_in : int
        Columns of X.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    FileFormatError
        If a file is no NPY file of real numbers, is damaged, or does not fit the others.
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastbackprop as fb
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rng = np.random.default_rng(0)
    >>> for i in range(3):
    ...     X = rng.random((100, 4), dtype="float32")
    ...     np.save(folder / f"x{i}.npy", X)
    ...     np.save(folder / f"y{i}.npy", X.sum(axis=1))
    >>> shards = Shards(sorted(folder.glob("x*.npy")), sorted(folder.glob("y*.npy")))
    >>> shards
    Shards(3 files, 300 rows of 4)
    >>> net = fb.Network([4, 8, 1], "tanh", "mse", random_state=0)
    >>> _ = net.fit(shards, epochs=5, verbose=0)
    """

    def __init__(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        self._paths = _as_paths("X", X)
        shapes = [_shape("X", path) for path in self._paths]
        n_in = shapes[0][1] if len(shapes[0]) == 2 else "n_in"
        for path, shape in zip(self._paths, shapes, strict=True):
            if len(shape) != 2 or shape[1] != shapes[0][1] or shape[0] == 0:
                raise FileFormatError(
                    f"{path} holds an array of shape {shape}; expected (n, {n_in}) with n >= 1, "
                    "as many columns in each file"
                )
        self.n_in = shapes[0][1]
        self._rows = [shape[0] for shape in shapes]
        self._starts = np.cumsum([0, *self._rows])
        self._y = self._beside("y", y)
        self._sample_weight = None
        if sample_weight is not None:
            self._sample_weight = self._beside("sample_weight", sample_weight)

    @property
    def n_rows(self) -> int:
        """Rows in all files."""
        return int(self._starts[-1])

    @property
    def names(self) -> list[str]:
        """The paths of X, as text."""
        return [str(path) for path in self._paths]

    @property
    def most_rows(self) -> int:
        """Rows in the largest file."""
        return max(self._rows)

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Shard:
        """Read one of the files, and what is beside it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} files, so there is no {index}")
        index %= len(self)
        weight = self._sample_weight
        return Shard(
            _read(self._paths[index]),
            self._part(self._y, index),
            None if weight is None else self._part(weight, index),
        )

    def __iter__(self) -> Iterator[Shard]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Shards({len(self)} files, {self.n_rows:,} rows of {self.n_in})"

    def _beside(self, name: str, value: Any) -> list[Path] | Array:
        """Files or an array with as many rows as X."""
        if isinstance(value, np.ndarray):
            if value.ndim == 0 or len(value) != self.n_rows:
                raise ValueError(
                    f"{name} has shape {value.shape}, but the files of X hold {self.n_rows} rows; "
                    "they must be as many"
                )
            return value
        paths = _as_paths(name, value)
        if len(paths) != len(self):
            raise ValueError(
                f"{name} has {len(paths)} files, but X has {len(self)}; they must be as many"
            )
        for path, own, rows in zip(paths, self._paths, self._rows, strict=True):
            shape = _shape(name, path)
            if not shape or shape[0] != rows:
                raise FileFormatError(
                    f"{path} holds an array of shape {shape}, but {own} has {rows} rows; "
                    "they must be as many"
                )
        return paths

    def _part(self, beside: list[Path] | Array, index: int) -> Array:
        if isinstance(beside, np.ndarray):
            return beside[self._starts[index] : self._starts[index + 1]]
        return _read(beside[index])


def _as_paths(name: str, value: Any) -> list[Path]:
    if isinstance(value, str | PathLike):
        path = Path(value)
        if not path.is_dir():
            return [path]
        found = sorted(path.glob("*.npy"))
        if not found:
            raise FileNotFoundError(f"{name}: there is no file *.npy in the folder {path}")
        return found
    refused = TypeError(
        f"{name} must be a folder, a path or a list of paths of NPY files, got {value!r:.100}"
    )
    if not isinstance(value, Sequence):
        raise refused
    if not all(isinstance(path, str | PathLike) for path in value):
        raise refused
    if not value:
        raise ValueError(f"{name} must name at least one NPY file, got {value!r}")
    return [Path(os.fspath(path)) for path in value]


def _shape(name: str, path: Path) -> tuple[int, ...]:
    """The shape of the array in a file, without reading its elements."""
    with path.open("rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size, str(path))
    if header.dtype.kind not in "biuf":
        raise FileFormatError(f"{path}: {name} has dtype {header.dtype}; it must hold real numbers")
    return header.shape


def _read(path: Path) -> Array:
    with path.open("rb") as file:
        return read_array(file, os.fstat(file.fileno()).st_size, str(path))
