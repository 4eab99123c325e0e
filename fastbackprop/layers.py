"""Layers: what a user writes to describe a network, and which of them may follow which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fastbackprop import activations, initializers
from fastbackprop.activations import Activation
from fastbackprop.initializers import Initializer
from fastbackprop.specs import (
    BELOW_ONE,
    FINITE,
    Spec,
    checked_flag,
    checked_number,
    checked_size,
    spec_from_config,
)

_ZEROS = Initializer("zeros")


@dataclass(frozen=True, repr=False)
class Layer(Spec):
    """One step of a network, as its user describes it. It holds no parameters."""


@dataclass(frozen=True, repr=False, init=False)
class Dense(Layer):
    """A fully connected layer, a = f(x @ w + b).

    Parameters
    ----------
    n_in, n_out : int
        Inputs and outputs, at least 1. The weights have the shape (n_in, n_out).
    activation : str or Activation, optional
        f. Without one a hidden layer is linear, and the last layer takes the one its loss
        needs: softmax for cross_entropy, sigmoid for binary_cross_entropy, else none.
    bias : bool, default True
        Whether there is a b, of the shape (n_out,).
    init : str or Initializer, optional
        How w is drawn; chosen by the activation unless given, see `initializers.default_for`.
    bias_init : str or Initializer, default "zeros"
        How b is drawn.

    Raises
    ------
    TypeError
        If an argument is not of the type named.
    ValueError
        If a size is below 1, or a name unknown.

    Examples
    --------
    >>> Dense(784, 128, "relu")
    Dense(784, 128, activation=Activation('relu'))
    """

    n_in: int
    n_out: int
    activation: Activation | None = None
    bias: bool = True
    init: Initializer | None = None
    bias_init: Initializer = _ZEROS

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str | Activation | None = None,
        bias: bool = True,
        init: str | Initializer | None = None,
        bias_init: str | Initializer = _ZEROS,
    ) -> None:
        self._set(
            n_in=checked_size("n_in", n_in),
            n_out=checked_size("n_out", n_out),
            activation=None if activation is None else activations.get(activation),
            bias=checked_flag("bias", bias),
            init=None if init is None else initializers.get(init),
            bias_init=initializers.get(bias_init),
        )


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Sets each value to 0 with probability `rate` in training and divides the rest by 1 − rate.

    Outside training it does nothing.

    Parameters
    ----------
    rate : float
        In [0, 1).

    Raises
    ------
    TypeError, ValueError
        If `rate` is not a number, or out of its range.

    References
    ----------
    Srivastava et al., Journal of Machine Learning Research 15 (2014), in the inverted form of
    its section 10.

    Examples
    --------
    >>> Dropout(0.2)
    Dropout(0.2)
    """

    rate: float

    def __post_init__(self) -> None:
        self._set(rate=checked_number("rate", self.rate, BELOW_ONE))


@dataclass(frozen=True, repr=False)
class Rescaling(Layer):
    """Makes x · scale + offset of the inputs of a network, on their way into the first layer.

    Parameters
    ----------
    scale : float
        Not 0.
    offset : float, default 0.0
        Added after the multiplication.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a finite number, or `scale` is 0.

    Examples
    --------
    Bytes to [0, 1]:

    >>> Rescaling(1 / 255)
    Rescaling(0.00392156862745098)
    """

    scale: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        self._set(
            scale=checked_number("scale", self.scale, FINITE),
            offset=checked_number("offset", self.offset, FINITE),
        )
        if self.scale == 0:
            raise ValueError("scale must not be 0, which would erase the input")


LAYERS: tuple[type[Layer], ...] = (Dense, Dropout, Rescaling)
"""All layers."""


def check_chain(layers: Sequence[Layer]) -> None:
    """Check that the layers can follow one another in a network.

    Parameters
    ----------
    layers : sequence of Layer
        From input to output.

    Raises
    ------
    TypeError
        If an element is not a layer.
    ValueError
        If there is no Dense; if the sizes of two Dense do not match; if a Rescaling is not
        first, or a Dropout is last or follows another; if softmax is not the last activation.

    Examples
    --------
    >>> check_chain([Dense(784, 128, "relu"), Dropout(0.5), Dense(128, 10)])
    >>> check_chain([Dense(784, 128), Dense(100, 10)])
    Traceback (most recent call last):
        ...
    ValueError: layer 1, Dense(100, 10), takes 100 inputs, but layer 0, Dense(784, 128), has
    128 outputs; make them equal
    """
    for i, layer in enumerate(layers):
        if not isinstance(layer, LAYERS):
            expected = ", ".join(cls.__name__ for cls in LAYERS)
            raise TypeError(f"layer {i} must be one of {expected}, got {layer!r}")
    dense = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    if not dense:
        raise ValueError(f"a network needs at least one Dense layer, got {list(layers)!r}")
    for (i, before), (j, after) in pairwise(dense):
        if before.n_out != after.n_in:
            raise ValueError(
                f"layer {j}, {after!r}, takes {after.n_in} inputs, but layer {i}, {before!r}, "
                f"has {before.n_out} outputs; make them equal"
            )
        if before.activation is not None and before.activation.name == "softmax":
            raise ValueError(f"layer {i}, {before!r}: softmax is for the last layer only")
    for i, layer in enumerate(layers):
        if isinstance(layer, Rescaling) and i > 0:
            raise ValueError(f"layer {i}, {layer!r}: Rescaling must be the first layer")
        if isinstance(layer, Dropout) and i == len(layers) - 1:
            raise ValueError(f"layer {i}, {layer!r}: Dropout cannot be the last layer; remove it")
        if isinstance(layer, Dropout) and i > 0 and isinstance(layers[i - 1], Dropout):
            raise ValueError(
                f"layers {i - 1} and {i}, {layers[i - 1]!r} and {layer!r}: two Dropout in a row; "
                "use one"
            )


def from_config(config: Mapping[str, Any]) -> Layer:
    """Make a layer from what `Layer.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "Dropout", "rate": 0.5})
    Dropout(0.5)
    """
    return spec_from_config(
        "layer",
        LAYERS,
        config,
        {
            "activation": activations.from_config,
            "init": initializers.from_config,
            "bias_init": initializers.from_config,
        },
    )
