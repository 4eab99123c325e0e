"""One batch held in a workspace: its losses, activations and gradients, as often as asked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastbackprop._kernels import codes
from fastbackprop.data import TrainingData, input_arrays, input_fields, refuse_values
from fastbackprop.division import call_threads
from fastbackprop.job import Job
from fastbackprop.plan import Array, aligned_zeros
from fastbackprop.state import State
from fastbackprop.team import Team

# Work of a call that must not keep Ctrl-C waiting: a tenth of a second at a modest rate.
BACKGROUND_FLOPS = 2_000_000_000


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
        plan, n = state.plan, len(data.X)
        self._plan, self._data = plan, data
        self._job = data_job(state, data)
        self._threads = call_threads(threads, plan, n)
        self._sums = {name: np.zeros(1) for name in ("step_loss", "step_score", "step_weight")}
        self.row_losses = np.zeros(n)
        self.parameter_gradients = plan.zeros()
        self._job.point(
            gradients=self.parameter_gradients,
            rates=np.zeros(1),
            row_loss=self.row_losses,
            row_score=np.empty(n),
            **self._sums,
        )
        self._job.reserve(plan, n, self._threads, shared=True)
        self._job.set(batch=n, first=0, last=1)
        if loss is not None:
            self._job.set(loss=loss)
        if dropout_epoch is not None:
            self._job.set(training=1, epoch=dropout_epoch)
        self._input_gradients: Array | None = None
        if inputs:
            stride = self._job.input_stride
            self._input_gradients = aligned_zeros(n * stride, plan.dtype).reshape(n, stride)
            self._job.point(input_gradients=self._input_gradients)

    def measure(self) -> float:
        """The mean loss of the batch."""
        return self._run(codes.NONE)

    def differentiate(self) -> float:
        """The mean loss of the batch; its gradients are then in the attributes."""
        return self._run(codes.STORE)

    @property
    def input_gradients(self) -> Array:
        """The gradient of the mean loss with respect to X, (n, n_in), from `differentiate`."""
        assert self._input_gradients is not None
        # The kernel differentiates with respect to the rescaled input.
        scale = self._plan.dtype.type(self._plan.rescaling.scale)
        return self._input_gradients[:, : self._plan.n_in] * scale

    def stages(self) -> list[StageValues]:
        """What each Dense layer made of the batch in the last call."""
        return [
            StageValues(*views) for views in self._job.stage_views(self._plan, len(self._data.X))
        ]

    def _run(self, update: int) -> float:
        self._job.set(update=update)
        background = self._plan.flops(len(self._data.X)) > BACKGROUND_FLOPS
        with Team(self._threads, background=background) as team:
            team.run(self._job)
        if self._job.met_bad_row:
            refuse_values(self._data.X, self._plan.dtype)
        total = self._sums["step_weight"][0]
        return float(self._sums["step_loss"][0] / total) if total else 0.0
