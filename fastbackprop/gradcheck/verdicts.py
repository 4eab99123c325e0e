"""What a check says of one derivative: the two values, how far apart they are, and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from fastbackprop.gradcheck.differences import Estimate
from fastbackprop.plan import Array

# A finite difference must be this certain to tell a derivative that is wrong by a hundredth from
# a right one.
_CERTAINTY = 1e-3

# A central difference that is not this much better than asked for is measured with more care; and
# digits that a difference cannot see count as this good.
CLOSE = 0.05


class GradientMismatch(AssertionError):
    """A gradient is not the derivative of its loss; the message names the worst entry.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> report = fb.gradcheck.check(lambda x: x @ x, lambda x: x, [1.0, 2.0])
    >>> report.raise_for_failure()
    Traceback (most recent call last):
        ...
    fastbackprop.gradcheck.verdicts.GradientMismatch: theta[0]: the gradient is 1, finite
    differences give 2 (relative error 5e-01 > 1e-06)
    """


class Verdict(StrEnum):
    """What was found for one derivative."""

    PASS = "pass"
    FAIL = "fail"
    KINK = "kink"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class GradientEntry:
    """One derivative of the loss, by the gradient and by finite differences.

    Attributes
    ----------
    layer : int or None
        Counted as in ``net.weights``; None for the inputs, and for a direction over all tensors.
    tensor : str
        "weight", "bias", "X", "theta", or "all".
    index : tuple of int
        Of the entry; of a derivative along a random direction, its number alone.
    analytic, numeric : float
        The derivative by the gradient, and by finite differences. Of a kink, both beside it.
    relative_error : float
        |analytic − numeric|, over the larger of the two. Of one that passes, it is at most a
        twentieth of `rtol` where the rounding of the difference explains it. NaN if unknown.
    verdict : Verdict
        "pass", "fail", "kink" or "inconclusive".
    directional : bool
        Whether the derivative is along a random direction.
    """

    layer: int | None
    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    relative_error: float
    verdict: Verdict
    directional: bool = False

    @property
    def tensor_name(self) -> str:
        """The tensor, as it is called in a saved network: ``layers.1.weight``.

        Examples
        --------
        >>> GradientEntry(1, "bias", (3,), 0.0, 0.0, 0.0, Verdict.PASS).tensor_name
        'layers.1.bias'
        """
        return full_name(self.layer, self.tensor)

    @property
    def name(self) -> str:
        """The tensor and the place in it.

        Examples
        --------
        >>> GradientEntry(1, "weight", (3, 7), 0.0, 0.0, 0.0, Verdict.PASS).name
        'layers.1.weight[3, 7]'
        """
        if self.directional:
            return f"{self.tensor_name} along direction {self.index[0]}"
        return f"{self.tensor_name}[{', '.join(map(str, self.index))}]"

    def describe(self, rtol: float, derivative_of: str) -> str:
        """Both values in one line; ``derivative_of`` names what computed the analytic one."""
        digits = significant_digits(self.analytic, self.numeric)
        return (
            f"{self.name}: {derivative_of} {self.analytic:.{digits}g}, finite differences give "
            f"{self.numeric:.{digits}g} (relative error {excess(self.relative_error, rtol)})"
        )


def full_name(layer: int | None, tensor: str) -> str:
    """What a tensor is called in a saved network.

    Examples
    --------
    >>> full_name(1, "weight"), full_name(None, "X")
    ('layers.1.weight', 'X')
    """
    return tensor if layer is None else f"layers.{layer}.{tensor}"


def significant_digits(a: float, b: float) -> int:
    """As many digits as it takes to see that two numbers differ, from 3 to 17.

    Examples
    --------
    >>> significant_digits(0.0123, 0.0124), significant_digits(1.0, 1.0000001)
    (4, 9)
    """
    largest = max(abs(a), abs(b))
    if a == b or largest == 0 or not math.isfinite(a - b):
        return 3
    return min(17, max(3, 1 - math.floor(math.log10(abs(a - b) / largest))))


def excess(error: float, tolerance: float) -> str:
    """Both, and that the first is more, in as few digits as show it.

    Examples
    --------
    >>> excess(0.5, 1e-6), excess(1.4e-6, 1e-6)
    ('5e-01 > 1e-06', '1.4e-06 > 1.0e-06')
    """
    texts = ((f"{error:.{digits}e}", f"{tolerance:.{digits}e}") for digits in range(17))
    first, second = next((pair for pair in texts if pair[0] != pair[1]), (str(error), "itself"))
    return f"{first} > {second}"


def relative_error(analytic: ArrayLike, expected: ArrayLike, floor: ArrayLike = 0.0) -> Array:
    """How far apart derivatives are, relative to the larger one, or to ``floor`` if that is more.

    It is infinite where a derivative is not finite.

    Examples
    --------
    >>> float(relative_error(1.01, 1.0))
    0.0099...
    >>> relative_error([0.0, 1e-9], [0.0, 2e-9], floor=1.0)
    array([0.e+00, 1.e-09])
    """
    one, other = np.asarray(analytic, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.maximum(np.maximum(np.abs(one), np.abs(other)), floor)
        difference = np.abs(one - other)
        errors = difference / np.where(sizes > 0.0, sizes, 1.0)
    return np.where(np.isfinite(difference), errors, np.inf)


def judge(analytic: float, estimate: Estimate, scale: float, rtol: float) -> tuple[float, Verdict]:
    """The relative error of ``analytic`` and the verdict on it, where the loss is smooth.

    ``scale`` is the size of what the derivative is a sum of, or that of its neighbours.

    ===========================================  ======================================
    |analytic − numeric|                         verdict
    ===========================================  ======================================
    at most rtol · the larger                    pass
    more than that and the uncertainty together  fail
    between, and the uncertainty is at most      pass: what remains unseen is small
    1e-3 · the larger or rtol · scale
    between, and the uncertainty is more         inconclusive
    ===========================================  ======================================
    """
    value, uncertainty = estimate.value, estimate.uncertainty
    if not math.isfinite(analytic):
        return math.inf, Verdict.FAIL
    if not math.isfinite(uncertainty):
        return math.nan, Verdict.INCONCLUSIVE
    error = float(relative_error(analytic, value))
    size = max(abs(analytic), abs(value))
    if abs(analytic - value) > rtol * size + uncertainty:
        return error, Verdict.FAIL
    if error > rtol and uncertainty > max(_CERTAINTY * size, rtol * scale):
        return error, Verdict.INCONCLUSIVE
    explained = abs(analytic - value) <= uncertainty
    floor = uncertainty / (CLOSE * rtol) if explained else 0.0
    return float(relative_error(analytic, value, floor)), Verdict.PASS
