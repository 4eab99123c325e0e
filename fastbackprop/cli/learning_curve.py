"""The picture of a training: loss and accuracy against epochs."""

from pathlib import Path

from fastbackprop.history import History
from fastbackprop.losses import Loss
from fastbackprop.plots import LossCurveDisplay


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
    except ImportError:
        return False
    metrics = ["loss", "accuracy"] if "val_accuracy" in history else ["loss"]
    figure = Figure(figsize=(5.0 * len(metrics), 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title.replace("$", r"\$"), wrap=True)  # no mathematics in a file's name
    row = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(row, metrics, strict=True):
        LossCurveDisplay.from_history(history, metric, loss=loss, validation_name="test", ax=axes)
    figure.savefig(path)
    return True
