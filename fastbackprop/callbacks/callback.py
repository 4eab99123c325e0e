"""What a user can hook into training: called around the whole of it and around each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastbackprop.network import Network


class Callback:
    """Base of callbacks: override what is needed.

    ``net.stop_training = True`` ends training after the current epoch, in good order: the other
    callbacks are called as usual, ``on_train_end`` too, and ``fit`` returns. An exception ends it
    at once, and ``fit`` raises it.

    Values of X that are not finite are found while the first epoch runs. ``fit`` then refuses X,
    puts everything back and raises, when ``on_train_begin`` and ``on_epoch_begin`` have been called
    once already: do what cannot be undone, such as replacing a file, in ``on_epoch_end``.

    Examples
    --------
    >>> class Printer(Callback):
    ...     def on_epoch_end(self, net, epoch, logs):
    ...         print(f"epoch {epoch}: loss {logs['loss']:.3f}")
    """

    def check_logs(self, names: Iterable[str]) -> None:
        """Refuse a training in which something is not measured; ``fit`` asks before it begins.

        Parameters
        ----------
        names : iterable of str
            All that may be in the logs of `on_epoch_end`.

        Raises
        ------
        ValueError
            If what this callback needs is not among them.
        """

    def on_train_begin(self, net: Network) -> None:
        """Before the first epoch.

        Parameters
        ----------
        net : Network
            The network that is about to be trained.
        """

    def on_train_end(self, net: Network) -> None:
        """After the last epoch; not called when training ended with an exception.

        Parameters
        ----------
        net : Network
            The network, trained.
        """

    def on_epoch_begin(self, net: Network, epoch: int) -> None:
        """Before each epoch.

        Parameters
        ----------
        net : Network
            The network, with the parameters at the beginning of the epoch.
        epoch : int
            Its number, from 0 over all calls of ``fit``.
        """

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
            ``rows_per_second``; and with ``metrics``, ``val_`` and the name of each. A copy: each
            callback has its own.
        """

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on after this epoch in another process; see `Checkpoint`.

        Returns
        -------
        dict
            Of None, numbers, strings, and lists and dicts of them, which JSON can hold, or of NumPy
            arrays. Empty for a callback that remembers nothing.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where an equal callback was; called after `on_train_begin`.

        Parameters
        ----------
        state : dict
            What `state` returned there.
        """
