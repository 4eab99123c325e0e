"""A picture of what a network of two inputs gives over the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbackprop.network import Network
from fastbackprop.plan import Array
from fastbackprop.plots import canvas
from fastbackprop.plots.canvas import COLOURS, MARKERS, Display
from fastbackprop.specs import checked_size


class DecisionBoundaryDisplay(Display):
    """What a network of two inputs gives over a rectangle of the plane.

    Parameters
    ----------
    xx0, xx1 : ndarray, (grid, grid)
        The two features at each point.
    response : ndarray, (grid, grid)
        For two classes, the probability of the second; for more, the predicted class; for a
        regression, its first output.
    kind : {"probability", "class", "value"}
        Which of these it is.
    points : (X, y) or None
        Data to draw over it; y is None, or labels for a classification and values for a regression.
    class_names : sequence of str
        What the classes are called.
    feature_names : sequence of str, default ("feature 0", "feature 1")
        What the axes are called.

    Examples
    --------
    >>> xx0, xx1 = np.meshgrid([0.0, 1.0], [0.0, 1.0])
    >>> display = DecisionBoundaryDisplay(xx0, xx1, xx0 * xx1, "value", None)
    >>> display.plot().ax_.get_xlabel()
    'feature 0'
    """

    def __init__(
        self,
        xx0: Array,
        xx1: Array,
        response: Array,
        kind: str,
        points: tuple[Array, Array | None] | None,
        class_names: Sequence[str] = (),
        feature_names: Sequence[str] = ("feature 0", "feature 1"),
    ) -> None:
        self.xx0, self.xx1, self.response, self.kind = xx0, xx1, response, kind
        self.points, self.class_names, self.feature_names = points, class_names, feature_names

    @classmethod
    def from_network(
        cls,
        net: Network,
        X: Any,
        y: Any = None,
        *,
        grid_resolution: int = 200,
        margin: float = 0.1,
        class_names: Sequence[Any] | None = None,
        feature_names: Sequence[Any] = ("feature 0", "feature 1"),
        ax: Any = None,
    ) -> DecisionBoundaryDisplay:
        """Ask the network over the range of X, and draw X over its answers.

        Parameters
        ----------
        net : Network
            Of two inputs.
        X : array_like, (n, 2)
            Data whose range, and a bit more, is drawn.
        y : array_like, (n,) or (n, n_out), optional
            Labels or values of the points.
        grid_resolution : int, default 200
            Points along each axis.
        margin : float, default 0.1
            How much more than the range of X is drawn, as a share of it on each side.
        class_names, feature_names : sequence, optional
            For legend and axes.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        DecisionBoundaryDisplay
            It has been drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the network has another number of inputs.

        Examples
        --------
        >>> net = Network([2, 1], loss="binary_cross_entropy", random_state=0)
        >>> display = DecisionBoundaryDisplay.from_network(net, [[0, 0], [1, 2]], [0, 1])
        >>> display.response.shape, display.kind
        ((200, 200), 'probability')
        """
        if net.sizes[0] != 2:
            raise ValueError(f"the network has {net.sizes[0]} inputs; the plane has 2")
        points = net._inputs(X).astype(float)
        low, high = points.min(axis=0), points.max(axis=0)
        room = np.where(high > low, margin * (high - low), 1.0)
        count = checked_size("grid_resolution", grid_resolution, minimum=2)
        xx0, xx1 = np.meshgrid(
            *(np.linspace(a, b, count) for a, b in zip(low - room, high + room, strict=True))
        )
        outputs = net.predict(np.column_stack([xx0.ravel(), xx1.ravel()]))
        names: list[str] = []
        values: Array | None = None
        if not net.loss_function.is_classification:
            kind, response = "value", outputs[:, 0]
            values = None if y is None else np.asarray(y).reshape(len(points), -1)[:, 0]
        else:
            names = canvas.class_names_of(net, class_names)
            values = None if y is None else canvas.labels_of(y, net)
            if len(names) == 2:
                kind, response = "probability", outputs[:, -1]
            else:
                kind, response = "class", outputs.argmax(axis=1)
        response = response.reshape(xx0.shape)
        axes = [canvas.plain(name) for name in feature_names]
        return cls(xx0, xx1, response, kind, (points, values), names, axes).plot(ax)

    def _size(self) -> tuple[float, float]:
        return 5.2, 4.0

    def _draw(self, ax: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap, ListedColormap

        if self.kind == "value":
            field = ax.contourf(self.xx0, self.xx1, self.response, 20, cmap="viridis")
            self.figure_.colorbar(field, ax=ax, label="output")
        elif self.kind == "probability":
            between = LinearSegmentedColormap.from_list(
                "", [_pale(COLOURS[0]), "white", _pale(COLOURS[1])]
            )
            field = self._fill(ax, between, 0, 1)
            label = f"probability of class {self.class_names[1]}"
            self.figure_.colorbar(field, ax=ax, label=label)
            if self.response.min() < 0.5 < self.response.max():
                ax.contour(self.xx0, self.xx1, self.response, [0.5], colors="black", linewidths=1.2)
        else:
            n = len(self.class_names)
            colours = ListedColormap([_pale(COLOURS[i % len(COLOURS)]) for i in range(n)])
            self._fill(ax, colours, -0.5, n - 0.5)
        self._draw_points(ax)
        ax.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])

    def _fill(self, ax: Any, colours: Any, low: float, high: float) -> Any:
        """Colour the plane; as an image, since contours between classes 0 and 2 would pass 1."""
        steps = (self.xx0[0, 1] - self.xx0[0, 0]) / 2, (self.xx1[1, 0] - self.xx1[0, 0]) / 2
        extent = [
            edge
            for grid, step in zip((self.xx0, self.xx1), steps, strict=True)
            for edge in (grid.min() - step, grid.max() + step)
        ]
        return ax.imshow(
            self.response,
            cmap=colours,
            vmin=low,
            vmax=high,
            extent=extent,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )

    def _draw_points(self, ax: Any) -> None:
        if self.points is None:
            return
        X, y = self.points
        if y is None or self.kind == "value":
            ax.scatter(*X.T, s=14, color="white", edgecolor="black", linewidth=0.6)
            return
        for i, name in enumerate(self.class_names):
            ax.scatter(
                *X[y == i].T,
                s=18,
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                edgecolor="white",
                linewidth=0.5,
                label=name,
            )
        if self.kind == "class":
            ax.legend(title="class", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        else:
            ax.legend(title="class", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _pale(colour: str) -> str:
    """A colour, "#rrggbb", mixed with white, so that points of that colour stand out."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(0.4 * part + 0.6 * 255):02x}" for part in parts)
