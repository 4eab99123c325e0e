"""What all pictures share: axes to draw on, colours, and images laid out in rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from fastbackprop.network import Network
from fastbackprop.plan import Array
from fastbackprop.presentation import new_axes

# Okabe and Ito's colours without yellow, which is too light for lines, in an order in which
# neighbours differ most. Markers differ too, for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Display(ABC):
    """A picture that has been drawn or can be.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn last.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.
    """

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        the same type
            Itself, with ``ax_`` and ``figure_``.
        """
        if ax is None:
            ax = new_axes(type(self).__name__, self._size())
        self.ax_, self.figure_ = ax, ax.figure
        self._draw(ax)
        return self

    @abstractmethod
    def _size(self) -> tuple[float, float]:
        """Inches of a figure for it."""

    @abstractmethod
    def _draw(self, ax: Any) -> None:
        """Draw on these axes."""


def image_shape(n: int, given: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of pixels of an image of ``n`` values: a square unless given.

    Examples
    --------
    >>> image_shape(784, None)
    (28, 28)
    >>> image_shape(12, None)
    Traceback (most recent call last):
        ...
    ValueError: 12 inputs are not a square image; give image_shape=(rows, columns)
    """
    if given is None:
        side = math.isqrt(n)
        if side * side != n:
            raise ValueError(f"{n} inputs are not a square image; give image_shape=(rows, columns)")
        return side, side
    rows, columns = given
    if rows * columns != n:
        raise ValueError(
            f"image_shape {given} has {rows * columns} pixels, but there are {n} inputs"
        )
    return rows, columns


def mosaic(images: Array, columns: int, gap: tuple[int, int]) -> Array:
    """Images side by side, ``columns`` in a row, as one; NaN between them.

    Parameters
    ----------
    images : ndarray, (n, rows, columns)
        At least one.
    columns : int
        Images in a row.
    gap : (int, int)
        Pixels above each image, and to its left but for the first.

    Examples
    --------
    >>> mosaic(np.ones((3, 4, 4)), columns=2, gap=(1, 1)).shape
    (10, 9)
    """
    n, height, width = images.shape
    above, left = gap
    rows = -(-n // columns)
    result = np.full((rows * (height + above), columns * (width + left) - left), np.nan)
    for i, image in enumerate(images):
        top, start = corner(i, columns, (height, width), gap)
        result[top : top + height, start : start + width] = image
    return result


def corner(i: int, columns: int, shape: tuple[int, int], gap: tuple[int, int]) -> tuple[int, int]:
    """Where the image ``i`` of a mosaic begins: the pixel's row and column."""
    row, column = divmod(i, columns)
    return gap[0] + row * (shape[0] + gap[0]), column * (shape[1] + gap[1])


def class_names(names: Sequence[Any] | None, n_classes: int) -> list[str]:
    """What classes are called in a picture: their numbers unless given."""
    if names is None:
        return [str(i) for i in range(n_classes)]
    if len(names) != n_classes:
        raise ValueError(f"class_names has {len(names)} entries, but there are {n_classes} classes")
    return [plain(name) for name in names]


def class_names_of(net: Network, names: Sequence[Any] | None) -> list[str]:
    """What a network's classes are called: as given, else as it says itself, else their numbers."""
    return class_names(net.classes if names is None else names, n_classes(net))


def plain(text: Any) -> str:
    """A text in which matplotlib sees no mathematics."""
    return str(text).replace("$", r"\$")


def n_classes(net: Network) -> int:
    """Classes that a network tells apart: two with one output."""
    return max(net.sizes[-1], 2)


def labels_of(y: Any, net: Network) -> Array:
    """Class labels, (n,), from labels or one-hot rows.

    Raises
    ------
    ValueError
        If they are something else.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == net.sizes[-1] > 1:
        labels = labels.argmax(axis=1)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "biuf" or (labels % 1 != 0).any():
        raise ValueError(
            f"y has shape {labels.shape} and dtype {labels.dtype}; expected integer labels (n,) or "
            "one-hot rows"
        )
    return labels.astype(np.int64)
