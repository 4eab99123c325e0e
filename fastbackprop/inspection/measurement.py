"""The passes over the data that measure what each layer does with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastbackprop import inference
from fastbackprop.inspection.report import Diagnostics, LayerDiagnostics
from fastbackprop.network import Network
from fastbackprop.plan import Array, Stage
from fastbackprop.probe import Probe

# Rows in the workspace at a time.
_BLOCK_ROWS = 2048

# Outputs below the first or above the second count as saturated: within 1 % of a limit.
_SATURATED = {"sigmoid": (0.01, 0.99), "tanh": (-0.99, 0.99)}


def diagnostics(net: Network, X: Any, y: Any, *, sample_weight: Any = None) -> Diagnostics:
    """Measure the activations and the gradients of each layer, without dropout.

    The gradients are those of the mean loss over all rows. The work is done in blocks of rows, so
    only one block's activations are in memory at a time.

    Parameters
    ----------
    net : Network
        It stays as it is.
    X : array_like, (n, n_in)
        As in `Network.fit`.
    y : array_like, (n,) or (n, n_out)
        As in `Network.fit`.
    sample_weight : array_like, (n,), optional
        As in `Network.fit`: in everything measured, weight 0 leaves a row out, and 2 counts it
        twice.

    Returns
    -------
    Diagnostics

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural
    networks", sections 3 and 4: activations and gradients by layer.

    Examples
    --------
    Gradients vanish in a stack of sigmoid layers:

    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> net = fb.Network([8] * 9, "sigmoid", "mse", random_state=0)
    >>> X = np.random.default_rng(0).standard_normal((100, 8))
    >>> report = fb.diagnostics(net, X, X)
    >>> report.layers[0].preactivation_gradient_rms < 1e-4
    True
    >>> print(*report.findings)
    Gradients shrink by 3e-05 from the last layer to the first: vanishing; try relu, ...
    """
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbackprop.Network, got {net!r}")
    data = net._data(X, y, sample_weight, values=True)
    state, plan = net._state, net._state.plan
    n = len(data.X)
    shares = np.full(n, 1 / n) if data.weights is None else data.weights / data.weights.sum()
    limits = [_SATURATED.get(stage.activation.name) for stage in plan.stages]
    if plan.loss.fused:
        limits[-1] = None
    measures = [_LayerMeasure(*pair) for pair in zip(plan.stages, limits, strict=True)]
    gradient, loss = np.zeros(plan.size), 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes a finding
        for start in range(0, n, _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block, share = data.rows(rows), shares[rows]
            probe = Probe(state, block)
            part = float(share.sum())
            loss += part * probe.differentiate()
            gradient += part * probe.parameter_gradients
            stages = probe.stages()
            if plan.loss.fused:  # what is there are the logits
                stages[-1] = stages[-1]._replace(a=inference.outputs(state, block.X))
            for measure, values in zip(measures, stages, strict=True):
                measure.add(share, values.a, values.dz)
        parameters = zip(
            plan.weights(state.params), plan.weights(gradient), plan.biases(gradient), strict=True
        )
        layers = tuple(
            measure.result(f"layers.{i}", *arrays)
            for i, (measure, arrays) in enumerate(zip(measures, parameters, strict=True))
        )
    return Diagnostics(layers, loss, n)


class _LayerMeasure:
    """Sums over the blocks of rows seen so far, for one layer.

    Parameters
    ----------
    stage : Stage
        The layer.
    limits : (float, float) or None
        Between which an output is not saturated.
    """

    def __init__(self, stage: Stage, limits: tuple[float, float] | None) -> None:
        self._stage, self._limits = stage, limits
        name, alpha = stage.activation.name, stage.activation.alpha
        self._may_die = name == "relu" or alpha == 0.0
        self._alive = np.zeros(stage.dense.n_out, np.bool_)
        self._share = self._mean = self._squares = 0.0
        self._saturated = self._dz_squares = 0.0

    def add(self, share: Array, a: Array, dz: Array) -> None:
        """Take in a block.

        Parameters
        ----------
        share : ndarray, (n,)
            Of each row in the mean over all rows, in all blocks.
        a : ndarray, (n, n_out)
            The outputs.
        dz : ndarray, (n, n_out)
            The gradient of the block's mean loss with respect to the pre-activations.
        """
        counted = share > 0.0
        share, a, dz = share[counted], a[counted].astype(np.float64), dz[counted].astype(np.float64)
        if not len(share):
            return
        self._alive |= a.any(axis=0)
        block = float(share.sum())
        if self._limits is not None:
            low, high = self._limits
            self._saturated += float(share @ ((a < low) | (a > high)).mean(axis=1))
        # Each row of dz carries its share of the block; without it, it is the row's own gradient.
        self._dz_squares += float(share @ ((dz / share[:, None]) ** 2).sum(axis=1)) * block**2
        # Two sets of values become one: Chan, Golub and LeVeque (1979), eq. 2.1.
        mean = float(share @ a.mean(axis=1)) / block
        difference, whole = mean - self._mean, self._share + block
        self._squares += float(share @ ((a - mean) ** 2).mean(axis=1))
        self._squares += difference**2 * self._share * block / whole
        self._mean += difference * block / whole
        self._share = whole

    def result(self, name: str, w: Array, dw: Array, db: Array | None) -> LayerDiagnostics:
        """What the sums come to, with the layer's weights and the gradients over all rows."""
        dead = tuple(np.flatnonzero(~self._alive).tolist())
        saturated = min(1.0, self._saturated / self._share)  # rounding may take it beyond
        return LayerDiagnostics(
            name=name,
            n_in=self._stage.dense.n_in,
            n_out=self._stage.dense.n_out,
            activation=self._stage.activation,
            activation_mean=self._mean,
            activation_std=math.sqrt(self._squares / self._share),
            dead_units=dead if self._may_die else None,
            fraction_saturated=None if self._limits is None else saturated,
            weight_gradient_norm=_norm(dw),
            bias_gradient_norm=None if db is None else _norm(db),
            preactivation_gradient_rms=math.sqrt(self._dz_squares / self._share),
            weight_norm=_norm(w),
        )


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))
