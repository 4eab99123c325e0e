"""Keras: the list of arrays that get_weights() returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbackprop.exchange.assembly import Parts, chosen_activations, dense_parts
from fastbackprop.plan import Array


def read(weights: Any, activation: Any, output_activation: Any) -> Parts:
    """Read what `from_keras_weights` takes: kernels (n_in, n_out), each with or without a bias."""
    if not isinstance(weights, list | tuple):
        raise TypeError(
            f"expected the list that model.get_weights() returns, got {type(weights).__name__}"
        )
    pairs: list[tuple[Array, Array | None]] = []
    for i, value in enumerate(weights):
        array = np.asarray(value)
        if array.dtype.kind != "f":
            raise TypeError(f"weights[{i}] has the dtype {array.dtype}; expected floats")
        if array.dtype != np.float64:
            array = array.astype(np.float32)
        if array.ndim == 2:
            pairs.append((array, None))
        elif pairs and pairs[-1][1] is None and array.shape == pairs[-1][0].shape[1:]:
            pairs[-1] = (pairs[-1][0], array)
        else:
            raise ValueError(
                f"weights[{i}] has shape {array.shape}, which is neither a kernel (n_in, n_out) "
                "nor the bias of the one before; only models of Dense layers can be read"
            )
    if not pairs:
        raise ValueError("weights is empty")
    return dense_parts(pairs, chosen_activations(len(pairs), activation, output_activation))
