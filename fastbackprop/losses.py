"""Losses: how far the outputs are from the targets, by name, and the output each goes with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastbackprop._kernels import codes
from fastbackprop.activations import Activation
from fastbackprop.specs import (
    OPEN_FRACTION,
    POSITIVE,
    Spec,
    checked_number,
    known_name,
    spec_from_config,
)

_CODES = {
    "quadratic": codes.QUADRATIC,
    "mse": codes.MSE,
    "mae": codes.MAE,
    "huber": codes.HUBER,
    "cross_entropy": codes.CROSS_ENTROPY,
    "binary_cross_entropy": codes.BINARY_CROSS_ENTROPY,
    "poisson": codes.POISSON,
    "quantile": codes.QUANTILE,
}
# The one output activation of each loss that is computed from the logits.
_FUSED_OUTPUT = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "exp"}

# The one number that a loss may take, and what it is unless given.
_PARAMETERS = {"huber": ("delta", 1.0), "quantile": ("quantile", 0.5)}

NAMES = tuple(_CODES)
"""The names of all losses."""


@dataclass(frozen=True, repr=False)
class Loss(Spec):
    """A loss L = (1/n) Σᵢ ℓᵢ over the n rows of a batch.

    With outputs aᵢⱼ, targets yᵢⱼ and m outputs, the loss ℓᵢ of row i is

    ====================  ======================================================
    name                  ℓᵢ
    ====================  ======================================================
    quadratic             ½ Σⱼ (aᵢⱼ − yᵢⱼ)²
    mse                   (1/m) Σⱼ (aᵢⱼ − yᵢⱼ)²
    mae                   (1/m) Σⱼ |aᵢⱼ − yᵢⱼ|
    huber                 (1/m) Σⱼ h(aᵢⱼ − yᵢⱼ), with h(r) = ½ r² if |r| ≤ δ,
                          else δ·(|r| − ½ δ)
    cross_entropy         −Σⱼ yᵢⱼ ln aᵢⱼ, with a = softmax(z)
    binary_cross_entropy  −(1/m) Σⱼ [yᵢⱼ ln aᵢⱼ + (1 − yᵢⱼ) ln(1 − aᵢⱼ)],
                          with a = σ(z)
    poisson               (1/m) Σⱼ [aᵢⱼ − yᵢⱼ + yᵢⱼ ln(yᵢⱼ / aᵢⱼ)], with a = eᶻ and y ≥ 0:
                          half the Poisson deviance
    quantile              (1/m) Σⱼ max(q·(yᵢⱼ − aᵢⱼ), (q − 1)·(yᵢⱼ − aᵢⱼ))
    ====================  ======================================================

    The cross-entropies and poisson are computed from the logits z, so they never take the
    logarithm of a rounded zero. With a weight wᵢ ≥ 0 for each row, L = Σᵢ wᵢ ℓᵢ / Σᵢ wᵢ: weight 0
    is the same as leaving the row out, weight 2 the same as repeating it. If the weights of a
    batch add up to 0, its loss and its gradients are 0.

    Parameters
    ----------
    name : str
        One of the table.
    delta : float, default 1.0
        δ of huber, where it turns from a parabola into a line; in the unit of the targets.
        No other loss takes it.
    quantile : float, default 0.5
        q of quantile, between 0 and 1: the share of targets that should be below the output. No
        other loss takes it.

    Raises
    ------
    TypeError
        If `name` is not a string, or `delta` or `quantile` not a number.
    ValueError
        If `name` is unknown, `delta` is not positive, `quantile` is not between 0 and 1, or the
        loss takes none.

    References
    ----------
    Quadratic cost: Nielsen, "Neural Networks and Deep Learning" (2015), chapter 1, eq. 6.
    Huber: P. J. Huber, Annals of Mathematical Statistics 35 (1964), section 1.
    Quantile: Koenker and Bassett, Econometrica 46 (1978), eq. 3.2, over m.

    Examples
    --------
    >>> Loss("huber", delta=0.5)
    Loss('huber', delta=0.5)
    >>> Loss("cross_entropy").default_output(Activation("relu"))
    Activation('softmax')
    """

    name: str
    delta: float = 1.0
    quantile: float = 0.5

    def __post_init__(self) -> None:
        name = known_name("loss", self.name, NAMES)
        delta = checked_number("delta", self.delta, POSITIVE)
        quantile = checked_number("quantile", self.quantile, OPEN_FRACTION)
        for owner, (parameter, default) in _PARAMETERS.items():
            given = getattr(self, parameter)
            if name != owner and given != default:
                raise ValueError(
                    f"loss {name!r} takes no {parameter}, got {given!r}; use {owner!r}"
                )
        self._set(name=name, delta=delta, quantile=quantile)

    @property
    def code(self) -> int:
        """The integer by which the kernels know it."""
        return _CODES[self.name]

    @property
    def fused(self) -> bool:
        """Whether it is computed together with the output activation, from the logits."""
        return self.name in _FUSED_OUTPUT

    @property
    def parameter(self) -> float:
        """The number in its formula: δ of huber, q of quantile; 0 for the others."""
        if self.name not in _PARAMETERS:
            return 0.0
        return float(getattr(self, _PARAMETERS[self.name][0]))

    @property
    def is_classification(self) -> bool:
        """Whether its outputs are probabilities of classes."""
        return self.name in ("cross_entropy", "binary_cross_entropy")

    def default_output(self, hidden: Activation | None = None) -> Activation:
        """Return the activation of the last layer when the user gives none.

        Parameters
        ----------
        hidden : Activation, optional
            The activation of the hidden layers.

        Returns
        -------
        Activation
            softmax for cross_entropy, sigmoid for binary_cross_entropy, exp for poisson, `hidden`
            (or else identity) for quadratic, identity for the rest.

        Examples
        --------
        >>> Loss("quadratic").default_output(Activation("sigmoid"))
        Activation('sigmoid')
        """
        if self.name == "quadratic" and hidden is not None:
            return hidden
        return Activation(_FUSED_OUTPUT.get(self.name, "identity"))

    def check_output(self, activation: Activation) -> None:
        """Check that the loss can be used with `activation` on the last layer.

        Parameters
        ----------
        activation : Activation
            The activation of the last layer.

        Raises
        ------
        ValueError
            If the loss needs another one: cross_entropy needs softmax, which fits no other
            loss, binary_cross_entropy needs sigmoid, and poisson needs exp.

        Examples
        --------
        >>> Loss("cross_entropy").check_output(Activation("relu"))
        Traceback (most recent call last):
            ...
        ValueError: loss 'cross_entropy' needs the output activation 'softmax', got 'relu'; ...
        """
        needed = _FUSED_OUTPUT.get(self.name)
        if needed is not None and activation.name != needed:
            raise ValueError(
                f"loss {self.name!r} needs the output activation {needed!r}, "
                f"got {activation.name!r}; leave the output activation out to have it chosen"
            )
        if needed is None and activation.name == "softmax":
            raise ValueError(
                "the output activation 'softmax' needs the loss 'cross_entropy', "
                f"got the loss {self.name!r}"
            )


def get(spec: str | Loss) -> Loss:
    """Return the loss that `spec` stands for.

    Parameters
    ----------
    spec : str or Loss
        A name, or a loss (returned as it is).

    Returns
    -------
    Loss

    Raises
    ------
    TypeError
        If `spec` is something else.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get("mse")
    Loss('mse')
    """
    return spec if isinstance(spec, Loss) else Loss(spec)


def from_config(config: Mapping[str, Any]) -> Loss:
    """Make a loss from what `Loss.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "Loss", "name": "mae", "delta": 1.0})
    Loss('mae')
    """
    return spec_from_config("loss", [Loss], config)
