"""Initializers: how the first weights and biases of a layer are drawn, by name.

All are drawn in float64 and rounded afterwards, so that a float32 and a float64 network with
the same seed start from the same numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastbackprop.activations import Activation
from fastbackprop.specs import (
    FINITE,
    POSITIVE,
    Spec,
    checked_number,
    checked_size,
    known_name,
    spec_from_config,
)

# The variance of one weight in each family that scales with the layer, of (n_in, n_out).
_VARIANCES: dict[str, Callable[[int, int], float]] = {
    "he": lambda n_in, n_out: 2.0 / n_in,
    "glorot": lambda n_in, n_out: 2.0 / (n_in + n_out),
    "lecun": lambda n_in, n_out: 1.0 / n_in,
}
_SCALED = {
    f"{family}_{distribution}": (family, distribution)
    for family in _VARIANCES
    for distribution in ("normal", "uniform")
}
# The parameters each of the others takes and their defaults; None has to be given.
_PARAMETERS: dict[str, dict[str, float | None]] = {
    "normal": {"std": 1.0},
    "uniform": {"low": -0.05, "high": 0.05},
    "zeros": {},
    "ones": {},
    "constant": {"value": None},
    "orthogonal": {},
}
_ALIASES = {
    "he": "he_normal",
    "glorot": "glorot_uniform",
    "xavier": "glorot_uniform",
    "lecun": "lecun_normal",
}

NAMES = (*_SCALED, *_PARAMETERS)
"""The names of all initializers."""


@dataclass(frozen=True, repr=False)
class Initializer(Spec):
    """A distribution of first parameters.

    ==============  ===========================================================
    name            each weight of a layer of n_in inputs and n_out outputs
    ==============  ===========================================================
    he_normal       N(0, 2 / n_in)
    he_uniform      U(−r, r), r = √(6 / n_in)
    glorot_normal   N(0, 2 / (n_in + n_out))
    glorot_uniform  U(−r, r), r = √(6 / (n_in + n_out))
    lecun_normal    N(0, 1 / n_in)
    lecun_uniform   U(−r, r), r = √(3 / n_in)
    normal          N(0, std²)
    uniform         U(low, high)
    zeros           0
    ones            1
    constant        value
    orthogonal      all together: orthonormal columns if n_in ≥ n_out, else rows
    ==============  ===========================================================

    N(mean, variance) is not truncated; U(low, high) is uniform.

    Parameters
    ----------
    name : str
        One of the table. "he" is "he_normal", "glorot" and "xavier" are "glorot_uniform",
        "lecun" is "lecun_normal".
    std : float, optional
        Only for normal: the standard deviation; positive, default 1.0.
    low, high : float, optional
        Only for uniform: the bounds, low < high, default −0.05 and 0.05.
    value : float, optional
        Only for constant, which needs it.

    Raises
    ------
    TypeError
        If `name` is not a string, or a parameter not a number.
    ValueError
        If `name` is unknown, or a parameter is out of range, missing, or of another initializer.

    References
    ----------
    he: He et al. (2015), arXiv:1502.01852, eq. 10. glorot: Glorot and Bengio (2010), "Understanding
    the difficulty of training deep feedforward neural networks", eq. 12 and 16. lecun: LeCun et
    al. (1998), "Efficient BackProp", section 4.6. orthogonal: Saxe et al. (2014), arXiv:1312.6120.

    Examples
    --------
    >>> Initializer("normal", std=0.1)
    Initializer('normal', std=0.1)
    >>> Initializer("ones").draw(np.random.default_rng(0), (2, 3))
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """

    name: str
    std: float | None = None
    low: float | None = None
    high: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        name = known_name("initializer", self.name, NAMES, _ALIASES)
        self._set(name=name)
        defaults = _PARAMETERS.get(name, {})
        for parameter in ("std", "low", "high", "value"):
            given = getattr(self, parameter)
            if parameter not in defaults:
                if given is not None:
                    raise ValueError(f"initializer {name!r} takes no {parameter}, got {given!r}")
                continue
            if given is None:
                given = defaults[parameter]
            if given is None:
                raise ValueError(f"initializer {name!r} needs a {parameter}")
            allowed = POSITIVE if parameter == "std" else FINITE
            self._set(**{parameter: checked_number(parameter, given, allowed)})
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got low={self.low} and high={self.high}")

    def draw(
        self,
        rng: np.random.Generator,
        shape: Sequence[int],
        fans: tuple[int, int] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Draw the parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where the random numbers come from.
        shape : sequence of int
            (n_in, n_out) of weights, or (n_out,) of biases.
        fans : (int, int), optional
            (n_in, n_out) of the layer; the shape itself if that has two numbers. The he, glorot
            and lecun families need them for biases.

        Returns
        -------
        ndarray, shape `shape`
            float64, C-contiguous.

        Raises
        ------
        ValueError
            If the shape has not one or two positive sizes, or the initializer needs more than
            it says.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> Initializer("orthogonal").draw(rng, (3, 3)).shape
        (3, 3)
        """
        shape = tuple(checked_size("a size of the shape", size) for size in shape)
        if len(shape) not in (1, 2):
            raise ValueError(f"shape must be (n_in, n_out) or (n_out,), got {shape}")
        if self.name in _SCALED:
            return self._draw_scaled(rng, shape, fans)
        if self.name == "orthogonal":
            return _orthogonal(rng, shape)
        if self.std is not None:
            return rng.standard_normal(shape) * self.std
        if self.low is not None and self.high is not None:
            return rng.uniform(self.low, self.high, shape)
        return np.full(shape, {"zeros": 0.0, "ones": 1.0}.get(self.name, self.value))

    def _draw_scaled(
        self, rng: np.random.Generator, shape: tuple[int, ...], fans: tuple[int, int] | None
    ) -> npt.NDArray[np.float64]:
        family, distribution = _SCALED[self.name]
        if fans is None and len(shape) == 1:
            raise ValueError(
                f"initializer {self.name!r} depends on n_in, which the shape {shape} of a bias "
                "does not tell; give fans=(n_in, n_out), or use 'zeros'"
            )
        n_in, n_out = fans or shape
        std = math.sqrt(_VARIANCES[family](n_in, n_out))
        if distribution == "normal":
            return rng.standard_normal(shape) * std
        limit = math.sqrt(3.0) * std  # a uniform distribution on (−r, r) has the variance r²/3
        return rng.uniform(-limit, limit, shape)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    if len(shape) == 1:
        raise ValueError(f"initializer 'orthogonal' draws matrices, got the shape {shape}")
    n_in, n_out = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    # QR leaves the signs of the columns open; with R's diagonal positive, Q is uniform.
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q if n_in >= n_out else q.T)


