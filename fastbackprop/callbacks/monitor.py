"""How long it is since a measurement was at its best."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastbackprop.callbacks.callback import Callback
from fastbackprop.metrics import is_better_larger
from fastbackprop.specs import NON_NEGATIVE, checked_number, checked_size, known_name

if TYPE_CHECKING:
    from fastbackprop.network import Network

_MODES = ("auto", "min", "max")


class Best:
    """The best value of a measurement so far.

    Parameters
    ----------
    owner : str
        Who asks, for error messages.
    monitor, min_delta, mode
        As in `Monitor`.

    Attributes
    ----------
    value : float or None
        None before the first epoch.
    epoch : int or None
        The epoch it is from.
    """

    def __init__(self, owner: str, monitor: str, min_delta: float, mode: str) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a name such as 'val_loss', got {monitor!r}")
        self._owner, self.monitor = owner, monitor
        self.min_delta = checked_number("min_delta", min_delta, NON_NEGATIVE)
        self.mode = known_name("mode", mode, _MODES)
        self._grows = mode == "max" or (mode == "auto" and is_better_larger(monitor))
        self.forget()

    def forget(self) -> None:
        """Begin afresh."""
        self.value: float | None = None
        self.epoch: int | None = None

    def check(self, names: Iterable[str]) -> None:
        """Refuse to see only what has these names.

        Raises
        ------
        ValueError
            If the measurement is not among them.
        """
        names = list(names)
        if self.monitor not in names:
            advice = ""
            if self.monitor.startswith("val_") and "val_loss" not in names:
                advice = " Pass validation_data to fit?"
            raise ValueError(
                f"{self._owner} monitors {self.monitor!r}, which is not measured; there "
                f"are: {', '.join(names)}.{advice}"
            )

    def see(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Whether an epoch is better than all before it.

        Raises
        ------
        ValueError
            If the measurement was not made.
        """
        self.check(logs)
        value = float(logs[self.monitor])
        improves = self._improves(value)
        if improves:
            self.value, self.epoch = value, epoch
        return improves

    def _improves(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        gain = value - self.value if self._grows else self.value - value
        return gain > self.min_delta


class Monitor(Callback):
    """Base of callbacks that act when a measurement has not improved for some epochs.

    It goes on in a later call of ``fit`` that continues the same training. Where epochs do not
    follow on those that it has seen, as with another network, it begins afresh.

    Parameters
    ----------
    monitor : str
        The name of a measurement in the logs of an epoch.
    patience : int
        Epochs without improvement after which something is done.
    min_delta : float
        A change that is no larger is no improvement; in the unit of the measurement.
    mode : "auto", "min" or "max"
        Whether it should fall or grow; "auto" knows it of losses and of the metrics with a name,
        and takes "min" for anything else.

    Attributes
    ----------
    best : float or None
        The best value so far; None before the first epoch.
    best_epoch : int or None
        The epoch it is from.
    wait : int
        Epochs since then, or since something was done.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float, mode: str) -> None:
        self._best = Best(type(self).__name__, monitor, min_delta, mode)
        self.monitor, self.min_delta = monitor, self._best.min_delta
        self.mode = self._best.mode
        self.patience = checked_size("patience", patience)
        self._epoch: int | None = None
        self._reset()

    @property
    def best(self) -> float | None:
        """The best value so far; None before the first epoch."""
        return self._best.value

    @property
    def best_epoch(self) -> int | None:
        """The epoch it is from."""
        return self._best.epoch

    def check_logs(self, names: Iterable[str]) -> None:
        """Refuse a training in which the measurement is not made."""
        self._best.check(names)

    def _reset(self) -> None:
        self._best.forget()
        self.wait = 0

    def on_epoch_begin(self, net: Network, epoch: int) -> None:
        """Begin afresh, unless this epoch follows on the last one seen."""
        if self._epoch is not None and epoch != self._epoch + 1:
            self._reset()

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """Compare the measurement with the best one.

        Raises
        ------
        ValueError
            If it was not measured.
        """
        improves = self._best.see(epoch, logs)
        self._epoch = epoch
        if improves:
            self.wait = 0
            self._improved(net)
        else:
            self._missed(net, logs)

    def _improved(self, net: Network) -> None:
        """The measurement is the best so far."""

    def _missed(self, net: Network, logs: Mapping[str, float]) -> None:
        """The measurement is no better than it was."""
        self.wait += 1
        if self.wait >= self.patience:
            self._acts(net, logs)

    @abstractmethod
    def _acts(self, net: Network, logs: Mapping[str, float]) -> None:
        """It has not improved for ``patience`` epochs or more."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: plain numbers."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "epoch": self._epoch,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._best.value, self._best.epoch = state["best"], state["best_epoch"]
        self.wait, self._epoch = state["wait"], state["epoch"]
