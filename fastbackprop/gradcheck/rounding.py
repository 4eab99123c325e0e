"""How far rounding can take the outputs, the loss and the gradient of a network from the exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastbackprop.activations import Activation
from fastbackprop.data import Targets
from fastbackprop.gradcheck.differences import EPS
from fastbackprop.losses import Loss
from fastbackprop.plan import Array, Plan
from fastbackprop.probe import StageValues
from fastbackprop.state import State

# A sum of n products is off by at most n·ε/2 times the sum of their sizes, and hardly ever by more
# than √n of it; the values themselves, an exponential or a division by a few units in the last
# place.
_ULPS = 4.0

# No activation but elu and leaky_relu of a large alpha is steeper; gelu has 1.13, silu 1.10.
_STEEPEST = 1.13


def output_errors(state: State, stages: Sequence[StageValues]) -> Array:
    """Bounds on the rounding of each output, (n, n_out); of a fused loss, of each logit."""
    plan = state.plan
    x_error = EPS * np.abs(stages[0].x)
    matrices = plan.matrices(state.params)
    for stage, values, matrix in zip(plan.stages, stages, matrices, strict=True):
        n_in = stage.dense.n_in
        w = np.abs(matrix[:n_in])
        sums = np.abs(values.x) @ w
        if stage.dense.bias:
            sums = sums + np.abs(matrix[n_in])
        z_error = _ULPS * EPS * sums + x_error @ w
        fused = values is stages[-1] and plan.loss.fused
        a_error = z_error if fused else _activated(stage.activation, values.a, z_error)
        x_error = a_error / (1.0 - stage.dropout)
    return a_error


def _activated(activation: Activation, a: Array, z_error: Array) -> Array:
    """The errors of a = f(z), to first order."""
    slope: Array | float
    match activation.name:
        case "tanh":
            slope = 1.0 - a * a
        case "sigmoid":
            slope = a * (1.0 - a)
        case "softmax":
            return a * (z_error + (a * z_error).sum(axis=1, keepdims=True) + _ULPS * EPS)
        case "exp":
            slope = a
        case "relu":
            slope = np.where(a > 0.0, 1.0, 0.0)
        case "leaky_relu" | "elu":
            slope = max(1.0, activation.alpha or 0.0)
        case _:
            slope = _STEEPEST
    return slope * z_error + _ULPS * EPS * np.abs(a)


def loss_rounding(
    loss: Loss, outputs: Array, targets: Array, errors: Array, shares: Array
) -> float:
    """A bound on the rounding of the mean loss, to first order in the errors of the outputs.

    Parameters
    ----------
    loss : Loss
        Which one.
    outputs, targets, errors : ndarray, (n, n_out)
        The outputs, or logits of a fused loss, and the errors from `output_errors`.
    shares : ndarray, (n,)
        Of each row in the mean.
    """
    ulps = _ULPS * EPS
    if loss.name == "cross_entropy":
        below = outputs - outputs.max(axis=1, keepdims=True)
        p = np.exp(below)
        p /= p.sum(axis=1, keepdims=True)
        mass = targets.sum(axis=1)
        # The logarithm is that of a sum of at least 1, and at most n_out.
        own = ulps * (mass * (1.0 + np.log(outputs.shape[1])) + (targets * -below).sum(axis=1))
        slopes = np.abs(p * mass[:, None] - targets)
    elif loss.name == "binary_cross_entropy":
        p = 1.0 / (1.0 + np.exp(-np.clip(outputs, -700.0, 700.0)))
        softplus = np.maximum(outputs, 0.0) + np.log1p(np.exp(-np.abs(outputs)))
        own = ulps * (softplus + np.abs(outputs * targets)).sum(axis=1)
        slopes = np.abs(p - targets)
    elif loss.name == "poisson":
        means = np.exp(outputs)
        logarithms = np.log(np.where(targets > 0.0, targets, 1.0))
        own = ulps * (means + targets * (np.abs(logarithms - outputs) + 1.0)).sum(axis=1)
        slopes = np.abs(means - targets)
    else:
        # The difference is rounded as outputs are: to within their errors it is another.
        size = np.abs(outputs - targets) + errors
        slopes = {
            "mae": np.ones_like(size),
            "quantile": np.full_like(size, max(loss.quantile, 1.0 - loss.quantile)),
            "huber": np.minimum(size, loss.delta),
            "mse": 2.0 * size,
            "quadratic": size,
        }[loss.name]
        own = ulps * (slopes * size).sum(axis=1)
    rows = own + (slopes * errors).sum(axis=1)
    return float((shares * mean_factor(loss, outputs.shape[1]) * rows).sum())


def mean_factor(loss: Loss, n_out: int) -> float:
    """What the loss of a row multiplies the sum over its outputs by."""
    return 1.0 if loss.name in ("quadratic", "cross_entropy") else 1.0 / n_out


def output_sizes(loss: Loss, outputs: Array, targets: Array, shares: Array) -> Array:
    """How large a and y are in the gradient a - y of each output; probabilities count as 1."""
    sizes = np.abs(outputs)
    if loss.name == "poisson":  # what is there are the logits
        sizes = np.exp(outputs)
    elif loss.fused:
        sizes = np.ones_like(targets)
    return shares[:, None] * (sizes + np.abs(targets))


def propagated(
    state: State, stages: Sequence[StageValues], sizes: Array, eps: float = 0.0, tiny: float = 0.0
) -> tuple[Array, Array]:
    """Sizes of the gradient of the outputs taken back to the parameters and to the inputs.

    Parameters
    ----------
    state : State
        The network.
    stages : sequence of StageValues
        Of a backward pass.
    sizes : ndarray, (n, n_out)
        What to begin with.
    eps, tiny : float
        What each layer adds: that share of its own gradient, and as much as underflow takes.

    Returns
    -------
    tuple of ndarray
        For the parameters, flat and padded; and for the inputs, (n, n_in).
    """
    plan: Plan = state.plan
    result = plan.zeros()
    triples = list(
        zip(plan.stages, plan.weights(state.params), plan.matrices(result), stages, strict=True)
    )
    for stage, w, rows, values in reversed(triples):
        added = eps * np.abs(values.dz) + tiny if eps else 0.0
        sizes = sizes + added
        x = np.abs(values.x)
        rows[: stage.dense.n_in] = x.T @ sizes + len(x) * tiny
        rows[stage.dense.n_in :] = sizes.sum(axis=0)
        sizes = (sizes + added) @ np.abs(w).T / (1.0 - stage.dropout)
    return result, sizes


def target_values(targets: Targets, n_out: int) -> Array:
    """The targets as numbers, (n, n_out), of labels, too."""
    return np.eye(n_out)[targets.labels] if targets.values is None else targets.values
