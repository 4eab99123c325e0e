"""Pictures of a network and of what it does, in the manner of scikit-learn's displays.

Each ``from_...`` measures and draws, and returns a display that holds what was measured; its
``plot`` draws it again, on other axes. After drawing, ``ax_`` and ``figure_`` are matplotlib's own.
Colours are those that colour-blind people can tell apart. It needs matplotlib:
``pip install "fastbackprop[plots]"``.

>>> import fastbackprop as fb
>>> history = fb.History()
>>> for epoch, loss in enumerate([0.9, 0.5, 0.3]):
...     history.append(epoch, {"loss": loss, "val_loss": loss + 0.1})
>>> display = fb.plots.LossCurveDisplay.from_history(history)
>>> display.ax_.get_xlabel()
'epoch'
>>> display.figure_.savefig("loss.png")  # doctest: +SKIP
"""

from fastbackprop.plots.architecture import NetworkDisplay, WeightsDisplay
from fastbackprop.plots.boundary import DecisionBoundaryDisplay
from fastbackprop.plots.predictions import ConfusionMatrixDisplay, MisclassifiedDisplay
from fastbackprop.plots.progress import ActivationDisplay, GradientFlowDisplay, LossCurveDisplay

__all__ = [
    "ActivationDisplay",
    "ConfusionMatrixDisplay",
    "DecisionBoundaryDisplay",
    "GradientFlowDisplay",
    "LossCurveDisplay",
    "MisclassifiedDisplay",
    "NetworkDisplay",
    "WeightsDisplay",
]
