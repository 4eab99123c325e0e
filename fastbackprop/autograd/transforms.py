"""From a function to its gradient: grad(f) and value_and_grad(f)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from fastbackprop.autograd.operations import Array
from fastbackprop.autograd.recording import Recording
from fastbackprop.autograd.tape import gradients
from fastbackprop.autograd.tensor import Tensor, as_tensor

Gradient = Array | tuple[Array, ...]


def value_and_grad(
    f: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0
) -> Callable[..., tuple[float, Gradient]]:
    """Return a function that gives both the value of `f` and its gradient.

    Parameters
    ----------
    f : callable
        Takes tensors and returns a tensor of one entry. It is called with copies of the
        arguments, on a tape of their own: no `Tensor.grad` changes, whatever `f` refers to.
    argnums : int or tuple of int, default 0
        The positional arguments to differentiate with respect to.

    Returns
    -------
    callable
        Takes what `f` takes (arrays and numbers will do where it differentiates), and returns
        the value as a float and the gradient as an array; a tuple of arrays for a tuple of
        `argnums`. It is 0 with respect to an argument that the value does not depend on.

    Raises
    ------
    TypeError
        If `argnums` is not integers. By the function returned: if an argument is not
        floating-point, or if `f` returns something else than a tensor, as the function that
        `grad` gives does: there are no second derivatives.
    ValueError
        If `argnums` names an argument twice. By the function returned: if there is no such
        argument, or if the value of `f` has several entries.

    Examples
    --------
    >>> value_and_grad(lambda x: (x**2).sum())([1.0, 2.0])
    (5.0, array([2., 4.]))
    """
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, int) for i in chosen):
        raise TypeError(f"argnums must be an integer or a tuple of integers, got {argnums!r}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"argnums must name each argument once, got {argnums}")

    @wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[float, Gradient]:
        if not all(0 <= i < len(args) for i in chosen):
            raise ValueError(
                f"argnums must be from 0 to {len(args) - 1}, as there are {len(args)} positional "
                f"arguments, got {argnums}"
            )
        leaves = {i: Tensor(as_tensor(args[i]).data, requires_grad=True) for i in chosen}
        with Recording(on=True):
            value = f(*(leaves.get(i, arg) for i, arg in enumerate(args)), **kwargs)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"f must return a Tensor, got {type(value).__name__}; inside f, use the "
                "operations of fastbackprop.autograd, not those of NumPy, .data or float(), nor "
                "grad(), whose result is a plain array: there are no second derivatives"
            )
        if value.size != 1:
            raise ValueError(
                f"f must return a scalar, got shape {value.shape}; reduce it by sum() or mean()"
            )
        found: dict[Tensor, Array] = {}
        if value.requires_grad:
            # What f refers to may be on another tape, which is not this function's to free.
            found = gradients(value, np.ones(value.shape, value.dtype), retain_graph=True)
        results = tuple(found.get(leaf, np.zeros_like(leaf.data)) for leaf in leaves.values())
        return float(value), results[0] if isinstance(argnums, int) else results

    return value_and_gradient


def grad(f: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0) -> Callable[..., Gradient]:
    """Return a function that gives the gradient of `f`.

    Parameters
    ----------
    f : callable
        As for `value_and_grad`.
    argnums : int or tuple of int, default 0
        As for `value_and_grad`.

    Returns
    -------
    callable
        What `value_and_grad` gives, without the value. The gradient is a plain array, so that
        ``grad(grad(f))`` is refused.

    Examples
    --------
    Gradient descent on x²:

    >>> x = 10.0
    >>> for _ in range(20):
    ...     x = x - 0.1 * grad(lambda x: x**2)(x)
    >>> print(f"{x:.4f}")
    0.1153
    """
    both = value_and_grad(f, argnums)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Gradient:
        return both(*args, **kwargs)[1]

    return gradient
