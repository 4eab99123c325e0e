"""Metrics of numbers: how far outputs are from them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastbackprop.data import Array, Targets
from fastbackprop.metrics.metric import Metric


class _Measured(Metric):
    """A metric of numbers: the mean over outputs of a value for each."""

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse class labels."""
        if targets.labels is not None:
            raise ValueError(
                f"the metric {self.name!r} is about numbers, but y holds class labels; for them "
                "there are accuracy, precision, recall and f1"
            )

    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""
        y = np.asarray(targets.values, np.float64)
        return float(self._by_output(y, outputs.astype(np.float64), weights).mean())

    @abstractmethod
    def _by_output(self, y: Array, outputs: Array, weights: Array | None) -> Array:
        """The value for each output, (n_out,)."""


@dataclass(frozen=True, repr=False)
class R2(_Measured):
    """R² = 1 − Σ(y − a)² / Σ(y − ȳ)², the part of the variance that is explained; mean of outputs.

    An output that never varies counts 1 if it is met exactly, else 0.

    References
    ----------
    sklearn.metrics.r2_score.

    Examples
    --------
    >>> R2().name
    'r2'
    """

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return "r2"

    def _by_output(self, y: Array, outputs: Array, weights: Array | None) -> Array:
        mean = np.average(y, axis=0, weights=weights)
        left = np.average((y - outputs) ** 2, axis=0, weights=weights)
        total = np.average((y - mean) ** 2, axis=0, weights=weights)
        varies = total > 0
        explained = 1.0 - left / np.where(varies, total, 1.0)
        return np.where(varies, explained, np.where(left == 0, 1.0, 0.0))


@dataclass(frozen=True, repr=False)
class MAE(_Measured):
    """The mean absolute error, in the unit of y.

    References
    ----------
    sklearn.metrics.mean_absolute_error.

    Examples
    --------
    >>> MAE().larger_is_better
    False
    """

    larger_is_better: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return "mae"

    def _by_output(self, y: Array, outputs: Array, weights: Array | None) -> Array:
        errors: Array = np.average(np.abs(y - outputs), axis=0, weights=weights)
        return errors


@dataclass(frozen=True, repr=False)
class RMSE(_Measured):
    """The root of the mean squared error, in the unit of y; of several outputs, their mean.

    References
    ----------
    sklearn.metrics.root_mean_squared_error.

    Examples
    --------
    >>> RMSE().name
    'rmse'
    """

    larger_is_better: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return "rmse"

    def _by_output(self, y: Array, outputs: Array, weights: Array | None) -> Array:
        errors: Array = np.sqrt(np.average((y - outputs) ** 2, axis=0, weights=weights))
        return errors
