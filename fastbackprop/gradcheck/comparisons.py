"""Gradients that come another way: from steps of training, and in the network's own float type."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from fastbackprop import training
from fastbackprop.data import Targets, TrainingData
from fastbackprop.gradcheck.differences import EPS
from fastbackprop.gradcheck.points import EPOCH, NetworkPoint, sides, state_of
from fastbackprop.gradcheck.report import Comparison
from fastbackprop.gradcheck.verdicts import relative_errors
from fastbackprop.optimizers import SGD
from fastbackprop.plan import Array, Plan
from fastbackprop.probe import Probe
from fastbackprop.sources import ArraySource
from fastbackprop.state import State

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


def training_step(point: NetworkPoint, way: str, rtol: float) -> Comparison:
    """Take a step of SGD with a rate of 1, and compare what it did with the gradient."""
    copy = point.copy()
    before = copy.params.copy()
    optimizer = _STEPS[way]
    with suppress(training.DivergenceError):  # then nothing moves, which is an error of 100 %
        training.step(copy, point.data, optimizer)
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
    recipe = training.Recipe(1, optimizer, threads=2)
    with suppress(training.DivergenceError):
        training.step(between, data, optimizer)
        epochs = training.Epochs(after, source, recipe)
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
        EPS * sums * (magnitude + np.abs(tensor.values) / rate) / rtol
        for tensor, magnitude in zip(point.parameters, point.magnitudes(), strict=True)
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
        return Comparison(what, 0.0, tolerance, None, 0.0, 0.0)
    there, here = point.data._replace(weights=weights), data._replace(weights=weights)
    exact, rounded = _gradient(point.state, there), _gradient(own, here)
    bounds = _by_tensor(point.state.plan, _rounding_bounds(point.state, there, eps))
    trials = _rounding_trials(point, there, exact, eps, rng)
    floors = [
        (_BOUND_FACTOR * bound + _TRIAL_FACTOR * trial) / tolerance
        for bound, trial in zip(bounds, trials, strict=True)
    ]
    plan = point.state.plan
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


def _rounding_bounds(state: State, data: TrainingData, eps: float) -> Array:
    """What rounding each layer's outputs and slopes can change in the gradient, to first order.

    An output error where the loss is a - y loses the digits that both share, and a slope such as
    1 - a² those that a shares with 1.
    """
    plan = state.plan
    probe = Probe(state, data, dropout_epoch=EPOCH)
    probe.differentiate()
    stages = probe.stages()
    weights = np.ones(len(data.X)) if data.weights is None else data.weights
    labels, values, _ = data.targets
    targets = np.eye(plan.n_out)[labels] if values is None else values
    outputs = np.abs(stages[-1].a)
    if plan.loss.name == "poisson":  # what is there are the logits
        outputs = np.exp(stages[-1].a)
    elif plan.loss.fused:
        outputs = np.ones_like(targets)
    share = (weights / weights.sum())[:, None]
    error = 2.0 * eps * share * (outputs + np.abs(targets))
    result = plan.zeros()
    pairs = list(zip(plan.stages, plan.weights(state.params), plan.matrices(result), strict=True))
    for i in range(len(pairs) - 1, -1, -1):
        stage, w, rows = pairs[i]
        x, dz = np.abs(stages[i].x), np.abs(stages[i].dz)
        error = error + eps * dz
        rows[: stage.dense.n_in] = x.T @ error
        rows[stage.dense.n_in :] = error.sum(axis=0)
        scale = 1.0 / (1.0 - stage.dropout)
        error = scale * (error + eps * dz) @ np.abs(w).T
    return result


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
        errors = relative_errors(now, then, float(np.abs(then).max(initial=0.0)), floor)
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
