"""A callback made of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastbackprop.callbacks.callback import Callback

if TYPE_CHECKING:
    from fastbackprop.network import Network


class LambdaCallback(Callback):
    """Call functions around training, without a class of one's own.

    Parameters
    ----------
    on_train_begin, on_train_end : callable, optional
        Called with the network.
    on_epoch_begin : callable, optional
        Called with the network and the number of the epoch.
    on_epoch_end : callable, optional
        Called with the network, the number of the epoch and its logs. What a function returns is
        not looked at: to stop training, set ``net.stop_training``.

    Raises
    ------
    TypeError
        If an argument cannot be called.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> show = LambdaCallback(on_epoch_end=lambda net, epoch, logs: print(epoch, logs["loss"]))
    >>> net = fb.Network([1, 1], "identity", "mse", random_state=0)
    >>> net.set_parameters([1, 0])
    >>> _ = net.fit([[1], [2]], [1, 2], epochs=2, callbacks=show, verbose=0)
    0 0.0
    1 0.0
    """

    def __init__(
        self,
        *,
        on_train_begin: Callable[[Network], object] | None = None,
        on_train_end: Callable[[Network], object] | None = None,
        on_epoch_begin: Callable[[Network, int], object] | None = None,
        on_epoch_end: Callable[[Network, int, dict[str, float]], object] | None = None,
    ) -> None:
        self._functions: dict[str, Callable[..., object]] = {}
        given = {
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
        }
        for name, function in given.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{name} must be a function or None, got {function!r}")
            self._functions[name] = function

    def _call(self, name: str, *arguments: object) -> None:
        if name in self._functions:
            self._functions[name](*arguments)

    def on_train_begin(self, net: Network) -> None:
        """Before the first epoch."""
        self._call("on_train_begin", net)

    def on_train_end(self, net: Network) -> None:
        """After the last epoch."""
        self._call("on_train_end", net)

    def on_epoch_begin(self, net: Network, epoch: int) -> None:
        """Before each epoch."""
        self._call("on_epoch_begin", net, epoch)

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """After each epoch."""
        self._call("on_epoch_end", net, epoch, logs)
