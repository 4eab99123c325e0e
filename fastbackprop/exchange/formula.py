"""Elementwise formulas in one form, in which every way to write an activation is the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastbackprop.activations import Activation

# Far beyond any activation; a hostile file must not make formulas explode.
_MOST_TERMS = 4
_MOST_FACTORS = 2
_DEEPEST = 3

# Constants agree in this many digits if one was rounded to float32.
_DIGITS = 5
_TOLERANCE = 1e-5

Monomial = tuple[Any, ...]


class Formula:
    """A polynomial in z and in functions of such polynomials: Σ coefficient · factor · factor ….

    Addition and multiplication expand, so ``z * (erf + 1) * 0.5`` and ``(0.5 * z) * (1 + erf)``
    have the same terms.

    Parameters
    ----------
    terms : mapping from tuple of factors to float
        The coefficient of each product; the empty product is the constant.
    depth : int
        How many functions are nested.

    Raises
    ------
    ValueError
        If it is larger than the formula of any activation.
    """

    def __init__(self, terms: Mapping[Monomial, float], depth: int = 0) -> None:
        self.terms = {factors: value for factors, value in terms.items() if value != 0.0}
        self.depth = depth
        longest = max(map(len, self.terms), default=0)
        if len(self.terms) > _MOST_TERMS or longest > _MOST_FACTORS or depth > _DEEPEST:
            raise ValueError("the formula is longer than that of any known activation")

    def __add__(self, other: Formula | float) -> Formula:
        other = _as_formula(other)
        total = dict(self.terms)
        for factors, value in other.terms.items():
            total[factors] = total.get(factors, 0.0) + value
        return Formula(total, max(self.depth, other.depth))

    def __mul__(self, other: Formula | float) -> Formula:
        other = _as_formula(other)
        product: dict[Monomial, float] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                factors = tuple(sorted(left + right, key=repr))
                product[factors] = product.get(factors, 0.0) + a * b
        return Formula(product, max(self.depth, other.depth))

    def apply(self, function: str) -> Formula:
        """A function of this formula, as a new factor."""
        inner = tuple(
            sorted(
                ((factors, float(f"{value:.{_DIGITS}g}")) for factors, value in self.terms.items()),
                key=repr,
            )
        )
        return Formula({((function, inner),): 1.0}, self.depth + 1)

    def leaky_relu(self, alpha: float) -> Formula:
        """relu for what is positive, and ``alpha`` times what is not."""
        return self.apply("Relu") * (1.0 - alpha) + self * alpha

    def elu(self, alpha: float) -> Formula:
        """relu for what is positive, and ``alpha`` · (exp − 1) for what is not."""
        return self.apply("Relu") + self.minimum_with_zero().apply("Exp") * alpha + (-alpha)

    def minimum_with_zero(self) -> Formula:
        """min(this, 0) = −relu(−this)."""
        return (self * -1.0).apply("Relu") * -1.0

    @property
    def affine(self) -> tuple[float, float] | None:
        """(a, b) of a·z + b; None if it is something else, or no z is in it."""
        if Z not in self.terms or self.terms.keys() - {Z, ()}:
            return None
        return self.terms[Z], self.terms.get((), 0.0)

    def is_close_to(self, other: Formula) -> bool:
        """Whether it has the same terms, with coefficients equal but for rounding."""
        return self.terms.keys() == other.terms.keys() and all(
            math.isclose(value, other.terms[factors], rel_tol=_TOLERANCE)
            for factors, value in self.terms.items()
        )

    def as_activation(self) -> Activation | None:
        """The activation that has this formula, if there is one.

        Examples
        --------
        >>> z = Formula({Z: 1.0})
        >>> (z * z.apply("Sigmoid")).as_activation()
        Activation('silu')
        >>> z.leaky_relu(0.2).as_activation()
        Activation('leaky_relu', alpha=0.2)
        """
        for formula, name in _KNOWN:
            if self.is_close_to(formula):
                return Activation(name)
        slope = self.terms.get(Z, 0.0)
        if slope >= 0.0 and self.is_close_to(_VARIABLE.leaky_relu(slope)):
            return Activation("leaky_relu", _shortest(slope))
        limit = -self.terms.get((), 0.0)
        if limit >= 0.0 and self.is_close_to(_VARIABLE.elu(limit)):
            return Activation("elu", _shortest(limit))
        return None


Z: Monomial = ("z",)
"""The product of z alone."""


def _as_formula(value: Formula | float) -> Formula:
    return value if isinstance(value, Formula) else Formula({(): value})


def _shortest(value: float) -> float:
    """0.3 for the float32 nearest to it: the number that was written."""
    for digits in range(1, 8):
        candidate = float(f"{value:.{digits}g}")
        if math.isclose(candidate, value, rel_tol=1e-7):
            return candidate
    return value


_VARIABLE = Formula({Z: 1.0})
_KNOWN = (
    (_VARIABLE, "identity"),
    *(
        (_VARIABLE.apply(name), name.lower())
        for name in ("Relu", "Sigmoid", "Tanh", "Exp", "Softplus", "Gelu", "Softmax")
    ),
    (((_VARIABLE.apply("Exp")) + 1.0).apply("Log"), "softplus"),
    (
        _VARIABLE.apply("Relu") + ((_VARIABLE.apply("Abs") * -1.0).apply("Exp") + 1.0).apply("Log"),
        "softplus",
    ),
    (_VARIABLE * _VARIABLE.apply("Sigmoid"), "silu"),
    (_VARIABLE * ((_VARIABLE * math.sqrt(0.5)).apply("Erf") + 1.0) * 0.5, "gelu"),
)
