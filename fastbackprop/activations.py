"""Activations: what a layer applies to its weighted inputs, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastbackprop._kernels import codes
from fastbackprop.specs import NON_NEGATIVE, Spec, checked_number, known_name, spec_from_config


class _Traits(NamedTuple):
    code: int
    needs_preactivation: bool = False
    default_alpha: float | None = None


_TRAITS = {
    "identity": _Traits(codes.IDENTITY),
    "relu": _Traits(codes.RELU),
    "leaky_relu": _Traits(codes.LEAKY_RELU, default_alpha=0.01),
    "sigmoid": _Traits(codes.SIGMOID),
    "tanh": _Traits(codes.TANH),
    "softplus": _Traits(codes.SOFTPLUS, needs_preactivation=True),
    "elu": _Traits(codes.ELU, default_alpha=1.0),
    "silu": _Traits(codes.SILU, needs_preactivation=True),
    "gelu": _Traits(codes.GELU, needs_preactivation=True),
    "exp": _Traits(codes.EXP),
    "softmax": _Traits(codes.SOFTMAX),
}
_ALIASES = {"linear": "identity", "swish": "silu", "logistic": "sigmoid"}

NAMES = tuple(_TRAITS)
"""The names of all activations."""


@dataclass(frozen=True, repr=False)
class Activation(Spec):
    """An activation a = f(z), applied to each element; softmax, to each row.

    ============  ================================  ==================================
    name          f(z)                              f′(z)
    ============  ================================  ==================================
    identity      z                                 1
    relu          max(z, 0)                         1 if z > 0 else 0
    leaky_relu    z if z > 0 else α·z               1 if z > 0 else α
    sigmoid       σ(z) = 1 / (1 + e⁻ᶻ)              a·(1 − a)
    tanh          tanh z                            1 − a²
    softplus      ln(1 + eᶻ)                        σ(z)
    elu           z if z > 0 else α·(eᶻ − 1)        1 if z > 0 else a + α
    silu          z·σ(z)                            σ(z)·(1 + z·(1 − σ(z)))
    gelu          z·Φ(z), with Φ(z) exact:          Φ(z) + z·e^(−z²/2) / √(2π)
                  ½·(1 + erf(z / √2))
    exp           eᶻ                                a
    softmax       eᶻ / Σ eᶻ                         only with the cross-entropy loss
    ============  ================================  ==================================

    At z = 0 the derivative is that of the left side, as in PyTorch.

    Parameters
    ----------
    name : str
        One of the table. "linear" is "identity", "swish" is "silu", "logistic" is "sigmoid".
        softmax is for the output of a network only.
    alpha : float, optional
        α of the table, at least 0: the slope of leaky_relu (default 0.01), the limit of elu
        (default 1.0). No other activation takes it. A negative α is refused because the
        derivative is computed from the sign of a, which must be that of z.

    Raises
    ------
    TypeError
        If `name` is not a string, or `alpha` not a number.
    ValueError
        If `name` is unknown, `alpha` is negative or not finite, or the activation takes none.

    References
    ----------
    softplus: Dugas et al. (2001). elu: Clevert et al. (2016), arXiv:1511.07289, eq. 15.
    gelu and silu: Hendrycks and Gimpel (2016), arXiv:1606.08415, sections 2 and 4.

    Examples
    --------
    >>> Activation("leaky_relu")
    Activation('leaky_relu', alpha=0.01)
    >>> Activation("swish") == Activation("silu")
    True
    """

    name: str
    alpha: float | None = None

    def __post_init__(self) -> None:
        name = known_name("activation", self.name, NAMES, _ALIASES)
        alpha = self.alpha
        default = _TRAITS[name].default_alpha
        if alpha is None:
            alpha = default
        elif default is None:
            takers = [other for other in NAMES if _TRAITS[other].default_alpha is not None]
            raise ValueError(
                f"activation {name!r} takes no alpha, got {alpha!r}; "
                f"alpha belongs to {' and '.join(takers)}"
            )
        else:
            alpha = checked_number("alpha", alpha, NON_NEGATIVE)
        self._set(name=name, alpha=alpha)

    @property
    def code(self) -> int:
        """The integer by which the kernels know it."""
        return _TRAITS[self.name].code

    @property
    def needs_preactivation(self) -> bool:
        """Whether the backward pass needs z; for the others the output a is enough."""
        return _TRAITS[self.name].needs_preactivation

    @property
    def piecewise_linear(self) -> bool:
        """Whether it has a kink, at which a finite difference is no derivative."""
        return self.name in ("relu", "leaky_relu")


def get(spec: str | Activation | None) -> Activation:
    """Return the activation that `spec` stands for.

    Parameters
    ----------
    spec : str, Activation or None
        A name, an activation (returned as it is), or None for identity.

    Returns
    -------
    Activation

    Raises
    ------
    TypeError
        If `spec` is something else.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get("tanh")
    Activation('tanh')
    >>> get("rleu")
    Traceback (most recent call last):
        ...
    ValueError: unknown activation 'rleu'; did you mean 'relu'? Known: identity, relu, ...
    """
    if isinstance(spec, Activation):
        return spec
    return Activation("identity" if spec is None else spec)


def from_config(config: Mapping[str, Any]) -> Activation:
    """Make an activation from what `Activation.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "Activation", "name": "elu", "alpha": 0.5})
    Activation('elu', alpha=0.5)
    """
    return spec_from_config("activation", [Activation], config)
