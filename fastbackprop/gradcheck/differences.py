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
# does. At the shortest, 4e-12, a difference still has 3 digits: enough to tell a wrong derivative.
_LONGEST_STEP = 2.0**-7
_LEVELS = 32

# No step is shorter than this, in units of what it is added to: its own rounding would count.
SHORTEST_STEP = 16 * EPS

# What was extrapolated from long steps must agree with differences by these, where they are the
# shorter ones: two slopes on a plateau, or a whole period apart, agree by chance. Their ratios to
# the long steps are no powers of two. The shortest sees any structure wider than 1e-8.
_AUDIT_STEPS = (CENTRAL_STEP, CENTRAL_STEP / 256)

# The audit of what comes from steps shorter than those.
_AUDIT_RATIO = 0.3

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
    rounding: float = 0.0  # a bound on the error of their sum


# By how much halving the step divides the first term of the error of a central difference.
_RATIOS = {Crossing.NONE: 4.0, Crossing.FROM_BEND: 2.0}


class Estimate(NamedTuple):
    """A derivative along a line."""

    value: float
    uncertainty: float  # a bound on its error, of truncation and rounding; infinite if unknown
    jump: float  # the slope on the right minus that on the left, over the last steps
    crossed: bool  # whether longer steps went over a kink
    swing: float = 0.0  # by how much the slope changes over a unit, as the longest step has it


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


class Difference(NamedTuple):
    """The mean slope between -step and step, and those of both halves."""

    step: float
    value: float
    left: float
    right: float
    rounding: float  # a bound on what rounding adds to the value
    crossing: Crossing

    @property
    def jump(self) -> float:
        """The slope on the right minus that on the left."""
        return self.right - self.left


def difference(line: Line, home: Array, h: float) -> Difference:
    """The central difference with step h; ``home`` holds the terms of the loss at the origin."""
    right, above = line.at(h)
    left, below = line.at(-h)
    return Difference(
        h,
        float((above.terms - below.terms).sum()) / (right - left),
        float((home - below.terms).sum()) / -left,
        float((above.terms - home).sum()) / right,
        (above.rounding + below.rounding) / (right - left),
        max(above.crossing, below.crossing),
    )


class _Candidate(NamedTuple):
    """An estimate, and the differences that it comes from."""

    estimate: Estimate
    step: float
    truncation: float  # how far the differences with this step and the one before are from it

    def contradicts(self, other: Difference) -> bool:
        """Whether a difference with a shorter step is not what this estimate makes one expect.

        Truncation decreases with the step, so that there is no more of it than here.
        """
        if other.crossing is Crossing.KINK:
            return False
        allowed = 2.0 * (self.estimate.uncertainty + self.truncation) + other.rounding
        return not abs(other.value - self.estimate.value) <= allowed


