"""Derivatives along a line from values alone, each with a bound on its own error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from fastbackprop.plan import Array

EPS = float(np.finfo(np.float64).eps)

# Of a central difference: halving it costs as many digits by rounding as it gains by truncation.
CENTRAL_STEP = EPS ** (1 / 3)

# Extrapolation begins with steps so long that rounding takes nothing, and halves them until it
# does. At the shortest, 2e-12, a difference still has 3 digits: enough to tell a wrong derivative.
_LONGEST_STEP = 2.0**-7
_LEVELS = 32

# Steps that share nothing with those, and how much a disagreement with them counts.
_OTHER_STEP = 0.7 * _LONGEST_STEP
_DISTRUST = 10.0

# Bound on an error by rounding, in standard deviations of the noise of the loss.
_DEVIATIONS = 8.0

# Noise is seen in differences of this order of as many values: a smooth function has none there.
_NOISE_ORDER = 4
_NOISE_VALUES = 16

# The values must be as far apart as possible, so that they are rounded differently, and close
# enough for the function to be smooth.
_NOISE_SPACINGS = (2.0**-26, 2.0**-36, 2.0**-46)

# They begin at some distance, so that units exactly on a kink stay on one side of it; nearer, or on
# the other side, where the loss is not finite.
_NOISE_STARTS = (2.0**-20, -(2.0**-20), 2.0**-36, -(2.0**-36), 0.0)

# Of normal errors, the median of their absolute values over the standard deviation.
_MEDIAN_RATIO = 0.6745


class Crossing(IntEnum):
    """What lies between a place and the origin of its line, the worst of all units."""

    NONE = 0
    FROM_BEND = 1  # a unit has left a jump of the second derivative that it was exactly on
    OVER_BEND = 2  # a unit has gone over one
    KINK = 3  # a unit has left a kink or gone over one, or the loss is not finite


class Sample(NamedTuple):
    """The loss at one place, and whether it is on the same smooth piece as at the origin.

    Differences are taken term by term before they are added: two sums of many terms agree in so
    many digits that few are left.
    """

    terms: Array  # their sum is the loss
    crossing: Crossing = Crossing.NONE


# By how much halving the step divides the first term of the error of a central difference.
_RATIOS = {Crossing.NONE: 4.0, Crossing.FROM_BEND: 2.0}


class Estimate(NamedTuple):
    """A derivative along a line."""

    value: float
    uncertainty: float  # a bound on its error: truncation and rounding
    jump: float  # the slope on the right minus that on the left, over the last steps
    crossed: bool  # whether longer steps went over a kink


class Line:
    """The loss as a function of one number t: some arrays move from where they are, together.

    Parameters
    ----------
    loss : callable
        Returns the `Sample` of the arrays as they are.
    moves : sequence of (values, direction)
        Each ``values`` becomes ``values + t * direction``, in place, and is put back. The
        direction of a line along one entry is a float.
    """

    def __init__(
        self, loss: Callable[[], Sample], moves: Sequence[tuple[Array, Array | float]]
    ) -> None:
        self._loss = loss
        self._moves = [(values, values.copy(), direction) for values, direction in moves]

    def at(self, t: float) -> tuple[float, Sample]:
        """The distance that was moved, which rounding may make another than t, and the loss."""
        try:
            for values, origin, direction in self._moves:
                np.add(origin, t * direction, out=values)
            values, origin, direction = self._moves[0]
            if isinstance(direction, float):
                t = (values - origin).item() / direction
            return t, self._loss()
        finally:
            for values, origin, _ in self._moves:
                values[...] = origin


def _slopes(line: Line, home: Array, h: float) -> tuple[float, float, float, Sample, Sample]:
    """The mean slope between -h and h, and those of the left and the right half."""
    right, above = line.at(h)
    left, below = line.at(-h)
    return (
        float((above.terms - below.terms).sum()) / (right - left),
        float((home - below.terms).sum()) / -left,
        float((above.terms - home).sum()) / right,
        above,
        below,
    )


def central(line: Line, home: Array, h: float, noise: float) -> Estimate | None:
    """The central difference with step h; None if it goes over a kink or a bend.

    Its uncertainty is that of rounding only.
    """
    value, left, right, above, below = _slopes(line, home, h)
    if max(above.crossing, below.crossing) > Crossing.NONE:
        return None
    return Estimate(value, _DEVIATIONS * noise / h, right - left, False)


def extrapolated(
    line: Line,
    home: Array,
    scale: float,
    noise: float,
    *,
    step: float | None = None,
    goal: float = 0.0,
) -> Estimate | None:
    """Central differences with ever shorter steps, extrapolated to none.

    Parameters
    ----------
    line : Line
        What to differentiate, at t = 0.
    home : ndarray
        The terms of the loss there.
    scale : float
        The unit of the steps.
    noise : float
        The standard deviation of the rounding of the loss.
    step : float, optional
        The longest step.
    goal : float
        An uncertainty that is small enough to stop at.

    Returns
    -------
    Estimate or None
        The estimate of least uncertainty; None if each step goes over a kink.

    Notes
    -----
    The error of a central difference is a series in h²; at a jump of the second derivative, one in
    h; over such a jump, neither: there the shortest useful step is taken as it is.

    References
    ----------
    C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering
    Software 4 (1982): the tableau, and the difference of its neighbours as the error.
    """
    h = scale * _LONGEST_STEP if step is None else step
    best: Estimate | None = None
    former: list[float] = []  # the row of the tableau for the step before
    former_crossing = Crossing.NONE
    crossed = False
    for _ in range(_LEVELS):
        value, left, right, above, below = _slopes(line, home, h)
        rounding = _DEVIATIONS * noise / h
        crossing = max(above.crossing, below.crossing)
        if crossing is not former_crossing:
            former, former_crossing = [], crossing
        candidates: list[tuple[float, float]] = []
        row = [value]
        if crossing is Crossing.KINK:
            crossed, row = True, []
        elif crossing is Crossing.OVER_BEND:
            candidates = [(value, 2 * abs(value - before) + rounding) for before in former]
        else:
            ratio = _RATIOS[crossing]
            for order, before in enumerate(former, start=1):
                refined = row[-1] + (row[-1] - before) / (ratio**order - 1.0)
                error = max(abs(refined - row[-1]), abs(refined - before))
                candidates.append((refined, error + 2 * rounding))
                row.append(refined)
        former = row
        for candidate, error in candidates:
            if best is None or error < best.uncertainty:
                best = Estimate(candidate, error, right - left, crossed)
        if best is not None and best.uncertainty <= max(goal, rounding):
            break  # shorter steps would only bring more rounding
        h /= 2
    return best


def confirmed(line: Line, home: Array, scale: float, noise: float, first: Estimate) -> Estimate:
    """An extrapolated estimate, as uncertain as other steps show it to be.

    In a rough function, two differences that agree by chance pass for convergence.
    """
    second = extrapolated(line, home, scale, noise, step=_OTHER_STEP * scale)
    if second is None:
        return first
    apart = abs(first.value - second.value)
    if apart <= first.uncertainty + second.uncertainty:
        return first
    return first._replace(uncertainty=_DISTRUST * apart)


def one_sided(line: Line, home: Array, scale: float) -> tuple[float, float] | None:
    """The slopes on the left and the right of the origin; None where one does not converge.

    They are the same where what they differ by is curvature: it halves with the step.
    """
    h = scale * 2.0**-28
    _, left, right, *_ = _slopes(line, home, h)
    value, left_again, right_again, *_ = _slopes(line, home, h / 2)
    size = max(abs(left), abs(right))
    if not max(abs(left - left_again), abs(right - right_again)) <= 0.1 * size:
        return None
    if abs(right_again - left_again) < 0.75 * abs(right - left):
        return value, value
    return left_again, right_again


def noise_of(line: Line) -> float:
    """The standard deviation of the rounding of the loss, from values very close to each other.

    References
    ----------
    J. J. Moré and S. M. Wild, "Estimating computational noise", SIAM Journal on Scientific
    Computing 33 (2011), equation 3.4: the k-th differences of independent errors of variance σ²
    have the variance σ² (2k)! / (k!)². Medians here, which a kink between two values leaves alone.
    """
    least = 0.0
    for spacing in _NOISE_SPACINGS:
        terms = _values_along(line, spacing)
        if terms is None:
            return 0.0  # nothing can be measured around such a place either
        # Values of which all happen to round alike are still rounded.
        least = EPS / 4 * _norm(terms[0])
        noise, higher = (_noise_in(terms, _NOISE_ORDER + more) for more in (0, 1))
        if higher > noise / 2:  # in a smooth function, higher differences vanish faster
            return max(noise, least)
    return least


def _values_along(line: Line, spacing: float) -> Array | None:
    """The terms of the loss at places of this spacing, where they are all finite."""
    for start in _NOISE_STARTS:
        terms = [line.at(start + i * spacing)[1].terms for i in range(_NOISE_VALUES)]
        if np.isfinite(terms).all():
            return np.array(terms)
    return None


def _noise_in(terms: Array, order: int) -> float:
    """The noise that differences of this order show, if there is nothing else in them."""
    medians = np.median(np.abs(np.diff(terms, order, axis=0)), axis=0)
    return _norm(medians) / _MEDIAN_RATIO / math.sqrt(math.comb(2 * order, order))


def _norm(values: Array) -> float:
    """√Σ v², which neither overflows nor underflows."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.sqrt(((values / largest) ** 2).sum())) if largest > 0 else 0.0
