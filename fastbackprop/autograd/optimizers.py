"""Optimizers for teaching: SGD and Adam, with PyTorch's formulas, on the tensors' own grads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from numbers import Real

import numpy as np

from fastbackprop.autograd.operations import Array
from fastbackprop.autograd.tensor import Tensor


def _positive(name: str, number: float) -> float:
    """The number, if it is one, finite and above 0."""
    message = f"{name} must be a positive number, got {number!r}"
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(message)
    if not 0 < number < math.inf:
        raise ValueError(message)
    return number


def _fraction(name: str, number: float) -> float:
    """The number, if it is one, at least 0 and below 1."""
    message = f"{name} must be at least 0 and below 1, got {number!r}"
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(message)
    if not 0 <= number < 1:
        raise ValueError(message)
    return number


class _Optimizer(ABC):
    """The parameters, the learning rate, and a step for each parameter that has a gradient."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be a list of tensors, got one Tensor; write [tensor]")
        if not isinstance(params, Iterable):
            raise TypeError(f"params must be a list of tensors, got {params!r:.60}")
        self.params = list(params)
        seen: set[Tensor] = set()
        if not self.params:
            raise ValueError("params is empty; pass model.parameters()")
        for param in self.params:
            if not isinstance(param, Tensor):
                raise TypeError(f"params must be tensors, got {param!r:.60}")
            if not param.requires_grad:
                raise ValueError(
                    f"a parameter of shape {param.shape} requires no gradient; "
                    "make it by Tensor(data, requires_grad=True)"
                )
            if not param.is_leaf:
                raise ValueError(
                    f"a parameter of shape {param.shape} is the result of an operation, which "
                    "keeps no gradient; compute it first, then take Tensor(x.detach(), "
                    "requires_grad=True)"
                )
            if param in seen:
                raise ValueError(
                    f"a parameter of shape {param.shape} is listed twice, and would be updated "
                    "twice in a step; list it once"
                )
            seen.add(param)
        self.lr = _positive("lr", lr)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for param in self.params:
            param.zero_grad()

    def step(self) -> None:
        """Update in place every parameter that has a gradient."""
        with np.errstate(all="ignore"):  # as on the tape, what overflows is inf
            for i, param in enumerate(self.params):
                if param.grad is not None:
                    param.data -= self._change(i, param.grad)

    @abstractmethod
    def _change(self, i: int, g: Array) -> Array:
        """What to take from the i-th parameter, whose gradient is g."""


class SGD(_Optimizer):
    """Stochastic gradient descent: v ← momentum · v + g, then p ← p − lr · v.

    Parameters
    ----------
    params : iterable of Tensor
        Such as `Module.parameters` gives: leaves that require a gradient, each once.
    lr : float
        The learning rate; positive and finite. It can be changed between steps.
    momentum : float, default 0.0
        At least 0 and below 1; at 0 the step is lr · g.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> x = Tensor(10.0, requires_grad=True)
    >>> optimizer = SGD([x], lr=0.1)
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     (x**2).backward()
    ...     optimizer.step()
    >>> print(f"{x:.4f}")
    1.0737
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        self.momentum = _fraction("momentum", momentum)
        self._v = [np.zeros_like(param.data) for param in self.params]

    def _change(self, i: int, g: Array) -> Array:
        if self.momentum:
            g = self._v[i] = self.momentum * self._v[i] + g
        return self.lr * g


class Adam(_Optimizer):
    """Adam: steps of about lr, whatever the size of the gradient.

        m ← β₁·m + (1 − β₁)·g        m̂ = m / (1 − β₁ᵗ)
        v ← β₂·v + (1 − β₂)·g²       v̂ = v / (1 − β₂ᵗ)        p ← p − lr · m̂ / (√v̂ + eps)

    Parameters
    ----------
    params : iterable of Tensor
        Such as `Module.parameters` gives: leaves that require a gradient, each once.
    lr : float, default 1e-3
        The learning rate; positive and finite. It can be changed between steps.
    betas : (float, float), default (0.9, 0.999)
        β₁ and β₂, each at least 0 and below 1.
    eps : float, default 1e-8
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> x = Tensor(10.0, requires_grad=True)
    >>> optimizer = Adam([x], lr=0.1)
    >>> (x**2).backward()
    >>> optimizer.step()
    >>> x
    Tensor(9.9, requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas must be two numbers, got {betas!r}")
        self.betas = _fraction("betas[0]", betas[0]), _fraction("betas[1]", betas[1])
        self.eps = _positive("eps", eps)
        self._t = [0] * len(self.params)
        self._m = [np.zeros_like(param.data) for param in self.params]
        self._v = [np.zeros_like(param.data) for param in self.params]

    def _change(self, i: int, g: Array) -> Array:
        beta1, beta2 = self.betas
        self._t[i] += 1
        self._m[i] = beta1 * self._m[i] + (1 - beta1) * g
        self._v[i] = beta2 * self._v[i] + (1 - beta2) * g * g
        mean = self._m[i] / (1 - beta1 ** self._t[i])
        variance = self._v[i] / (1 - beta2 ** self._t[i])
        change: Array = self.lr * mean / (np.sqrt(variance) + self.eps)
        return change
