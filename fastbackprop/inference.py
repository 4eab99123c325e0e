"""Everything that leaves the parameters as they are: outputs, losses and gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels.passes import EVALUATION_ROWS
from fastbackprop._kernels.records import LINEAR, SCORE_NONE
from fastbackprop.data import Targets, TrainingData, input_fields, refuse_values
from fastbackprop.execution import Job, Team, call_threads
from fastbackprop.plan import Array
from fastbackprop.probe import BACKGROUND_FLOPS, Probe, data_job
from fastbackprop.state import State


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
    job.set(evaluates=1, first=0, last=n)
    with Team(count, background=flops > BACKGROUND_FLOPS) as team:
        team.run(job)
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


def means(state: State, data: TrainingData, threads: int | None = None) -> Means:
    """The weighted mean loss, and the fraction classified rightly where there are classes."""
    X, targets, weights = data
    job = data_job(state, data)
    row_loss, row_score = np.empty(len(X)), np.empty(len(X))
    job.point(row_loss=row_loss, row_score=row_score)
    _run_over_rows(job, state, X, threads)
    total = len(X) if weights is None else weights.sum()
    score = None if targets.score == SCORE_NONE else float(row_score.sum() / total)
    return Means(float(row_loss.sum() / total), score)


def gradients(
    state: State,
    data: TrainingData,
    *,
    inputs: bool = False,
    threads: int | None = None,
    loss: int | None = None,
) -> Gradients:
    """The loss of all rows as one batch, without dropout, and its gradients.

    ``loss`` replaces the network's loss by another of the kernels' codes.
    """
    probe = Probe(state, data, inputs=inputs, threads=threads, loss=loss)
    mean = probe.differentiate()
    dx = probe.input_gradients if inputs else None
    return Gradients(mean, probe.parameter_gradients, dx)


def jacobian(state: State, x: Array) -> Array:
    """∂ outputs / ∂ inputs of one sample, (n_out, n_in): a batch of one row for each output."""
    n_out = state.plan.n_out
    rows = np.broadcast_to(x, (n_out, x.size))
    each_output = Targets(None, np.eye(n_out, dtype=state.plan.dtype), SCORE_NONE)
    # The batch's mean divides by its rows; the weights of each row make that a factor of 1.
    result = gradients(state, TrainingData(rows, each_output, None), inputs=True, loss=LINEAR)
    dx: Any = result.inputs
    return dx * n_out
