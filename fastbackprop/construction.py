"""The arguments a network is made from, checked."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Any

import numpy as np

from fastbackprop import activations, initializers
from fastbackprop.activations import Activation
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Layer
from fastbackprop.losses import Loss
from fastbackprop.specs import checked_size


def as_layers(
    layers: Any,
    activation: str | Activation,
    init: str | Initializer | None,
    loss: Loss,
    output: Activation | None,
) -> tuple[Layer, ...]:
    """The layers themselves, whether they were given or their sizes."""
    if isinstance(layers, str) or not isinstance(layers, Sequence | np.ndarray):
        raise TypeError(f"layers must be a list of sizes or of layers, got {layers!r}")
    if any(isinstance(layer, Layer) for layer in layers):
        hidden = activations.get(activation)
        if hidden.name != "sigmoid" or init is not None:
            raise TypeError(
                "activation and init go with a list of sizes; give each Dense its own instead: "
                f"Dense(n_in, n_out, {hidden.name!r})"
            )
        return tuple(layers)
    if len(layers) < 2:
        raise ValueError(f"a network needs at least an input and an output size, got {layers!r}")
    sizes = [checked_size(f"layers[{i}]", size) for i, size in enumerate(layers)]
    hidden = activations.get(activation)
    if hidden.name == "softmax":
        raise ValueError("activation is for the hidden layers; softmax is an output_activation")
    weights = None if init is None else initializers.get(init)
    inner = [Dense(n_in, n_out, hidden, init=weights) for n_in, n_out in pairwise(sizes[:-1])]
    last = Dense(sizes[-2], sizes[-1], output or loss.default_output(hidden), init=weights)
    return (*inner, last)


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """The float type of a network."""
    refused = ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    if dtype is None:  # NumPy takes it for float64
        raise refused
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise refused from None
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise refused
    return result


def as_generator(random_state: Any) -> np.random.Generator:
    """What draws the initial parameters."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    try:
        return np.random.default_rng(checked_size("random_state", random_state, minimum=0))
    except TypeError:
        raise TypeError(
            "random_state must be an integer, a numpy.random.Generator or None, got "
            f"{random_state!r}"
        ) from None


def as_classes(classes: Any, n_out: int) -> tuple[Any, ...] | None:
    """What classes are called, as plain strings and numbers; None where that is not known."""
    if classes is None:
        return None
    if isinstance(classes, str | Mapping | Set) or not isinstance(classes, Iterable):
        raise TypeError(f"classes must be a list of strings or numbers, got {classes!r}")
    names = tuple(name.item() if isinstance(name, np.generic) else name for name in classes)
    for name in names:
        if not isinstance(name, str | int | float) or name in (np.inf, -np.inf) or name != name:
            raise TypeError(f"a class must be a string or a finite number, got {name!r}")
    n_classes = max(n_out, 2)
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise ValueError(
            f"classes must be {n_classes} different names, as many as the network tells apart, got "
            f"{list(names)!r:.200}"
        )
    return names


def as_layer_numbers(layers: Iterable[Any], n_layers: int) -> frozenset[int]:
    """Numbers of Dense layers, which may be counted from the end, as numbers from 0."""
    chosen = set()
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, numbers.Integral):
            raise TypeError(f"the number of a layer must be an integer, got {layer!r}")
        number = int(layer)
        if not -n_layers <= number < n_layers:
            raise IndexError(
                f"there is no layer {number}; the network has {n_layers} Dense layers, from 0 to "
                f"{n_layers - 1}"
            )
        chosen.add(number % n_layers)
    return frozenset(chosen)
