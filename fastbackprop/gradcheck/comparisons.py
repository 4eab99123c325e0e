"""Gradients that come another way: from steps of training, and in the network's own float type."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from fastbackprop.data import Targets, TrainingData
from fastbackprop.epochs import Epochs
from fastbackprop.gradcheck.differences import EPS
from fastbackprop.gradcheck.points import EPOCH, NetworkPoint, sides, state_of
from fastbackprop.gradcheck.report import Comparison
from fastbackprop.gradcheck.rounding import output_sizes, propagated, target_values
from fastbackprop.gradcheck.verdicts import relative_error
from fastbackprop.optimizers import SGD
from fastbackprop.plan import Array, Plan
from fastbackprop.probe import Probe
from fastbackprop.single_step import step
from fastbackprop.sources import ArraySource
from fastbackprop.state import State
from fastbackprop.stepping import DivergenceError

# Each takes its gradient from the kernels another way: added to the parameters in registers, row by
# row through the optimizer, and stored for the norm first.
_STEPS = {
    "SGD": SGD(1.0),
    "SGD, weight_decay": SGD(1.0, weight_decay=0.25),
    "SGD, clip_norm": SGD(1.0, clip_norm=1e300),  # which clips nothing
}

WAYS = tuple(_STEPS)
"""The names of the ways in which a step of training gets its gradient."""

# The rate of two steps of which the second must follow the first.
_SHORT = 2.0**-6

# A change of the type rounds the values that a layer takes and gives. What the former does is tried
# out, as often as this; the latter is bounded. The real error is within a few times of both.
_TRIALS = 3
_TRIAL_FACTOR, _BOUND_FACTOR = 64.0, 4.0

# Entries below this share of their tensor's largest are held to the error of one that large: in
# that type, they are sums whose terms cancel, and have no more correct digits.
_SMALL = 0.1


def training_step(point: NetworkPoint, way: str, rtol: float) -> Comparison:
    """Take a step of SGD with a rate of 1, and compare what it did with the gradient."""
    copy = point.copy()
    before = copy.params.copy()
    optimizer = _STEPS[way]
    with suppress(DivergenceError):  # then nothing moves, which is an error of 100 %
        step(copy, point.data, optimizer)
    expected = point.gradient + optimizer.weight_decay * before
    return _compared(
        f"training step ({way})",
        point,
        before - copy.params,
        expected,
        _rounding_floors(point, 1.0, rtol),
        rtol,
    )


def two_steps(point: NetworkPoint, rtol: float) -> Comparison:
    """Compare two steps of one epoch, by two threads, with the gradients before each.

    The second must not see anything of the parameters before the first.
    """
    data = point.data
    between, after = point.copy(), point.copy()
    labels, values, score = data.targets
    twice = TrainingData(
        np.concatenate([data.X, data.X]),
        Targets(_repeated(labels), _repeated(values), score),
        _repeated(data.weights),
    )
    optimizer = SGD(_SHORT)
    source = ArraySource(twice, len(data.X), shuffle=False)
    with suppress(DivergenceError):
        step(between, data, optimizer)
        epochs = Epochs(after, source, optimizer, threads=2)
        with epochs.team:
            epochs.run()
    moved = (point.state.params - after.params) / _SHORT
    expected = point.gradient + _gradient(between, data)
    floors = _rounding_floors(point, _SHORT, rtol)
    return _compared("training epoch (two steps)", point, moved, expected, floors, rtol)


def _repeated(array: Array | None) -> Array | None:
    return None if array is None else np.concatenate([array, array])


def _rounding_floors(point: NetworkPoint, rate: float, rtol: float) -> list[Array]:
    """Denominators that allow for the rounding of parameters that moved by rate · gradient."""
    sums = 2 * len(point.data.X) + 8
    return [
        EPS * sums * (tensor.summands + np.abs(tensor.values) / rate) / rtol
        for tensor in point.parameters
    ]


def own_type(
    point: NetworkPoint, own: State, data: TrainingData, rng: np.random.Generator
) -> Comparison:
    """Compare the gradient in the network's own type with that in float64.

    Rows in which rounding puts a unit on the other side of a kink are left out of both.
    """
    info = np.finfo(own.plan.dtype)
    tolerance, eps = float(np.sqrt(info.eps)), float(info.eps)
    what = f"gradients in {own.plan.dtype}"
    same = (_row_sides(point.state, point.data) == _row_sides(own, data)).all(axis=1)
    weights = same * (1.0 if data.weights is None else data.weights)
    if not weights.any():
        return Comparison(what, math.nan, tolerance, None, 0.0, 0.0)
    there, here = point.data._replace(weights=weights), data._replace(weights=weights)
    plan = point.state.plan
    exact, rounded = _gradient(point.state, there), _gradient(own, here)
    bounds = _by_tensor(plan, _rounding_bounds(point.state, there, info))
    trials = _rounding_trials(point, there, exact, eps, rng)
    floors = [
        np.maximum(
            (_BOUND_FACTOR * bound + _TRIAL_FACTOR * trial) / tolerance,
            _SMALL * np.abs(values).max(initial=0.0),
        )
        for bound, trial, values in zip(bounds, trials, _by_tensor(plan, exact), strict=True)
    ]
    actual = plan.zeros()
    plan.unpack(own.plan.pack(rounded), actual)
    return _compared(what, point, actual, exact, floors, tolerance)


def _rounding_trials(
    point: NetworkPoint, data: TrainingData, exact: Array, eps: float, rng: np.random.Generator
) -> list[float]:
    """The largest change in each tensor's gradient when all that goes in is rounded otherwise."""
    plan = point.state.plan
    theta = plan.pack(point.state.params)
    largest = [0.0] * len(point.parameters)
    for _ in range(_TRIALS):
        state = state_of(plan, theta * _about_one(rng, theta, eps), point.state.seed)
        moved = data._replace(X=data.X * _about_one(rng, data.X, eps))
        changes = _by_tensor(plan, _gradient(state, moved) - exact)
        sizes = [float(np.abs(change).max()) for change in changes]
        largest = list(map(max, largest, sizes))
    return largest


