"""Weights of rows from weights of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbackprop.data import Array, Targets, TrainingData
from fastbackprop.specs import NON_NEGATIVE, checked_number, checked_size, known_name

BALANCED = "balanced"

ClassWeight = str | dict[int, float] | None


def checked_class_weight(class_weight: Any, n_out: int) -> ClassWeight:
    """A checked ``class_weight`` of `Network.fit`.

    Raises
    ------
    TypeError
        If it is neither a dict of numbers, "balanced" nor None.
    ValueError
        If a class is not one of the network's, or a weight is negative or not finite.

    Examples
    --------
    >>> checked_class_weight({0: 1, 1: 10}, n_out=1)
    {0: 1.0, 1: 10.0}
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        return known_name("class_weight", class_weight, [BALANCED])
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            "class_weight must be a dict from class labels to weights, 'balanced' or None, got "
            f"{class_weight!r}"
        )
    classes = max(n_out, 2)  # one output tells two classes apart
    checked = {}
    for label, weight in class_weight.items():
        number = checked_size("a label in class_weight", label, minimum=0)
        if number >= classes:
            raise ValueError(
                f"class_weight has the label {number}; the network has {classes} classes, so "
                f"labels must be from 0 to {classes - 1}"
            )
        checked[number] = checked_number(f"class_weight[{number}]", weight, NON_NEGATIVE)
    return checked


def weighted(data: TrainingData, class_weight: ClassWeight) -> TrainingData:
    """The data with each row's weight multiplied by that of its class.

    "balanced" gives class k of K that occur the weight n / (K · n_k), as scikit-learn does; a
    class that a dict does not name has the weight 1.

    Raises
    ------
    ValueError
        If a row does not belong to one class, or every row's weight becomes 0.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1])
    >>> data = TrainingData(np.zeros((4, 1)), Targets(y, None, 1), None)
    >>> weighted(data, "balanced").weights
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if class_weight is None:
        return data
    labels = _labels(data.targets)
    if isinstance(class_weight, str):
        counts = np.bincount(labels)
        occurring = np.count_nonzero(counts)
        factors = len(labels) / (occurring * np.maximum(counts, 1))
    else:
        factors = np.ones(1 + max(int(labels.max()), *class_weight, 0))
        for label, weight in class_weight.items():
            factors[label] = weight
    weights = factors[labels]
    if data.weights is not None:
        weights *= data.weights
    return data._replace(weights=weights)


def _labels(targets: Targets) -> Array:
    """The class of each row."""
    if targets.labels is not None:
        return targets.labels
    values: Any = targets.values
    if not np.all((values == 0) | (values == 1)):
        place = np.argwhere((values != 0) & (values != 1))[0]
        raise ValueError(
            f"y is {values[tuple(place)]} at {place.tolist()}; with class_weight each row must "
            "belong to one class: pass integer labels"
        )
    if values.shape[1] == 1:
        return values[:, 0].astype(np.int64)
    wrong = np.flatnonzero(values.sum(axis=1) != 1)
    if len(wrong):
        raise ValueError(
            f"row {wrong[0]} of y names {int(values[wrong[0]].sum())} classes; with class_weight "
            "each row must belong to one: weight such rows by sample_weight"
        )
    labels: Array = values.argmax(axis=1)
    return labels
