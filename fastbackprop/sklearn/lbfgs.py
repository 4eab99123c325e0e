"""L-BFGS: SciPy's minimizer on compiled losses and gradients of all the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastbackprop._kernels import codes
from fastbackprop.data import TrainingData, refuse_values
from fastbackprop.division import epoch_threads, is_long, layers_by_inputs
from fastbackprop.plan import Array
from fastbackprop.probe import data_job
from fastbackprop.sklearn.objective import Objective
from fastbackprop.state import State
from fastbackprop.team import Team

# Rows that are taken through the network and back at a time: enough that starting and ending is
# nothing to the work, few enough that their activations stay in the cache.
_BLOCK_ROWS = 1024


class FullGradient:
    """Loss and gradient of all the data with the penalty. A context manager, for its threads.

    Parameters
    ----------
    state : State
        The network, whose parameters each call replaces.
    data : TrainingData
        What to learn from.
    objective : Objective
        Its loss is the state's.
    threads : int, optional
        Chosen by the work of a block of rows unless given.
    """

    def __init__(
        self, state: State, data: TrainingData, objective: Objective, threads: int | None
    ) -> None:
        plan, n = state.plan, len(data.X)
        self.state, self._objective, self._X = state, objective, data.X
        rows = min(n, _BLOCK_ROWS)
        self._blocks = -(-n // rows)
        count = epoch_threads(threads, plan, rows, rows)
        self._losses, self._weights = np.zeros(self._blocks), np.zeros(self._blocks)
        self._gradients = plan.zeros()
        job = data_job(state, data)
        job.reserve(plan, rows, count, shared=True)
        job.point(
            gradients=self._gradients,
            rates=np.zeros(self._blocks),
            row_loss=np.empty(rows),
            row_score=np.empty(rows),
            step_loss=self._losses,
            step_score=np.empty(self._blocks),
            step_weight=self._weights,
        )
        by_inputs = layers_by_inputs(plan, rows, count)
        job.set(batch=rows, update=codes.STORE, by_inputs=by_inputs)
        self._job = job
        self._team = Team(count, background=is_long(plan, n))
        self._penalized = np.zeros(plan.size)  # 1 where there is a weight, not a bias or padding
        for weights in plan.weights(self._penalized):
            weights[...] = 1.0

    def __enter__(self) -> FullGradient:
        self._team.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(None, None, None)

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """The loss at the parameters ``theta``, packed as by `Plan.pack`, and its gradient."""
        plan, params = self.state.plan, self.state.params
        factor, alpha = self._objective.gradient_factor, self._objective.alpha
        plan.unpack(theta, params)
        gradient = np.zeros(plan.size)
        for block in range(self._blocks):
            self._job.set(first=block, last=block + 1)
            self._team.run(self._job)
            if self._job.met_bad_row:
                refuse_values(self._X, plan.dtype)
            gradient += self._gradients * self._weights[block]
        total = self._weights.sum()
        gradient *= factor / total
        decay = self._penalized * params * (alpha / total)
        loss = factor * self._losses.sum() / total + 0.5 * (decay @ params)
        return float(loss), plan.pack(gradient + decay)

    def reported_loss(self) -> float:
        """The loss of the last call, as scikit-learn counts it."""
        total, params = self._weights.sum(), self.state.params
        squares = self._penalized @ np.square(params, dtype=np.float64)
        loss = self._objective.report_factor * self._losses.sum()
        return float((loss + 0.5 * self._objective.alpha * squares) / total)


def minimize(
    gradient: FullGradient, *, max_fun: int, max_iter: int, tol: float, verbose: bool
) -> Any:
    """Minimize from the state's own parameters; returns SciPy's OptimizeResult.

    The state has the parameters of its ``x`` then.
    """
    from scipy.optimize import minimize as scipy_minimize

    state = gradient.state
    result = scipy_minimize(
        gradient,
        state.plan.pack(state.params).astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
        callback=_printer() if verbose else None,
    )
    gradient(result.x)
    return result


def _printer() -> Callable[[Any], None]:
    """A callback that prints a line for each iteration."""
    count = 0

    def show(intermediate_result: Any) -> None:
        nonlocal count
        count += 1
        print(f"Iteration {count}, loss = {intermediate_result.fun:.8f}")

    return show