def _about_one(rng: np.random.Generator, values: Array, eps: float) -> Array:
    return 1.0 + eps * rng.uniform(-1.0, 1.0, values.shape)


def _rounding_bounds(state: State, data: TrainingData, info: np.finfo[Any]) -> Array:
    """What rounding each layer's outputs and slopes can change in the gradient, to first order.

    An output error where the loss is a - y loses the digits that both share, and a slope such as
    1 - a² those that a shares with 1.
    """
    plan, eps = state.plan, float(info.eps)
    probe = Probe(state, data, dropout_epoch=EPOCH)
    probe.differentiate()
    stages = probe.stages()
    weights = np.ones(len(data.X)) if data.weights is None else data.weights
    targets = target_values(data.targets, plan.n_out)
    sizes = output_sizes(plan.loss, stages[-1].a, targets, weights / weights.sum())
    return propagated(state, stages, 2.0 * eps * sizes, eps, float(info.tiny))[0]


def _gradient(state: State, data: TrainingData) -> Array:
    probe = Probe(state, data, dropout_epoch=EPOCH)
    probe.differentiate()
    return probe.parameter_gradients


def _row_sides(state: State, data: TrainingData) -> Array:
    """The sides of all units, (n, number of units that have a kink)."""
    probe = Probe(state, data, dropout_epoch=EPOCH)
    probe.measure()
    kinks, _ = sides(state.plan, probe, data)
    return np.concatenate([np.empty((len(data.X), 0)), *(side() for side in kinks)], axis=1)


def _compared(
    what: str,
    point: NetworkPoint,
    actual: Array,
    expected: Array,
    floors: list[Array],
    rtol: float,
) -> Comparison:
    """The worst relative error of all parameters; ``floors`` bound each denominator from below."""
    worst = Comparison(what, 0.0, rtol, None, 0.0, 0.0)
    actuals = _by_tensor(point.state.plan, actual)
    expecteds = _by_tensor(point.state.plan, expected)
    parts = zip(point.parameters, actuals, expecteds, floors, strict=True)
    for tensor, now, then, floor in parts:
        errors = relative_error(now, then, floor)
        place = np.unravel_index(int(errors.argmax()), errors.shape)
        if errors[place] > worst.error:
            name = f"{tensor.full_name}[{', '.join(map(str, map(int, place)))}]"
            worst = Comparison(
                what, float(errors[place]), rtol, name, float(now[place]), float(then[place])
            )
    return worst


def _by_tensor(plan: Plan, flat: Array) -> list[Array]:
    """The weights and the bias of each layer, in turn."""
    return [
        part
        for matrix, stage in zip(plan.matrices(flat), plan.stages, strict=True)
        for part in (matrix[: stage.dense.n_in], *matrix[stage.dense.n_in :])
    ]
