"""The check itself: which derivatives are measured, how, and what becomes of each.

The way to a verdict, for each derivative:

1. A central difference with the documented step. If the gradient is well within `rtol` of it, that
   is a pass: two computations that have nothing in common do not agree in seven digits by chance.
2. Otherwise differences with many steps, from coarse to fine, each with a bound on its rounding.
   What is extrapolated from them is trusted if all finer ones agree (`differences.extrapolated`).
3. `verdicts.judge` compares the gradient with that: pass, fail, or inconclusive.
4. Where a kink is in the way, or not even the finest differences are trusted: in a network, whose
   kinks are seen, the same for a place beside it, which makes a *kink* of a pass; in a function of
   which nothing is known, the slopes on both sides tell whether there is one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastbackprop.gradcheck.differences import (
    CENTRAL_STEP,
    SHORTEST_STEP,
    Crossing,
    Estimate,
    Line,
    Sample,
    difference,
    extrapolated,
    one_sided,
)
from fastbackprop.gradcheck.verdicts import (
    CLOSE,
    GradientEntry,
    Verdict,
    full_name,
    judge,
    relative_error,
)
from fastbackprop.plan import Array
from fastbackprop.specs import POSITIVE, checked_number, checked_size, known_name

METHODS = ("central", "richardson", "directional")
"""The names of all methods."""

# Random directions for each tensor, and as many over all tensors.
_DIRECTIONS = 3

# How much slopes may differ from left to right before a kink is suspected.
_SUSPICIOUS = 1e-3

# Attempts to leave all kinks by a small random move.
_MOVES = 4


class CheckedTensor(NamedTuple):
    """Some variables of the loss, and their gradient."""

    layer: int | None
    name: str
    values: Array  # moved in place
    gradient: Array
    summands: Array  # how large the terms are that each entry of the gradient is a sum of

    @property
    def full_name(self) -> str:
        """As it is called in a saved network: ``layers.1.weight``."""
        return full_name(self.layer, self.name)


class Point(ABC):
    """A place: the variables there, the loss around it and the gradient to be checked.

    Attributes
    ----------
    tensors : list of CheckedTensor
        All variables.
    home : ndarray
        The terms of the loss.
    """

    def __init__(self, tensors: list[CheckedTensor]) -> None:
        self.tensors = tensors
        self.home = self.loss().terms

    @abstractmethod
    def loss(self) -> Sample:
        """The loss of the variables as they are now."""


class PiecewisePoint(Point):
    """A place of a loss that tells on which of its smooth pieces it is."""

    @abstractmethod
    def beside(self, rng: np.random.Generator, distance: float) -> PiecewisePoint:
        """A place nearby, to which all variables have moved a little at random."""


class Rules(NamedTuple):
    """How to measure, and when to be content."""

    method: str
    step: float | None
    rtol: float
    most: int | None  # entries of a tensor


class Variable(ABC):
    """One number that the loss depends on, at any point of the same variables."""

    layer: int | None
    tensor: str
    index: tuple[int, ...]
    directional = False

    @abstractmethod
    def line(self, point: Point) -> Line:
        """The loss along it."""

    @abstractmethod
    def analytic(self, point: Point) -> float:
        """The derivative by the gradient."""

    @abstractmethod
    def summands(self, point: Point) -> float:
        """How large the terms are that the derivative is a sum of."""

    @abstractmethod
    def scale(self, point: Point) -> float:
        """The unit of its steps: max(1, |θ|)."""


class Entry(Variable):
    """One entry of a tensor."""

    def __init__(self, point: Point, number: int, index: tuple[int, ...]) -> None:
        self._number, self.index = number, index
        self.layer, self.tensor = point.tensors[number][:2]

    def line(self, point: Point) -> Line:
        """The loss as this entry moves."""
        *rows, last = self.index
        place: tuple[Any, ...] = (*rows, slice(last, last + 1))
        return Line(point.loss, [(point.tensors[self._number].values[place], 1.0)])

    def analytic(self, point: Point) -> float:
        """The entry of the gradient."""
        return float(point.tensors[self._number].gradient[self.index])

    def summands(self, point: Point) -> float:
        """Those of the entry."""
        return float(point.tensors[self._number].summands[self.index])

    def scale(self, point: Point) -> float:
        """The unit of its steps."""
        return max(1.0, abs(float(point.tensors[self._number].values[self.index])))


class Direction(Variable):
    """A random direction of length 1, in one tensor or in all of them."""

    directional = True

    def __init__(
        self, point: Point, numbers: Sequence[int], index: int, rng: np.random.Generator
    ) -> None:
        self._numbers, self.index = numbers, (index,)
        one = len(numbers) == 1
        self.layer, self.tensor = point.tensors[numbers[0]][:2] if one else (None, "all")
        parts = [rng.standard_normal(point.tensors[i].values.shape) for i in numbers]
        length = math.sqrt(sum(float((part**2).sum()) for part in parts))
        self._parts = [part / length for part in parts]

    def line(self, point: Point) -> Line:
        """The loss as all variables move along it."""
        values = [point.tensors[i].values for i in self._numbers]
        return Line(point.loss, list(zip(values, self._parts, strict=True)))

    def analytic(self, point: Point) -> float:
        """The inner product of the gradient and the direction."""
        pairs = zip(self._numbers, self._parts, strict=True)
        with np.errstate(invalid="ignore", over="ignore"):  # it may be wrong in any way
            return sum(float((point.tensors[i].gradient * part).sum()) for i, part in pairs)

    def summands(self, point: Point) -> float:
        """Those of the entries, as independent numbers add up."""
        pairs = zip(self._numbers, self._parts, strict=True)
        squares = [((point.tensors[i].summands * part) ** 2).sum() for i, part in pairs]
        return math.sqrt(sum(map(float, squares)))

    def scale(self, point: Point) -> float:
        """The unit of its steps: so long that no entry moves by more than max(1, |θ|)."""
        pairs = zip(self._numbers, self._parts, strict=True)
        return 1.0 / max(
            float((np.abs(part) / np.maximum(1.0, np.abs(point.tensors[i].values))).max())
            for i, part in pairs
        )


def checked_rules(method: object, step: object, rtol: object, most: object, what: str) -> Rules:
    """The rules, if all arguments are as they must be; ``what`` names the last.

    Raises
    ------
    TypeError, ValueError
        If not.
    """
    return Rules(
        known_name("method", method, METHODS),
        None if step is None else checked_number("step", step, POSITIVE),
        checked_number("rtol", rtol, POSITIVE),
        None if most is None else checked_size(what, most),
    )


def examine(point: Point, rules: Rules, rng: np.random.Generator) -> list[GradientEntry]:
    """Compare the gradient with finite differences, tensor by tensor."""
    nearby: list[PiecewisePoint] = []  # made when first needed, and shared
    entries: list[GradientEntry] = []
    for variables in _groups(point, rules, rng):
        entries += _examine_tensor(point, variables, rules, nearby, rng)
    return entries


def _groups(
    point: Point, rules: Rules, rng: np.random.Generator
) -> Iterator[list[Entry] | list[Direction]]:
    """What is measured of each tensor, and at last of all of them."""
    numbers = [i for i, tensor in enumerate(point.tensors) if tensor.values.size]
    if rules.method == "directional":
        groups = [[i] for i in numbers] + ([numbers] if len(numbers) > 1 else [])
        for group in groups:
            yield [Direction(point, group, i, rng) for i in range(_DIRECTIONS)]
        return
    for number in numbers:
        shape = point.tensors[number].values.shape
        chosen = np.arange(math.prod(shape))
        if rules.most is not None and rules.most < len(chosen):
            chosen = np.sort(rng.choice(len(chosen), rules.most, replace=False))
        places = np.stack(np.unravel_index(chosen, shape), axis=1)
        yield [Entry(point, number, tuple(place)) for place in places.tolist()]


def _first(point: Point, variable: Variable, line: Line, rules: Rules) -> Estimate | None:
    """What is cheap to measure; None if there is a kink in the way."""
    if rules.method != "central":
        return _careful(point, variable, line, rules, 0.0)
    scale = variable.scale(point)
    h = CENTRAL_STEP * scale if rules.step is None else _feasible(rules.step, scale)
    found = difference(line, point.home, h)
    if found.crossing > Crossing.NONE:
        return None
    return Estimate(found.value, found.rounding, found.jump, False)


def _careful(point: Point, variable: Variable, line: Line, rules: Rules, goal: float) -> Estimate:
    scale = variable.scale(point)
    step = None if rules.step is None else _feasible(rules.step, scale)
    return extrapolated(line, point.home, scale, step=step, goal=goal)


def _feasible(step: float, scale: float) -> float:
    """A step that moves a number of this size."""
    return max(step, SHORTEST_STEP * scale)


def _examine_tensor(
    point: Point,
    variables: Sequence[Variable],
    rules: Rules,
    nearby: list[PiecewisePoint],
    rng: np.random.Generator,
) -> list[GradientEntry]:
    firsts = [_first(point, v, v.line(point), rules) for v in variables]
    values = [abs(estimate.value) for estimate in firsts if estimate is not None]
    scale = max((value for value in values if math.isfinite(value)), default=0.0)
    entries = []
    for variable, first in zip(variables, firsts, strict=True):
        analytic = variable.analytic(point)
        line = variable.line(point)
        best = first
        if best is None or not relative_error(analytic, best.value) <= CLOSE * rules.rtol:
            best = _careful(point, variable, line, rules, CLOSE * rules.rtol * abs(analytic))
        if isinstance(point, PiecewisePoint):
            entry = _judge_exactly(point, variable, best, scale, rules, nearby, rng)
        else:
            entry = _judge_blindly(point, variable, line, best, scale, rules)
        entries.append(entry)
    return entries


def _judged(
    point: Point, variable: Variable, estimate: Estimate, scale: float, rules: Rules
) -> tuple[float, Verdict]:
    """The verdict, by the largest of what the derivative can be compared with."""
    sizes = (scale, variable.summands(point), estimate.swing)
    largest = max(size for size in sizes if math.isfinite(size))
    return judge(variable.analytic(point), estimate, largest, rules.rtol)


def _entry(
    variable: Variable, analytic: float, numeric: float, error: float, verdict: Verdict
) -> GradientEntry:
    return GradientEntry(
        variable.layer,
        variable.tensor,
        variable.index,
        analytic,
        numeric,
        error,
        verdict,
        variable.directional,
    )


def _judge_exactly(
    point: PiecewisePoint,
    variable: Variable,
    estimate: Estimate,
    scale: float,
    rules: Rules,
    nearby: list[PiecewisePoint],
    rng: np.random.Generator,
) -> GradientEntry:
    """The verdict where every kink is seen: too near to one, the gradient is judged beside it.

    On a kink itself no difference tells what the derivative should be: with two units on theirs,
    the conventions for both need not add up to any of the slopes.
    """
    analytic = variable.analytic(point)
    error, verdict = _judged(point, variable, estimate, scale, rules)
    if verdict is not Verdict.INCONCLUSIVE or not estimate.crossed:
        return _entry(variable, analytic, estimate.value, error, verdict)
    for attempt in range(_MOVES):
        if attempt == len(nearby):
            nearby.append(point.beside(rng, 2.0 ** (attempt - 10)))
        place = nearby[attempt]
        there = _careful(place, variable, variable.line(place), rules, 0.0)
        error_there, verdict = _judged(place, variable, there, scale, rules)
        if verdict is Verdict.INCONCLUSIVE:
            continue
        found = Verdict.KINK if verdict is Verdict.PASS else Verdict.FAIL
        return _entry(variable, variable.analytic(place), there.value, error_there, found)
    return _entry(variable, analytic, estimate.value, error, Verdict.INCONCLUSIVE)


def _judge_blindly(
    point: Point,
    variable: Variable,
    line: Line,
    estimate: Estimate,
    scale: float,
    rules: Rules,
) -> GradientEntry:
    """The verdict where kinks can only be guessed, from slopes that differ from left to right."""
    analytic = variable.analytic(point)
    error, verdict = _judged(point, variable, estimate, scale, rules)
    known = [abs(value) for value in (estimate.value, analytic) if math.isfinite(value)]
    size = max(*known, scale, 0.0)
    if verdict is Verdict.PASS and abs(estimate.jump) <= _SUSPICIOUS * size + estimate.uncertainty:
        return _entry(variable, analytic, estimate.value, error, verdict)
    sides = one_sided(line, point.home, variable.scale(point))
    if sides is None:  # there may be a kink nearer than differences can tell
        if verdict is Verdict.FAIL and math.isfinite(analytic):
            verdict = Verdict.INCONCLUSIVE
        return _entry(variable, analytic, estimate.value, error, verdict)
    *slopes, rounding = sides
    low, high = min(slopes), max(slopes)
    if high - low <= _SUSPICIOUS * size + rounding:
        return _entry(variable, analytic, estimate.value, error, verdict)
    nearest = min(max(analytic, low), high)
    error = float(relative_error(analytic, nearest, scale))
    within = error <= _SUSPICIOUS
    return _entry(variable, analytic, nearest, error, Verdict.KINK if within else Verdict.FAIL)
