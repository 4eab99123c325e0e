"""The layers of a network and the parameters that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbackprop import construction, summary
from fastbackprop.data import checked_parameters
from fastbackprop.layers import Layer
from fastbackprop.losses import Loss
from fastbackprop.plan import Array
from fastbackprop.state import State


class ParameterHolder:
    """What a network is: its layers and loss, their parameters, and the names of its classes."""

    def _begin(self, layers: tuple[Layer, ...], state: State) -> None:
        self._layers = layers
        self._state = state
        self._classes: tuple[Any, ...] | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as they were given or made from sizes."""
        return self._layers

    @property
    def sizes(self) -> list[int]:
        """Units of each layer, inputs first."""
        stages = self._state.plan.stages
        return [stages[0].dense.n_in, *(stage.dense.n_out for stage in stages)]

    @property
    def loss_function(self) -> Loss:
        """The loss that training makes small; `loss` computes it."""
        return self._state.plan.loss

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters and arithmetic."""
        return self._state.plan.dtype

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """What class 0, 1, ... is called; None where that is not known.

        Training and `predict_classes` are about the numbers 0, 1, ... whatever they are called. The
        names are kept by `save`, go to and come from scikit-learn, and label pictures and what
        ``fastbackprop predict`` prints.

        Raises
        ------
        TypeError, ValueError
            If it is set to anything but different strings or numbers, one for each class.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([4, 3], loss="cross_entropy", random_state=0)
        >>> net.classes = ["ham", "spam", "eggs"]
        >>> net.classes[net.predict_classes([[1, 2, 3, 4]])[0]]
        'spam'
        """
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[Any] | None) -> None:
        self._classes = construction.as_classes(names, self._state.plan.n_out)

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return self._state.plan.n_parameters

    @property
    def weights(self) -> list[Array]:
        """The weights of each Dense layer, (n_in, n_out), as writable views."""
        return self._state.plan.weights(self._state.params)

    @property
    def biases(self) -> list[Array | None]:
        """The bias of each Dense layer, (n_out,), as a writable view; None where it has none."""
        return self._state.plan.biases(self._state.params)

    def get_parameters(self) -> Array:
        """All parameters as one vector: layer by layer, weights row by row, then the bias.

        Returns
        -------
        ndarray, (n_parameters,)
            A copy.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> fb.Network([3, 2], random_state=0).get_parameters().shape
        (8,)
        """
        return self._state.plan.pack(self._state.params)

    def set_parameters(self, theta: Any) -> None:
        """Replace all parameters.

        Parameters
        ----------
        theta : array_like, (n_parameters,)
            In the order of `get_parameters`.

        Raises
        ------
        TypeError
            If it does not hold real numbers.
        ValueError
            If its shape is another, or a value is not finite.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([2, 1], "identity", "mse")
        >>> net.set_parameters([2, 3, 10])
        >>> net.weights[0].ravel(), net.biases[0]
        (array([2., 3.], dtype=float32), array([10.], dtype=float32))
        """
        values = checked_parameters(theta, self.n_parameters, self.dtype)
        self._state.plan.unpack(values, self._state.params)

    def summary(self) -> str:
        """A table of layers and numbers of parameters, as text.

        Returns
        -------
        str

        Examples
        --------
        >>> import fastbackprop as fb
        >>> print(fb.Network([784, 30, 10]).summary())
        Layer     Units  Activation  Parameters
        Dense        30  sigmoid         23,550
        Dense        10  sigmoid            310
        Inputs 784, loss quadratic, float32, 23,860 parameters (95.4 kB)
        """
        return summary.as_text(self._layers, self._state)

    def _repr_html_(self) -> str:
        return summary.as_html(self._layers, self._state)
