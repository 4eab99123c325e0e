"""Steps of training: the job that takes them, and the way back where they diverge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastbackprop.job import Job
from fastbackprop.optimizers import Optimizer
from fastbackprop.spare import Spare
from fastbackprop.state import Former, State

SUMS = ("step_loss", "step_score", "step_weight")
"""What a job adds up over the rows of each step."""


class DivergenceError(ArithmeticError):
    """Training produced a loss or a parameter that is not finite.

    The network has the parameters of the end of the last good epoch, and no optimizer state.
    """


def training_job(state: State, optimizer: Optimizer) -> Job:
    """A job that takes steps of ``optimizer``, on data that it has yet to be given."""
    job = Job(state.plan, state.params)
    job.point(**state.slot_arrays())
    job.set(seed=state.seed, training=1, update=optimizer.code, **optimizer.hyperparameters())
    return job


def reserve_steps(
    job: Job, state: State, optimizer: Optimizer, rows: int, threads: int, by_inputs: int
) -> None:
    """Make room in a job for steps of a team on so many rows."""
    job.reserve_for_training(
        state.plan,
        rows,
        threads,
        clips=optimizer.clip_norm is not None,
        by_inputs=by_inputs,
        frozen=state.frozen,
    )
    job.point(row_loss=np.empty(rows), row_score=np.empty(rows))


def take_steps(state: State, job: Job, run: Callable[[], None]) -> None:
    """Run a job, and count the steps that were done, whatever ends it."""
    steps_before = state.steps
    job.begin()  # forgets the last count, in case that an exception comes before ``run`` begins
    try:
        try:
            run()
        finally:
            state.steps = steps_before + job.steps_done
    finally:  # Ctrl-C may have come in place of the line above
        state.steps = steps_before + job.steps_done


def go_back(state: State, parameters: Spare, former: Former | None = None) -> None:
    """Put back parameters and the optimizer's state, which without ``former`` is dropped."""

    def put_back() -> None:
        state.restore(former)
        parameters.put_back()

    try:
        put_back()
    except BaseException:  # Ctrl-C must not leave a half of it
        put_back()
        raise
