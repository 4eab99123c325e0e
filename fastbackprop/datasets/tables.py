"""A user's own data: rows of features and labels from an NPZ or a CSV file."""

import contextlib
import csv
import itertools
import os
import struct
import sys
import zipfile
import zlib
from array import array
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastbackprop.datasets.splits import Dataset, stratified_holdout
from fastbackprop.errors import FileFormatError
from fastbackprop.limits import allowance
from fastbackprop.npy import read_array

__all__ = ["Table", "read_csv", "read_npz"]

_LABEL_NAMES = ("label", "target", "class", "y")
_NPZ_NAMES = {stem + suffix for stem in "Xxy" for suffix in ("", "_train", "_test")}
_MAX_DEFLATE_RATIO = 1032  # https://zlib.net/zlib_tech.html
_NPZ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy's; LZMA's may ask for 4 GB
_FOR_REGRESSION = (
    "class labels are whole numbers or text; to predict a number, train with a loss for it such "
    "as mse (regression=True)"
)


class Table(NamedTuple):
    """Features and labels of a file, in a training and a test set.

    Attributes
    ----------
    train, test : tuple of (X, y)
        X : shape (n, n_in). y : int64, shape (n,), positions in ``classes``; where ``classes`` is
        None, the file's own numbers, shape (n,) or (n, n_out).
    classes : ndarray, shape (n_classes,), or None
        The labels as they stand in the file, ascending.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "table.csv"
    >>> _ = path.write_text("size,label\\n1,ham\\n2,spam\\n3,ham\\n4,spam\\n")
    >>> table = read_csv(path)
    >>> table.classes
    array(['ham', 'spam'], dtype='<U4')
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: np.ndarray | None


def read_csv(
    path: str | os.PathLike[str], *, regression: bool = False, random_state: int = 0
) -> Table:
    """Read numbers and a label from each line of a CSV file, and hold out a fifth for testing.

    The columns are separated by commas, the text is UTF-8. The first line is a header if it names
    a column ``label``, ``target``, ``class`` or ``y`` (in any case), or if it has a cell, other
    than the last, that is not a number. The column of one of those names is the label, else the
    last one; all others are features.

    Parameters
    ----------
    path : str or path-like
        The file.
    regression : bool, default False
        Whether the label is a number to predict rather than a class.
    random_state : int, default 0
        Seed of the draw of the test set: 20 % of each class, or of all rows with ``regression``.

    Returns
    -------
    Table
        X is float64. Labels that are all whole numbers are sorted as numbers, others as text.

    Raises
    ------
    FileFormatError
        A cell is missing, empty, not a number or not finite (with its line and column), the
        label is ambiguous, or there are too few rows.
    FileNotFoundError, PermissionError
        The file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastbackprop.datasets import read_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pets.csv")
    ...     _ = path.write_text("size,weight,class\\n" + "5.1,3.5,cat\\n6.2,2.9,dog\\n" * 5)
    ...     (X, y), (X_test, y_test), classes = read_csv(path)
    >>> X.shape, y, [str(name) for name in classes]
    ((8, 2), array([0, 0, 1, 1, 0, 1, 0, 1]), ['cat', 'dog'])
    """
    path = Path(path)
    # Closed here, since an error that is kept would keep the file open.
    with contextlib.closing(_csv_rows(path)) as rows:
        return _csv_table(path, rows, regression, random_state)


def _csv_table(
    path: Path, rows: Iterator[tuple[int, list[str]]], regression: bool, random_state: int
) -> Table:
    """Make a table of the lines of a CSV file."""
    first_line, first = next(rows, (0, []))
    if not first:
        raise FileFormatError(f"{path}: the file is empty")
    n_columns = len(first)
    if n_columns < 2:
        raise FileFormatError(
            f"{path}, line {first_line}: one column; features and a label, separated by commas, "
            "need two or more"
        )
    names = [cell.lower() for cell in first]
    label_columns = [i for i, name in enumerate(names) if name in _LABEL_NAMES]
    if len(label_columns) > 1:
        found = ", ".join(first[i] for i in label_columns)
        raise FileFormatError(f"{path}, line {first_line}: which column is the label: {found}?")
    has_header = bool(label_columns) or not all(map(_is_number, first[:-1]))
    label_column = label_columns[0] if label_columns else n_columns - 1

    if not has_header:
        rows = itertools.chain([(first_line, first)], rows)

    features, labels, lines = array("d"), [], []
    for line, cells in rows:
        if len(cells) != n_columns:
            raise FileFormatError(
                f"{path}, line {line}: {len(cells)} columns, but line {first_line} has {n_columns}"
            )
        labels.append(cells.pop(label_column))
        lines.append(line)
        try:
            features.extend(map(float, cells))
        except ValueError:
            column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
            what = repr(cells[column]) if cells[column] else "an empty cell"
            column += column >= label_column
            raise FileFormatError(
                f"{path}, line {line}, column {column + 1}: {what} is not a number; "
                f"the label is column {label_column + 1}"
            ) from None
    X = np.asarray(features).reshape(len(lines), n_columns - 1)
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise FileFormatError(
            f"{path}, line {lines[row]}, column {column + (column >= label_column) + 1}: "
            f"{X[row, column]} is not a finite number"
        )
    y = _as_labels(labels, path)
    y = _check_labels(y, regression, lambda row: f"{path}, line {lines[row]}")
    return _make_table(*_hold_out(path, X, y, regression, random_state), regression)


def read_npz(
    path: str | os.PathLike[str], *, regression: bool = False, random_state: int = 0
) -> Table:
    """Read arrays of features and labels from an NPZ file of NumPy's.

    The file holds X_train, y_train, X_test and y_test, or the same with a small x as in Keras'
    ``mnist.npz``, or X and y alone, of which a fifth is held out for testing. Other arrays in it
    are ignored. Pickled objects are not read.

    Parameters
    ----------
    path : str or path-like
        The file.
    regression : bool, default False
        Whether the labels are numbers to predict rather than classes.
    random_state : int, default 0
        Seed of the draw of the test set where the file has none: 20 % of each class, or of all rows
        with ``regression`` or labels in several columns.

    Returns
    -------
    Table
        X keeps its dtype (bool becomes uint8) and is flattened to (n, n_in). Labels of shape
        (n, 1) count as (n,); with more columns, such as rows of probabilities, they are kept as
        they are.

    Raises
    ------
    FileFormatError
        The file is not an NPZ file or is damaged, an array is missing or has the wrong shape or
        dtype, a value is not finite, or there are too few rows.
    FileNotFoundError, PermissionError
        The file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from fastbackprop.datasets import read_npz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "squares.npz")
    ...     np.savez(path, X=np.zeros((20, 8, 8), np.uint8), y=np.arange(20) % 2)
    ...     (X, y), (X_test, y_test), classes = read_npz(path)
    >>> X.shape, X_test.shape, X.dtype, classes
    ((16, 64), (4, 64), dtype('uint8'), array([0, 1]))
    """
    path = Path(path)
    arrays = _read_arrays(path)

    def find(*names: str) -> str | None:
        return next((name for name in names if name in arrays), None)

    x_train, y_train = find("X_train", "x_train", "X", "x"), find("y_train", "y")
    x_test, y_test = find("X_test", "x_test"), find("y_test")
    if x_train is None or y_train is None or (x_test is None) != (y_test is None):
        raise FileFormatError(
            f"{path}: expected the arrays X_train, y_train, X_test and y_test, or X and y; "
            f"of these it has {', '.join(arrays) or 'none'}"
        )
    X, y = _check_pair(path, arrays, x_train, y_train, regression)
    if x_test is None or y_test is None:
        train, test = _hold_out(path, X, y, regression, random_state)
        return _make_table(train, test, regression)
    X_test, Y_test = _check_pair(path, arrays, x_test, y_test, regression)
    for name, shape, expected in (
        (x_test, X_test.shape, X.shape),
        (y_test, Y_test.shape, y.shape),
    ):
        if shape[1:] != expected[1:]:
            raise FileFormatError(
                f"{path}: the rows of {name} have shape {shape[1:]}, in training {expected[1:]}"
            )
    if (y.dtype.kind == "U") != (Y_test.dtype.kind == "U"):
        raise FileFormatError(f"{path}: only one of {y_train} and {y_test} is text")
    return _make_table((X, y), (X_test, Y_test), regression)


def _csv_rows(path: Path) -> Generator[tuple[int, list[str]], None, None]:
    """Yield the number and the cells, without surrounding space, of each line that has any."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if cells and cells != [""]:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise FileFormatError(f"{path}, line {reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise FileFormatError(
                f"{path}, after line {reader.line_num}: not text in UTF-8"
            ) from None


def _as_labels(cells: list[str], path: Path) -> np.ndarray:
    """Return labels as float64 if all are numbers, else as text, all as long as the longest."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        longest = max(map(len, cells))
        if 4 * longest * len(cells) > allowance(path.stat().st_size):
            raise FileFormatError(
                f"{path}: a label has {longest} characters; is it the right column?"
            ) from None
        return np.array(cells, str)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read those arrays of an NPZ file whose names mean something here."""
    arrays: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        left = allowance(size)
        try:
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    if name not in _NPZ_NAMES:
                        continue
                    if name in arrays:
                        raise FileFormatError(f"{path}: it holds {name} twice")
                    left -= info.file_size
                    if left < 0:
                        raise FileFormatError(
                            f"{path}: its arrays take more than {allowance(size)} bytes, though "
                            f"the file holds {size}; numpy.savez stores them as they are"
                        )
                    arrays[name] = _read_member(archive, info, f"{path}: {info.filename}")
        except FileFormatError:
            raise
        # What zipfile, zlib and numpy.lib.format raise for damaged files.
        except (
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            ValueError,
            OSError,
            EOFError,
            RuntimeError,
            OverflowError,
        ) as error:
            raise FileFormatError(f"{path}: not a readable NPZ file: {error}") from None
    return arrays


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> np.ndarray:
    """Read an array of an archive, whose directory may lie about how long it is."""
    if info.compress_type not in _NPZ_METHODS:
        raise FileFormatError(f"{name} is compressed in a way that NumPy does not use")
    packed = info.compress_size
    most = packed if info.compress_type == zipfile.ZIP_STORED else _MAX_DEFLATE_RATIO * packed
    if info.file_size > most:
        raise FileFormatError(
            f"{name} cannot hold {info.file_size} bytes in {info.compress_size} of the archive"
        )
    with archive.open(info) as member:
        return read_array(member, info.file_size, name)


def _check_pair(
    path: Path, arrays: dict[str, np.ndarray], x_name: str, y_name: str, regression: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return X as (n, n_in) numbers and y, checked, of a pair of arrays."""
    X, y = arrays[x_name], arrays[y_name]
    if X.ndim < 2 or X.size == 0:
        raise FileFormatError(f"{path}: {x_name} has shape {X.shape}; (n, n_in) is expected")
    if y.ndim not in (1, 2) or len(y) != len(X):
        raise FileFormatError(f"{path}: {y_name} has shape {y.shape}; {x_name} has {len(X)} rows")
    X = _as_numbers(X.reshape(len(X), -1), f"{path}: {x_name}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        return X, _as_numbers(y, f"{path}: {y_name}")
    if y.dtype.kind == "S":
        try:
            y = y.astype(str)
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: {y_name} has elements that are no text") from None
    if y.dtype.kind != "U":
        y = _as_numbers(y, f"{path}: {y_name}")
    elif not _is_text(y):
        raise FileFormatError(f"{path}: {y_name} has elements that are no text")
    return X, _check_labels(y, regression, lambda row: f"{path}: {y_name}[{row}]")


def _is_text(labels: np.ndarray) -> bool:
    """Whether all code points exist; NumPy makes text of any, which breaks Python where it is."""
    points = np.ascontiguousarray(labels).view(f"{labels.dtype.byteorder}u4")
    return int(points.max(initial=0)) <= sys.maxunicode


def _as_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Return values as finite numbers that a network takes: any integers, float32 or float64."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind != "f":
        raise FileFormatError(f"{name} has dtype {values.dtype}; numbers are expected")
    with np.errstate(over="ignore", invalid="ignore"):  # of what is not finite: refused below
        values = values.astype(np.float32 if values.dtype.itemsize <= 4 else np.float64, copy=False)
    if not np.isfinite(values).all():
        first = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise FileFormatError(f"{name}{list(first)} is {values[first]}, not a finite number")
    return values


def _check_labels(y: np.ndarray, regression: bool, where: Callable[[int], str]) -> np.ndarray:
    """Return labels (n,) as float64 for regression, else as int64 or text."""
    if y.dtype.kind == "U":
        if regression:
            raise FileFormatError(f"{where(0)}: the label {str(y[0])!r} is not a number")
        empty = np.flatnonzero(y == "")
        if len(empty):
            raise FileFormatError(f"{where(empty[0])}: the label is empty")
        return y
    finite = np.isfinite(y)
    if not finite.all():
        row = np.flatnonzero(~finite)[0]
        raise FileFormatError(f"{where(row)}: the label {y[row]} is not a finite number")
    if regression:
        return y.astype(np.float64)
    with np.errstate(invalid="ignore"):  # too large for int64: caught below
        codes = y.astype(np.int64)
    odd = np.flatnonzero(codes != y)
    if len(odd):
        raise FileFormatError(f"{where(odd[0])}: the label is {y[odd[0]]}; {_FOR_REGRESSION}")
    return codes


def _hold_out(
    path: Path, X: np.ndarray, y: np.ndarray, regression: bool, random_state: int
) -> Dataset:
    """Split rows into a training set and a fifth for testing."""
    groups = np.zeros(len(y), int) if regression or y.ndim == 2 else y
    train, test = stratified_holdout(groups, random_state=random_state)
    if len(test) == 0:
        raise FileFormatError(f"{path}: {len(y)} rows are too few to hold out any for testing")
    return (X[train], y[train]), (X[test], y[test])


def _make_table(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], regression: bool
) -> Table:
    """Give each class its number, unless the labels are values or rows of probabilities."""
    (X, y), (X_test, y_test) = train, test
    if regression or y.ndim == 2:
        return Table(train, test, None)
    classes, positions = np.unique(np.concatenate([y, y_test]), return_inverse=True)
    positions = positions.astype(np.int64)
    return Table((X, positions[: len(y)]), (X_test, positions[len(y) :]), classes)
