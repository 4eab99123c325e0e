"""Tensors, attributes, outputs and class names of an ONNX file, checked before they are used."""

from __future__ import annotations

import math
from typing import Any

from fastbackprop.plan import Array


def chosen_output(graph: Any, output: str | None) -> str:
    """The name of the output to read: the one asked for, or the only one that is not of labels."""
    from onnx import TensorProto

    names = [value.name for value in graph.output]
    if output is not None:
        if output not in names:
            raise ValueError(f"its graph has no output {output!r}; it has {names}")
        return output
    labels = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING)
    others = [
        value.name for value in graph.output if value.type.tensor_type.elem_type not in labels
    ]
    if len(others) != 1:
        raise ValueError(f"its graph has the outputs {names}; name one: output=...")
    return str(others[0])


def class_names(graph: Any) -> list[Any] | None:
    """The names by which a classifier of skl2onnx calls its classes, where it does."""
    from onnx import TensorProto

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "ZipMap":
            return next(iter(attributes_of(node).values()), None)
        # It takes the names at the places of the largest outputs.
        if node.op_type == "ArrayFeatureExtractor" and node.input and node.input[0] in tensors:
            tensor = tensors[node.input[0]]
            if tensor.data_type == TensorProto.STRING:
                return [name.decode() for name in tensor.string_data]
            names: list[Any] = array_of(tensor).reshape(-1).tolist()
            return names
    return None


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
        AttributeProto.STRINGS: lambda a: [text.decode() for text in a.strings],
    }
    result = {}
    for attribute in node.attribute:
        if attribute.type not in readers:
            raise ValueError(
                f"its attribute {attribute.name!r} is neither a number, a text nor a tensor"
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
            f"tensor {tensor.name!r} is in another file; save the model with its weights inside "
            "(PyTorch: torch.onnx.export(..., external_data=False))"
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
