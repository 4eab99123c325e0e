"""What a user can hook into training: called around the whole of it and around each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastbackprop.network import Network


class Callback:
    """Base of callbacks: override what is needed. An exception stops training.

    Examples
    --------
    >>> class Printer(Callback):
    ...     def on_epoch_end(self, net, epoch, logs):
    ...         print(f"epoch {epoch}: loss {logs['loss']:.3f}")
    """

    def on_train_begin(self, net: Network) -> None:
        """Before the first epoch."""

    def on_train_end(self, net: Network) -> None:
        """After the last epoch; not called when training ended with an exception."""

    def on_epoch_begin(self, net: Network, epoch: int) -> None:
        """Before each epoch; they are counted from 0 over all calls of ``fit``."""

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        """After each epoch.

        Parameters
        ----------
        net : Network
            The network, with the parameters at the end of the epoch.
        epoch : int
            Its number, from 0.
        logs : dict of str to float
            ``loss`` (mean over the epoch, as it was when each batch was used), ``accuracy`` (a
            fraction, where there are classes), ``val_loss`` and ``val_accuracy`` (with validation
            data), ``learning_rate`` (of the last step), ``seconds`` (of training alone) and
            ``rows_per_second``.
        """
