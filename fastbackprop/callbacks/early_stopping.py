"""Stopping when a measurement no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbackprop.callbacks.monitor import Monitor
from fastbackprop.specs import checked_flag

if TYPE_CHECKING:
    from fastbackprop.network import Network


class EarlyStopping(Monitor):
    """Stop training when a measurement has not improved for some epochs.

    A later call of ``fit`` with the same callback goes on: the best value stays, and it waits for
    ``patience`` epochs anew. Where epochs do not follow on those that it has seen, as with another
    network, it begins afresh.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The name of a measurement in the logs of an epoch.
    patience : int, default 10
        Epochs without improvement after which training stops; at least 1.
    min_delta : float, default 0.0
        A change that is no larger is no improvement; in the unit of the measurement.
    restore_best_weights : bool, default False
        Whether the network gets the parameters of the best epoch when training ends, stopped or
        not; it does not where an exception ends it. The optimizer's state stays as it is.
    mode : "auto", "min" or "max", default "auto"
        Whether the measurement should fall or grow; "auto" knows it of losses and of the metrics
        with a name, and takes "min" for anything else.

    Attributes
    ----------
    best : float or None
        The best value so far; None before the first epoch.
    best_epoch : int or None
        The epoch it is from.
    wait : int
        Epochs since then, or since training was stopped.
    stopped_epoch : int or None
        The epoch after which it last stopped training.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; and from ``fit``, if there is no such measurement.

    References
    ----------
    Prechelt, "Early Stopping - But When?" (1998), section 2: the criterion UP, by epochs.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> net = fb.Network([1, 8, 1], "tanh", "mse", random_state=0)
    >>> x = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> stopping = EarlyStopping(monitor="loss", patience=3, min_delta=1e-3)
    >>> history = net.fit(x, x**2, epochs=1000, callbacks=stopping, verbose=0)
    >>> len(history.epoch) < 1000, stopping.stopped_epoch == history.epoch[-1]
    (True, True)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best_weights: bool = False,
        mode: str = "auto",
    ) -> None:
        self.restore_best_weights = checked_flag("restore_best_weights", restore_best_weights)
        super().__init__(monitor, patience, min_delta, mode)

    def _reset(self) -> None:
        super()._reset()
        self.stopped_epoch: int | None = None
        self._best_parameters: np.ndarray | None = None

    def _improved(self, net: Network) -> None:
        if self.restore_best_weights:
            self._best_parameters = net.get_parameters()

    def _acts(self, net: Network, logs: Mapping[str, float]) -> None:
        net.stop_training = True
        self.stopped_epoch, self.wait = self._epoch, 0

    def on_train_end(self, net: Network) -> None:
        """Put the best parameters back, if that was asked for."""
        if self._best_parameters is not None:
            net.set_parameters(self._best_parameters)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: plain numbers, and the best parameters if kept."""
        state = {**super().state(), "stopped_epoch": self.stopped_epoch}
        if self.restore_best_weights:
            state["best_parameters"] = self._best_parameters
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().restore(state)
        self.stopped_epoch = state["stopped_epoch"]
        self._best_parameters = state.get("best_parameters")
