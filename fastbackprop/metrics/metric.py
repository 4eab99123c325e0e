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
    """A number that tells how good outputs are."""

    larger_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in logs and results."""

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse targets that it cannot be measured with.

        Raises
        ------
        ValueError
            If they are not what the metric is about.
        """

    @abstractmethod
    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""


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
        If one is no string, or the other cannot be called.

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
