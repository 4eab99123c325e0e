"""The picture of a training: loss and accuracy against epochs."""

from pathlib import Path
from typing import Any

from fastbackprop.history import History
from fastbackprop.losses import Loss

# Blue and vermillion of Okabe and Ito, which colour-blind people can tell apart. The lines and
# markers differ too, for print without colour.
_TRAINING: dict[str, Any] = {
    "color": "#0072B2",
    "linestyle": "-",
    "marker": "o",
    "label": "training, mean over the epoch",
}
_TEST: dict[str, Any] = {
    "color": "#D55E00",
    "linestyle": "--",
    "marker": "s",
    "label": "test, after the epoch",
}
_MOST_MARKERS = 30


def draw_learning_curve(path: Path, history: History, loss: Loss, title: str) -> bool:
    """Draw loss and, where there are classes, accuracy, of training and test data.

    Parameters
    ----------
    path : Path
        The PNG file to write.
    history : History
        Of a fit with validation data and at least one epoch.
    loss : Loss
        Names the unit of the loss.
    title : str
        Above the panels.

    Returns
    -------
    bool
        Whether it was drawn: not without matplotlib.

    Raises
    ------
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastbackprop.cli.learning_curve import draw_learning_curve
    >>> from fastbackprop.losses import Loss
    >>> from fastbackprop.history import History
    >>> history = History()
    >>> history.append(0, {"loss": 0.7, "val_loss": 0.5})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_learning_curve(Path(folder, "curve.png"), history, Loss("mse"), "an example")
    True
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    unit = " (nats)" if loss.is_classification else ""
    panels = [("loss", f"{loss.name.replace('_', ' ')} loss{unit}", 1.0)]
    if "val_accuracy" in history:
        panels.append(("accuracy", "accuracy (%)", 100.0))
    epochs = [epoch + 1 for epoch in history.epoch]

    figure = Figure(figsize=(5.0 * len(panels), 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title.replace("$", r"\$"), wrap=True)  # no mathematics in a file's name
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, label, scale) in zip(row, panels, strict=True):
        for column, style in ((name, _TRAINING), (f"val_{name}", _TEST)):
            values = [scale * value for value in history[column]]
            (line,) = axes.plot(epochs, values, **style)
            if len(epochs) > _MOST_MARKERS:
                line.set_marker("")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)
    return True
