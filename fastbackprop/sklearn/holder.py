"""An estimator's network, in step with the arrays of parameters that its user sees."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from fastbackprop import inference
from fastbackprop.activations import Activation
from fastbackprop.data import CompressedRows, checked_inputs
from fastbackprop.layers import Dense, Dropout, Layer
from fastbackprop.network import Network
from fastbackprop.plan import Array
from fastbackprop.sklearn.objective import Objective
from fastbackprop.specs import known_name

# scikit-learn's activations by their names there, and more.
ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "silu": "silu",
    "gelu": "gelu",
}

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_inputs(X: Any, n_in: int) -> Array | CompressedRows:
    """X as kernels read it; a sparse matrix stays one."""
    if not hasattr(X, "tocsr"):
        return checked_inputs(X, n_in)
    X = X.tocsr()
    values = X.data if X.dtype in (np.float32, np.float64) else X.data.astype(np.float64)
    return CompressedRows(values, X.indices.astype(np.int64), X.indptr.astype(np.int64))


class NetworkHolder(BaseEstimator):
    """An estimator with ``coefs_`` and ``intercepts_`` that are views of a network's parameters."""

    def _layers(self, sizes: list[int], output: Activation) -> list[Layer]:
        names = self.activation
        if isinstance(names, str):
            names = [names] * (len(sizes) - 2)
        if len(names) != len(sizes) - 2:
            raise ValueError(
                f"activation names {len(names)} activations, but hidden_layer_sizes has "
                f"{len(sizes) - 2} layers; give one for each, or a single name for all"
            )
        known = [ACTIVATIONS[known_name("activation", name, ACTIVATIONS)] for name in names]
        functions = [*map(Activation, known), output]
        layers: list[Layer] = []
        for (n_in, n_out), function in zip(pairwise(sizes), functions, strict=True):
            if layers and self.dropout > 0.0:
                layers.append(Dropout(self.dropout))
            layers.append(Dense(n_in, n_out, function, init="zeros"))
        return layers

    def _build(self, sizes: list[int], dtype: np.dtype[Any], objective: Objective) -> None:
        """Make the network; its parameters are 0."""
        layers = self._layers(sizes, objective.output)
        self._network = Network(layers, loss=objective.loss, random_state=0, dtype=dtype)
        self._link()

    def _link(self) -> None:
        """Make the fitted parameters views of the network's."""
        self.coefs_: list[Array] = self._network.weights
        self.intercepts_: list[Any] = self._network.biases
        self._views: list[Any] = [*self.coefs_, *self.intercepts_]

    def _current_network(self) -> Network:
        """The network with the parameters in ``coefs_`` and ``intercepts_``.

        In general they are views of its own; but a user may have put others there.
        """
        parameters = [*self.coefs_, *self.intercepts_]
        if any(mine is not view for mine, view in zip(parameters, self._views, strict=True)):
            for mine, view in zip(parameters, self._views, strict=True):
                view[...] = mine
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_network" in state:
            state["_network"] = self._current_network()
            for name in ("coefs_", "intercepts_", "_views"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_network" in state:
            self._link()

    def _threads(self) -> int | None:
        """How many threads were asked for."""
        return None if self.n_threads is None else int(self.n_threads)

    def _outputs(self, X: Any) -> Array:
        """The network's outputs, (n, n_outputs), for X as the user passes it.

        Raises
        ------
        NotFittedError
            If there is no network yet.
        TypeError, ValueError
            If X is not as scikit-learn's estimators take it.
        """
        if self._needs_no_validation(X):
            with contextlib.suppress(ValueError):  # of a value, about which scikit-learn has a text
                return inference.outputs(self._current_network()._state, X, self._threads())
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        network = self._current_network()
        inputs = as_inputs(X, network.sizes[0])
        return inference.outputs(network._state, inputs, self._threads())

    def _needs_no_validation(self, X: Any) -> bool:
        """Whether only the values of X, which kernels look at, could be wrong.

        scikit-learn takes about 100 µs to say so, longer than outputs of a hundred rows do.
        """
        return (
            type(X) is np.ndarray
            and X.dtype in _FLOATS
            and X.flags.c_contiguous
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == vars(self).get("n_features_in_")
            and "_network" in vars(self)
            and "feature_names_in_" not in vars(self)
        )
