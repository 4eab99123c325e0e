"""A single step on a batch that the caller has, prepared so that the next one begins at once."""

from __future__ import annotations

import numpy as np

from fastbackprop.data import TrainingData, refuse_values
from fastbackprop.division import call_threads, chunks_of, has_long_updates, is_long
from fastbackprop.optimizers import Optimizer
from fastbackprop.probe import point_at
from fastbackprop.spare import Spare
from fastbackprop.state import Former, State
from fastbackprop.stepping import (
    SUMS,
    DivergenceError,
    go_back,
    reserve_steps,
    take_steps,
    training_job,
)
from fastbackprop.team import run_together


class _Step:
    """A step on a batch, prepared for an optimizer, which can be taken again and again."""

    # It must not hold the state, which holds it: only the garbage collector would free them.
    def __init__(self, state: State, optimizer: Optimizer) -> None:
        self._optimizer, self._frozen = optimizer, state.frozen
        self._before = Spare(state.params)
        self._sums = {name: np.empty(1) for name in SUMS}
        self._rate = np.empty(1)
        self._room = (0, 0, 0, False)  # rows, threads, chunks and whether updates are long
        self.n_bytes = 0
        self._job = training_job(state, optimizer)
        self._job.point(rates=self._rate, **self._sums)
        self._job.set(first=0, last=1)

    def serves(self, state: State, optimizer: Optimizer) -> bool:
        """Whether steps of this optimizer are what it was prepared for."""
        return self._optimizer == optimizer and self._frozen == state.frozen

    def _reserve(self, state: State, n: int) -> None:
        """Make room for a step on ``n`` rows, unless there is."""
        plan = state.plan
        threads, chunks = call_threads(None, plan, n), chunks_of(plan, n)
        long = has_long_updates(plan, n)
        rows, *others = self._room
        if n > rows or others != [threads, chunks, long]:
            reserve_steps(self._job, state, self._optimizer, n, threads, by_inputs=0)
            self._room = n, threads, chunks, long
            self.n_bytes = self._job.n_bytes + state.params.nbytes

    def undo(self, state: State) -> None:
        """Put back the parameters from before the step."""
        go_back(state, self._before)

    def run(self, state: State, data: TrainingData, rate: float) -> float:
        """Take the step; returns the loss from before it."""
        self._before.keep()
        job, n = self._job, len(data.X)
        # The optimizer's arrays may be others since the last step.
        job.point(**state.slot_arrays())
        self._reserve(state, n)
        self._rate[0] = rate
        point_at(job, data)
        job.set(batch=n, seed=state.seed, steps_before=state.steps, epoch=-1 - state.steps)
        background = is_long(state.plan, n)
        take_steps(state, job, lambda: run_together(job, self._room[1], background=background))
        job.release()
        if job.met_bad_row:  # in which case the step has not changed anything
            refuse_values(data.X, state.plan.dtype)
        total = self._sums["step_weight"][0]
        return float(self._sums["step_loss"][0] / total) if total else 0.0


def step(state: State, data: TrainingData, optimizer: Optimizer) -> float:
    """One step on all rows as one batch; returns its loss from before the step."""
    rate = state.rates(optimizer, 1)[0]
    former = Former(state.optimizer, state.slots, state.steps, state.rate_factor)
    state.use(optimizer)
    prepared = state.idle.take(_Step)
    if prepared is None or not prepared.serves(state, optimizer):
        prepared = _Step(state, optimizer)
    try:
        loss = prepared.run(state, data, rate)
        if not (np.isfinite(loss) and state.is_finite):
            what = f"its loss was {loss}"
            if np.isfinite(loss):
                what = f"{state.first_not_finite()} became infinite or NaN"
            prepared.undo(state)
            raise DivergenceError(
                f"the step diverged: {what}. The parameters are as they were. Try a smaller "
                "learning_rate, clip_norm in the optimizer, or inputs scaled to about 1."
            )
    except DivergenceError:
        raise
    except Exception:  # before which the step has not changed anything
        state.restore(former)
        raise
    except BaseException:
        if not state.is_finite:
            prepared.undo(state)
        raise
    state.idle.keep(_Step, prepared, prepared.n_bytes)
    return loss
