"""Gradients compared with finite differences: of a network, or of any function of a vector.

>>> import numpy as np
>>> from fastbackprop import gradcheck
>>> theta = np.array([1.0, 2.0])
>>> gradcheck.check(lambda x: np.sum(x**3), lambda x: 3 * x**2, theta).ok
True
"""

from fastbackprop.gradcheck.examination import METHODS
from fastbackprop.gradcheck.functions import check
from fastbackprop.gradcheck.networks import check_gradients
from fastbackprop.gradcheck.report import Comparison, GradientCheckReport, TensorSummary
from fastbackprop.gradcheck.table import worst_errors
from fastbackprop.gradcheck.verdicts import GradientEntry, GradientMismatch, Verdict

__all__ = [
    "METHODS",
    "Comparison",
    "GradientCheckReport",
    "GradientEntry",
    "GradientMismatch",
    "TensorSummary",
    "Verdict",
    "check",
    "check_gradients",
    "worst_errors",
]
