"""Everything that leaves the parameters as they are: outputs, losses and gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels.records import LINEAR, SCORE_NONE
from fastbackprop._kernels.run import BLOCK_ROWS
from fastbackprop.data import (
    CompressedRows,
    Targets,
    TrainingData,
    input_fields,
    refuse_values,
)
from fastbackprop.division import call_threads, is_long, short_rows
from fastbackprop.job import Job, compile_kernels
from fastbackprop.plan import Array
from fastbackprop.probe import Probe, point_at
from fastbackprop.state import State
from fastbackprop.team import run_together

# Rows of so many bytes are copied for a call; to have the kernel read them in place takes longer.
_STAGED_BYTES = 64 * 1024

_NO_TARGETS = Targets(None, None, SCORE_NONE)


class Sums(NamedTuple):
    """Sums over rows, each times its weight."""

    loss: float
    score: float | None  # of rows classified rightly, where there are classes
    weight: float


class Gradients(NamedTuple):
    """The loss of a batch and its gradients."""

    loss: float
    parameters: Array  # flat and padded
    inputs: Array | None  # (n, n_in)


class _OverRows:
    """A pass over rows, for their outputs or for their losses and scores, block by block."""

    def __init__(self, state: State, threads: int) -> None:
        self._threads = threads
        self._job = Job(state.plan, state.params)
        self._job.reserve(state.plan, BLOCK_ROWS, threads, shared=False)
        self._job.set(evaluates=1, first=0)
        self.n_bytes = self._job.n_bytes

    def run(self, data: TrainingData, background: bool, results: dict[str, Array | None]) -> None:
        """Fill the arrays named in ``results``."""
        job = self._job
        point_at(job, data)
        job.point(**results)
        job.set(last=len(data.X))
        run_together(job, self._threads, background=background)
        job.release()
        job.point(**dict.fromkeys(results))
        if job.met_bad_row:
            refuse_values(data.X, job.dtype)


def _run_over_rows(
    state: State, data: TrainingData, threads: int | None, **results: Array | None
) -> None:
    """Evaluate all rows, with a prepared call where there is one."""
    n = len(data.X)
    # A row forward is a third of the work of one in a training step, by which threads are chosen.
    count = min(call_threads(threads, state.plan, -(-n // 3)), -(-n // BLOCK_ROWS))
    call = state.idle.take((_OverRows, count)) or _OverRows(state, count)
    call.run(data, is_long(state.plan, n), results)
    state.idle.keep((_OverRows, count), call, call.n_bytes)


class _FewRows:
    """The outputs of a few rows: a call with nothing left to prepare but the rows themselves."""

    def __init__(self, state: State, element: np.dtype[Any]) -> None:
        plan = state.plan
        self.most_rows = min(
            BLOCK_ROWS, _STAGED_BYTES // (plan.n_in * element.itemsize), short_rows(plan)
        )
        self._x = np.zeros((self.most_rows, plan.n_in), element)
        self._outputs = np.zeros((self.most_rows, plan.n_out), plan.dtype)
        self._job = Job(plan, state.params)
        self._job.point(x=self._x, outputs=self._outputs)
        self._job.set(evaluates=1, **input_fields(self._x))
        self._job.reserve(plan, self.most_rows, 1, shared=False)
        self.n_bytes = self._job.n_bytes
        self._take(self.most_rows)
        self._job.begin()  # once, since a call that ends by an error is not used again
        compile_kernels(plan.dtype)

    def _take(self, n: int) -> None:
        """Expect ``n`` rows from now on."""
        self._rows, self._results = self._x[:n], self._outputs[:n]
        self._job.set(n=n, last=n)

    def __call__(self, X: Array) -> Array:
        if len(X) != len(self._rows):
            self._take(len(X))
        self._rows[...] = X
        self._job.run(0)
        if self._job.met_bad_row:
            refuse_values(X, self._job.dtype)
        return np.array(self._results)


def outputs(state: State, X: Array | CompressedRows, threads: int | None = None) -> Array:
    """The network's outputs, (n, n_out)."""
    if isinstance(X, np.ndarray) and X.nbytes <= _STAGED_BYTES:
        call = state.idle.take(X.dtype) or _FewRows(state, X.dtype)
        result = call(X) if len(X) <= call.most_rows else None
        state.idle.keep(X.dtype, call, call.n_bytes)
        if result is not None:
            return result
    result = np.empty((len(X), state.plan.n_out), state.plan.dtype)
    _run_over_rows(state, TrainingData(X, _NO_TARGETS, None), threads, outputs=result)
    return result


def sums(state: State, data: TrainingData, threads: int | None = None) -> Sums:
    """What rows add to the mean loss, and to the fraction classified rightly."""
    X, targets, weights = data
    row_loss, row_score = np.empty(len(X)), np.empty(len(X))
    _run_over_rows(state, data, threads, row_loss=row_loss, row_score=row_score)
    weight = float(len(X) if weights is None else weights.sum())
    score = None if targets.score == SCORE_NONE else float(row_score.sum())
    return Sums(float(row_loss.sum()), score, weight)


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
    kind = (Probe, inputs, threads, loss)
    probe = state.idle.take(kind)
    if probe is None:
        probe = Probe(state, data, inputs=inputs, threads=threads, loss=loss)
    else:
        probe.load(data)
    mean = probe.differentiate()
    dx = probe.input_gradients if inputs else None
    result = Gradients(mean, probe.parameter_gradients.copy(), dx)
    probe.release()
    state.idle.keep(kind, probe, probe.n_bytes)
    return result


def jacobian(state: State, x: Array) -> Array:
    """∂ outputs / ∂ inputs of one sample, (n_out, n_in): a batch of one row for each output."""
    n_out = state.plan.n_out
    rows = np.broadcast_to(x, (n_out, x.size))
    each_output = Targets(None, np.eye(n_out, dtype=state.plan.dtype), SCORE_NONE)
    # The batch's mean divides by its rows; the weights of each row make that a factor of 1.
    result = gradients(state, TrainingData(rows, each_output, None), inputs=True, loss=LINEAR)
    dx: Any = result.inputs
    return dx * n_out
