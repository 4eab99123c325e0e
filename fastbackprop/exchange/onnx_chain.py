"""The chain of dense layers that an ONNX graph computes, as far as it has been followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.exchange.assembly import Parts, dense_parts
from fastbackprop.exchange.formula import Formula, Z
from fastbackprop.exchange.onnx_values import array_of
from fastbackprop.layers import Rescaling
from fastbackprop.plan import Array

_MOST_BIASES = 4  # of one layer: each sum is an array of its own

VARIABLE = Formula({Z: 1.0})


class Branch:
    """A value in the graph: a formula of what the last dense layer gave, or of the input."""

    def __init__(self, formula: Formula, layer: _Layer) -> None:
        self.formula, self.layer = formula, layer


class _Layer:
    """A dense layer on the way, with its bias so far, a sum; the input has no weights."""

    def __init__(self, weights: Array | None, bias: Array | None, added: int = 0) -> None:
        self.weights, self.bias, self.added = weights, bias, added


class Chain:
    """Layers, and the values between them by the names that the graph gives them.

    Parameters
    ----------
    tensors : mapping from str to TensorProto
        The constants of the graph.
    x : str
        The name of the input.
    """

    def __init__(self, tensors: Mapping[str, Any], x: str) -> None:
        self._tensors = tensors
        self._used: set[int] = set()
        self._rescaling: Rescaling | None = None
        self._done: list[tuple[_Layer, Activation]] = []
        # Branches of earlier layers than this one cannot be used: they would skip a layer.
        self._layer = _Layer(None, None)
        self.values: dict[str, Array | Branch] = {x: self.next(VARIABLE)}

    def parts(self, output: str) -> Parts:
        """All layers up to the value ``output``."""
        final = self.branch(output)
        if final.layer.weights is None:
            raise ValueError("it holds no dense layer (Gemm or MatMul)")
        done = [*self._done, (final.layer, _activation(final.formula))]
        layers = [layer for layer, _ in done]
        for i, layer in enumerate(layers):
            for array in (layer.weights, layer.bias):
                if array is not None and not np.isfinite(array).all():
                    raise ValueError(f"the weights or biases of layer {i} contain NaN or infinity")
        parts = dense_parts(
            [(layer.weights, layer.bias) for layer in layers if layer.weights is not None],
            [activation for _, activation in done],
        )
        front = [] if self._rescaling is None else [self._rescaling]
        return Parts([*front, *parts.layers], parts.weights, parts.biases)

    # ------------------------------------------------------------------------------- operands

    @property
    def n_out(self) -> int | None:
        """Units of the last layer; None while there is none."""
        return None if self._layer.weights is None else self._layer.weights.shape[1]

    def value(self, name: str) -> Array | Branch:
        """A constant or a branch."""
        if name in self.values:
            return self.values[name]
        if name in self._tensors:
            self.values[name] = array_of(self._tensors[name])
            return self.values[name]
        raise ValueError(f"it reads {name!r}, which nothing before it gives")

    def constant(self, name: str) -> Array:
        """A value that does not depend on the input."""
        value = self.value(name)
        if isinstance(value, Branch):
            raise ValueError(f"{name!r} is not a constant")
        return value

    def branch(self, name: str) -> Branch:
        """A value made from the last layer."""
        value = self.value(name)
        if not isinstance(value, Branch):
            raise ValueError(f"{name!r} is a constant where the data was expected")
        if value.layer is not self._layer:
            raise ValueError(
                f"it reads {name!r}, which comes from an earlier layer; only a plain chain of "
                "layers can be read"
            )
        return value

    def next(self, formula: Formula) -> Branch:
        """A new value of the last layer."""
        return Branch(formula, self._layer)

    # --------------------------------------------------------------------------------- layers

    def matrix(self, name: str) -> Array:
        """The weights of a layer, which no other may have."""
        w = self.constant(name)
        # Also under another name, transposed: a small file must not make a large network.
        if w.ctypes.data in self._used:
            raise ValueError(f"it shares the weights {name!r} with another layer")
        self._used.add(w.ctypes.data)
        if w.ndim != 2 or w.dtype.kind != "f" or not w.size:
            raise ValueError(
                f"its weights {name!r} are {w.dtype} of shape {w.shape}; expected a matrix"
            )
        return w

    def dense(self, x: str, w: Array) -> Branch:
        """A layer of x @ w follows."""
        branch = self.branch(x)
        if self.n_out is not None:
            if len(w) != self.n_out:
                raise ValueError(f"it takes {len(w)} inputs, but is given {self.n_out}")
            activation = _activation(branch.formula)
            if activation.name == "softmax":
                raise ValueError("softmax comes before it; it is for the last layer only")
            self._done.append((self._layer, activation))
        else:
            self._rescaling = _rescaling(branch.formula)
        self._layer = _Layer(w, None)
        return self.next(VARIABLE)

    def is_bare(self, branch: Branch) -> bool:
        """Whether it is what a dense layer gave, with nothing done to it but biases added."""
        return self.n_out is not None and branch.formula.affine == (1.0, 0.0)

    def add_bias(self, name: str, factor: float = 1.0) -> Branch:
        """Add a constant to what the last layer gave."""
        bias, n_out, added = self.constant(name), self.n_out, self._layer.added + 1
        assert n_out is not None
        if bias.dtype.kind != "f" or bias.shape not in ((), (1,), (1, 1), (n_out,), (1, n_out)):
            raise ValueError(f"{name!r} is {bias.dtype} of shape {bias.shape}; expected ({n_out},)")
        if added > _MOST_BIASES:
            raise ValueError(f"it adds bias number {added} to one layer")
        bias = scaled(np.broadcast_to(bias.reshape(-1), (n_out,)), factor)
        if self._layer.bias is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # parts() looks for them
                bias = bias + self._layer.bias
        # A new layer object: what was made of z before the bias was added is of no use.
        self._layer = _Layer(self._layer.weights, bias, added)
        return self.next(VARIABLE)

    def as_two_classes(self) -> Branch:
        """The softmax of 0 and z, for the one output z of the last layer."""
        w, b = self._layer.weights, self._layer.bias
        assert w is not None
        w = np.hstack([np.zeros_like(w), w])
        b = None if b is None else np.hstack([np.zeros_like(b), b])
        self._layer = _Layer(w, b, self._layer.added)
        return self.next(VARIABLE.apply("Softmax"))


def scaled(array: Array, factor: float) -> Array:
    """The array times the factor, in its type; parts() looks for what is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array if factor == 1.0 else (array * factor).astype(array.dtype)


def _activation(formula: Formula) -> Activation:
    activation = formula.as_activation()
    if activation is None:
        raise ValueError("what comes after the layer before it is no activation of fastbackprop")
    return activation


def _rescaling(formula: Formula) -> Rescaling | None:
    affine = formula.affine
    if affine is None:
        raise ValueError("what comes before the first layer is more than a scale and an offset")
    return None if affine == (1.0, 0.0) else Rescaling(*affine)
