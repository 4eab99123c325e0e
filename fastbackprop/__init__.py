"""Dense neural networks on the CPU, at the speed of the hardware.

>>> import fastbackprop as fb
>>> net = fb.Network([784, 128, 10], activation="relu", loss="cross_entropy", random_state=0)
>>> print(net.summary())
Layer     Units  Activation  Parameters
Dense       128  relu           100,480
Dense        10  softmax          1,290
Inputs 784, loss cross_entropy, float32, 101,770 parameters (407.1 kB)
"""

from fastbackprop import autograd, datasets, gradcheck, metrics, plots
from fastbackprop._version import __version__
from fastbackprop.activations import Activation
from fastbackprop.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    MetricLogger,
    ReduceLROnPlateau,
)
from fastbackprop.errors import FileFormatError
from fastbackprop.exchange.importers import (
    from_keras_weights,
    from_onnx,
    from_sklearn,
    from_torch,
)
from fastbackprop.gradcheck import GradientCheckReport, GradientMismatch, check_gradients
from fastbackprop.history import History
from fastbackprop.initializers import Initializer
from fastbackprop.inspection import diagnostics
from fastbackprop.layers import Dense, Dropout, Rescaling
from fastbackprop.losses import Loss
from fastbackprop.network import Network, load
from fastbackprop.optimizers import SGD, Adam, AdamW, RMSprop
from fastbackprop.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    OneCycle,
    StepDecay,
    Warmup,
)
from fastbackprop.stepping import DivergenceError

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Constant",
    "CosineDecay",
    "Dense",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "ExponentialDecay",
    "FileFormatError",
    "GradientCheckReport",
    "GradientMismatch",
    "History",
    "Initializer",
    "InverseScaling",
    "LambdaCallback",
    "Loss",
    "MetricLogger",
    "Network",
    "OneCycle",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rescaling",
    "StepDecay",
    "Warmup",
    "__version__",
    "autograd",
    "check_gradients",
    "datasets",
    "diagnostics",
    "from_keras_weights",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "gradcheck",
    "load",
    "metrics",
    "plots",
]
