"""Tensors, attributes and outputs of an ONNX file, each checked before it is used."""

from __future__ import annotations

import math
from typing import Any

from fastbackprop.plan import Array


def chosen_output(graph: Any, output: str | None) -> str:
    """The name of the output to read: the one asked for, or the only one."""
    names = [value.name for value in graph.output]
    if output is None and len(names) == 1:
        return str(names[0])
    if output is None:
        raise ValueError(f"its graph has the outputs {names}; name one: output=...")
    if output not in names:
        raise ValueError(f"its graph has no output {output!r}; it has {names}")
    return output


def attributes_of(node: Any) -> dict[str, Any]:
    """The attributes of a node by name: numbers, texts, tensors."""
    from onnx import AttributeProto

    readers = {
        AttributeProto.FLOAT: lambda a: a.f,
        AttributeProto.INT: lambda a: a.i,
        AttributeProto.STRING: lambda a: a.s,
        AttributeProto.TENSOR: lambda a: a.t,
        AttributeProto.FLOATS: lambda a: list(a.floats),
        AttributeProto.INTS: lambda a: list(a.ints),
    }
    result = {}
    for attribute in node.attribute:
        if attribute.type not in readers:
            raise ValueError(
                f"node {node.name!r} ({node.op_type}): its attribute {attribute.name!r} is neither "
                "a number, a text nor a tensor"
            )
        result[attribute.name] = readers[attribute.type](attribute)
    return result


def array_of(tensor: Any) -> Array:
    """A tensor that the file holds whole."""
    from onnx import TensorProto, numpy_helper

    kinds = {
        TensorProto.FLOAT: (4, "float_data"),
        TensorProto.DOUBLE: (8, "double_data"),
        TensorProto.INT64: (8, "int64_data"),
        TensorProto.INT32: (4, "int32_data"),
    }
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(
            f"tensor {tensor.name!r} is in another file; save the model with its weights inside"
        )
    if tensor.data_type not in kinds:
        raise ValueError(
            f"tensor {tensor.name!r} has the element type {tensor.data_type}; "
            "expected float32 (1), float64 (11), int32 (6) or int64 (7)"
        )
    size, field = kinds[tensor.data_type]
    raw = tensor.HasField("raw_data")
    held = len(tensor.raw_data) / size if raw else len(getattr(tensor, field))
    if min(tensor.dims, default=0) < 0 or held != math.prod(tensor.dims):
        raise ValueError(
            f"tensor {tensor.name!r} has the shape {list(tensor.dims)} and {held:g} values"
        )
    return numpy_helper.to_array(tensor)
