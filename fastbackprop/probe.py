"""One batch held in a workspace: its losses, activations and gradients, as often as asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbackprop._kernels import codes
from fastbackprop.data import TrainingData, input_arrays, input_fields, refuse_values
from fastbackprop.division import call_threads, is_long
from fastbackprop.job import Job
from fastbackprop.plan import Array, aligned_zeros
from fastbackprop.state import State
from fastbackprop.team import run_together


class StageValues(NamedTuple):
    """What one Dense layer made of the batch; views that the next call overwrites."""

    x: Array  # (n, n_in)
    z: Array  # (n, n_out), the pre-activation; ``a`` again where the derivative needs only that
    a: Array  # (n, n_out); the logits, where the output activation is fused into the loss
    dz: Array  # (n, n_out), the gradient of the mean loss with respect to the pre-activation


def data_job(state: State, data: TrainingData) -> Job:
    """A job on the network's parameters and this data."""
    job = Job(state.plan, state.params)
    job.set(seed=state.seed)
    point_at(job, data)
    return job


def point_at(job: Job, data: TrainingData) -> None:
    """Let a job read this data."""
    X, targets, weights = data
    job.point(labels=targets.labels, targets=targets.values, weights=weights, **input_arrays(X))
    job.set(score=targets.score, **input_fields(X))


class Probe:
    """A batch that can be taken through the network again and again, as its parameters change.

    `load` puts another batch in its place.

    Parameters
    ----------
    state : State
        The network; its parameters are read in place.
    data : TrainingData
        All its rows are one batch.
    inputs : bool
        Whether the gradient of the inputs is wanted, too.
    loss : int, optional
        Another of the kernels' losses instead of the network's.
    dropout_epoch : int, optional
        Dropout is as in step 0 of this epoch; without it there is none.
    threads : int, optional
        Chosen by the work unless given.

    Attributes
    ----------
    row_losses : ndarray, (n,)
        The loss of each row times its weight, from the last call.
    parameter_gradients : ndarray
        Flat and padded, from the last `differentiate`.
    n_bytes : int
        Memory that it keeps besides the network's parameters.
    """

    def __init__(
        self,
        state: State,
        data: TrainingData,
        *,
        inputs: bool = False,
        loss: int | None = None,
        dropout_epoch: int | None = None,
        threads: int | None = None,
    ) -> None:
        self._plan, self._wants_inputs, self._requested = state.plan, inputs, threads
        self._job = Job(state.plan, state.params)
        self._sums = {name: np.zeros(1) for name in ("step_loss", "step_score", "step_weight")}
        self.parameter_gradients = state.plan.zeros()
        self._job.point(gradients=self.parameter_gradients, rates=np.zeros(1), **self._sums)
        self._job.set(first=0, last=1, seed=state.seed)
        if loss is not None:
            self._job.set(loss=loss)
        if dropout_epoch is not None:
            self._job.set(training=1, epoch=dropout_epoch)
        self._X: Any = None
        self._rows = self._threads = 0
        self.load(data)

    def load(self, data: TrainingData) -> None:
        """Take another batch from now on."""
        self._X, self._n = data.X, len(data.X)
        threads = call_threads(self._requested, self._plan, self._n)
        if self._n > self._rows or threads != self._threads:
            self._reserve(self._n, threads)
        point_at(self._job, data)
        self._job.set(batch=self._n)
        self.row_losses = self._row_losses[: self._n]

    def _reserve(self, rows: int, threads: int) -> None:
        """Make room for so many rows."""
        self._rows, self._threads = rows, threads
        self._job.reserve(self._plan, rows, threads, shared=True)
        self._row_losses = np.zeros(rows)
        self._job.point(row_loss=self._row_losses, row_score=np.empty(rows))
        if self._wants_inputs:
            stride = self._job.input_stride
            memory = aligned_zeros(rows * stride, self._plan.dtype)
            self._input_gradients = memory.reshape(rows, stride)
            self._job.point(input_gradients=self._input_gradients)
        self.n_bytes = self._job.n_bytes

    def release(self) -> None:
        """Let go of the batch; `load` another before the next call."""
        self._X = None
        self._job.release()

    def measure(self) -> float:
        """The mean loss of the batch."""
        return self._run(codes.NONE)

    def differentiate(self) -> float:
        """The mean loss of the batch; its gradients are then in the attributes."""
        return self._run(codes.STORE)

    @property
    def input_gradients(self) -> Array:
        """The gradient of the mean loss with respect to X, (n, n_in), from `differentiate`."""
        # The kernel differentiates with respect to the rescaled input.
        scale = self._plan.dtype.type(self._plan.rescaling.scale)
        return self._input_gradients[: self._n, : self._plan.n_in] * scale

    def stages(self) -> list[StageValues]:
        """What each Dense layer made of the batch in the last call."""
        return [StageValues(*views) for views in self._job.stage_views(self._plan, self._n)]

    def _run(self, update: int) -> float:
        self._job.set(update=update)
        background = is_long(self._plan, self._n)
        run_together(self._job, self._threads, background=background)
        if self._job.met_bad_row:
            refuse_values(self._X, self._plan.dtype)
        total = self._sums["step_weight"][0]
        return float(self._sums["step_loss"][0] / total) if total else 0.0
