"""Checkpoints of a training, so that a crash costs no more than the epochs since the last one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbackprop import checkpoints
from fastbackprop.callbacks.callback import Callback
from fastbackprop.callbacks.monitor import Best
from fastbackprop.checkpoints import BEST, Snapshot
from fastbackprop.specs import checked_size

if TYPE_CHECKING:
    from fastbackprop.network import Network


class Checkpoint(Callback):
    """Write what training needs to go on, after every so many epochs and after the last.

    ``fit(..., resume_from=path)`` goes on from the newest file with the same bits as if nothing had
    happened, whenever the process was ended. A file holds the network, the optimizer's state, the
    histories and what the other callbacks remember, and nothing that would be executed;
    `fastbackprop.load` reads the network in it. Each is written whole or not at all.

    The files are ``epoch-000012.safetensors``, named for the number of epochs done over all calls
    of ``fit``, and ``best.safetensors``.

    Parameters
    ----------
    path : str or path
        The folder, made by ``fit`` where there is none. It is for one training: ``fit`` refuses a
        folder with the checkpoints of another.
    every : int, default 1
        Epochs between two checkpoints.
    keep : int, default 3
        How many of the last are kept; at least 1.
    monitor : str, optional
        The name of a measurement in the logs of an epoch. The epoch where it was best is kept as
        ``best.safetensors`` as well. Losses should fall, and so should what has no name in
        `fastbackprop.metrics`.

    Attributes
    ----------
    best : float or None
        The best value of the measurement so far.
    best_epoch : int or None
        The epoch it is from, counted from 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. From ``fit``: if there is no such measurement, if the
        folder holds checkpoints of another training, or if a callback remembers what no file can
        hold.
    OSError
        From ``fit``, if a file cannot be written. The checkpoints before it are as they were, and
        the network is as training left it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "run"
    >>> def train(epochs):
    ...     net = fb.Network([1, 8, 1], "tanh", "mse", random_state=0)
    ...     x = np.linspace(-1, 1, 40).reshape(-1, 1)
    ...     checkpoint = fb.Checkpoint(folder, keep=2)
    ...     history = net.fit(
    ...         x, x**2, epochs, callbacks=checkpoint, resume_from=folder, verbose=0
    ...     )
    ...     return history.epoch
    >>> train(epochs=3)
    [0, 1, 2]
    >>> sorted(file.name for file in folder.iterdir())
    ['epoch-000002.safetensors', 'epoch-000003.safetensors']
    >>> train(epochs=5)
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        path: str | PathLike[str],
        every: int = 1,
        keep: int = 3,
        monitor: str | None = None,
    ) -> None:
        if not isinstance(path, str | PathLike):
            raise TypeError(f"path must be the path of a folder, got {path!r}")
        self.path = Path(os.fspath(path))
        self.every, self.keep = checked_size("every", every), checked_size("keep", keep)
        self.monitor = monitor
        self._best = None if monitor is None else Best("Checkpoint", monitor, 0.0, "auto")
        self._is_best = False

    @property
    def best(self) -> float | None:
        """The best value of the measurement so far; None without a monitor."""
        return None if self._best is None else self._best.value

    @property
    def best_epoch(self) -> int | None:
        """The epoch it is from, counted from 0."""
        return None if self._best is None else self._best.epoch

    def check_logs(self, names: Iterable[str]) -> None:
        """Refuse a training in which the measurement, if there is one, is not made."""
        if self._best is not None:
            self._best.check(names)

    def prepare(self, epochs: int) -> None:
        """See to it that files can be written, for a training that has had so many epochs.

        `Network.fit` calls it before anything changes.

        Parameters
        ----------
        epochs : int
            How many the network has behind it.

        Raises
        ------
        ValueError
            If there are checkpoints of another training.
        OSError
            If the folder cannot be made or written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self.path)) from None
        numbers = list(checkpoints.numbered(self.path))
        begins_on_best = epochs == 0 and (self.path / BEST).exists()
        if begins_on_best or (numbers and numbers[-1] > epochs):
            raise ValueError(
                f"{self.path} holds checkpoints of another training, or of later epochs of this "
                f"one, which has {epochs}: pass resume_from={os.fspath(self.path)!r} to fit to go "
                "on from the newest, or another folder, or delete them"
            )
        checkpoints.remove_remains(self.path)
        self._delete_oldest()

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """Compare the measurement with the best one.

        Raises
        ------
        ValueError
            If it was not measured.
        """
        self._is_best = self._best is not None and self._best.see(epoch, logs)

    def is_due(self, epochs: int, is_last: bool) -> bool:
        """Whether there is anything to `save` after an epoch.

        Parameters
        ----------
        epochs : int
            How many the network has behind it.
        is_last : bool
            Whether training ends here.

        Returns
        -------
        bool
        """
        return self._is_best or is_last or epochs % self.every == 0

    def save(self, epochs: int, is_last: bool, snapshot: Snapshot) -> None:
        """Write the training after so many epochs, and delete what is no longer kept.

        `Network.fit` calls it when all callbacks have seen the epoch.

        Parameters
        ----------
        epochs, is_last
            As in `is_due`.
        snapshot : Snapshot
            The training, as `fit` takes it.

        Raises
        ------
        OSError
            If it cannot be written; the files before it are as they were then.
        """
        # The best first: a run that ends in between goes on from before, and writes both again.
        if self._is_best:
            checkpoints.write(self.path / BEST, snapshot)
        if is_last or epochs % self.every == 0:
            checkpoints.write(checkpoints.file_for(self.path, epochs), snapshot)
            self._delete_oldest()

    def _delete_oldest(self) -> None:
        for path in list(checkpoints.numbered(self.path).values())[: -self.keep]:
            path.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: plain numbers; nothing without a monitor."""
        return {} if self._best is None else {"best": self.best, "best_epoch": self.best_epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        if self._best is not None and state:
            self._best.value, self._best.epoch = state["best"], state["best_epoch"]
