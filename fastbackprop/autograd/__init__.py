"""Reverse-mode differentiation of NumPy code by a small tape, and layers for teaching on it.

It is there to be read, and to check the compiled kernels by: it uses none of them. The order to
read it in: `operations` (each beside its derivative), `tape` (the way back), `tensor`. There are
no second derivatives.

The conventions are PyTorch's: `Tensor.backward` needs a scalar unless given a gradient, gradients
add up until `zero_grad`, only leaves keep them, a graph serves one backward unless retained, and
overflows give inf without a warning. What NumPy has, axes and all, is called and meant as there.

>>> from fastbackprop.autograd import Tensor
>>> x, y, z = (Tensor(value, requires_grad=True) for value in (-2.0, 5.0, -4.0))
>>> f = (x + y) * z
>>> f.backward()
>>> f.item(), x.grad.item(), y.grad.item(), z.grad.item()
(-12.0, -4.0, -4.0, 3.0)
"""

from fastbackprop.autograd.functions import (
    concatenate,
    exp,
    leaky_relu,
    log,
    log_softmax,
    maximum,
    relu,
    sigmoid,
    softmax,
    sqrt,
    stack,
    tanh,
    where,
)
from fastbackprop.autograd.layers import (
    LeakyReLU,
    Linear,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    cross_entropy_loss,
    mse_loss,
)
from fastbackprop.autograd.optimizers import SGD, Adam
from fastbackprop.autograd.recording import no_grad
from fastbackprop.autograd.tensor import Tensor
from fastbackprop.autograd.transforms import grad, value_and_grad

__all__ = [
    "SGD",
    "Adam",
    "LeakyReLU",
    "Linear",
    "Module",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Tensor",
    "concatenate",
    "cross_entropy_loss",
    "exp",
    "grad",
    "leaky_relu",
    "log",
    "log_softmax",
    "maximum",
    "mse_loss",
    "no_grad",
    "relu",
    "sigmoid",
    "softmax",
    "sqrt",
    "stack",
    "tanh",
    "value_and_grad",
    "where",
]
