"""Pictures of the network itself: its layers with their sizes, and its first weights as images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastbackprop.network import Network
from fastbackprop.plan import Array
from fastbackprop.plots.canvas import COLOURS, Display, mosaic
from fastbackprop.plots.canvas import image_shape as shape_of_images
from fastbackprop.specs import checked_size

# Circles of a layer with more units, half of them on each side of an ellipsis.
_MOST_CIRCLES = 8

# Layers of a deeper network are drawn on each side of an ellipsis.
_MOST_COLUMNS = 9


class WeightsDisplay(Display):
    """The weights of the first layer, those of each unit as an image of the inputs.

    Blue is negative, red positive, white 0.

    Parameters
    ----------
    images : ndarray, (n, rows, columns)
        The weights of each unit that is drawn.
    n_units : int
        How many there are.

    Examples
    --------
    >>> WeightsDisplay(np.ones((2, 3, 3)), 10).plot().ax_.get_title()
    'first layer: 2 of 10 units'
    """

    def __init__(self, images: Array, n_units: int) -> None:
        self.images, self.n_units = images, n_units

    @classmethod
    def from_network(
        cls,
        net: Network,
        *,
        n_units: int = 32,
        image_shape: tuple[int, int] | None = None,
        ax: Any = None,
    ) -> WeightsDisplay:
        """Draw the weights of the units with the largest norms, in the order of the units.

        Parameters
        ----------
        net : Network
            Whose inputs are images, row by row.
        n_units : int, default 32
            At most as many are drawn.
        image_shape : (int, int), optional
            Rows and columns of pixels; a square unless given.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        WeightsDisplay
            It has been drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> net = Network([16, 5, 2], random_state=0)
        >>> WeightsDisplay.from_network(net).images.shape
        (5, 4, 4)
        """
        shape = shape_of_images(net.sizes[0], image_shape)
        w = net.weights[0]
        count = checked_size("n_units", n_units)
        largest = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")[:count]
        return cls(w[:, np.sort(largest)].T.reshape(-1, *shape).copy(), w.shape[1]).plot(ax)

    @property
    def _tiles(self) -> Array:
        return mosaic(self.images, min(len(self.images), 8), (1, 1))[1:]

    def _size(self) -> tuple[float, float]:
        rows, columns = self._tiles.shape
        return 6.4, min(max(0.7 + 5.2 * rows / columns, 1.6), 9.0)

    def _draw(self, ax: Any) -> None:
        n = len(self.images)
        # One weight far out must not make the others pale.
        limit = float(np.quantile(np.abs(self.images), 0.995)) or 1.0
        image = ax.imshow(
            self._tiles, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        ax.set_facecolor("#BBBBBB")
        ax.set(xticks=[], yticks=[])
        some = f"{n} of {self.n_units}" if n < self.n_units else str(n)
        ax.set_title(f"first layer: {some} units")
        self.figure_.colorbar(image, ax=ax, label="weight", extend="both", shrink=0.8)


class NetworkDisplay(Display):
    """The layers of a network, inputs on the left, with sizes, activations and parameters.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, inputs first.
    labels : sequence of str
        What stands under each layer.
    title : str
        Above.

    Examples
    --------
    >>> display = NetworkDisplay([2, 1], ["2 inputs", "1 output"], "a neuron").plot()
    >>> display.ax_.get_title()
    'a neuron'
    """

    def __init__(self, sizes: Sequence[int], labels: Sequence[str], title: str = "") -> None:
        self.sizes, self.labels, self.title = list(sizes), list(labels), title

    @classmethod
    def from_network(cls, net: Network, *, ax: Any = None) -> NetworkDisplay:
        """Draw a network: of more than 9 layers, or 8 units in one, only the first and last ones.

        Parameters
        ----------
        net : Network
            Any.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        NetworkDisplay
            It has been drawn.

        Examples
        --------
        >>> NetworkDisplay.from_network(Network([784, 30, 10])).labels
        ['784\\ninputs', '30\\nsigmoid', '10\\nsigmoid']
        """
        stages = net._state.plan.stages
        labels = [f"{net.sizes[0]:,}\ninputs"]
        for stage in stages:
            labels.append(f"{stage.dense.n_out:,}\n{stage.activation.name}")
            if stage.dropout:
                labels[-2] += f"\ndropout {stage.dropout:g}"
        title = f"{net.n_parameters:,} parameters, {net.loss_function.name.replace('_', ' ')} loss"
        return cls(net.sizes, labels, title).plot(ax)

    def _size(self) -> tuple[float, float]:
        return 1.2 + min(1.5 * len(_columns(len(self.sizes))), 9.0), 3.4

    def _draw(self, ax: Any) -> None:
        from matplotlib.collections import LineCollection

        columns = _columns(len(self.sizes))
        ax.set_axis_off()
        ax.set_title(self.title)
        places = [[] if layer is None else _places(self.sizes[layer]) for layer in columns]
        lines = [
            [(i, a), (i + 1, b)]
            for i, (left, right) in enumerate(pairwise(places))
            for a in left
            for b in right
        ]
        ax.add_collection(LineCollection(lines, colors="#BBBBBB", linewidths=0.5, zorder=1))
        for i, (layer, heights) in enumerate(zip(columns, places, strict=True)):
            if layer is None:
                ax.scatter([i - 0.2, i, i + 0.2], [0.0] * 3, s=5, color="black")
                label = f"{len(self.sizes) - len(columns) + 1}\nmore layers"
            else:
                self._draw_layer(ax, i, layer, heights)
                label = self.labels[layer]
            ax.text(i, -_MOST_CIRCLES / 2 - 0.9, label, ha="center", va="top")
        ax.set_xlim(-0.5, len(columns) - 0.5)
        ax.set_ylim(-_MOST_CIRCLES / 2 - 3.4, _MOST_CIRCLES / 2 + 0.6)

    def _draw_layer(self, ax: Any, x: int, layer: int, heights: list[float]) -> None:
        """The circles of a layer, one above the other."""
        is_last = layer == len(self.sizes) - 1
        colour = "#888888" if layer == 0 else COLOURS[1] if is_last else COLOURS[0]
        ax.scatter([x] * len(heights), heights, s=110, color=colour, zorder=2)
        if self.sizes[layer] > len(heights):
            ax.scatter([x] * 3, [-0.3, 0.0, 0.3], s=5, color="black", zorder=2)


def _columns(n_layers: int) -> list[int | None]:
    """Which layer each column shows; None stands for those of a deep network in between."""
    layers: list[int | None] = list(range(n_layers))
    if n_layers <= _MOST_COLUMNS:
        return layers
    half = _MOST_COLUMNS // 2
    return [*layers[:half], None, *layers[-half:]]


def _places(size: int) -> list[float]:
    """Heights of the circles of a layer, around 0; with a gap for the ellipsis of a large one."""
    if size <= _MOST_CIRCLES:
        return [i - (size - 1) / 2 for i in range(size)]
    half = _MOST_CIRCLES // 2
    return [side * (i + 1.0) for side in (-1, 1) for i in range(half)]
