"""From an ONNX file to the parts of a network: one walk along a chain of dense layers.

Nothing in the file is trusted: every size is compared with the bytes that are there before it is
used, external data is not read, and what the walk does not know it refuses by name.
"""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

from fastbackprop.construction import as_classes
from fastbackprop.errors import FileFormatError
from fastbackprop.exchange.assembly import Parts, missing_package, names_of
from fastbackprop.exchange.onnx_chain import Chain
from fastbackprop.exchange.onnx_operators import STEPS
from fastbackprop.exchange.onnx_values import attributes_of, chosen_output, class_names


def read(path: str | PathLike[str], output: str | None) -> tuple[Parts, tuple[Any, ...] | None]:
    """Read what a graph computes for one of its outputs, and what it calls the classes.

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
        graph = onnx.load_model_from_string(content).graph
        parts = _walk(graph, chosen_output(graph, output))
        return parts, as_classes(class_names(graph), parts.weights[-1].shape[1])
    except DecodeError:
        raise FileFormatError(f"{name}: not an ONNX file") from None
    except (ValueError, TypeError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise FileFormatError(f"{name}: {text}") from None


def _walk(graph: Any, output: str) -> Parts:
    nodes, needed = [], {output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [
        value.name for value in graph.input if value.name in needed and value.name not in tensors
    ]
    if len(inputs) != 1:
        raise ValueError(
            f"output {output!r} depends on {len(inputs)} inputs {inputs}; a network has 1"
        )
    chain = Chain(tensors, inputs[0])
    for node in reversed(nodes):
        label = f"node {node.name!r} ({node.op_type})"
        known = node.domain in ("", "ai.onnx")
        if not known and (node.domain, node.op_type) != ("ai.onnx.ml", "ZipMap"):
            raise ValueError(
                f"{label} is of the domain {node.domain!r}; only ONNX's own and ZipMap are known"
            )
        step = STEPS.get(node.op_type)
        if step is None:
            raise ValueError(f"{label}: this operator is not known; there are {names_of(STEPS)}")
        if not node.output:
            raise ValueError(f"{label} has no output")
        try:
            chain.values[node.output[0]] = step(chain, node, attributes_of(node))
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{label}: {error}") from None
    return chain.parts(output)
