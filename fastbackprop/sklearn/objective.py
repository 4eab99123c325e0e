"""What an estimator makes small: its loss in the kernels' terms, and the penalty on its weights."""

from __future__ import annotations

from typing import NamedTuple

from fastbackprop.activations import Activation
from fastbackprop.losses import Loss


class Objective(NamedTuple):
    """A loss of scikit-learn's, by way of a loss of the kernels.

    scikit-learn adds up the gradients of the outputs, even where the loss that it reports is their
    mean. The kernels' losses have one or the other in both, so there are two factors.
    """

    loss: Loss
    output: Activation
    gradient_factor: float  # scikit-learn's gradient over the kernels'
    report_factor: float  # likewise, of the loss that is reported
    alpha: float  # the penalty is ½ alpha · Σ w² / (the weight of the batch)
