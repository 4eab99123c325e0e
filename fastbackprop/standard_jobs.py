"""The standard jobs: the networks whose training is measured, here and beside other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastbackprop.plan import Array


class Rows(NamedTuple):
    """Inputs and targets of a regression."""

    X: Array  # (n, n_in) float32
    y: Array  # (n, n_out) float32


def waves(n: int, seed: int) -> Rows:
    """Points of a smooth surface, sin(3 x₁) cos(2 x₂), over the square from −1 to 1.

    Examples
    --------
    >>> X, y = waves(100, seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100, 1))
    """
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 2))
    y = np.sin(3 * x[:, :1]) * np.cos(2 * x[:, 1:])
    return Rows(x.astype(np.float32), y.astype(np.float32))


def matrix_exponentials(n: int, seed: int) -> Rows:
    """Matrices of 2 × 2 with entries from N(0, 1), and their exponentials, each as a row of four.

    A matrix is s·I + B with B of trace 0, for which B² = q·I; so its exponential is
    eˢ (cosh(√q)·I + sinh(√q)/√q · B), with cos and sin where q is negative.

    References
    ----------
    The example of SimpleChains.jl, https://github.com/PumasAI/SimpleChains.jl

    Examples
    --------
    >>> X, y = matrix_exponentials(1000, seed=0)
    >>> determinant, trace = y[:, 0] * y[:, 3] - y[:, 1] * y[:, 2], X[:, 0] + X[:, 3]
    >>> bool(np.allclose(np.log(determinant), trace, atol=1e-3))
    True
    """
    a = np.random.default_rng(seed).standard_normal((n, 4))
    s, d = (a[:, 0] + a[:, 3]) / 2, (a[:, 0] - a[:, 3]) / 2
    q = d * d + a[:, 1] * a[:, 2]
    root = np.sqrt(np.abs(q))
    even = np.where(q > 0, np.cosh(root), np.cos(root))
    # sinc(t) is sin(π t) / (π t), and 1 at 0.
    odd = np.where(q > 0, np.sinh(root) / np.maximum(root, 1e-12), np.sinc(root / np.pi))
    entries = [even + odd * d, odd * a[:, 1], odd * a[:, 2], even - odd * d]
    y = np.exp(s)[:, np.newaxis] * np.stack(entries, axis=1)
    return Rows(a.astype(np.float32), y.astype(np.float32))


@dataclass(frozen=True)
class StandardJob:
    """One network, its loss, its optimizer and the size of its data.

    The output is sigmoid for the loss "quadratic", softmax for "cross_entropy", linear for "mse".

    Parameters
    ----------
    number : int
        Its name.
    sizes : tuple of int
        Units of each layer, inputs first.
    activation : str
        Of the hidden layers.
    loss : str
        quadratic, cross_entropy or mse.
    optimizer : str
        sgd, or adam with its defaults.
    learning_rate : float
        Of the optimizer.
    batch_size : int
        Rows of a step.
    n : int
        Rows of an epoch.
    make_rows : callable, optional
        Takes n and a seed; without it the data are images of digits.

    Examples
    --------
    >>> STANDARD_JOBS[2].network
    '784-128-10'
    """

    number: int
    sizes: tuple[int, ...]
    activation: str
    loss: str
    optimizer: str
    learning_rate: float
    batch_size: int
    n: int
    make_rows: Callable[[int, int], Rows] | None = None

    @property
    def network(self) -> str:
        """The sizes as they are written: 784-128-10."""
        return "-".join(map(str, self.sizes))

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))

    @property
    def flops_per_row(self) -> int:
        """Arithmetic of the matrix products for a row: z, dw, and dx but for the first layer."""
        products = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        return 2 * (3 * sum(products) - products[0])

    @property
    def title(self) -> str:
        """A line that says all of it."""
        rows = "images" if self.make_rows is None else "rows"
        batches = f"batch {self.batch_size:,}, {self.n:,} {rows}"
        if self.batch_size >= self.n:
            batches = f"full batch of {self.n:,}"
        return (
            f"Job {self.number}: {self.network} {self.activation}, {self.loss}, "
            f"{self.optimizer} {self.learning_rate:g}, {batches}"
        )


def _numbered(*jobs: StandardJob) -> dict[int, StandardJob]:
    return {job.number: job for job in jobs}


STANDARD_JOBS = _numbered(
    StandardJob(1, (784, 30, 10), "sigmoid", "quadratic", "sgd", 3.0, 10, 50_000),
    StandardJob(2, (784, 128, 10), "relu", "cross_entropy", "adam", 1e-3, 64, 60_000),
    StandardJob(3, (784, 512, 512, 10), "relu", "cross_entropy", "adam", 1e-3, 128, 60_000),
    StandardJob(4, (2, 32, 32, 1), "tanh", "mse", "adam", 1e-3, 32, 10_000, waves),
    StandardJob(
        5, (4, 32, 16, 4), "tanh", "mse", "adam", 1e-3, 10_000, 10_000, matrix_exponentials
    ),
)
