"""What training may change in a network, and the lock that admits one training at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastbackprop import construction
from fastbackprop.history import History
from fastbackprop.layers import Layer
from fastbackprop.parameters import ParameterHolder
from fastbackprop.specs import NON_NEGATIVE, checked_number
from fastbackprop.state import State


class Trainable(ParameterHolder):
    """What training may change of a network, one training at a time."""

    def _begin(self, layers: tuple[Layer, ...], state: State) -> None:
        super()._begin(layers, state)
        self._busy = threading.Lock()
        self.history = History()
        self.stop_training = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_busy"}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved, _busy=threading.Lock())

    @property
    def frozen(self) -> tuple[int, ...]:
        """The numbers of the Dense layers that training leaves as they are, see `freeze`."""
        return tuple(sorted(self._state.frozen))

    def freeze(self, *layers: int) -> None:
        """Let training leave layers as they are, to the last bit, until `unfreeze`.

        Neither weight decay nor momentum changes them, and their gradients are not part of the norm
        that ``clip_norm`` bounds. Layers before the first one that learns need no backward pass,
        which saves time. Gradients can be asked for as ever. A copy or a pickle of the network
        keeps this, a file that `save` writes does not.

        Parameters
        ----------
        *layers : int
            Their numbers, as in `weights`: Dense layers from 0, or from -1 for the last. All
            layers, if none is given.

        Raises
        ------
        TypeError
            If a number is no integer.
        IndexError
            If there is no such layer.

        Examples
        --------
        Train the last layer only:

        >>> import fastbackprop as fb
        >>> net = fb.Network([4, 8, 8, 3], random_state=0)
        >>> net.freeze(0, 1)
        >>> net.frozen
        (0, 1)
        """
        with self._exclusive():
            self._state.frozen |= self._layer_numbers(layers)

    def unfreeze(self, *layers: int) -> None:
        """Let training change layers again.

        Parameters
        ----------
        *layers : int
            Their numbers, as in `freeze`. All layers, if none is given.

        Raises
        ------
        TypeError
            If a number is no integer.
        IndexError
            If there is no such layer.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([4, 8, 8, 3], random_state=0)
        >>> net.freeze()
        >>> net.unfreeze(-1)
        >>> net.frozen
        (0, 1)
        """
        with self._exclusive():
            self._state.frozen -= self._layer_numbers(layers)

    def _layer_numbers(self, layers: tuple[int, ...]) -> frozenset[int]:
        n_layers = len(self._state.plan.stages)
        return construction.as_layer_numbers(layers or range(n_layers), n_layers)

    def _check_learns(self) -> None:
        if len(self._state.frozen) == len(self._state.plan.stages):
            raise ValueError("every layer is frozen, so there is nothing to learn; see unfreeze")

    @property
    def learning_rate_factor(self) -> float:
        """What the optimizer's rate is multiplied by in every step.

        It is 1 when training begins afresh with another optimizer. `ReduceLROnPlateau` makes it
        smaller; a callback of yours may set it, too.

        Raises
        ------
        TypeError, ValueError
            If it is set to anything but a number >= 0.
        RuntimeError
            If it is set before there has been any training.
        """
        return self._state.rate_factor

    @learning_rate_factor.setter
    def learning_rate_factor(self, factor: float) -> None:
        checked = checked_number("learning_rate_factor", factor, NON_NEGATIVE)
        if self._state.optimizer is None:
            raise RuntimeError(
                "learning_rate_factor belongs to an optimizer's state, and there is none yet: give "
                "the optimizer another learning_rate, or set it in a callback"
            )
        self._state.rate_factor = checked

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "this network is being trained: by another thread, by the fit that called this "
                "callback, or when this process was forked. Wait for it, or train a copy: "
                "net.clone()"
            )
        try:
            yield
        finally:
            self._busy.release()
