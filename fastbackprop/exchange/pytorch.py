"""PyTorch: a chain of torch.nn modules, or a state dict; never a file, which would be a pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.exchange.assembly import (
    Parts,
    chosen_activations,
    dense_parts,
    folded,
    missing_package,
    names_of,
)
from fastbackprop.layers import Dense, Dropout, Layer
from fastbackprop.plan import Array
from fastbackprop.storage import Contents


def read(source: Any, activation: Any, output_activation: Any) -> Parts:
    """Read what `from_torch` takes."""
    if isinstance(source, str | bytes | PathLike):
        raise TypeError(
            f"from_torch takes a module or its state_dict(), not the path {source!r}: a .pt file "
            "is a pickle. Load it with torch.load(path, weights_only=True)"
        )
    if isinstance(source, Mapping):
        pairs = _pairs(source)
        return dense_parts(pairs, chosen_activations(len(pairs), activation, output_activation))
    if not hasattr(source, "state_dict"):
        raise TypeError(f"expected a torch.nn.Module or a state dict, got {type(source).__name__}")
    if activation is not None or output_activation is not None:
        raise TypeError(
            "activation and output_activation go with a state dict; a module names its own"
        )
    return _parts_of_module(source)


def export(contents: Contents, names: Sequence[str] | None) -> dict[str, Any]:
    """Make what `Network.to_torch_state_dict` returns."""
    try:
        import torch
    except ImportError as error:
        missing_package("to_torch_state_dict", "PyTorch", "torch", error)
    pairs = folded(contents)
    if names is None:
        names = [f"layers.{i}" for i in range(len(pairs))]
    if isinstance(names, str) or len(names) != len(pairs) or len(set(names)) != len(pairs):
        raise ValueError(
            f"names must be {len(pairs)} different names, one for each Dense layer, got {names!r}"
        )
    state = {}
    for name, (w, b) in zip(names, pairs, strict=True):
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(w.T))
        if b is not None:
            state[f"{name}.bias"] = torch.from_numpy(b)
    return state


# ------------------------------------------------------------------------------------ state dict


def _pairs(state: Mapping[str, Any]) -> list[tuple[Array, Array | None]]:
    """Weights (n_in, n_out) and biases, in the order of the entries."""
    weights: dict[str, Array] = {}
    biases: dict[str, Array] = {}
    for key, value in state.items():
        prefix, _, kind = str(key).rpartition(".")
        array = _to_numpy(value)
        if kind == "weight" and array.ndim == 2:
            weights[prefix] = array.T
        elif kind == "bias" and prefix in weights and array.shape == weights[prefix].shape[1:]:
            biases[prefix] = array
        else:
            raise ValueError(
                f"entry {key!r} of shape {array.shape} belongs to no Linear layer, whose entries "
                "are a weight (n_out, n_in) and then a bias (n_out,)"
            )
    if not weights:
        raise ValueError("the state dict is empty")
    return [(w, biases.get(prefix)) for prefix, w in weights.items()]


def _to_numpy(tensor: Any) -> Array:
    """A tensor of any device and float type, as float32 or float64."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        # NumPy has no bfloat16.
        tensor = (tensor if tensor.element_size() > 4 else tensor.float()).numpy()
    array = np.asarray(tensor)
    return array if array.dtype == np.float64 else array.astype(np.float32)


# ---------------------------------------------------------------------------------------- modules


def _parts_of_module(module: Any) -> Parts:
    try:
        from torch import nn
    except ImportError as error:
        missing_package("from_torch", "PyTorch", "torch", error)
    layers: list[Layer] = []
    pairs: list[tuple[Array, Array | None]] = []
    functions = _functions(nn)

    def refuse(name: str, child: Any, reason: str) -> ValueError:
        label = f"module {name!r}, {child}" if name else f"{child}"
        return ValueError(f"{label}: {reason}")

    def activate(name: str, child: Any, activation: Activation) -> None:
        if not layers or not isinstance(layers[-1], Dense):
            raise refuse(name, child, "an activation must follow a Linear")
        last = layers[-1]
        if last.activation is not None:
            raise refuse(name, child, "it follows another activation")
        layers[-1] = Dense(last.n_in, last.n_out, activation, bias=last.bias)

    for name, child in _leaves(module, nn):
        if type(child) is nn.Linear:
            bias = None if child.bias is None else _to_numpy(child.bias)
            pairs.append((_to_numpy(child.weight).T, bias))
            layers.append(Dense(child.in_features, child.out_features, bias=bias is not None))
        elif type(child) in functions:
            try:
                activation = functions[type(child)](child)
            except ValueError as error:
                raise refuse(name, child, str(error)) from None
            activate(name, child, activation)
        elif type(child) is nn.Dropout and child.p < 1.0:
            layers.append(Dropout(child.p))
        elif type(child) is nn.Flatten and not layers and child.start_dim == 1:
            continue
        elif type(child) is not nn.Identity:
            known = [cls.__name__ for cls in (nn.Linear, nn.Dropout, nn.Identity, *functions)]
            raise refuse(
                name,
                child,
                f"fastbackprop has no such layer; it has {names_of(known)}, and Flatten in front. "
                "For a module with a forward of its own give its state_dict() and activation=...",
            )
    return Parts(layers, [w for w, _ in pairs], [b for _, b in pairs])


def _leaves(module: Any, nn: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The modules that a Sequential calls, one after the other, with their names."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for name, child in module.named_children():
            yield from _leaves(child, nn, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, module


def _functions(nn: Any) -> dict[Any, Callable[[Any], Activation]]:
    """How each module of an activation becomes one."""

    def softmax(module: Any) -> Activation:
        if module.dim not in (1, -1):
            raise ValueError("dim must be 1, the classes")
        return Activation("softmax")

    def softplus(module: Any) -> Activation:
        if module.beta != 1:
            raise ValueError("beta must be 1")
        return Activation("softplus")

    def gelu(module: Any) -> Activation:
        if module.approximate != "none":
            raise ValueError("approximate must be 'none', which is exact")
        return Activation("gelu")

    return {
        nn.ReLU: lambda module: Activation("relu"),
        nn.LeakyReLU: lambda module: Activation("leaky_relu", module.negative_slope),
        nn.ELU: lambda module: Activation("elu", module.alpha),
        nn.Sigmoid: lambda module: Activation("sigmoid"),
        nn.Tanh: lambda module: Activation("tanh"),
        nn.SiLU: lambda module: Activation("silu"),
        nn.GELU: gelu,
        nn.Softplus: softplus,
        nn.Softmax: softmax,
    }
