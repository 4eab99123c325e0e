"""The worst relative error of small networks, for every activation and loss, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastbackprop import activations, losses
from fastbackprop.gradcheck.networks import check_gradients
from fastbackprop.gradcheck.report import GradientCheckReport
from fastbackprop.layers import Rescaling
from fastbackprop.losses import Loss
from fastbackprop.network import Network
from fastbackprop.plan import Array

ACTIVATIONS = tuple(name for name in activations.NAMES if name not in ("exp", "softmax"))
"""The activations of hidden layers: the rows of the table."""

# One unit more, and one fewer, than a vector or a tile of float64 holds.
_SIZES = (7, 17, 9, 5)
_ROWS = 10


def worst_errors(
    seed: int = 0, dtype: str = "float64"
) -> Iterator[tuple[str, str, GradientCheckReport]]:
    """Check a network of two hidden layers for each activation and loss.

    Parameters
    ----------
    seed : int, default 0
        Of parameters and data.
    dtype : {"float64", "float32"}, default "float64"
        Of the networks.

    Yields
    ------
    activation, loss : str
        Their names.
    report : GradientCheckReport
        What was found.

    Examples
    --------
    >>> activation, loss, report = next(worst_errors())
    >>> activation, loss, report.ok
    ('identity', 'quadratic', True)
    """
    for activation in ACTIVATIONS:
        for loss in losses.NAMES:
            net = Network(_SIZES, activation, loss, random_state=seed, dtype=dtype)
            X, y = random_data(net, _ROWS, seed)
            yield activation, loss, check_gradients(net, X, y, seed=seed)


def random_data(net: Network, rows: int, seed: int) -> tuple[Array, Array]:
    """Inputs from N(0, 1), after a Rescaling if there is one, and targets that suit the loss.

    Examples
    --------
    >>> X, y = random_data(Network([3, 2], loss="cross_entropy"), rows=4, seed=0)
    >>> X.shape, y.dtype
    ((4, 3), dtype('int64'))
    """
    rng = np.random.default_rng(seed)
    first = net.layers[0]
    rescaling = first if isinstance(first, Rescaling) else Rescaling(1.0)
    X = (rng.standard_normal((rows, net.sizes[0])) - rescaling.offset) / rescaling.scale
    return X, _targets(rng, net.loss_function, rows, net.sizes[-1])


def _targets(rng: np.random.Generator, loss: Loss, rows: int, n_out: int) -> Any:
    if loss.name == "cross_entropy":
        return rng.integers(0, n_out, rows)
    if loss.name == "binary_cross_entropy":
        return rng.integers(0, 2, (rows, n_out)).astype(np.float64)
    if loss.name == "poisson":
        return rng.poisson(2.0, (rows, n_out)).astype(np.float64)
    return rng.standard_normal((rows, n_out))
