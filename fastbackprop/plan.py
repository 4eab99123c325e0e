"""From layers to memory: which parameter and which activation lies where in two flat buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastbackprop._kernels.columns import SPARSE_INPUTS
from fastbackprop._kernels.records import LAYER
from fastbackprop.activations import Activation
from fastbackprop.initializers import default_for
from fastbackprop.layers import Dense, Dropout, Layer, Rescaling
from fastbackprop.losses import Loss

# A cache line, which is also the widest vector. Every row of every matrix is padded to it.
_LINE = 64

# Rows this many bytes apart fall on the same places of the L1 cache.
_ALIASING = 2048

# Layers with as many inputs make their sums in two halves, which two threads can share.
_SPLIT_INPUTS = 256

Array = npt.NDArray[Any]


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """A vector of ``size`` zeros that begins on a cache line."""
    memory = np.zeros(size * dtype.itemsize + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size * dtype.itemsize].view(dtype)


def leading_dimension(columns: int, dtype: np.dtype[Any]) -> int:
    """Elements from one row to the next of a matrix with ``columns`` columns.

    Examples
    --------
    >>> leading_dimension(10, np.dtype("float32")), leading_dimension(512, np.dtype("float32"))
    (16, 528)
    """
    line = _LINE // dtype.itemsize
    padded = -(-columns // line) * line
    return padded + line if padded * dtype.itemsize % _ALIASING == 0 else padded


@dataclass(frozen=True)
class Stage:
    """A Dense layer with all that its neighbours and the loss decide about it."""

    dense: Dense
    activation: Activation
    dropout: float  # of its input
    offset: int  # of its first weight in the flat parameters, in elements
    ld: int  # elements from one row of its weights to the next

    line: int  # elements in a cache line

    @property
    def rows(self) -> int:
        """Rows of parameters: the weights, and the bias as one more."""
        return self.dense.n_in + self.dense.bias

    @property
    def is_split(self) -> bool:
        """Whether each sum over its inputs is made in two halves."""
        return self.dense.n_in >= _SPLIT_INPUTS

    @property
    def middle(self) -> int:
        """Inputs of the first half of each sum, where it is made in two; else all of them."""
        if not self.is_split:
            return self.dense.n_in
        return -(-(self.dense.n_in + 1) // self.line) // 2 * self.line


class Plan:
    """Where everything lies, for one list of layers, loss and float type.

    Parameters
    ----------
    layers : sequence of Layer
        A valid chain, see `layers.check_chain`.
    loss : Loss
        It decides the last activation where the last layer names none.
    output_activation : Activation or None
        Decides it where it is given.
    dtype : dtype
        float32 or float64.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        output_activation: Activation | None,
        dtype: np.dtype[Any],
    ) -> None:
        self.loss = loss
        self.dtype = dtype
        first = layers[0]
        self.rescaling = first if isinstance(first, Rescaling) else Rescaling(1.0)
        self.stages: list[Stage] = []
        dropout, size = 0.0, 0
        for i, layer in enumerate(layers):
            if isinstance(layer, Dropout):
                dropout = layer.rate
            elif isinstance(layer, Dense):
                activation = layer.activation
                if i == len(layers) - 1:
                    activation = output_activation or activation or loss.default_output(None)
                ld = leading_dimension(layer.n_out, dtype)
                line = _LINE // dtype.itemsize
                stage = Stage(layer, activation or Activation("identity"), dropout, size, ld, line)
                self.stages.append(stage)
                size += stage.rows * ld
                dropout = 0.0
        loss.check_output(self.stages[-1].activation)
        self.size = size
        products = [stage.dense.n_in * stage.dense.n_out for stage in self.stages]
        self._products = 3 * sum(products) - products[0]  # of the first layer no dx
        self._workspace: tuple[int, tuple[Array, int, int]] | None = None
        self.n_in = self.stages[0].dense.n_in
        self.n_out = self.stages[-1].dense.n_out

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_workspace": None}

    @property
    def n_parameters(self) -> int:
        """Weights and biases, without padding."""
        return sum(stage.rows * stage.dense.n_out for stage in self.stages)

    @property
    def n_rows(self) -> int:
        """Rows of parameters in all layers."""
        return sum(stage.rows for stage in self.stages)

    @property
    def widest(self) -> int:
        """Elements of the longest padded row of parameters."""
        return max(stage.ld for stage in self.stages)

    @property
    def largest(self) -> int:
        """Elements of the largest matrix of parameters, with padding."""
        return max(stage.rows * stage.ld for stage in self.stages)

    def flops(self, rows: int) -> int:
        """Multiplications and additions of a training step on ``rows`` rows."""
        return 2 * rows * self._products

    def zeros(self) -> Array:
        """Flat parameters, or an optimizer's slot for them, all zero."""
        return aligned_zeros(self.size, self.dtype)

    def matrices(self, flat: Array) -> list[Array]:
        """The rows of parameters of each stage, (n_in + bias, n_out), as views without padding."""
        return [
            flat[stage.offset : stage.offset + stage.rows * stage.ld].reshape(stage.rows, stage.ld)[
                :, : stage.dense.n_out
            ]
            for stage in self.stages
        ]

    def weights(self, flat: Array) -> list[Array]:
        """A view (n_in, n_out) of each stage's weights."""
        pairs = zip(self.stages, self.matrices(flat), strict=True)
        return [matrix[: stage.dense.n_in] for stage, matrix in pairs]

    def biases(self, flat: Array) -> list[Array | None]:
        """A view (n_out,) of each stage's bias; None where it has none."""
        pairs = zip(self.stages, self.matrices(flat), strict=True)
        return [matrix[-1] if stage.dense.bias else None for stage, matrix in pairs]

    def pack(self, flat: Array) -> Array:
        """A copy without padding: each stage's weights row by row, then its bias."""
        return np.concatenate([matrix.ravel() for matrix in self.matrices(flat)])

    def unpack(self, theta: Array, flat: Array) -> None:
        """Fill ``flat`` from what `pack` returns."""
        start = 0
        for matrix in self.matrices(flat):
            matrix[...] = theta[start : start + matrix.size].reshape(matrix.shape)
            start += matrix.size

    def draw(self, rng: np.random.Generator, flat: Array) -> None:
        """Draw every parameter, layer by layer, in float64 whatever the network's type."""
        weights, biases = self.weights(flat), self.biases(flat)
        for stage, w, b in zip(self.stages, weights, biases, strict=True):
            init = stage.dense.init or default_for(stage.activation)
            w[...] = init.draw(rng, w.shape)
            if b is not None:
                b[...] = stage.dense.bias_init.draw(rng, b.shape, fans=w.shape)

    def workspace(self, rows: int) -> tuple[Array, int, int]:
        """The table of layers for batches of up to ``rows`` rows; not to be changed.

        Returns
        -------
        table : ndarray of LAYER
            One record a stage.
        target_rows : int
            Offset of the targets.
        size : int
            Elements that the workspace needs.
        """
        # A step on a small batch takes less time than this; most calls ask for the same as before.
        # Another thread may put another one there at any time, so it is looked up once.
        latest = self._workspace
        if latest is None or latest[0] != rows:
            latest = self._workspace = rows, self._lay_out(rows)
        return latest[1]

    def _lay_out(self, rows: int) -> tuple[Array, int, int]:
        table = np.zeros(len(self.stages), LAYER)
        size = 0

        def reserve(columns: int) -> tuple[int, int]:
            nonlocal size
            ld = leading_dimension(columns, self.dtype)
            size += rows * ld
            return size - rows * ld, ld

        for stage, record in zip(self.stages, table, strict=True):
            dense = stage.dense
            record["n_in"], record["n_out"], record["has_bias"] = (
                dense.n_in,
                dense.n_out,
                dense.bias,
            )
            record["activation"] = stage.activation.code
            record["alpha"] = stage.activation.alpha or 0.0
            record["w"], record["ld_w"] = stage.offset, stage.ld
            keep = 1.0 - stage.dropout
            # A rate below 2⁻³³ drops nothing; a scale of 1 tells kernels so, which then skip it.
            keep_below = round(keep * 2**32)
            keep_scale = 1.0 / keep if keep_below < 2**32 else 1.0
            record["keep_below"], record["keep_scale"] = keep_below, keep_scale
            # One column more than there are values: it holds the ones that multiply the bias.
            if stage is self.stages[0] or stage.dropout > 0.0:
                record["x"], record["ld_x"] = reserve(dense.n_in + 1)
            else:
                record["ld_x"] = leading_dimension(dense.n_in + 1, self.dtype)
            if stage is self.stages[0] and dense.n_in >= SPARSE_INPUTS:
                record["compact"], _ = reserve(dense.n_in + 1)
                record["marks"] = size
                size += record["ld_x"] * 8 // self.dtype.itemsize
            record["a"], record["ld_a"] = reserve(dense.n_out + 1)
            record["middle"] = stage.middle
            if stage.is_split:
                record["parts"], _ = reserve(dense.n_out + 1)
                reserve(dense.n_out + 1)
                record["part"] = rows * record["ld_a"]
            record["z"] = record["a"]
            if stage.activation.needs_preactivation:
                record["z"], _ = reserve(dense.n_out + 1)
            record["dz"], record["ld_dz"] = reserve(dense.n_out)
        target_rows, _ = reserve(self.n_out)
        return table, target_rows, size
