"""The compiled backward pass of a network, compared with differences of its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbackprop import training
from fastbackprop.activations import Activation
from fastbackprop.data import (
    Targets,
    TrainingData,
    checked_inputs,
    checked_targets,
    checked_weights,
)
from fastbackprop.gradcheck.differences import EPS, Sample
from fastbackprop.gradcheck.examination import PiecewisePoint, Tensor, checked_rules, examine
from fastbackprop.gradcheck.report import Comparison, GradientCheckReport
from fastbackprop.gradcheck.verdicts import relative_errors
from fastbackprop.optimizers import SGD
from fastbackprop.plan import Array, Plan
from fastbackprop.probe import Probe
from fastbackprop.specs import checked_flag, checked_size
from fastbackprop.state import State

if TYPE_CHECKING:
    from fastbackprop.network import Network

_FLOAT64 = np.dtype(np.float64)

# The epoch of a network's first train_step, so that the masks of dropout are those of its steps.
_EPOCH = -1

# Each takes its gradient from the kernels another way: added to the parameters in registers, row by
# row through the optimizer, and stored for the norm first.
_DECAY, _NO_CLIPPING = 0.25, 1e300
_STEPS = {
    "SGD": SGD(1.0),
    "SGD, weight_decay": SGD(1.0, weight_decay=_DECAY),
    "SGD, clip_norm": SGD(1.0, clip_norm=_NO_CLIPPING),
}

# The rate of two steps of which the second must follow the first.
_SHORT = 2.0**-6

# float32 rounds each value as if the inputs of its layer were a little different. By how much that
# changes the gradient is tried out, as often as this; the real change is within a few times of it.
_TRIALS = 3
_ROUNDING_FACTOR = 64.0


def check_gradients(
    net: Network,
    X: Any,
    y: Any,
    *,
    method: str = "central",
    step: float | None = None,
    rtol: float = 1e-6,
    max_per_tensor: int | None = None,
    sample_weight: Any = None,
    inputs: bool = True,
    seed: int = 0,
) -> GradientCheckReport:
    """Compare the gradients of a network with finite differences of its loss.

    Both are computed by the compiled kernels in float64, on a copy: the network does not change.
    `Dropout` is active, with one mask that `seed` decides. These are checked, too:

    - the steps of training, which take their gradients another way than
      ``net.loss_and_gradients``: one of SGD, one with weight decay, one with clipping by norm, and,
      without dropout, two in a row;
    - for a float32 network, its own gradients, within what rounding to float32 explains;
    - that a second backward pass, and one of two threads, give the same bits.

    Parameters
    ----------
    net : Network
        The network, with the parameters at which to check.
    X : array_like, (n, n_in)
        Inputs; a few dozen rows are enough. Integers are taken as float64 values.
    y : array_like, (n,) or (n, n_out)
        Targets, as in `Network.fit`.
    method : {"central", "richardson", "directional"}, default "central"
        ``central`` differences of each entry, with an extrapolation where one is not precise
        enough; ``richardson`` extrapolates each, in about five times the time; ``directional``
        measures along three random directions in each tensor and three over all, whose cost does
        not depend on the number of parameters.
    step : float, optional
        The step of a central difference, or the first of an extrapolation. By default
        ε^(1/3)·max(1, \\|θ\\|) = 6e-6·max(1, \\|θ\\|), and 2⁻⁷·max(1, \\|θ\\|).
    rtol : float, default 1e-6
        The relative error that passes.
    max_per_tensor : int, optional
        Check that many entries of each tensor, chosen at random. All unless given: a network of
        100,000 parameters takes some seconds for a batch of 32.
    sample_weight : array_like, (n,), optional
        As in `Network.fit`.
    inputs : bool, default True
        Whether to check the gradient with respect to X, too.
    seed : int, default 0
        Of all that is random.

    Returns
    -------
    GradientCheckReport

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The relative error of an entry is \\|analytic − numeric\\| over the larger of the two, or over a
    tenth of the largest numeric derivative in its tensor if that is more. Each entry is

    - *pass*: the error is within `rtol`, or within the rounding of the finite difference;
    - *fail*: it is not;
    - *kink*: a unit is at a kink (of relu, leaky_relu, elu with α ≠ 1, or mae) or closer to it
      than differences resolve, seen by the sides its units are on. There the gradient is compared
      with differences at a point nearby without kinks, and agrees;
    - *inconclusive*: differences with step h and h/2 disagree by more than the error.

    References
    ----------
    Griewank and Walther, *Evaluating Derivatives* (2008), section 3.1, for the cost and the
    precision of differences.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> net = fb.Network([4, 6, 3], "tanh", "cross_entropy", random_state=0)
    >>> X = np.random.default_rng(0).normal(size=(8, 4))
    >>> report = fb.check_gradients(net, X, [0, 1, 2, 0, 1, 2, 0, 1])
    >>> report.ok
    True
    >>> report.worst(1)[0].relative_error < 1e-7
    True
    """
    rules = checked_rules(method, step, rtol, max_per_tensor, "max_per_tensor")
    with_inputs = checked_flag("inputs", inputs)
    rng = np.random.default_rng(checked_size("seed", seed, minimum=0))
    state = getattr(net, "_state", None)
    if not isinstance(state, State):
        raise TypeError(f"net must be a Network, got {net!r}; for a function use gradcheck.check")
    plan = state.plan
    given = checked_inputs(X, plan.n_in, values_in=plan.dtype)
    weights = checked_weights(sample_weight, len(given))
    output = plan.stages[-1].activation
    twin_plan = Plan(net.layers, plan.loss, output, _FLOAT64)
    theta = plan.pack(state.params).astype(np.float64)
    mask_seed = int(rng.integers(2**62))
    twin = _state_of(twin_plan, theta, mask_seed)
    targets = checked_targets(y, len(given), plan.n_out, plan.loss, _FLOAT64)
    data = TrainingData(np.array(given, dtype=np.float64, order="C"), targets, weights)
    point = NetworkPoint(twin, data, inputs=with_inputs, rng=rng)
    entries = examine(point, rules, rng)
    comparisons = [_training_step(point, name, rules.rtol) for name in _STEPS]
    if all(stage.dropout == 0.0 for stage in twin_plan.stages):  # else each step has its own mask
        comparisons.append(_two_steps(point, rules.rtol))
    if plan.dtype != _FLOAT64:
        own_targets = checked_targets(y, len(given), plan.n_out, plan.loss, plan.dtype)
        own = _state_of(Plan(net.layers, plan.loss, output, plan.dtype), theta, mask_seed)
        comparisons.append(_own_type(point, own, TrainingData(given, own_targets, weights), rng))
    return GradientCheckReport(
        entries,
        comparisons,
        point.different_bits(),
        totals={_full_name(tensor): tensor.values.size for tensor in point.tensors},
        method=rules.method,
        rtol=rules.rtol,
    )


def _full_name(tensor: Tensor) -> str:
    return tensor.name if tensor.layer is None else f"layers.{tensor.layer}.{tensor.name}"


def _state_of(plan: Plan, theta: Array, seed: int) -> State:
    state = State(plan, seed)
    plan.unpack(theta, state.params)
    return state


class NetworkPoint(PiecewisePoint):
    """A network's parameters and its inputs, in float64."""

    def __init__(
        self, state: State, data: TrainingData, *, inputs: bool, rng: np.random.Generator
    ) -> None:
        self.state, self.data = state, data
        self._inputs = inputs
        self.probe = Probe(state, data, inputs=True, dropout_epoch=_EPOCH)
        self._total = _total_weight(data)
        # The parameters change between two passes, so that a copy kept from an earlier one shows.
        theta = state.params.copy()
        state.params *= 0.5
        self.probe.differentiate()
        state.params[...] = theta
        self.probe.differentiate()
        self.gradient = self.probe.parameter_gradients.copy()
        self._input_gradient = self.probe.input_gradients.copy()
        self._kinks, self._bends = sides(state.plan, self.probe, data)
        self._home_kinks = [side() for side in self._kinks]
        self._home_bends = [side() for side in self._bends]
        super().__init__(self._tensors())
        if not np.isfinite(self.home).all():
            raise ValueError(
                "the loss is not finite at these parameters and inputs, so that it has no "
                "gradient to check"
            )
        self.noise = self.measure_noise(rng)

    def _tensors(self) -> list[Tensor]:
        plan = self.state.plan
        tensors = []
        pairs = zip(plan.matrices(self.state.params), plan.matrices(self.gradient), strict=True)
        for i, (matrix, gradient) in enumerate(pairs):
            n_in = plan.stages[i].dense.n_in
            tensors.append(Tensor(i, "weight", matrix[:n_in], gradient[:n_in]))
            if plan.stages[i].dense.bias:
                tensors.append(Tensor(i, "bias", matrix[n_in], gradient[n_in]))
        if self._inputs:
            tensors.append(Tensor(None, "X", self.data.X, self._input_gradient))
        return tensors

    def loss(self) -> Sample:
        """The loss, row by row, and whether any unit has changed sides."""
        self.probe.measure()
        terms = self.probe.row_losses / self._total
        return Sample(
            terms,
            _differ(self._kinks, self._home_kinks) or not np.isfinite(terms).all(),
            _differ(self._bends, self._home_bends),
        )

    def beside(self, rng: np.random.Generator, distance: float) -> NetworkPoint:
        """A copy with other parameters and inputs: without bias, only those leave some kinks."""
        plan = self.state.plan
        theta, X = plan.pack(self.state.params), self.data.X
        state = _state_of(plan, _moved(theta, rng, distance), self.state.seed)
        data = self.data._replace(X=_moved(X, rng, distance))
        return NetworkPoint(state, data, inputs=self._inputs, rng=rng)

    def copy(self) -> State:
        """A network with the same parameters, which may be trained."""
        plan = self.state.plan
        return _state_of(plan, plan.pack(self.state.params), self.state.seed)

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are not inputs."""
        return [tensor for tensor in self.tensors if tensor.layer is not None]

    def different_bits(self) -> int:
        """Numbers of the gradient that another backward pass computes otherwise."""
        fresh = Probe(self.state, self.data, inputs=True, dropout_epoch=_EPOCH, threads=2)
        expected = self.gradient.view(np.uint64), self._input_gradient.view(np.uint64)
        wrong = 0
        for probe in (self.probe, fresh):
            probe.differentiate()
            again = probe.parameter_gradients, probe.input_gradients
            pairs = zip(again, expected, strict=True)
            wrong += sum(int((now.view(np.uint64) != then).sum()) for now, then in pairs)
        return wrong

    def magnitudes(self) -> list[Array]:
        """Σ |x|·|dz| of each parameter: what the rounding of its gradient is proportional to."""
        self.probe.differentiate()
        result = []
        for stage, values in zip(self.state.plan.stages, self.probe.stages(), strict=True):
            x, dz = np.abs(values.x), np.abs(values.dz)
            result.append(x.T @ dz)
            if stage.dense.bias:
                result.append(dz.sum(axis=0))
        return result


def _moved(values: Array, rng: np.random.Generator, distance: float) -> Array:
    moves = rng.uniform(-1.0, 1.0, values.shape)
    return values + distance * np.maximum(1.0, np.abs(values)) * moves


def _total_weight(data: TrainingData) -> float:
    return float(len(data.X) if data.weights is None else data.weights.sum())


def sides(
    plan: Plan, probe: Probe, data: TrainingData
) -> tuple[list[Callable[[], Array]], list[Callable[[], Array]]]:
    """What tells the side of a kink, and of a jump of the second derivative, of each unit.

    They read the workspace of the probe, so that they show its last call.
    """
    kinks: list[Callable[[], Array]] = []
    bends: list[Callable[[], Array]] = []
    stages = probe.stages()
    for stage, values in zip(plan.stages, stages, strict=True):
        places = _places(stage.activation)
        if places is not None:
            (kinks if places == "kink" else bends).append(_signs(values.a))
    if plan.loss.name in ("mae", "huber"):
        difference = _difference(stages[-1].a, data, plan.n_out)
        if plan.loss.name == "mae":
            kinks.append(lambda: np.sign(difference()))
        else:
            delta = plan.loss.delta
            bends.append(lambda: np.sign(difference()) * (np.abs(difference()) > delta))
    return kinks, bends


def _places(activation: Activation) -> str | None:
    """Whether an activation has a kink at 0, a jump of its second derivative, or neither."""
    slope = {"relu": 0.0, "leaky_relu": activation.alpha, "elu": activation.alpha}.get(
        activation.name, 1.0
    )
    if slope != 1.0:
        return "kink"
    return "bend" if activation.name == "elu" else None


def _signs(a: Array) -> Callable[[], Array]:
    return lambda: np.sign(a)


def _difference(outputs: Array, data: TrainingData, n_out: int) -> Callable[[], Array]:
    labels, values, _ = data.targets
    targets = np.eye(n_out)[labels] if values is None else values
    return lambda: outputs - targets


def _differ(watched: list[Callable[[], Array]], home: list[Array]) -> bool:
    pairs = zip(watched, home, strict=True)
    return any(not np.array_equal(side(), then) for side, then in pairs)


def _training_step(point: NetworkPoint, name: str, rtol: float) -> Comparison:
    """Take a step of SGD with a rate of 1, and compare what it did with the gradient."""
    plan = point.state.plan
    copy = point.copy()
    before = copy.params.copy()
    optimizer = _STEPS[name]
    with suppress(training.DivergenceError):  # then nothing moves, which is an error of 100 %
        training.step(copy, point.data, optimizer)
    expected = point.gradient + optimizer.weight_decay * before
    return _compared(
        f"training step ({name})",
        point,
        plan,
        before - copy.params,
        expected,
        _rounding_floors(point, 1.0, rtol),
        rtol,
    )


def _two_steps(point: NetworkPoint, rtol: float) -> Comparison:
    """Compare two steps of one epoch with the gradients before each.

    The second must not see anything of the parameters before the first.
    """
    plan, data = point.state.plan, point.data
    between, after = point.copy(), point.copy()
    labels, values, score = data.targets
    twice = TrainingData(
        np.concatenate([data.X, data.X]),
        Targets(_repeated(labels), _repeated(values), score),
        _repeated(data.weights),
    )
    optimizer = SGD(_SHORT)
    recipe = training.Recipe(1, len(data.X), optimizer, False, (), None, 0)
    with suppress(training.DivergenceError):
        training.step(between, data, optimizer)
        epochs = training.Epochs(after, twice, recipe)
        with epochs.team:
            epochs.run()
    moved = (point.state.params - after.params) / _SHORT
    expected = point.gradient + _gradient(between, data)
    floors = _rounding_floors(point, _SHORT, rtol)
    return _compared("training epoch (two steps)", point, plan, moved, expected, floors, rtol)


def _repeated(array: Array | None) -> Array | None:
    return None if array is None else np.concatenate([array, array])


def _rounding_floors(point: NetworkPoint, rate: float, rtol: float) -> list[Array]:
    """Denominators that allow for the rounding of parameters that moved by rate · gradient."""
    sums = 2 * len(point.data.X) + 8
    return [
        EPS * sums * (magnitude + np.abs(tensor.values) / rate) / rtol
        for tensor, magnitude in zip(point.parameters, point.magnitudes(), strict=True)
    ]


def _own_type(
    point: NetworkPoint, own: State, data: TrainingData, rng: np.random.Generator
) -> Comparison:
    """Compare the gradient in the network's own type with that in float64.

    Rows in which rounding puts a unit on the other side of a kink are left out of both.
    """
    plan = point.state.plan
    tolerance = float(np.sqrt(np.finfo(own.plan.dtype).eps))
    what = f"gradients in {own.plan.dtype}"
    ours, theirs = _row_sides(point.state, point.data), _row_sides(own, data)
    kept = (ours == theirs).all(axis=1)
    weights = np.ones(len(kept)) if data.weights is None else data.weights
    weights = np.where(kept, weights, 0.0)
    if not weights.any():
        return Comparison(what, 0.0, tolerance, None, 0.0, 0.0)
    exact = _gradient(point.state, point.data._replace(weights=weights))
    rounded = _gradient(own, data._replace(weights=weights))
    floors = [np.zeros_like(rows) for rows in plan.matrices(exact)]
    eps = float(np.finfo(own.plan.dtype).eps)
    for _ in range(_TRIALS):
        theta = plan.pack(point.state.params)
        X = point.data.X
        other = _state_of(plan, theta * (1 + eps * rng.uniform(-1, 1, theta.shape)), own.seed)
        moved = point.data._replace(X=X * (1 + eps * rng.uniform(-1, 1, X.shape)), weights=weights)
        change = _gradient(other, moved) - exact
        for floor, rows in zip(floors, plan.matrices(change), strict=True):
            np.maximum(floor, np.abs(rows).max(), out=floor)
    split = [
        part * _ROUNDING_FACTOR / tolerance
        for floor, stage in zip(floors, plan.stages, strict=True)
        for part in (floor[: stage.dense.n_in], *floor[stage.dense.n_in :])
    ]
    flat = plan.zeros()
    plan.unpack(own.plan.pack(rounded).astype(np.float64), flat)
    return _compared(what, point, plan, flat, exact, split, tolerance)


def _gradient(state: State, data: TrainingData) -> Array:
    probe = Probe(state, data, dropout_epoch=_EPOCH)
    probe.differentiate()
    return probe.parameter_gradients


def _row_sides(state: State, data: TrainingData) -> Array:
    """The sides of all units, (n, number of units that have a kink)."""
    probe = Probe(state, data, dropout_epoch=_EPOCH)
    probe.measure()
    kinks, _ = sides(state.plan, probe, data)
    return np.concatenate([np.empty((len(data.X), 0)), *(side() for side in kinks)], axis=1)


def _compared(
    what: str,
    point: NetworkPoint,
    plan: Plan,
    actual: Array,
    expected: Array,
    floors: list[Array],
    rtol: float,
) -> Comparison:
    """The worst relative error of all parameters; ``floors`` bound each denominator from below."""
    worst = Comparison(what, 0.0, rtol, None, 0.0, 0.0)
    actuals = _by_tensor(plan, actual)
    expecteds = _by_tensor(plan, expected)
    parts = zip(point.parameters, actuals, expecteds, floors, strict=True)
    for tensor, now, then, floor in parts:
        errors = relative_errors(now, then, float(np.abs(then).max(initial=0.0)), floor)
        place = np.unravel_index(int(errors.argmax()), errors.shape)
        if errors[place] > worst.error:
            name = f"{_full_name(tensor)}[{', '.join(map(str, map(int, place)))}]"
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
