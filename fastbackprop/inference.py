"""Everything that leaves the parameters as they are: outputs, losses and gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels import codes
from fastbackprop._kernels.passes import EVALUATION_ROWS
from fastbackprop._kernels.records import LINEAR, SCORE_NONE
from fastbackprop.data import Targets, input_fields, refuse_values
from fastbackprop.execution import EVALUATE, TRAIN, Job, Team, call_threads
from fastbackprop.plan import Array, aligned_zeros
from fastbackprop.state import State

# Work of a call that must not keep Ctrl-C waiting: a tenth of a second at a modest rate.
_BACKGROUND_FLOPS = 2_000_000_000


class Means(NamedTuple):
    """Loss and score over a data set."""

    loss: float
    score: float | None


class Gradients(NamedTuple):
    """The loss of a batch and its gradients."""

    loss: float
    parameters: Array  # flat and padded
    inputs: Array | None  # (n, n_in)


def _run_over_rows(job: Job, state: State, X: Array, threads: int | None) -> None:
    """Run an evaluation job over all rows of X."""
    n = len(X)
    flops = state.plan.flops(n)
    blocks = -(-n // EVALUATION_ROWS)
    count = min(call_threads(threads, state.plan, n), blocks)
    job.reserve(state.plan, min(n, EVALUATION_ROWS), count, shared=False)
    job.set(first=0, last=n)
    with Team(count, background=flops > _BACKGROUND_FLOPS) as team:
        team.run(EVALUATE, job)
    if job.met_bad_row:
        refuse_values(X, state.plan.dtype)


def outputs(state: State, X: Array, threads: int | None = None) -> Array:
    """The network's outputs, (n, n_out)."""
    result = np.empty((len(X), state.plan.n_out), state.plan.dtype)
    job = Job(state.plan, state.params)
    job.point(x=X, outputs=result)
    job.set(**input_fields(X))
    _run_over_rows(job, state, X, threads)
    return result


def means(
    state: State, X: Array, targets: Targets, weights: Array | None, threads: int | None = None
) -> Means:
    """The weighted mean loss, and the fraction classified rightly where there are classes."""
    job = data_job(state, X, targets, weights)
    row_loss, row_score = np.empty(len(X)), np.empty(len(X))
    job.point(row_loss=row_loss, row_score=row_score)
    _run_over_rows(job, state, X, threads)
    total = len(X) if weights is None else weights.sum()
    score = None if targets.score == SCORE_NONE else float(row_score.sum() / total)
    return Means(float(row_loss.sum() / total), score)


def data_job(state: State, X: Array, targets: Targets, weights: Array | None) -> Job:
    """A job on the network's parameters and this data."""
    job = Job(state.plan, state.params)
    job.point(x=X, labels=targets.labels, targets=targets.values, weights=weights)
    job.set(score=targets.score, seed=state.seed, **input_fields(X))
    return job


def gradients(
    state: State,
    X: Array,
    targets: Targets,
    weights: Array | None,
    *,
    inputs: bool = False,
    threads: int | None = None,
    loss: int | None = None,
) -> Gradients:
    """The loss of all rows as one batch, without dropout, and its gradients.

    ``loss`` replaces the network's loss by another of the kernels' codes.
    """
    plan, n = state.plan, len(X)
    job = data_job(state, X, targets, weights)
    flat = plan.zeros()
    sums = {name: np.empty(1) for name in ("step_loss", "step_score", "step_weight")}
    job.point(
        gradients=flat, rates=np.zeros(1), row_loss=np.empty(n), row_score=np.empty(n), **sums
    )
    count = call_threads(threads, plan, n)
    job.reserve(plan, n, count, shared=True)
    job.set(batch=n, first=0, last=1, update=codes.STORE)
    if loss is not None:
        job.set(loss=loss)
    padded = None
    if inputs:
        padded = aligned_zeros(n * job.input_stride, plan.dtype).reshape(n, job.input_stride)
        job.point(input_gradients=padded)
    with Team(count, background=plan.flops(n) > _BACKGROUND_FLOPS) as team:
        team.run(TRAIN, job)
    if job.met_bad_row:
        refuse_values(X, plan.dtype)
    total = sums["step_weight"][0]
    mean = float(sums["step_loss"][0] / total) if total else 0.0
    # The kernel differentiates with respect to the rescaled input.
    dx = None if padded is None else padded[:, : plan.n_in] * plan.dtype.type(plan.rescaling.scale)
    return Gradients(mean, flat, dx)


def jacobian(state: State, x: Array) -> Array:
    """∂ outputs / ∂ inputs of one sample, (n_out, n_in): a batch of one row for each output."""
    n_out = state.plan.n_out
    rows = np.broadcast_to(x, (n_out, x.size))
    each_output = Targets(None, np.eye(n_out, dtype=state.plan.dtype), SCORE_NONE)
    # The batch's mean divides by its rows; the weights of each row make that a factor of 1.
    result = gradients(state, rows, each_output, None, inputs=True, loss=LINEAR)
    dx: Any = result.inputs
    return dx * n_out
