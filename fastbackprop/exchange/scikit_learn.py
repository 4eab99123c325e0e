"""scikit-learn: a fitted MLPClassifier or MLPRegressor, or any object with the same attributes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.construction import as_classes
from fastbackprop.exchange.assembly import (
    Parts,
    chosen_activations,
    dense_parts,
    folded,
    missing_package,
    names_of,
    stage_activations,
)
from fastbackprop.plan import Array
from fastbackprop.storage import Contents

_TO_SKLEARN = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}


def read(estimator: Any) -> Parts:
    """Read what `from_sklearn` takes."""
    if not hasattr(estimator, "coefs_") or not hasattr(estimator, "intercepts_"):
        hint = "; give its last step" if hasattr(estimator, "steps") else "; call fit first"
        known = hasattr(estimator, "hidden_layer_sizes") or hasattr(estimator, "steps")
        raise TypeError(
            "expected a fitted MLPClassifier or MLPRegressor, got "
            f"{type(estimator).__name__}{hint if known else ''}"
        )
    pairs = [
        (np.asarray(w), np.asarray(b))
        for w, b in zip(estimator.coefs_, estimator.intercepts_, strict=True)
    ]
    functions = chosen_activations(len(pairs), estimator.activation, estimator.out_activation_)
    return dense_parts(pairs, functions)


def classes_of(estimator: Any, n_out: int) -> tuple[Any, ...] | None:
    """The labels of a classifier with as many, where they are strings or numbers."""
    labels = getattr(estimator, "classes_", None)
    if isinstance(labels, np.ndarray) and labels.shape == (max(n_out, 2),):
        with contextlib.suppress(TypeError):
            return as_classes(labels, n_out)
    return None


def export(contents: Contents, classes: Any) -> Any:
    """Make what `Network.to_sklearn` returns."""
    try:
        from sklearn.neural_network import MLPClassifier, MLPRegressor
    except ImportError as error:
        missing_package("to_sklearn", "scikit-learn", "scikit-learn", error)
    *hidden, output = stage_activations(contents)
    name = _shared_name(hidden)
    pairs = folded(contents)
    sizes = tuple(w.shape[1] for w, _ in pairs[:-1])
    options = {"hidden_layer_sizes": sizes, "activation": name, "random_state": 0}
    n_in, n_out = len(pairs[0][0]), pairs[-1][0].shape[1]
    if output.name == "softmax" and n_out == 2:
        pairs[-1], n_out = _as_one_logit(*pairs[-1]), 1

    # A step on made-up data lets scikit-learn set up all that its own methods rely on.
    if contents.loss.is_classification:
        labels = _labels(contents.classes if classes is None else classes, n_out)
        estimator = MLPClassifier(**options)
        rows = np.zeros((len(labels), n_in), contents.dtype)
        if output.name == "sigmoid" and n_out > 1:
            estimator.partial_fit(rows, np.eye(n_out, dtype=int), classes=labels)
        else:
            estimator.partial_fit(rows, labels, classes=labels)
    else:
        if output.name not in ("identity", "exp"):
            raise ValueError(
                f"MLPRegressor has no output activation {output.name!r}; only a linear one, and "
                "exp with the Poisson loss"
            )
        if classes is not None:
            raise ValueError("classes are for networks with a cross-entropy loss")
        estimator = MLPRegressor(**options, **({"loss": "poisson"} if output.name == "exp" else {}))
        y = np.zeros((2, n_out))
        estimator.partial_fit(np.zeros((2, n_in), contents.dtype), y if n_out > 1 else y[:, 0])
    estimator.coefs_ = [w for w, _ in pairs]
    estimator.intercepts_ = [np.zeros(w.shape[1], w.dtype) if b is None else b for w, b in pairs]
    estimator.set_params(random_state=None)
    estimator.n_iter_, estimator.t_, estimator.loss_curve_ = 0, 0, []
    estimator.loss_ = estimator.best_loss_ = np.inf
    # That step's moments: a later partial_fit begins with new ones where there are none.
    vars(estimator).pop("_optimizer", None)
    return estimator


def _shared_name(hidden: list[Activation]) -> str:
    """scikit-learn's name of the one activation of all hidden layers."""
    for i, activation in enumerate(hidden):
        if activation.name not in _TO_SKLEARN:
            raise ValueError(
                f"layers.{i}: scikit-learn has no activation {activation!r}; it has "
                f"{names_of(_TO_SKLEARN)}"
            )
        if activation != hidden[0]:
            raise ValueError(
                f"layers.{i} has the activation {activation.name!r}, and layers.0 "
                f"{hidden[0].name!r}; scikit-learn has one for all hidden layers"
            )
    return _TO_SKLEARN[hidden[0].name] if hidden else "relu"


def _as_one_logit(w: Array, b: Array | None) -> tuple[Array, Array | None]:
    """softmax(z)₁ = σ(z₁ − z₀): the form in which scikit-learn has two classes."""
    return w[:, 1:] - w[:, :1], None if b is None else b[1:] - b[:1]


def _labels(classes: Any, n_out: int) -> Array:
    n_classes = 2 if n_out == 1 else n_out
    labels = np.arange(n_classes) if classes is None else np.asarray(classes)
    if labels.shape != (n_classes,) or len(np.unique(labels)) != n_classes:
        raise ValueError(f"classes must be {n_classes} different labels, got {classes!r}")
    if (np.sort(labels) != labels).any():
        raise ValueError(f"classes must be sorted, as scikit-learn's classes_ are, got {classes!r}")
    return labels
