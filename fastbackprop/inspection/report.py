"""What was measured of each layer: numbers, a table, what stands out, a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fastbackprop.activations import Activation
from fastbackprop.presentation import Row, html_table, new_axes, text_table

# What stands out: a fraction saturated, and a gradient that changes between last and first layer.
_MOSTLY_SATURATED = 0.5
_LARGE_CHANGE = 1e3

_WIDTH = 80

# Colours of Okabe and Ito, which colour-blind people can tell apart; markers and hatches for print.
_LINES: dict[str, dict[str, Any]] = {
    "weight_gradient_norm": {"label": "‖dw‖", "color": "#0072B2", "marker": "o"},
    "bias_gradient_norm": {"label": "‖db‖", "color": "#009E73", "marker": "^", "ls": ":"},
    "preactivation_gradient_rms": {
        "label": "rms ‖dz‖",
        "color": "#D55E00",
        "marker": "s",
        "ls": "--",
    },
}
_BARS: dict[str, dict[str, Any]] = {
    "fraction_dead": {"label": "dead", "color": "#CCCCCC"},
    "fraction_saturated": {
        "label": "saturated",
        "color": "#FBE9C3",
        "hatch": "//",
        "ec": "#EFCF8B",
    },
}


@dataclass(frozen=True)
class LayerDiagnostics:
    """What one Dense layer, a = f(z) with z = x @ w + b, does with the data.

    Attributes
    ----------
    name : str
        "layers.0" for the first Dense layer and so on, as in a saved file.
    n_in, n_out : int
        Its sizes.
    activation : Activation
        f.
    activation_mean, activation_std : float
        Of all its outputs a, over rows and units. Outputs that the loss takes as logits are counted
        as the probabilities that `Network.predict` returns.
    dead_units : tuple of int, or None
        The numbers of the relu units whose output is 0 for every row, so that no gradient reaches
        their weights. leaky_relu and elu are relu if their alpha is 0. None for the other
        activations: their slope may be small, but a unit that is off still learns.
    fraction_saturated : float or None
        How many of the outputs are within 1 % of a limit, where the slope that multiplies the
        gradient is next to 0: below 0.01 or above 0.99 for sigmoid, beyond ±0.99 for tanh. None
        where there are no two limits, and for the output of a cross-entropy loss (softmax, or
        sigmoid with binary_cross_entropy): its gradient a − y has no such factor.
    weight_gradient_norm, bias_gradient_norm : float
        L2 norms of the gradient of the mean loss; None for a bias that there is not.
    preactivation_gradient_rms : float
        Root mean square over the rows of ‖∂ℓᵢ/∂zᵢ‖, with ℓᵢ the loss of row i.
    weight_norm : float
        L2 norm of w.
    """

    name: str
    n_in: int
    n_out: int
    activation: Activation
    activation_mean: float
    activation_std: float
    dead_units: tuple[int, ...] | None
    fraction_saturated: float | None
    weight_gradient_norm: float
    bias_gradient_norm: float | None
    preactivation_gradient_rms: float
    weight_norm: float

    @property
    def fraction_dead(self) -> float | None:
        """The share of the units that are dead; None where none can be."""
        return None if self.dead_units is None else len(self.dead_units) / self.n_out

    @property
    def gradient_ratio(self) -> float:
        """`weight_gradient_norm` / `weight_norm`; NaN if both are 0."""
        if self.weight_norm == 0.0:
            return math.inf if self.weight_gradient_norm > 0.0 else math.nan
        return self.weight_gradient_norm / self.weight_norm


@dataclass(frozen=True)
class Diagnostics:
    """The layers of a network at work on some data; `str` gives a table and what stands out.

    Attributes
    ----------
    layers : tuple of LayerDiagnostics
        One for each Dense layer, from input to output.
    loss : float
        The mean loss.
    rows : int
        How many rows of data there were.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> net = fb.Network([2, 3, 1], "relu", "mse", random_state=0)
    >>> net.set_parameters([0.0] * net.n_parameters)
    >>> report = fb.diagnostics(net, [[0.5, -1.0]], [[2.0]])
    >>> report.loss, report.layers[0].fraction_dead
    (4.0, 1.0)
    """

    layers: tuple[LayerDiagnostics, ...]
    loss: float
    rows: int

    @property
    def findings(self) -> tuple[str, ...]:
        """What stands out, a sentence each.

        - A unit is dead.
        - More than half of a layer's outputs are saturated.
        - From the last layer to the first, `preactivation_gradient_rms` changes by more than a
          factor of 1,000.
        - No gradient reaches a layer's parameters.
        - A number is not finite.
        """
        return tuple(_findings(self.layers))

    def __str__(self) -> str:
        found = [textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in self._summary()]
        return "\n\n".join([*map(text_table, self._tables()), "\n".join(found)])

    def _repr_html_(self) -> str:
        tables = "".join(map(html_table, self._tables()))
        return tables + "".join(f"<p>{escape(line)}</p>" for line in self._summary())

    def _summary(self) -> list[str]:
        return [f"Loss {_short(self.loss)} over {self.rows:,} rows.", *self.findings]

    def _tables(self) -> Iterator[list[Row]]:
        """Activations, then gradients; each a list of rows, the first of them the head."""
        activations: list[Row] = [
            (
                layer.name,
                f"{layer.n_in}-{layer.n_out}",
                layer.activation.name,
                _short(layer.activation_mean),
                _short(layer.activation_std),
                _percent(layer.fraction_dead),
                _percent(layer.fraction_saturated),
            )
            for layer in self.layers
        ]
        head = ("Layer", "Units", "Activation", "Mean", "Std", "Dead", "Saturated")
        yield [head, *activations]
        gradients: list[Row] = [
            (
                layer.name,
                f"{layer.weight_gradient_norm:.2e}",
                "-" if layer.bias_gradient_norm is None else f"{layer.bias_gradient_norm:.2e}",
                f"{layer.preactivation_gradient_rms:.2e}",
                _short(layer.weight_norm),
                f"{layer.gradient_ratio:.2e}",
            )
            for layer in self.layers
        ]
        yield [("Layer", "‖dw‖", "‖db‖", "rms ‖dz‖", "‖w‖", "‖dw‖ / ‖w‖"), *gradients]

    def plot(self, ax: Any = None) -> Any:
        """Draw gradient norms, and fractions dead and saturated, against layers.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where; a new figure unless given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(dpi=150) if ax is None else ax
        from matplotlib.ticker import MaxNLocator

        ax.set_yscale("log")
        for attribute, style in _LINES.items():
            heights = [_positive(getattr(layer, attribute)) for layer in self.layers]
            ax.plot(range(len(heights)), heights, **style)
        ax.set_xlabel("Dense layer")
        ax.set_ylabel("gradient norm")
        ax.set_xlim(-0.5, len(self.layers) - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", alpha=0.3)
        self._draw_fractions(ax)
        return ax

    def _draw_fractions(self, ax: Any) -> None:
        """Bars behind the lines of `ax`, on an axis of their own; then the legend of both."""
        from matplotlib.patches import Patch

        legend = list(ax.get_lines())
        behind = None
        for attribute, style in _BARS.items():
            fractions = [getattr(layer, attribute) for layer in self.layers]
            if all(fraction is None for fraction in fractions):
                continue
            behind = behind or ax.twinx()
            bars = {i: 100 * fraction for i, fraction in enumerate(fractions) if fraction}
            behind.bar(list(bars), list(bars.values()), width=0.5, **style)
            legend.append(Patch(**style))  # also where no bar is drawn
        if behind is not None:
            behind.set_ylim(0, 100)
            behind.set_ylabel("units dead, outputs saturated (%)")
            ax.set_zorder(behind.get_zorder() + 1)
            ax.patch.set_visible(False)
        ax.legend(handles=legend, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5)


def _findings(layers: Sequence[LayerDiagnostics]) -> Iterator[str]:
    overflown = [
        layer.name
        for layer in layers
        if not all(math.isfinite(v) for v in vars(layer).values() if isinstance(v, float))
    ]
    if overflown:
        yield (
            f"{', '.join(overflown)}: numbers are not finite; try smaller initial weights, or "
            "inputs scaled to about 1"
        )
    for layer in layers:
        if layer.dead_units:
            count = len(layer.dead_units)
            yield (
                f"{layer.name}: {count} of {layer.n_out} units {'is' if count == 1 else 'are'} "
                "dead; try leaky_relu or a smaller learning rate"
            )
    saturated = [
        layer.name for layer in layers if (layer.fraction_saturated or 0.0) > _MOSTLY_SATURATED
    ]
    if saturated:
        yield (
            f"{', '.join(saturated)}: more than half of the outputs are saturated; try smaller "
            "initial weights or scaled inputs"
        )
    silent = [
        layer.name
        for layer in layers
        if layer.weight_gradient_norm == 0.0 and not layer.bias_gradient_norm
    ]
    if len(silent) == len(layers):
        yield "Every gradient is 0: these rows teach the network nothing"
    elif silent:
        yield f"{', '.join(silent)}: no gradient reaches the parameters"
    first, last = (layers[i].preactivation_gradient_rms for i in (0, -1))
    if 0.0 < first < last / _LARGE_CHANGE:
        yield (
            f"Gradients shrink by {first / last:.0e} from the last layer to the first: vanishing; "
            "try relu, or larger initial weights"
        )
    elif math.inf > first > last * _LARGE_CHANGE > 0.0:
        yield (
            f"Gradients grow by {first / last:.0e} from the last layer to the first: exploding; "
            "try smaller initial weights, or clip_norm in the optimizer"
        )


def _short(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _positive(value: float | None) -> float:
    """The value, or NaN, which a logarithmic axis leaves out."""
    return value if value else math.nan
