"""A smaller learning rate when a measurement no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastbackprop.callbacks.monitor import Monitor
from fastbackprop.specs import NON_NEGATIVE, Range, checked_number, checked_size

if TYPE_CHECKING:
    from fastbackprop.network import Network

_SHRINKS = Range("a number between 0 and 1", lambda value: 0 < value < 1)


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by a factor when a measurement has not improved for some epochs.

    The rate that the optimizer names, be it a number or a schedule, is multiplied by
    ``net.learning_rate_factor``, which this callback makes smaller. It lives in the network: it
    goes on in a later ``fit`` with an equal optimizer, and is 1 again with another one. The
    products are the ``learning_rate`` of the logs.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The name of a measurement in the logs of an epoch.
    factor : float, default 0.1
        What the rate is multiplied by; between 0 and 1.
    patience : int, default 10
        Epochs without improvement after which that is done; at least 1.
    min_delta : float, default 1e-4
        A change that is no larger is no improvement; in the unit of the measurement.
    cooldown : int, default 0
        Epochs after each reduction that are not counted.
    min_learning_rate : float, default 0.0
        The rate is not made smaller than this.
    mode : "auto", "min" or "max", default "auto"
        Whether the measurement should fall or grow; "auto" knows it of losses and of the metrics
        with a name, and takes "min" for anything else.

    Attributes
    ----------
    best, best_epoch, wait
        As in `EarlyStopping`.
    cooling : int
        Epochs that will still not be counted.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; and from ``fit``, if there is no such measurement.

    References
    ----------
    keras.callbacks.ReduceLROnPlateau.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> net = fb.Network([2, 1], "identity", "mse", random_state=0)
    >>> plateau = ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=1e6)
    >>> history = net.fit([[1, 2]], [3], 6, optimizer=fb.SGD(0.08), callbacks=plateau, verbose=0)
    >>> history["learning_rate"]
    [0.08, 0.08, 0.08, 0.04, 0.04, 0.02]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_learning_rate: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.factor = checked_number("factor", factor, _SHRINKS)
        self.cooldown = checked_size("cooldown", cooldown, minimum=0)
        self.min_learning_rate = checked_number(
            "min_learning_rate", min_learning_rate, NON_NEGATIVE
        )
        super().__init__(monitor, patience, min_delta, mode)

    def _reset(self) -> None:
        super()._reset()
        self.cooling = 0

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """Compare the measurement with the best one, and reduce the rate if it is time."""
        cools = self.cooling > 0
        super().on_epoch_end(net, epoch, logs)
        if cools:
            self.cooling -= 1

    def _missed(self, net: Network, logs: Mapping[str, float]) -> None:
        if self.cooling == 0:
            super()._missed(net, logs)

    def _acts(self, net: Network, logs: Mapping[str, float]) -> None:
        rate, former = logs["learning_rate"], net.learning_rate_factor
        smallest = self.min_learning_rate
        if rate > smallest:
            net.learning_rate_factor = former * max(self.factor, smallest / rate)
        self.wait, self.cooling = 0, self.cooldown

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on: plain numbers. The factor itself lives in the network."""
        return {**super().state(), "cooling": self.cooling}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().restore(state)
        self.cooling = state["cooling"]
