"""The pictures of ``fastbackprop train --plots``: those that fit the network and its data."""

import math
from collections.abc import Iterator
from pathlib import Path

from fastbackprop import plots
from fastbackprop.cli.data import Task
from fastbackprop.history import History
from fastbackprop.inspection import diagnostics
from fastbackprop.network import Network
from fastbackprop.plots.canvas import Display

_DPI = 150


def prepare_folder(folder: Path) -> None:
    """Make the folder, and find out before the training whether pictures can be drawn.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError
        If the folder cannot be made.
    """
    try:
        import matplotlib.pyplot  # noqa: F401
    except ImportError:
        raise ImportError(
            '--plots needs matplotlib, which is not installed: pip install "fastbackprop[plots]"'
        ) from None
    folder.mkdir(parents=True, exist_ok=True)


def draw_pictures(folder: Path, net: Network, task: Task, history: History) -> list[Path]:
    """Write a PNG file for each picture, and return their paths.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    from matplotlib import pyplot

    paths = []
    for name, display in _displays(net, task, history):
        paths.append(folder / f"{name}.png")
        try:
            display.figure_.savefig(paths[-1], dpi=_DPI)
        finally:
            pyplot.close(display.figure_)
    return paths


def _displays(net: Network, task: Task, history: History) -> Iterator[tuple[str, Display]]:
    X, y = task.test
    yield "network", plots.NetworkDisplay.from_network(net)
    yield (
        "loss",
        plots.LossCurveDisplay.from_history(
            history, loss=net.loss_function, validation_name="test"
        ),
    )
    report = diagnostics(net, X, y)
    yield "activations", plots.ActivationDisplay.from_diagnostics(report)
    yield "gradient_flow", plots.GradientFlowDisplay.from_diagnostics(report)
    images = task.scale is not None and math.isqrt(task.n_in) ** 2 == task.n_in
    if images:
        yield "weights", plots.WeightsDisplay.from_network(net)
    if "val_accuracy" in history:
        yield (
            "accuracy",
            plots.LossCurveDisplay.from_history(history, "accuracy", validation_name="test"),
        )
        yield "confusion_matrix", plots.ConfusionMatrixDisplay.from_network(net, X, y)
        if images:
            yield "misclassified", plots.MisclassifiedDisplay.from_network(net, X, y)
    if task.n_in == 2:
        yield "decision_boundary", plots.DecisionBoundaryDisplay.from_network(net, X, y)
