"""Layers and arrays from elsewhere, made into the contents of a network, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastbackprop import activations, losses
from fastbackprop.activations import Activation
from fastbackprop.construction import as_dtype
from fastbackprop.layers import Dense, Layer, Rescaling, check_chain
from fastbackprop.losses import Loss
from fastbackprop.plan import Array
from fastbackprop.storage import Contents

# The loss that goes with an output, for models that are stored without theirs.
_DEFAULT_LOSS = {
    "softmax": "cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "exp": "poisson",
}


class Parts(NamedTuple):
    """A chain of layers with the arrays of each Dense one, before a loss is chosen."""

    layers: Sequence[Layer]
    weights: Sequence[Array]  # (n_in, n_out) each
    biases: Sequence[Array | None]  # (n_out,) each


def assemble(parts: Parts, loss: str | Loss | None, dtype: Any) -> Contents:
    """Choose what other libraries keep elsewhere, and check the whole.

    Parameters
    ----------
    parts : Parts
        Every Dense but the last names its activation, or is linear.
    loss : str, Loss or None
        None takes cross_entropy after softmax, binary_cross_entropy after sigmoid, poisson after
        exp, else mse. A cross-entropy after a linear output takes the outputs for logits.
    dtype : "float32", "float64" or None
        None takes float64 if any weight has it.

    Raises
    ------
    TypeError, ValueError
        If the layers do not chain, an array is not finite, or the loss does not fit the output.
    """
    check_chain(parts.layers)
    last = parts.layers[-1]
    assert isinstance(last, Dense)
    output = last.activation or Activation("identity")
    chosen = losses.get(_DEFAULT_LOSS.get(output.name, "mse") if loss is None else loss)
    if chosen.fused and output.name == "identity":
        output = chosen.default_output()
    chosen.check_output(output)
    if dtype is None:
        doubles = any(w.dtype == np.float64 for w in parts.weights)
        dtype = np.float64 if doubles else np.float32
    kind = as_dtype(dtype)
    return Contents(
        [*parts.layers[:-1], Dense(last.n_in, last.n_out, output, bias=last.bias)],
        chosen,
        output,
        kind.name,
        seed=0,
        epoch=0,
        weights=[_finite(f"layers.{i}.weight", w, kind) for i, w in enumerate(parts.weights)],
        biases=[
            None if b is None else _finite(f"layers.{i}.bias", b, kind)
            for i, b in enumerate(parts.biases)
        ],
    )


def dense_parts(pairs: Sequence[tuple[Array, Array | None]], functions: list[Activation]) -> Parts:
    """Parts of Dense layers alone, from weights (n_in, n_out), biases and activations."""
    dense = [
        Dense(len(w), w.shape[1], function, bias=b is not None)
        for (w, b), function in zip(pairs, functions, strict=True)
    ]
    return Parts(dense, [w for w, _ in pairs], [b for _, b in pairs])


def chosen_activations(n_layers: int, hidden: Any, output: Any) -> list[Activation]:
    """An activation for each of ``n_layers`` layers, from what a user gave.

    Parameters
    ----------
    n_layers : int
        At least 1.
    hidden : str, Activation, sequence of these, or None
        One for all hidden layers, or one for each.
    output : str, Activation or None
        None is linear.

    Examples
    --------
    >>> chosen_activations(3, "relu", None)
    [Activation('relu'), Activation('relu'), Activation('identity')]
    >>> chosen_activations(2, None, None)
    Traceback (most recent call last):
        ...
    TypeError: the weights do not say which activations the 1 hidden layer has; give
    activation="relu" or whatever it was
    """
    n_hidden = n_layers - 1
    if hidden is None and n_hidden:
        layers = "layer has" if n_hidden == 1 else "layers have"
        raise TypeError(
            f"the weights do not say which activations the {n_hidden} hidden {layers}; "
            'give activation="relu" or whatever it was'
        )
    if isinstance(hidden, list | tuple):
        if len(hidden) != n_hidden:
            raise ValueError(
                f"activation has {len(hidden)} entries for {n_hidden} hidden layers; give one for "
                "each hidden layer, and output_activation for the last"
            )
        functions = [activations.get(name) for name in hidden]
    else:
        functions = [activations.get(hidden)] * n_hidden
    return [*functions, activations.get(output)]


def folded(contents: Contents) -> list[tuple[Array, Array | None]]:
    """Weights and biases as copies, with the Rescaling multiplied into the first layer.

    (x · scale + offset) @ w + b = x @ (scale · w) + (b + offset · Σ w). A layer without bias gets
    one if there is an offset.
    """
    pairs = [
        (w.copy(), None if b is None else b.copy())
        for w, b in zip(contents.weights, contents.biases, strict=True)
    ]
    first = contents.layers[0]
    if isinstance(first, Rescaling):
        w, b = (None if array is None else array.astype(np.float64) for array in pairs[0])
        assert w is not None
        if first.offset:
            b = (0.0 if b is None else b) + first.offset * w.sum(axis=0)
        kind = contents.dtype
        pairs[0] = ((first.scale * w).astype(kind), None if b is None else b.astype(kind))
    return pairs


def stage_activations(contents: Contents) -> list[Activation]:
    """The activation of each Dense layer."""
    dense = [layer for layer in contents.layers if isinstance(layer, Dense)]
    hidden = [layer.activation or Activation("identity") for layer in dense[:-1]]
    return [*hidden, contents.output_activation]


def missing_package(what: str, package: str, install: str, error: ImportError) -> NoReturn:
    """Say which package is not installed, and how to get it.

    Raises
    ------
    ImportError
        Always.
    """
    raise ImportError(
        f"{what} needs {package}, which is not installed: pip install {install}"
    ) from error


def names_of(known: Iterable[str]) -> str:
    """A list for an error message, in a fixed order."""
    return ", ".join(sorted(known))


def _finite(name: str, array: Array, kind: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        values = array.astype(kind)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains values that are not finite in {kind.name}")
    return values
