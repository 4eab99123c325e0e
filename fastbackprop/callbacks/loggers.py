"""What was measured in each epoch, to a CSV file or to an experiment tracker."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbackprop.callbacks.callback import Callback
from fastbackprop.specs import checked_flag

if TYPE_CHECKING:
    from fastbackprop.network import Network


class CSVLogger(Callback):
    """Write a line for each epoch to a CSV file, under a line of names.

    The file is open only while a line is written, so that it can be read at any time. Numbers are
    written with all their digits.

    Parameters
    ----------
    path : str or path
        The file. Its folder must exist.
    append : bool, default False
        Whether to go on with an existing file, whose names then decide the order of columns.
        Otherwise the first epoch replaces it. Later calls of ``fit`` with the same callback go on,
        and so does one that resumes from a checkpoint: lines of epochs after that are dropped.

    Raises
    ------
    TypeError
        If an argument is not as described.
    FileNotFoundError
        If there is no such folder.
    ValueError
        From ``fit``, if something is measured that the file has no column for; or if a training
        is resumed whose log had other columns than the file has.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastbackprop as fb
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> net = fb.Network([1, 1], "identity", "mse", random_state=0)
    >>> _ = net.fit([[1], [2]], [3, 4], epochs=2, callbacks=CSVLogger(path), verbose=0)
    >>> print(path.read_text().splitlines()[0])
    epoch,loss,learning_rate,seconds,rows_per_second
    """

    def __init__(self, path: str | PathLike[str], append: bool = False) -> None:
        if not isinstance(path, str | PathLike):
            raise TypeError(f"path must be the path of a file, got {path!r}")
        self.path = Path(os.fspath(path))
        self.append = checked_flag("append", append)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent} to write the log to")
        self._columns: list[str] = []
        self._kept: int | None = None  # bytes of the file that a resumed training goes on from

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """Write a line."""
        row = {"epoch": epoch, **logs}
        if self._kept is not None:
            self._cut(self._kept)
            self._kept = None
        columns = self._columns if self.path.exists() else []  # it may have been deleted
        if not columns and self.append and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                columns = next(csv.reader(file), [])
        begins = not columns
        if begins:
            columns = list(row)
        for name in row:
            if name not in columns:
                raise ValueError(
                    f"{self.path} has no column for {name!r}; there are: "
                    f"{', '.join(columns)}. Log this training to another file."
                )
        with self.path.open("w" if begins else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            if begins:
                writer.writeheader()
            writer.writerow(row)
        self._columns = columns

    def _cut(self, size: int) -> None:
        """Keep the whole lines among the first ``size`` bytes of the file, if there is one."""
        if not self.path.exists():
            self._columns = []
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
        if columns and columns != self._columns:
            raise ValueError(
                f"{self.path} has the columns {', '.join(columns)}, but the log of the training "
                f"that is resumed had {', '.join(self._columns)}. Log it to another file."
            )
        kept = self.path.read_bytes()[:size]
        os.truncate(self.path, kept.rfind(b"\n") + 1)
        if b"\n" not in kept:
            self._columns = []

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: the names of columns, and how long the file is."""
        if not self._columns or not self.path.exists():
            return {}
        return {"columns": self._columns, "size": self.path.stat().st_size}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, with the file that was written then."""
        if state:
            self._columns, self._kept = list(state["columns"]), int(state["size"])


class MetricLogger(Callback):
    """Hand what is measured in each epoch to an experiment tracker.

    Parameters
    ----------
    target : object
        With a method ``add_scalar(name, value, epoch)``, such as a TensorBoard ``SummaryWriter``;
        or with ``log_metric(name, value, step=epoch)``, such as the module ``mlflow``.
    prefix : str, default ""
        Put before each name.

    Raises
    ------
    TypeError
        If the target has neither method.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> class Tracker:
    ...     def log_metric(self, name, value, step):
    ...         if name == "run1/loss":
    ...             print(step, value)
    >>> net = fb.Network([1, 1], "identity", "mse", random_state=0)
    >>> net.set_parameters([1, 0])
    >>> logger = MetricLogger(Tracker(), prefix="run1/")
    >>> _ = net.fit([[1], [2]], [1, 2], epochs=2, callbacks=logger, verbose=0)
    0 0.0
    1 0.0
    """

    def __init__(self, target: Any, prefix: str = "") -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a string, got {prefix!r}")
        self.target, self.prefix = target, prefix
        if not any(callable(getattr(target, name, None)) for name in ("add_scalar", "log_metric")):
            raise TypeError(
                "target must have a method add_scalar (TensorBoard's SummaryWriter) or log_metric "
                f"(mlflow), got {target!r}"
            )

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """Hand over every measurement."""
        writes_scalars = callable(getattr(self.target, "add_scalar", None))
        for name, value in logs.items():
            if writes_scalars:
                self.target.add_scalar(self.prefix + name, value, epoch)
            else:
                self.target.log_metric(self.prefix + name, value, step=epoch)