def get(spec: str | Initializer) -> Initializer:
    """Return the initializer that `spec` stands for.

    Parameters
    ----------
    spec : str or Initializer
        A name, or an initializer (returned as it is).

    Returns
    -------
    Initializer

    Raises
    ------
    TypeError
        If `spec` is something else.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get("xavier")
    Initializer('glorot_uniform')
    """
    return spec if isinstance(spec, Initializer) else Initializer(spec)


def default_for(activation: Activation) -> Initializer:
    """Return the initializer of a layer's weights when the user gives none.

    Parameters
    ----------
    activation : Activation
        The activation of the layer.

    Returns
    -------
    Initializer
        he_normal for relu and its smooth relatives, which halve the variance of their input;
        glorot_uniform for the rest.

    Examples
    --------
    >>> default_for(Activation("relu"))
    Initializer('he_normal')
    """
    halving = ("relu", "leaky_relu", "elu", "silu", "gelu", "softplus")
    return Initializer("he_normal" if activation.name in halving else "glorot_uniform")


def from_config(config: Mapping[str, Any]) -> Initializer:
    """Make an initializer from what `Initializer.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "Initializer", "name": "constant", "value": 0.5})
    Initializer('constant', value=0.5)
    """
    return spec_from_config("initializer", [Initializer], config)
