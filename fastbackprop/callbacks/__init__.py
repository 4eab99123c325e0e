"""Callbacks: what a user can hook into training, and those that most trainings need."""

from fastbackprop.callbacks.callback import Callback
from fastbackprop.callbacks.checkpoint import Checkpoint
from fastbackprop.callbacks.early_stopping import EarlyStopping
from fastbackprop.callbacks.functions import LambdaCallback
from fastbackprop.callbacks.loggers import CSVLogger, MetricLogger
from fastbackprop.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LambdaCallback",
    "MetricLogger",
    "ReduceLROnPlateau",
]
