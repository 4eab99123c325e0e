"""Metrics of classes: how many rows are classified rightly, in all and by class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels.records import SCORE_NONE, SCORE_THRESHOLD
from fastbackprop.data import Array, Targets
from fastbackprop.metrics.metric import Metric
from fastbackprop.specs import checked_size, known_name

AVERAGES = ("binary", "macro")
"""How a metric of each class becomes one number."""


class _Classified(Metric):
    """A metric of classes."""

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse targets that are no classes."""
        if targets.score == SCORE_NONE:
            raise ValueError(
                f"the metric {self.name!r} is about classes, but y holds other numbers; for them "
                "there are r2, mae and rmse"
            )


@dataclass(frozen=True, repr=False)
class Accuracy(_Classified):
    """The fraction of rows classified rightly; of several independent labels, of labels.

    Examples
    --------
    >>> Accuracy().name
    'accuracy'
    """

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return "accuracy"

    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""
        if _is_independent(targets):
            values: Any = targets.values
            right = ((outputs > 0.5) == (values > 0.5)).mean(axis=1)
        else:
            right = outputs.argmax(axis=1) == _labels(targets)
        return float(np.average(right, weights=weights))


@dataclass(frozen=True, repr=False)
class TopK(_Classified):
    """The fraction of rows whose class is among those with the k largest outputs.

    Of equal outputs those of later classes are taken first, as scikit-learn does.

    Parameters
    ----------
    k : int, default 5
        At least 1, and less than the number of classes.

    Raises
    ------
    TypeError, ValueError
        If k is not as described; where it is measured, if there are no more classes than that.

    References
    ----------
    sklearn.metrics.top_k_accuracy_score.

    Examples
    --------
    >>> TopK(3).name
    'top_3_accuracy'
    """

    k: int = 5

    def __post_init__(self) -> None:
        self._set(k=checked_size("k", self.k))

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        return f"top_{self.k}_accuracy"

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse targets that do not name one of more than k classes."""
        super().check(targets, n_out)
        if _is_independent(targets) or self.k >= n_out:
            classes = 2 if _is_independent(targets) else n_out
            raise ValueError(
                f"the metric {self.name!r} needs more than {self.k} classes of which each row has "
                f"one; the network tells {classes} apart"
            )

    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""
        largest = np.argsort(outputs, axis=1, kind="stable")[:, -self.k :]
        right = (largest == _labels(targets)[:, None]).any(axis=1)
        return float(np.average(right, weights=weights))


class _Counts(NamedTuple):
    """Weights of rows, by class, (n_classes,)."""

    right: Array  # of the class, and taken for it
    taken: Array  # taken for the class
    given: Array  # of the class


@dataclass(frozen=True, repr=False)
class _PerClass(_Classified):
    average: str = "binary"

    def __post_init__(self) -> None:
        self._set(average=known_name("average", self.average, AVERAGES))

    @property
    def name(self) -> str:
        """What it is called in logs and results."""
        name = type(self).__name__.lower()
        return name if self.average == "binary" else f"{name}_{self.average}"

    def check(self, targets: Targets, n_out: int) -> None:
        """Refuse targets that are not of two classes, unless the metric is a mean over classes."""
        super().check(targets, n_out)
        if self.average == "binary" and n_out != (1 if _is_independent(targets) else 2):
            raise ValueError(
                f"the metric {self.name!r} is about two classes; the network has {n_out} outputs. "
                f"Take {self.name + '_macro'!r}, the mean over classes."
            )

    def measure(self, targets: Targets, outputs: Array, weights: Array | None) -> float:
        """Its value for outputs (n, n_out), with a weight for each row."""
        counts = _counts(targets, outputs, weights)
        scores = self._scores(counts)
        if self.average == "binary":
            return float(scores[-1])
        if _is_independent(targets) and outputs.shape[1] > 1:
            return float(scores.mean())
        return float(scores[(counts.taken > 0) | (counts.given > 0)].mean())

    @abstractmethod
    def _scores(self, counts: _Counts) -> Array:
        """The value for each class."""


@dataclass(frozen=True, repr=False)
class Precision(_PerClass):
    """The fraction of rows taken for a class that are of it; 0 where none was taken for it.

    Parameters
    ----------
    average : "binary" or "macro", default "binary"
        Of class 1 of two; or the mean over all classes that any row is of or was taken for (over
        all labels, where they are independent).

    References
    ----------
    sklearn.metrics.precision_score with zero_division=0.

    Examples
    --------
    >>> Precision().name, Precision("macro").name
    ('precision', 'precision_macro')
    """

    def _scores(self, counts: _Counts) -> Array:
        return _ratio(counts.right, counts.taken)


@dataclass(frozen=True, repr=False)
class Recall(_PerClass):
    """The fraction of rows of a class that are taken for it; 0 where none is of it.

    Parameters
    ----------
    average : "binary" or "macro", default "binary"
        See `Precision`.

    References
    ----------
    sklearn.metrics.recall_score with zero_division=0.

    Examples
    --------
    >>> Recall("macro")
    Recall(average='macro')
    """

    def _scores(self, counts: _Counts) -> Array:
        return _ratio(counts.right, counts.given)


@dataclass(frozen=True, repr=False)
class F1(_PerClass):
    """The harmonic mean of precision and recall, 2·right / (taken + given).

    Parameters
    ----------
    average : "binary" or "macro", default "binary"
        See `Precision`.

    References
    ----------
    sklearn.metrics.f1_score with zero_division=0.

    Examples
    --------
    >>> F1("macro").name
    'f1_macro'
    """

    def _scores(self, counts: _Counts) -> Array:
        return _ratio(2.0 * counts.right, counts.taken + counts.given)


def _is_independent(targets: Targets) -> bool:
    """Whether each output is a label of its own, on one side of ½ or the other."""
    return targets.score == SCORE_THRESHOLD


def _labels(targets: Targets) -> Array:
    if targets.labels is not None:
        return targets.labels
    values: Any = targets.values
    labels: Array = values.argmax(axis=1)
    return labels


def _counts(targets: Targets, outputs: Array, weights: Array | None) -> _Counts:
    n, n_out = outputs.shape
    w = np.ones(n) if weights is None else weights
    if _is_independent(targets):
        values: Any = targets.values
        given, taken = values > 0.5, outputs > 0.5
        if n_out > 1:
            return _Counts(w @ (given & taken), w @ taken, w @ given)
        labels, predicted, n_classes = given[:, 0].astype(int), taken[:, 0].astype(int), 2
    else:
        labels, predicted, n_classes = _labels(targets), outputs.argmax(axis=1), n_out
    right = labels == predicted
    return _Counts(
        np.bincount(labels[right], w[right], n_classes),
        np.bincount(predicted, w, n_classes),
        np.bincount(labels, w, n_classes),
    )


def _ratio(part: Array, whole: Array) -> Array:
    """Part / whole, and 0 where there is nothing."""
    return part / np.where(whole > 0, whole, 1.0)