def extrapolated(
    line: Line, home: Array, scale: float, *, step: float | None = None, goal: float = 0.0
) -> Estimate:
    """Central differences with ever shorter steps, extrapolated to none.

    Parameters
    ----------
    line : Line
        What to differentiate, at t = 0.
    home : ndarray
        The terms of the loss there.
    scale : float
        The unit of the steps.
    step : float, optional
        The longest step.
    goal : float
        An uncertainty that is small enough to stop at.

    Returns
    -------
    Estimate
        That of least uncertainty which differences with shorter steps do not contradict. Without
        one, because each step goes over a kink or differences do not converge, its uncertainty is
        infinite.

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
    candidates: list[_Candidate] = []
    measured: list[Difference] = []
    row: list[float] = []  # of the tableau
    crossed, swing = False, 0.0
    for _ in range(_LEVELS):
        if h < SHORTEST_STEP * scale:
            break
        new = difference(line, home, h)
        former = row if measured and new.crossing is measured[-1].crossing else []
        if not measured:
            swing = abs(new.jump) / h * scale
        measured.append(new)
        row, found = _extended(former, new)
        crossed = crossed or new.crossing is Crossing.KINK
        for value, error in found:
            truncation = max(abs(d.value - value) for d in measured[-2:])
            estimate = Estimate(value, error, new.jump, crossed, swing)
            candidates.append(_Candidate(estimate, h, truncation))
        candidates.sort(key=_uncertainty)
        while candidates and _uncertainty(candidates[0]) <= max(goal, new.rounding):
            if _withstands(candidates[0], line, home, scale, measured):
                return candidates[0].estimate  # shorter steps would only bring more rounding
            candidates.pop(0)
        h /= 2
    for candidate in candidates:
        if _withstands(candidate, line, home, scale, measured):
            return candidate.estimate
    return Estimate(math.nan, math.inf, math.nan, crossed, swing)


def _uncertainty(candidate: _Candidate) -> float:
    return candidate.estimate.uncertainty


def _extended(
    former: list[float], new: Difference
) -> tuple[list[float], list[tuple[float, float]]]:
    """The next row of the tableau, and the values in it with bounds on their errors."""
    found: list[tuple[float, float]] = []
    if new.crossing is Crossing.KINK or not math.isfinite(new.value):
        return [], found
    row = [new.value]
    if new.crossing is Crossing.OVER_BEND:
        return row, [(new.value, 2 * abs(new.value - old) + new.rounding) for old in former[:1]]
    ratio = _RATIOS[new.crossing]
    for order, old in enumerate(former, start=1):
        refined = row[-1] + (row[-1] - old) / (ratio**order - 1.0)
        error = max(abs(refined - row[-1]), abs(refined - old))
        found.append((refined, error + 2 * new.rounding))
        row.append(refined)
    return row, found


def _withstands(
    candidate: _Candidate, line: Line, home: Array, scale: float, measured: list[Difference]
) -> bool:
    """Whether no difference with a shorter step contradicts; those of the audit are added."""
    steps = [scale * step for step in _AUDIT_STEPS if scale * step < candidate.step]
    known = {d.step for d in measured}
    for step in steps or [_AUDIT_RATIO * candidate.step]:
        if step not in known and step >= SHORTEST_STEP * scale:
            measured.insert(0, difference(line, home, step))
    return not any(d.step < candidate.step and candidate.contradicts(d) for d in measured)


def one_sided(line: Line, home: Array, scale: float) -> tuple[float, float, float] | None:
    """The slopes on the left and the right of the origin, and a bound on their rounding.

    None where one does not converge. They are the same where what they differ by is curvature: it
    halves with the step.
    """
    h = scale * 2.0**-28
    first, second = difference(line, home, h), difference(line, home, h / 2)
    rounding = 4.0 * (first.rounding + second.rounding)
    size = max(abs(first.left), abs(first.right))
    change = max(abs(first.left - second.left), abs(first.right - second.right))
    if not change <= 0.1 * size + rounding:
        return None
    if abs(second.jump) < 0.75 * abs(first.jump):
        return second.value, second.value, rounding
    return second.left, second.right, rounding


def noise_of(line: Line, distance: float | None = None) -> float:
    """The standard deviation of the rounding of the loss, from values very close to each other.

    They are as near to the origin as can be, or at a ``distance`` from it: where a loss is 0 its
    rounding is, too, and a step away it is not.

    References
    ----------
    J. J. Moré and S. M. Wild, "Estimating computational noise", SIAM Journal on Scientific
    Computing 33 (2011), equation 3.4: the k-th differences of independent errors of variance σ²
    have the variance σ² (2k)! / (k!)². Medians here, which a kink between two values leaves alone.
    """
    starts = _NOISE_STARTS if distance is None else (distance, -distance)
    least = 0.0
    for spacing in _NOISE_SPACINGS:
        terms = _values_along(line, starts, spacing)
        if terms is None:
            return 0.0  # nothing can be measured around such a place either
        # Values of which all happen to round alike are still rounded.
        least = EPS / 4 * _norm(terms[0])
        noise, higher = (_noise_in(terms, _NOISE_ORDER + more) for more in (0, 1))
        if higher > noise / 2:  # in a smooth function, higher differences vanish faster
            return max(noise, least)
    return least


def _values_along(line: Line, starts: Sequence[float], spacing: float) -> Array | None:
    """The terms of the loss at places of this spacing, where they are all finite."""
    for start in starts:
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
