"""A look inside a network at work: activations and gradients by layer."""

from fastbackprop.inspection.measurement import diagnostics
from fastbackprop.inspection.report import Diagnostics, LayerDiagnostics

__all__ = ["Diagnostics", "LayerDiagnostics", "diagnostics"]
