"""Pictures of training: the loss by epoch, activations and gradients by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from fastbackprop.history import History
from fastbackprop.inspection import diagnostics
from fastbackprop.inspection.report import Diagnostics
from fastbackprop.losses import Loss
from fastbackprop.network import Network
from fastbackprop.plots.canvas import COLOURS, MARKERS, Display

_MOST_MARKERS = 30
_MOST_NAMED = 12  # layers whose activations are named
_CHARACTER = 0.1  # inches that a letter of a tick's label takes, at most


class LossCurveDisplay(Display):
    """A measure of training and validation data by epoch.

    Parameters
    ----------
    epochs : sequence of int
        Numbers of the epochs, from 1.
    training, validation : sequence of float or None
        The measure in each epoch. That of training is the mean over the epoch, while the network
        learns; that of validation is taken after it.
    metric : str, default "loss"
        What is measured. An accuracy is drawn in percent.
    loss : Loss, optional
        Names the loss and its unit.

    Examples
    --------
    >>> display = LossCurveDisplay([1, 2, 3], [0.9, 0.5, 0.3], [0.8, 0.6, 0.5]).plot()
    >>> [line.get_label() for line in display.ax_.lines]
    ['training, mean over the epoch', 'validation, after the epoch']
    """

    def __init__(
        self,
        epochs: Sequence[int],
        training: Sequence[float] | None,
        validation: Sequence[float] | None = None,
        metric: str = "loss",
        loss: Loss | None = None,
    ) -> None:
        self.epochs = list(epochs)
        self.training, self.validation = training, validation
        self.metric, self.loss = metric, loss

    @classmethod
    def from_history(
        cls,
        history: History,
        metric: str = "loss",
        *,
        loss: Loss | None = None,
        validation_name: str = "validation",
        ax: Any = None,
    ) -> LossCurveDisplay:
        """Draw a column of a history, and its ``val_`` column where there is one.

        Parameters
        ----------
        history : History
            At least one epoch.
        metric : str, default "loss"
            A name in it, such as "loss" or "accuracy".
        loss : Loss, optional
            ``net.loss_function``, to label the axis.
        validation_name : str, default "validation"
            What the legend calls the validation data.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        LossCurveDisplay
            It has been drawn.

        Raises
        ------
        KeyError
            If it was not measured.
        ValueError
            If there are no epochs.

        Examples
        --------
        >>> net = Network([1, 1], "identity", "mse", random_state=0)
        >>> history = net.fit([[1], [2]], [3, 4], epochs=2, verbose=0)
        >>> display = LossCurveDisplay.from_history(history, loss=net.loss_function)
        >>> display.ax_.get_ylabel()
        'mse loss'
        """
        validation = history.get(f"val_{metric}")
        # Training may measure less than validation.
        training = history[metric] if validation is None else history.get(metric)
        if not history.epoch:
            raise ValueError("the history has no epochs to draw")
        display = cls([e + 1 for e in history.epoch], training, validation, metric, loss)
        return display.plot(ax, validation_name=validation_name)

    def plot(self, ax: Any = None, *, validation_name: str = "validation") -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.
        validation_name : str, default "validation"
            What the legend calls the validation data.

        Returns
        -------
        LossCurveDisplay
            Itself, with ``ax_`` and ``figure_``.
        """
        self._validation_name = validation_name
        return super().plot(ax)

    def _size(self) -> tuple[float, float]:
        return 5.0, 3.6

    def _draw(self, ax: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        scale, label = 1.0, self.metric.replace("_", " ")
        if self.metric == "accuracy":
            scale, label = 100.0, "accuracy (%)"
        elif self.metric == "loss" and self.loss is not None:
            unit = " (nats)" if self.loss.is_classification else ""
            label = f"{self.loss.name.replace('_', ' ')} loss{unit}"
        marked = len(self.epochs) <= _MOST_MARKERS
        for i, (values, name) in enumerate(
            [
                (self.training, "training, mean over the epoch"),
                (self.validation, f"{self._validation_name}, after the epoch"),
            ]
        ):
            if values is not None:
                ax.plot(
                    self.epochs,
                    [scale * value for value in values],
                    color=COLOURS[i],
                    linestyle=("-", "--")[i],
                    marker=MARKERS[i] if marked else "",
                    label=name,
                )
        ax.set_xlabel("epoch")
        ax.set_ylabel(label)
        ax.set_xlim(self.epochs[0] - 0.5, self.epochs[-1] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        ax.grid(alpha=0.3)
        ax.legend()


class _LayersDisplay(Display):
    """What a report says about each layer."""

    def __init__(self, report: Diagnostics) -> None:
        self.report = report

    @classmethod
    def from_network(
        cls, net: Network, X: Any, y: Any, *, sample_weight: Any = None, ax: Any = None
    ) -> Self:
        """Measure as `fastbackprop.diagnostics` does, and draw.

        Parameters
        ----------
        net : Network
            What to look into.
        X, y, sample_weight
            A batch, as in `fastbackprop.diagnostics`.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        the same type
            It has been drawn.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        return cls.from_diagnostics(diagnostics(net, X, y, sample_weight=sample_weight), ax=ax)

    @classmethod
    def from_diagnostics(cls, report: Diagnostics, *, ax: Any = None) -> Self:
        """Draw what has been measured.

        Parameters
        ----------
        report : Diagnostics
            From `fastbackprop.diagnostics`.
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        the same type
            It has been drawn.
        """
        return cls(report).plot(ax)

    def _label_layers(self, ax: Any) -> None:
        layers = self.report.layers
        if len(layers) <= _MOST_NAMED:
            names = [layer.activation.name for layer in layers]
            inches = ax.get_position().width * ax.figure.get_figwidth() / len(layers)
            if max(map(len, names)) * _CHARACTER < inches:
                ax.set_xticks(range(len(layers)), [f"{i}\n{name}" for i, name in enumerate(names)])
            else:
                labels = [f"{i} {name}" for i, name in enumerate(names)]
                ax.set_xticks(range(len(layers)), labels, rotation=90)
        ax.set_xlim(-0.5, len(layers) - 0.5)
        ax.set_xlabel("Dense layer")


class GradientFlowDisplay(_LayersDisplay):
    """Gradient norms by layer, over the fractions of units dead and outputs saturated.

    Parameters
    ----------
    report : Diagnostics
        From `fastbackprop.diagnostics`.

    Examples
    --------
    >>> net = Network([2, 4, 1], "tanh", "mse", random_state=0)
    >>> display = GradientFlowDisplay.from_network(net, [[0.0, 1.0]], [[1.0]])
    >>> display.ax_.get_ylabel()
    'gradient norm'
    """

    def _size(self) -> tuple[float, float]:
        return 6.4, 3.8

    def _draw(self, ax: Any) -> None:
        self.report.plot(ax)
        self._label_layers(ax)


class ActivationDisplay(_LayersDisplay):
    """The mean of each layer's outputs, and one standard deviation around it.

    Parameters
    ----------
    report : Diagnostics
        From `fastbackprop.diagnostics`.

    Examples
    --------
    >>> net = Network([2, 4, 1], "tanh", "mse", random_state=0)
    >>> display = ActivationDisplay.from_network(net, [[0.0, 1.0]], [[1.0]])
    >>> display.ax_.get_xlabel()
    'Dense layer'
    """

    def _size(self) -> tuple[float, float]:
        return 5.0, 3.6

    def _draw(self, ax: Any) -> None:
        layers = self.report.layers
        ax.axhline(0.0, color="#888888", linewidth=0.8)
        ax.errorbar(
            range(len(layers)),
            [layer.activation_mean for layer in layers],
            yerr=[layer.activation_std for layer in layers],
            color=COLOURS[0],
            marker=MARKERS[0],
            linestyle="",
            capsize=6,
        )
        self._label_layers(ax)
        ax.set_ylabel("output: mean ± standard deviation")
        ax.grid(axis="y", alpha=0.3)
