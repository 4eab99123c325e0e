"""What a check says of one derivative: the two values, how far apart they are, and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fastbackprop.gradcheck.differences import Estimate
from fastbackprop.plan import Array

# Entries below this share of their tensor's largest are held to the error of one that large: they
# are sums whose terms cancel, and have no more correct digits.
_SMALL = 0.1

# A finite difference must be this certain to tell a derivative that is wrong by a hundredth from
# a right one.
_CERTAINTY = 1e-3


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
        |analytic − numeric|, over the larger of the two, or over a tenth of the largest derivative
        of the tensor if that is more.
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
            f"{self.numeric:.{digits}g} (relative error {self.relative_error:.0e} > {rtol:.0e})"
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


def size_of(analytic: float, numeric: float, scale: float) -> float:
    """What the error of a derivative is measured by.

    Examples
    --------
    >>> size_of(1e-9, 2e-9, scale=1.0), size_of(0.5, 0.4, scale=1.0)
    (0.1, 0.5)
    """
    return max(abs(analytic), abs(numeric), _SMALL * scale)


def relative_error(analytic: float, numeric: float, scale: float, floor: float = 0.0) -> float:
    """How far apart two derivatives are, relative to the larger one.

    ``scale`` is the largest derivative of their tensor; a denominator is at least a tenth of that,
    and at least ``floor``. It is infinite where a derivative is not finite.

    Examples
    --------
    >>> relative_error(1.01, 1.0, scale=1.0)
    0.0099...
    >>> relative_error(1e-9, 2e-9, scale=1.0)
    1e-08
    """
    difference = abs(analytic - numeric)
    denominator = max(size_of(analytic, numeric, scale), floor)
    if not math.isfinite(difference):
        return math.inf
    return difference / denominator if denominator > 0 else 0.0


def relative_errors(analytic: Array, expected: Array, scale: float, floor: Array) -> Array:
    """`relative_error` of each entry of two arrays.

    Examples
    --------
    >>> import numpy as np
    >>> relative_errors(np.array([1.01, 1e-9]), np.array([1.0, 2e-9]), 1.0, np.zeros(2))
    array([9.9...e-03, 1.0...e-08])
    """
    difference = np.abs(analytic - expected)
    sizes = np.maximum(np.maximum(np.abs(analytic), np.abs(expected)), _SMALL * scale)
    denominators = np.maximum(np.maximum(sizes, floor), np.finfo(np.float64).tiny)
    return np.where(np.isfinite(difference), difference / denominators, np.inf)


def judge(analytic: float, estimate: Estimate, scale: float, rtol: float) -> tuple[float, Verdict]:
    """The relative error of ``analytic`` and the verdict on it, where the loss is smooth.

    It passes within `rtol`, or within the uncertainty of the finite difference if that is small
    enough to tell a wrong derivative. A discrepancy that the uncertainty explains, but that might
    be an error of a thousandth or more, is inconclusive.
    """
    error = relative_error(analytic, estimate.value, scale)
    if error <= rtol:
        return error, Verdict.PASS
    if not abs(analytic - estimate.value) <= estimate.uncertainty:
        return error, Verdict.FAIL
    if estimate.uncertainty > _CERTAINTY * size_of(analytic, estimate.value, scale):
        return error, Verdict.INCONCLUSIVE
    floor = estimate.uncertainty / rtol
    return relative_error(analytic, estimate.value, scale, floor), Verdict.PASS
