"""From a network to an ONNX file that runtimes of the last years can run."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop._version import __version__
from fastbackprop.activations import Activation
from fastbackprop.construction import as_dtype
from fastbackprop.exchange.assembly import missing_package, stage_activations
from fastbackprop.layers import Rescaling
from fastbackprop.plan import Array
from fastbackprop.storage import Contents, write_atomically

# Newer ones are refused by runtimes that are still in use.
_OPSET = 17
_IR_VERSION = 8

# The bound of a protobuf message, with room for all that is not weights.
_MOST_BYTES = 2**31 - 2**20

_SAME_NAME = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "softmax": "Softmax",
}


def write(path: str | PathLike[str], contents: Contents, dtype: Any) -> None:
    """Write the ONNX file, whole or not at all; the arguments are those of `Network.to_onnx`."""
    kind = as_dtype(contents.dtype if dtype is None else dtype)
    size = kind.itemsize * sum(w.size for w in contents.weights)
    if size > _MOST_BYTES:
        raise ValueError(
            f"the weights take {size:,} bytes; an ONNX file holds up to {_MOST_BYTES:,}"
            + (". Use dtype='float32'" if kind == np.float64 else "")
        )
    with np.errstate(over="ignore"):
        overflow = not all(np.isfinite(w.astype(kind)).all() for w in contents.weights)
    if overflow:
        raise ValueError("a weight is too large for float32; use dtype='float64'")
    write_atomically(path, [_model(contents, kind).SerializeToString()])


class _Graph:
    """Nodes and initializers; a chain where each node's output has its own name."""

    def __init__(self, kind: np.dtype[Any]) -> None:
        from onnx import TensorProto

        self.kind = kind
        self.type = TensorProto.FLOAT if kind == np.float32 else TensorProto.DOUBLE
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._values: set[str] = set()

    def constant(self, name: str, value: Array | float) -> str:
        from onnx import numpy_helper

        if name not in self._values:
            self._values.add(name)
            array = np.ascontiguousarray(value, self.kind).reshape(np.shape(value))
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _model(contents: Contents, kind: np.dtype[Any]) -> Any:
    try:
        from onnx import helper
    except ImportError as error:
        missing_package("to_onnx", "onnx", '"fastbackprop[onnx]"', error)

    graph = _Graph(kind)
    x = "input"
    first = contents.layers[0]
    if isinstance(first, Rescaling):
        x = graph.node("rescaling.scaled", "Mul", x, graph.constant("rescaling.scale", first.scale))
        if first.offset:
            offset = graph.constant("rescaling.offset", first.offset)
            x = graph.node("rescaling.shifted", "Add", x, offset)
    arrays = zip(contents.weights, contents.biases, stage_activations(contents), strict=True)
    for i, (w, b, activation) in enumerate(arrays):
        layer = f"layers.{i}"
        inputs = [x, graph.constant(f"{layer}.weight", w)]
        if b is not None:
            inputs.append(graph.constant(f"{layer}.bias", b))
        x = _activate(graph, graph.node(f"{layer}.z", "Gemm", *inputs), activation, layer)
    graph.node("output", "Identity", x)

    def value(name: str, columns: int) -> Any:
        return helper.make_tensor_value_info(name, graph.type, ["batch", columns])

    n_in, n_out = len(contents.weights[0]), contents.weights[-1].shape[1]
    proto = helper.make_graph(
        graph.nodes, "network", [value("input", n_in)], [value("output", n_out)], graph.initializers
    )
    return helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="fastbackprop",
        producer_version=__version__,
    )


def _activate(graph: _Graph, z: str, activation: Activation, layer: str) -> str:
    """Append the nodes of an activation, and return the name of its output."""
    from onnx import TensorProto

    name, alpha = activation.name, activation.alpha
    single = graph.kind == np.float32

    def one() -> str:
        return graph.constant("one", 1.0)

    def node(suffix: str, operator: str, *inputs: str, **attributes: Any) -> str:
        return graph.node(f"{layer}.{suffix}", operator, *inputs, **attributes)

    if name == "identity":
        return z
    if name in _SAME_NAME:
        return node("a", _SAME_NAME[name], z)
    if name == "leaky_relu":
        return node("a", "LeakyRelu", z, alpha=alpha)
    if name == "silu":
        return node("a", "Mul", z, node("sigmoid", "Sigmoid", z))
    if name == "gelu":  # an operator since opset 20
        half = graph.constant("half", 0.5)
        scaled = node("scaled", "Mul", z, graph.constant("sqrt_half", math.sqrt(0.5)))
        if not single:  # onnxruntime has no Erf of float64
            scaled = node("scaled32", "Cast", scaled, to=TensorProto.FLOAT)
        erf = node("erf", "Erf", scaled)
        if not single:
            erf = node("erf64", "Cast", erf, to=TensorProto.DOUBLE)
        twice = node("twice", "Mul", z, node("shifted", "Add", erf, one()))
        return node("a", "Mul", twice, half)
    # onnxruntime has neither of these two for float64.
    if single:
        attributes = {"alpha": alpha} if name == "elu" else {}
        return node("a", {"elu": "Elu", "softplus": "Softplus"}[name], z, **attributes)
    positive = node("positive", "Relu", z)
    if name == "elu":
        negative = node("negative", "Min", z, graph.constant("zero", 0.0))
        below = node("below", "Sub", node("exp", "Exp", negative), one())
        scale = graph.constant(f"{layer}.alpha", alpha or 0.0)
        return node("a", "Add", positive, node("scaled", "Mul", below, scale))
    exponential = node("exp", "Exp", node("minus", "Neg", node("absolute", "Abs", z)))
    log = node("log", "Log", node("shifted", "Add", exponential, one()))
    return node("a", "Add", positive, log)
