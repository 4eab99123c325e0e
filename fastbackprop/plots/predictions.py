"""Pictures of predictions: which classes are taken for which, and which images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbackprop.network import Network
from fastbackprop.plan import Array
from fastbackprop.plots import canvas
from fastbackprop.plots.canvas import Display
from fastbackprop.specs import checked_size

# With more classes the numbers would not fit their cells.
_MOST_NUMBERED = 20

_MOST_IN_A_ROW = 5


class ConfusionMatrixDisplay(Display):
    """How many rows of each class were taken for which, coloured by their share of the row.

    Parameters
    ----------
    confusion_matrix : ndarray of int, (n_classes, n_classes)
        Counts: a row for each true class, a column for each predicted one.
    class_names : sequence, optional
        What the classes are called; their numbers unless given.

    Examples
    --------
    >>> display = ConfusionMatrixDisplay.from_predictions([0, 0, 1, 2], [0, 1, 1, 2])
    >>> display.confusion_matrix
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 0, 1]])
    """

    def __init__(self, confusion_matrix: Array, class_names: Sequence[Any] | None = None) -> None:
        self.confusion_matrix = confusion_matrix
        self.class_names = canvas.class_names(class_names, len(confusion_matrix))

    @classmethod
    def from_network(
        cls,
        net: Network,
        X: Any,
        y: Any,
        *,
        class_names: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> ConfusionMatrixDisplay:
        """Classify X, compare with the labels y, and draw.

        Parameters
        ----------
        net : Network
            A classifier.
        X : array_like, (n, n_in)
            As in `Network.predict`.
        y : array_like, (n,) or (n, n_out)
            Labels from 0, or one-hot.
        class_names : sequence, optional
            What the classes are called; as ``net.classes`` says, or their numbers, unless given.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        ConfusionMatrixDisplay
            It has been drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        labels = canvas.labels_of(y, net)
        return cls.from_predictions(
            labels,
            net.predict_classes(X),
            n_classes=canvas.n_classes(net),
            class_names=net.classes if class_names is None else class_names,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        n_classes: int | None = None,
        class_names: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> ConfusionMatrixDisplay:
        """Count pairs of class labels, and draw.

        Parameters
        ----------
        y_true, y_pred : array_like of int, (n,)
            Classes from 0.
        n_classes : int, optional
            How many there are; as many as the labels show unless given.
        class_names : sequence, optional
            What they are called; their numbers unless given.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        ConfusionMatrixDisplay
            It has been drawn.

        Raises
        ------
        ValueError
            If the lengths differ, or a label is not in the range of classes.
        """
        true, predicted = np.asarray(y_true), np.asarray(y_pred)
        if true.shape != predicted.shape or true.ndim != 1 or not len(true):
            raise ValueError(
                f"y_true has shape {true.shape} and y_pred {predicted.shape}; expected (n,), n > 0"
            )
        both = np.concatenate([true, predicted])
        count = int(both.max()) + 1 if n_classes is None else checked_size("n_classes", n_classes)
        if both.dtype.kind not in "iu" or both.min() < 0 or both.max() >= count:
            raise ValueError(
                f"labels must be integers from 0 to {count - 1}, got {both.dtype} from "
                f"{both.min()} to {both.max()}"
            )
        matrix = np.zeros((count, count), np.int64)
        np.add.at(matrix, (true, predicted), 1)
        return cls(matrix, class_names).plot(ax)

    def _size(self) -> tuple[float, float]:
        side = max(3.8, 2.6 + 0.36 * min(len(self.confusion_matrix), _MOST_NUMBERED))
        return side + 0.8, side

    def _draw(self, ax: Any) -> None:
        matrix = self.confusion_matrix
        n = len(matrix)
        shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        self.figure_.colorbar(image, ax=ax, label="share of the true class (%)", shrink=0.9)
        if n <= _MOST_NUMBERED:
            ax.set_xticks(range(n), self.class_names, rotation=_rotation(self.class_names))
            ax.set_yticks(range(n), self.class_names)
            for (i, j), count in np.ndenumerate(matrix):
                if count:
                    colour = "white" if shares[i, j] > 50 else "black"
                    ax.text(j, i, f"{count}", ha="center", va="center", color=colour, fontsize=8)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")


class MisclassifiedDisplay(Display):
    """Images that a network takes for another class, the surest mistakes first.

    Over each stand its true and its predicted class.

    Parameters
    ----------
    images : ndarray, (n, rows, columns)
        Grey values.
    true, predicted : ndarray of int, (n,)
        Classes.
    probabilities : ndarray, (n,)
        The network's output for the class that it predicted.
    n_wrong, n_rows : int
        How many are wrong, drawn or not, and of how many.
    class_names : sequence of str
        What the classes are called.

    Examples
    --------
    >>> images, one = np.eye(4).reshape(1, 4, 4), np.array([1])
    >>> display = MisclassifiedDisplay(images, one, one - 1, np.array([0.75]), 1, 8, ["x", "y"])
    >>> display.plot().ax_.get_title()
    '1 of 8 misclassified: true → predicted'
    """

    def __init__(
        self,
        images: Array,
        true: Array,
        predicted: Array,
        probabilities: Array,
        n_wrong: int,
        n_rows: int,
        class_names: Sequence[str],
    ) -> None:
        self.images, self.true, self.predicted = images, true, predicted
        self.probabilities, self.n_wrong, self.n_rows = probabilities, n_wrong, n_rows
        self.class_names = class_names

    @classmethod
    def from_network(
        cls,
        net: Network,
        X: Any,
        y: Any,
        *,
        n_images: int = 20,
        image_shape: tuple[int, int] | None = None,
        class_names: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> MisclassifiedDisplay:
        """Classify X, (n, pixels), and draw up to ``n_images`` of those that y contradicts.

        Parameters
        ----------
        net : Network
            A classifier.
        X : array_like, (n, n_in)
            Images, row by row.
        y : array_like, (n,) or (n, n_out)
            Labels from 0, or one-hot.
        n_images : int, default 20
            At most as many are drawn.
        image_shape : (int, int), optional
            Rows and columns of pixels; a square unless given.
        class_names : sequence, optional
            What the classes are called; as ``net.classes`` says, or their numbers, unless given.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        MisclassifiedDisplay
            It has been drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> net = Network([4, 3], loss="cross_entropy", random_state=0)
        >>> X = np.eye(4)
        >>> wrong = (net.predict_classes(X) + 1) % 3
        >>> MisclassifiedDisplay.from_network(net, X, wrong).images.shape
        (4, 2, 2)
        """
        checked_size("n_images", n_images)
        shape = canvas.image_shape(net.sizes[0], image_shape)
        names = canvas.class_names_of(net, class_names)
        labels, outputs, predicted = (
            canvas.labels_of(y, net),
            net.predict(X),
            net.predict_classes(X),
        )
        if len(labels) != len(predicted):
            raise ValueError(f"X has {len(predicted)} rows and y {len(labels)}")
        sure = np.maximum(outputs[:, 0], 1 - outputs[:, 0])
        if outputs.shape[1] > 1:
            sure = outputs.max(axis=1)
        wrong = np.flatnonzero(predicted != labels)
        chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:n_images]
        return cls(
            np.asarray(X)[chosen].reshape(-1, *shape),
            labels[chosen],
            predicted[chosen],
            sure[chosen],
            len(wrong),
            len(labels),
            names,
        ).plot(ax)

    @property
    def _columns(self) -> int:
        return min(max(len(self.images), 1), _MOST_IN_A_ROW)

    def _size(self) -> tuple[float, float]:
        rows = max(-(-len(self.images) // self._columns), 1)
        # Wide enough for the title.
        return max(0.4 + 1.25 * self._columns, 4.2), 0.6 + 1.55 * rows

    def _draw(self, ax: Any) -> None:
        n, columns = len(self.images), self._columns
        ax.set_axis_off()
        ax.set_title(f"{self.n_wrong:,} of {self.n_rows:,} misclassified: true → predicted")
        if not n:
            return
        shape = self.images.shape[1:]
        gap = (-(-shape[0] * 3 // 8), -(-shape[1] // 6))
        tiles = canvas.mosaic(self.images, columns, gap)
        ax.imshow(tiles, cmap="gray", interpolation="nearest")
        for i in range(n):
            top, left = canvas.corner(i, columns, shape, gap)
            names = (self.class_names[k] for k in (self.true[i], self.predicted[i]))
            text = f"{' → '.join(names)}\n({100 * self.probabilities[i]:.0f} %)"
            ax.text(left + shape[1] / 2 - 0.5, top - 1, text, ha="center", va="bottom", fontsize=8)


def _rotation(names: Sequence[str]) -> int:
    return 0 if max(map(len, names)) <= 3 else 90
