"""A network at some parameters and inputs: the loss around them, and the sides its units are on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.data import TrainingData
from fastbackprop.gradcheck.differences import Crossing, Sample
from fastbackprop.gradcheck.examination import CheckedTensor, PiecewisePoint
from fastbackprop.gradcheck.rounding import (
    loss_rounding,
    mean_factor,
    output_errors,
    output_sizes,
    propagated,
    target_values,
)
from fastbackprop.plan import Array, Plan
from fastbackprop.probe import Probe
from fastbackprop.state import State

EPOCH = -1
"""That of a network's first train_step, so that the masks of dropout are those of its steps."""


def state_of(plan: Plan, theta: Array, seed: int) -> State:
    """A network with these parameters, and with this seed of its dropout."""
    state = State(plan, seed)
    plan.unpack(theta, state.params)
    return state


class NetworkPoint(PiecewisePoint):
    """A network's parameters and its inputs, in float64."""

    def __init__(self, state: State, data: TrainingData, *, inputs: bool) -> None:
        self.state, self.data = state, data
        self._inputs = inputs
        self.probe = Probe(state, data, inputs=True, dropout_epoch=EPOCH)
        weights = np.ones(len(data.X)) if data.weights is None else data.weights
        self._total = float(weights.sum())
        self._shares = weights / self._total
        self._targets = target_values(data.targets, state.plan.n_out)
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
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite, see below
            self._output_errors = output_errors(state, self.probe.stages())
            tensors = self._tensors()
        super().__init__(tensors)
        if not np.isfinite(self.home).all():
            raise ValueError(
                "the loss is not finite at these parameters and inputs, so that it has no "
                "gradient to check"
            )

    def _tensors(self) -> list[CheckedTensor]:
        plan = self.state.plan
        tensors = []
        summands, of_inputs = self._summands()
        flats = (self.state.params, self.gradient, summands)
        matrices = zip(*map(plan.matrices, flats), strict=True)
        for i, (values, gradient, sizes) in enumerate(matrices):
            n_in, bias = plan.stages[i].dense.n_in, plan.stages[i].dense.bias
            weight = slice(n_in)
            tensors.append(
                CheckedTensor(i, "weight", values[weight], gradient[weight], sizes[weight])
            )
            if bias:
                tensors.append(CheckedTensor(i, "bias", values[n_in], gradient[n_in], sizes[n_in]))
        if self._inputs:
            tensors.append(CheckedTensor(None, "X", self.data.X, self._input_gradient, of_inputs))
        return tensors

    def _summands(self) -> tuple[Array, Array]:
        """How large the terms are whose sum is each entry of the gradient: a and y, not a - y."""
        plan, stages = self.state.plan, self.probe.stages()
        sizes = output_sizes(plan.loss, stages[-1].a, self._targets, self._shares)
        sizes *= mean_factor(plan.loss, plan.n_out)
        parameters, inputs = propagated(self.state, stages, sizes)
        return parameters, inputs * abs(plan.rescaling.scale)

    def loss(self) -> Sample:
        """The loss, row by row, and whether any unit has changed sides."""
        self.probe.measure()
        terms = self.probe.row_losses / self._total
        if not np.isfinite(terms).all():
            return Sample(terms, Crossing.KINK)
        plan, outputs = self.state.plan, self.probe.stages()[-1].a
        with np.errstate(over="ignore", invalid="ignore"):
            rounding = loss_rounding(
                plan.loss, outputs, self._targets, self._output_errors, self._shares
            )
        return Sample(terms, self._crossing(), rounding)

    def _crossing(self) -> Crossing:
        for side, home in zip(self._kinks, self._home_kinks, strict=True):
            if not np.array_equal(side(), home):
                return Crossing.KINK
        worst = Crossing.NONE
        for side, home in zip(self._bends, self._home_bends, strict=True):
            before = home[side() != home]
            if before.size:
                worst = max(worst, Crossing.OVER_BEND if before.any() else Crossing.FROM_BEND)
        return worst

    def beside(self, rng: np.random.Generator, distance: float) -> NetworkPoint:
        """A copy with other parameters and inputs: without bias, only those leave some kinks."""
        plan = self.state.plan
        theta, X = plan.pack(self.state.params), self.data.X
        state = state_of(plan, _moved(theta, rng, distance), self.state.seed)
        data = self.data._replace(X=_moved(X, rng, distance))
        return NetworkPoint(state, data, inputs=self._inputs)

    def copy(self) -> State:
        """A network with the same parameters, which may be trained."""
        plan = self.state.plan
        return state_of(plan, plan.pack(self.state.params), self.state.seed)

    @property
    def parameters(self) -> list[CheckedTensor]:
        """The tensors that are not inputs."""
        return [tensor for tensor in self.tensors if tensor.layer is not None]

    def different_bits(self) -> int:
        """Numbers of the gradient that another backward pass computes otherwise."""
        fresh = Probe(self.state, self.data, inputs=True, dropout_epoch=EPOCH, threads=2)
        expected = self.gradient.view(np.uint64), self._input_gradient.view(np.uint64)
        wrong = 0
        for probe in (self.probe, fresh):
            probe.differentiate()
            again = probe.parameter_gradients, probe.input_gradients
            pairs = zip(again, expected, strict=True)
            wrong += sum(int((now.view(np.uint64) != then).sum()) for now, then in pairs)
        return wrong


def _moved(values: Array, rng: np.random.Generator, distance: float) -> Array:
    moves = rng.uniform(-1.0, 1.0, values.shape)
    return values + distance * np.maximum(1.0, np.abs(values)) * moves


def sides(
    plan: Plan, probe: Probe, data: TrainingData
) -> tuple[list[Callable[[], Array]], list[Callable[[], Array]]]:
    """What tells the side of a kink, and of a jump of the second derivative, of each unit.

    Each returns the signs of the distances of its units: 0 is exactly on it. They read the
    workspace of the probe, so that they show its last call.
    """
    kinks: list[Callable[[], Array]] = []
    bends: list[Callable[[], Array]] = []
    stages = probe.stages()
    for stage, values in zip(plan.stages, stages, strict=True):
        places = _places(stage.activation)
        if places is not None:
            (kinks if places == "kink" else bends).append(_signs(values.a))
    if plan.loss.name in ("mae", "quantile", "huber"):
        difference = _difference(stages[-1].a, data, plan.n_out)
        if plan.loss.name != "huber":
            kinks.append(lambda: np.sign(difference()))
        else:
            delta = plan.loss.delta
            bends += [lambda: np.sign(difference() - delta), lambda: np.sign(difference() + delta)]
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
    targets = target_values(data.targets, n_out)
    return lambda: outputs - targets
