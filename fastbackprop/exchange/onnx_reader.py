"""From an ONNX file to the parts of a network: one walk along a chain of dense layers.

Nothing in the file is trusted: every size is compared with the bytes that are there before it is
used, external data is not read, and what the walk does not know it refuses by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.errors import FileFormatError
from fastbackprop.exchange.assembly import Parts, dense_parts, missing_package, names_of
from fastbackprop.exchange.formula import Formula, Z
from fastbackprop.exchange.onnx_values import array_of, attributes_of, chosen_output
from fastbackprop.layers import Rescaling
from fastbackprop.plan import Array

_UNARY = ("Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Log", "Abs", "Erf")
_SAME = ("Identity", "Dropout")
_MOST_BIASES = 4  # of one layer: each sum is an array of its own
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max")


def read(path: str | PathLike[str], output: str | None) -> Parts:
    """Read what a graph computes for one of its outputs.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        If there is no file that may be read.
    FileFormatError
        If it is not ONNX, or holds anything but a chain of dense layers.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        missing_package("from_onnx", "onnx", '"fastbackprop[onnx]"', error)
    name = os.fspath(path)
    with open(name, "rb") as file:
        content = file.read()
    try:
        model = onnx.load_model_from_string(content)
        return _Walk(model.graph, output).parts()
    except DecodeError:
        raise FileFormatError(f"{name}: not an ONNX file") from None
    except (ValueError, TypeError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise FileFormatError(f"{name}: {text}") from None


class _Branch:
    """A value in the graph: a formula of what the last dense layer gave, or of the input."""

    def __init__(self, formula: Formula, layer: _Layer) -> None:
        self.formula, self.layer = formula, layer


class _Layer:
    """A dense layer on the walk, with its bias so far, a sum; the input has no weights."""

    def __init__(self, weights: Array | None, bias: Array | None, added: int = 0) -> None:
        self.weights, self.bias, self.added = weights, bias, added

    @property
    def n_out(self) -> int | None:
        return None if self.weights is None else self.weights.shape[1]


class _Walk:
    def __init__(self, graph: Any, output: str | None) -> None:
        self._graph = graph
        self._output = chosen_output(graph, output)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._used: set[int] = set()
        self._values: dict[str, Array | _Branch] = {}
        self._rescaling: Rescaling | None = None
        self._done: list[tuple[_Layer, Activation]] = []
        # Branches of earlier layers than this one cannot be used: they would skip a layer.
        self._layer = _Layer(None, None)

    def parts(self) -> Parts:
        nodes, needed = [], {self._output}
        for node in reversed(self._graph.node):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        inputs = [
            value.name
            for value in self._graph.input
            if value.name in needed and value.name not in self._constants
        ]
        if len(inputs) != 1:
            raise ValueError(
                f"output {self._output!r} depends on {len(inputs)} inputs {inputs}; a network has 1"
            )
        self._values[inputs[0]] = _Branch(Formula({Z: 1.0}), self._layer)
        for node in reversed(nodes):
            label = f"node {node.name!r} ({node.op_type})"
            if node.domain not in ("", "ai.onnx"):
                raise ValueError(
                    f"{label} is of the domain {node.domain!r}; only ONNX's own are known"
                )
            handler = _HANDLERS.get(node.op_type)
            if handler is None:
                raise ValueError(
                    f"{label}: this operator is not known; there are {names_of(_HANDLERS)}"
                )
            if not node.output:
                raise ValueError(f"{label} has no output")
            try:
                self._values[node.output[0]] = handler(self, node, attributes_of(node))
            except (ValueError, TypeError, OverflowError) as error:
                raise ValueError(f"{label}: {error}") from None
        final = self._branch(self._output)
        if final.layer.weights is None:
            raise ValueError("it holds no dense layer (Gemm or MatMul)")
        self._done.append((final.layer, _activation(final.formula)))
        layers = [layer for layer, _ in self._done]
        for i, layer in enumerate(layers):
            for array in (layer.weights, layer.bias):
                if array is not None and not np.isfinite(array).all():
                    raise ValueError(f"the weights or biases of layer {i} contain NaN or infinity")
        parts = dense_parts(
            [(layer.weights, layer.bias) for layer in layers if layer.weights is not None],
            [activation for _, activation in self._done],
        )
        front = [] if self._rescaling is None else [self._rescaling]
        return Parts([*front, *parts.layers], parts.weights, parts.biases)

    # ------------------------------------------------------------------------------- operands

    def _branch(self, name: str) -> _Branch:
        value = self._value(name)
        if not isinstance(value, _Branch):
            raise ValueError(f"{name!r} is a constant where the data was expected")
        if value.layer is not self._layer:
            raise ValueError(
                f"it reads {name!r}, which comes from an earlier layer; only a plain chain of "
                "layers can be read"
            )
        return value

    def _constant(self, name: str) -> Array:
        value = self._value(name)
        if isinstance(value, _Branch):
            raise ValueError(f"{name!r} is not a constant")
        return value

    def _value(self, name: str) -> Array | _Branch:
        if name in self._values:
            return self._values[name]
        if name in self._constants:
            self._values[name] = array_of(self._constants[name])
            return self._values[name]
        raise ValueError(f"it reads {name!r}, which nothing before it gives")

    def _operands(self, node: Any, least: int, most: int) -> list[str]:
        names = list(node.input)
        if not least <= len(names) <= most:
            raise ValueError(f"it has {len(names)} inputs")
        return names

    # -------------------------------------------------------------------------- dense layers

    def _gemm(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        x, weights, *rest = self._operands(node, 2, 3)
        if attributes.get("transA", 0):
            raise ValueError("transA = 1 is not a dense layer")
        alpha, beta = (float(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        w = self._weights(weights)
        branch = self._dense(x, _scaled(w.T if attributes.get("transB", 0) else w, alpha))
        if rest and rest[0]:
            self._layer.bias = _scaled(self._bias(rest[0]), beta)
        return branch

    def _matmul(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        x, weights = self._operands(node, 2, 2)
        return self._dense(x, self._weights(weights))

    def _weights(self, name: str) -> Array:
        w = self._constant(name)
        # Also under another name, transposed: a small file must not make a large network.
        if w.ctypes.data in self._used:
            raise ValueError(f"it shares the weights {name!r} with another layer")
        self._used.add(w.ctypes.data)
        if w.ndim != 2 or w.dtype.kind != "f" or not w.size:
            raise ValueError(
                f"its weights {name!r} are {w.dtype} of shape {w.shape}; expected a matrix"
            )
        return w

    def _dense(self, x: str, w: Array) -> _Branch:
        branch = self._branch(x)
        if self._layer.weights is not None:
            if len(w) != self._layer.n_out:
                raise ValueError(f"it takes {len(w)} inputs, but is given {self._layer.n_out}")
            activation = _activation(branch.formula)
            if activation.name == "softmax":
                raise ValueError("softmax comes before it; it is for the last layer only")
            self._done.append((self._layer, activation))
        else:
            self._rescaling = _rescaling(branch.formula)
        self._layer = _Layer(w, None)
        return _Branch(Formula({Z: 1.0}), self._layer)

    def _bias(self, name: str) -> Array:
        """A constant as a bias of the last layer."""
        bias, n_out = self._constant(name), self._layer.n_out
        assert n_out is not None
        if bias.dtype.kind != "f" or bias.shape not in ((), (1,), (1, 1), (n_out,), (1, n_out)):
            raise ValueError(f"{name!r} is {bias.dtype} of shape {bias.shape}; expected ({n_out},)")
        return np.broadcast_to(bias.reshape(-1), (n_out,))

    # ---------------------------------------------------------------------------- elementwise

    def _arithmetic(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        left, right = self._operands(node, 2, 2)
        constants = [name for name in (left, right) if not isinstance(self._value(name), _Branch)]
        if len(constants) == 2:
            raise ValueError("it combines two constants")
        operator = node.op_type
        if not constants:
            a, b = self._branch(left).formula, self._branch(right).formula
            if operator not in ("Add", "Sub", "Mul"):
                raise ValueError(f"{operator} of two values that both depend on the data")
            return self._next(
                a * b if operator == "Mul" else a + b * (1 if operator == "Add" else -1)
            )
        branch = self._branch(right if constants[0] == left else left)
        bare = self._layer.weights is not None and branch.formula.affine == (1.0, 0.0)
        if bare and operator == "Add":
            return self._add_bias(self._bias(constants[0]))
        constant = self._constant(constants[0])
        if constant.size != 1 or constant.ndim > 2:
            raise ValueError(
                f"{constants[0]!r} has shape {constant.shape}; expected a single number"
            )
        return self._next(
            _with_number(operator, branch.formula, float(constant.item()), constants[0] == left)
        )

    def _add_bias(self, bias: Array) -> _Branch:
        added = self._layer.added + 1
        if added > _MOST_BIASES:
            raise ValueError(f"it adds bias number {added} to one layer")
        if self._layer.bias is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # parts() looks for them
                bias = bias + self._layer.bias
        # A new layer object: what was made of z before the bias was added is of no use.
        self._layer = _Layer(self._layer.weights, bias, added)
        return self._next(Formula({Z: 1.0}))

    def _next(self, formula: Formula) -> _Branch:
        return _Branch(formula, self._layer)

    def _unary(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        (x,) = self._operands(node, 1, 1)
        return self._next(self._branch(x).formula.apply(node.op_type))

    def _negative(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        (x,) = self._operands(node, 1, 1)
        return self._next(self._branch(x).formula * -1.0)

    def _gelu(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        if attributes.get("approximate", b"none") != b"none":
            raise ValueError("only approximate = 'none' is known, which is exact")
        (x,) = self._operands(node, 1, 1)
        return self._next(self._branch(x).formula.apply("Gelu"))

    def _softmax(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        if attributes.get("axis", -1) not in (-1, 1):
            raise ValueError(f"axis = {attributes['axis']}; expected the last")
        return self._unary(node, attributes)

    def _leaky_relu(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        (x,) = self._operands(node, 1, 1)
        return self._next(self._branch(x).formula.leaky_relu(float(attributes.get("alpha", 0.01))))

    def _elu(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        (x,) = self._operands(node, 1, 1)
        return self._next(self._branch(x).formula.elu(float(attributes.get("alpha", 1.0))))

    # ---------------------------------------------------------------------------------- shape

    def _same(self, node: Any, attributes: dict[str, Any]) -> Array | _Branch:
        return self._value(self._operands(node, 1, 3)[0])

    def _cast(self, node: Any, attributes: dict[str, Any]) -> Array | _Branch:
        (x,) = self._operands(node, 1, 1)
        if attributes.get("to") not in (1, 11):
            raise ValueError(f"to = {attributes.get('to')}; expected float32 (1) or float64 (11)")
        return self._value(x)

    def _flatten(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        (x,) = self._operands(node, 1, 1)
        if attributes.get("axis", 1) != 1:
            raise ValueError(f"axis = {attributes['axis']}; expected 1, rows by features")
        return self._branch(x)

    def _reshape(self, node: Any, attributes: dict[str, Any]) -> _Branch:
        x, shape = self._operands(node, 2, 2)
        branch, wanted = self._branch(x), self._constant(shape).tolist()
        known = (self._layer.n_out,) if self._layer.weights is not None else ()
        if (
            not isinstance(wanted, list)
            or len(wanted) != 2
            or wanted[0] not in (-1, 0)
            or (known and wanted[1] not in (*known, -1))
        ):
            raise ValueError(f"shape {wanted}; expected [-1, features]")
        return branch

    def _transpose(self, node: Any, attributes: dict[str, Any]) -> Array:
        (x,) = self._operands(node, 1, 1)
        if list(attributes.get("perm", (1, 0))) != [1, 0] or self._constant(x).ndim != 2:
            raise ValueError("only a matrix of weights can be transposed")
        return self._constant(x).T

    def _constant_node(self, node: Any, attributes: dict[str, Any]) -> Array:
        kind, value = next(iter(attributes.items()), ("", None))
        if kind == "value" and hasattr(value, "data_type"):
            return array_of(value)
        if kind in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if kind in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        raise ValueError("it holds no tensor of numbers")


_HANDLERS: dict[str, Callable[[_Walk, Any, dict[str, Any]], Array | _Branch]] = {
    "Gemm": _Walk._gemm,
    "MatMul": _Walk._matmul,
    "Neg": _Walk._negative,
    "Gelu": _Walk._gelu,
    "Softmax": _Walk._softmax,
    "LeakyRelu": _Walk._leaky_relu,
    "Elu": _Walk._elu,
    "Cast": _Walk._cast,
    "Flatten": _Walk._flatten,
    "Reshape": _Walk._reshape,
    "Transpose": _Walk._transpose,
    "Constant": _Walk._constant_node,
    **dict.fromkeys(_UNARY, _Walk._unary),
    **dict.fromkeys(_SAME, _Walk._same),
    **dict.fromkeys(_ARITHMETIC, _Walk._arithmetic),
}


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


def _scaled(array: Array, factor: float) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # parts() looks for what is not finite
        return array if factor == 1.0 else (array * factor).astype(array.dtype)


def _with_number(operator: str, formula: Formula, number: float, number_first: bool) -> Formula:
    """``formula operator number``, or the other way round."""
    if operator == "Add":
        return formula + number
    if operator == "Mul":
        return formula * number
    if operator == "Sub":
        return formula * -1.0 + number if number_first else formula + -number
    if operator == "Div" and number != 0.0 and not number_first:
        return formula * (1.0 / number)
    if operator == "Max" and number == 0.0:
        return formula.apply("Relu")
    if operator == "Min" and number == 0.0:
        return formula.minimum_with_zero()
    raise ValueError(f"{operator} with the number {number:g} is part of no activation")
