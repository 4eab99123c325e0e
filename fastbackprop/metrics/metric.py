"""What a metric is, and one made from a function."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fastbackprop.data import Array, Targets
from fastbackprop.specs import Spec


@dataclass(frozen=True, repr=False)
class Metric(Spec, ABC):
    """A number that tells how good outputs are. A function will do; see `Function`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> class Bias(Metric):
    ...     larger_is_better = False
    ...     name = "bias"
    ...
    ...     def measure(self, targets, outputs, weights):
    ...         return float(np.average(outputs - targets.values, axis=0, weights=weights).mean())
    >>> net = fb.Network([1, 1], "identity", "mse")
    >>> net.set_parameters([1, 0.5])
    >>> net.evaluate([[1], [2]], [1, 2], metrics=[Bias()])
    {'loss': 0.25, 'bias': 0.5}
    """

    larger_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in logs and results."""

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse targets that it cannot be measured with.

        Parameters
        ----------
        targets : Targets
            As in `measure`.
        n_out : int
            Outputs of the network.

        Raises
        ------
        ValueError
            If they are not what the metric is about.
        """

    @abstractmethod
    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value.

        Parameters
        ----------
        targets : Targets
            ``labels``, (n,), or else ``values``, (n, n_out).
        outputs : ndarray, (n, n_out)
            Of the network.
        weights : ndarray or None, (n,)
            Of each row; None is 1 for all.

        Returns
        -------
        float
        """


@dataclass(frozen=True, repr=False)
class Function(Metric):
    """A metric that is a function of the caller.

    Parameters
    ----------
    label : str
        What it is called in logs and results.
    function : callable
        Called with y, as class labels (n,) or rows of numbers (n, n_out), and the outputs
        (n, n_out); and with ``sample_weight=``, (n,) or None, if it has an argument of that name.

    Raises
    ------
    TypeError
        If one is no string, or the other cannot be called; and where it is measured, if the
        function returns no number.

    Examples
    --------
    >>> worst = Function("worst", lambda y, outputs: abs(y - outputs).max())
    >>> worst.name
    'worst'
    """

    label: str
    function: Callable[..., float]

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label:
            raise TypeError(f"the name of a metric must be a string, got {self.label!r}")
        if not callable(self.function):
            raise TypeError(f"the metric {self.label!r} must be a function, got {self.function!r}")

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return self.label

    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""
        y = targets.values if targets.labels is None else targets.labels
        more = {}
        if "sample_weight" in inspect.signature(self.function).parameters:
            more["sample_weight"] = weights
        value = self.function(y, outputs, **more)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TypeError(f"the metric {self.name!r} must be a number, got {value!r}") from None
