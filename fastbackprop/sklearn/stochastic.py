"""Epochs of sgd and adam on compiled kernels, with scikit-learn's penalty and learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastbackprop.data import TrainingData
from fastbackprop.division import epoch_threads, is_long, layers_by_inputs
from fastbackprop.optimizers import SGD, Adam, Optimizer
from fastbackprop.plan import Array
from fastbackprop.probe import point_at
from fastbackprop.sklearn.objective import Objective
from fastbackprop.state import State
from fastbackprop.stepping import reserve_steps, take_steps, training_job
from fastbackprop.team import Team


@dataclass
class LearningRate:
    """The rate of the next epoch, by one of scikit-learn's three policies.

    Attributes
    ----------
    initial : float
        The rate of the first epoch.
    policy : str
        "constant"; "invscaling", initial / (t + 1)^power_t after t samples; or "adaptive", a fifth
        of the rate each time that training makes no progress, down to 1e-6.
    power_t : float
        The exponent of invscaling.
    """

    initial: float
    policy: str = "constant"
    power_t: float = 0.5

    def __post_init__(self) -> None:
        self.current = float(self.initial)
        self.applied = self.current  # that of the last epoch

    def end_epoch(self, t: int) -> None:
        """Take note that ``t`` samples have been learned from."""
        if self.policy == "invscaling":
            self.current = self.initial / (t + 1) ** self.power_t

    def should_stop(self, reason: str, verbose: bool) -> bool:
        """Whether training without progress ends; if not, it goes on with a smaller rate."""
        if self.policy != "adaptive":
            outcome, stops = "Stopping.", True
        elif self.current <= 1e-6:
            outcome, stops = "Learning rate too small. Stopping.", True
        else:
            self.current /= 5.0
            outcome, stops = f"Setting learning rate to {self.current:f}", False
        if verbose:
            print(f"{reason} {outcome}")
        return stops


def sgd(rate: float, momentum: float, nesterov: bool, objective: Objective) -> Optimizer:
    """scikit-learn's sgd, for gradients of the kernels."""
    # scikit-learn admits 1, and this is 1 to rounding.
    momentum = min(momentum, float(np.nextafter(1.0, 0.0)))
    rate *= objective.gradient_factor
    return SGD(rate, momentum=momentum, nesterov=nesterov and momentum > 0.0)


def adam(
    rate: float, beta_1: float, beta_2: float, epsilon: float, objective: Objective
) -> Optimizer:
    """scikit-learn's adam, for gradients of the kernels.

    It takes no notice of a factor of the gradient, but for its epsilon. That is added to √v before
    v is corrected for its start at 0, as Kingma and Ba do at the end of their section 2: parameters
    whose gradient is but the penalty's would move differently otherwise.
    """
    return Adam(rate, betas=(beta_1, beta_2), eps=epsilon / objective.gradient_factor)


class HeldBack(NamedTuple):
    """Rows that are not learned from."""

    data: TrainingData
    y: Array  # (n, n_outputs), as the estimator has validated it


class Descent:
    """Runs epochs on a network's state, one by one. A context manager, for its threads.

    Parameters
    ----------
    state : State
        The network; its optimizer state goes on.
    data : TrainingData
        What to learn from.
    n : int
        Rows in an epoch: those that an order names, or all of the data.
    batch_size : int
        Rows in a step, at most n.
    objective : Objective
        Its loss is the state's.
    optimizer : Optimizer
        From `sgd` or `adam`.
    threads : int, optional
        Chosen by the work of a step unless given.
    """

    def __init__(
        self,
        state: State,
        data: TrainingData,
        n: int,
        batch_size: int,
        objective: Objective,
        optimizer: Optimizer,
        threads: int | None,
    ) -> None:
        self._state, self._objective, self._n = state, objective, n
        self._steps = -(-n // batch_size)
        self._rows = np.full(self._steps, float(batch_size))
        self._rows[-1] = n - (self._steps - 1) * batch_size
        self._weighted = data.weights is not None
        state.use(optimizer)
        self._is_adam = isinstance(optimizer, Adam)
        self._sums = {
            name: np.zeros(self._steps) for name in ("step_loss", "step_score", "step_weight")
        }
        self._row_squares = np.zeros(state.plan.n_rows)
        self._rates = np.empty(self._steps)
        job = training_job(state, optimizer)
        point_at(job, data)
        count = epoch_threads(threads, state.plan, batch_size, n)
        by_inputs = layers_by_inputs(state.plan, batch_size, count)
        reserve_steps(job, state, optimizer, batch_size, count, by_inputs)
        job.point(row_squares=self._row_squares, rates=self._rates, **self._sums)
        job.set(
            n=n,
            batch=batch_size,
            penalty=objective.alpha / objective.gradient_factor,
            eps_uncorrected=1,
            first=0,
            last=self._steps,
        )
        self._job = job
        self._team = Team(count, background=is_long(state.plan, n))

    def __enter__(self) -> Descent:
        self._team.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(None, None, None)

    def rate(self, rate: LearningRate) -> float:
        """The rate of the next epoch, with the factor by which a callback may have changed it."""
        return rate.current * self._state.rate_factor

    def run(self, order: Array | None, rate: LearningRate) -> float:
        """One epoch over the rows in this order; returns its loss, with the penalty."""
        state, objective = self._state, self._objective
        self._use(rate)
        self._row_squares[:] = 0.0
        self._job.point(order=order)
        self._job.set(steps_before=state.steps, epoch=state.epoch)
        take_steps(state, self._job, lambda: self._team.run(self._job))
        state.epoch += 1
        total = objective.report_factor * self._summed_loss()
        total += 0.5 * objective.alpha * float(self._row_squares.sum())
        return total / self._n

    def _summed_loss(self) -> float:
        """The mean loss of each batch times its rows, over the epoch."""
        losses, weights = self._sums["step_loss"], self._sums["step_weight"]
        if not self._weighted:
            return float(losses.sum())
        # A batch whose weights are all 0 has a loss of 0.
        return float(self._rows @ (losses / np.where(weights == 0.0, 1.0, weights)))

    def _use(self, rate: LearningRate) -> None:
        """Take steps at this rate from now on."""
        current = self.rate(rate)
        if self._is_adam:
            self._rates[:] = current
            return
        self._rates[:] = current * self._objective.gradient_factor
        if (
            current == 0.0
        ):  # set by a callback: no step moves anything, whatever the momentum's scale
            return
        if rate.applied != current and "momentum" in self._state.slots:
            # In scikit-learn the momentum has the rate of each step's gradient in it; here the
            # rate comes after.
            self._state.slots["momentum"] *= rate.applied / current
        rate.applied = current
