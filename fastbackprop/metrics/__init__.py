"""Metrics: how good outputs are, in numbers that people read; the values are scikit-learn's.

`Network.evaluate` and `Network.fit` take these objects, or their names: "accuracy",
"top_5_accuracy" (or any other number), "precision", "recall", "f1", "precision_macro",
"recall_macro", "f1_macro", "r2", "mae", "rmse"; or functions.
"""

from fastbackprop.metrics.classification import F1, Accuracy, Precision, Recall, TopK
from fastbackprop.metrics.metric import Function, Metric
from fastbackprop.metrics.names import Metrics, checked, is_better_larger
from fastbackprop.metrics.regression import MAE, R2, RMSE

__all__ = [
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "Function",
    "Metric",
    "Metrics",
    "Precision",
    "Recall",
    "TopK",
    "checked",
    "is_better_larger",
]
