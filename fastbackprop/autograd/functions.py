"""Operations as functions: of several tensors, or of one, for those who write exp(x)."""

from collections.abc import Sequence

import numpy as np

from fastbackprop.autograd import operations
from fastbackprop.autograd.tensor import Tensor, TensorLike, apply, as_tensor


def exp(x: TensorLike) -> Tensor:
    """Return eˣ, elementwise.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> exp([0.0, 1.0])
    Tensor([1.        , 2.71828183])
    """
    return as_tensor(x).exp()


def log(x: TensorLike) -> Tensor:
    """Return the natural logarithm, elementwise: −inf at 0 and NaN below, without a warning.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> log([1.0, 10.0])
    Tensor([0.        , 2.30258509])
    """
    return as_tensor(x).log()


def sqrt(x: TensorLike) -> Tensor:
    """Return √x, elementwise. Its derivative at 0 is infinite.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> sqrt([4.0, 9.0])
    Tensor([2., 3.])
    """
    return as_tensor(x).sqrt()


def tanh(x: TensorLike) -> Tensor:
    """Return the hyperbolic tangent, elementwise.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> tanh([0.0, 1.0])
    Tensor([0.        , 0.76159416])
    """
    return as_tensor(x).tanh()


def sigmoid(x: TensorLike) -> Tensor:
    """Return σ(x) = 1 / (1 + e⁻ˣ), elementwise. No x is too large.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> sigmoid([0.0, 1000.0])
    Tensor([0.5, 1. ])
    """
    return as_tensor(x).sigmoid()


def relu(x: TensorLike) -> Tensor:
    """Return max(x, 0), elementwise. Its derivative at 0 is 0.

    Parameters
    ----------
    x : array_like
        Of any shape.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> relu([-1.0, 2.0])
    Tensor([0., 2.])
    """
    return as_tensor(x).relu()


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return x where it is positive, else negative_slope · x.

    Parameters
    ----------
    x : array_like
        Of any shape.
    negative_slope : float, default 0.01
        Also the derivative at 0.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> leaky_relu([-1.0, 2.0])
    Tensor([-0.01,  2.  ])
    """
    return as_tensor(x).leaky_relu(negative_slope)


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Return the probabilities eˣ / Σ eˣ along an axis.

    Parameters
    ----------
    x : array_like
        Of any shape. No x is too large.
    axis : int, default -1
        Along which they add up to 1.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> softmax([[0.0, 0.0], [1000.0, 0.0]])
    Tensor([[0.5, 0.5],
            [1. , 0. ]])
    """
    return as_tensor(x).softmax(axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Return the logarithm of `softmax`, which is exact where the probability rounds to 0.

    Parameters
    ----------
    x : array_like
        Of any shape.
    axis : int, default -1
        Along which the probabilities add up to 1.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> log_softmax([1000.0, 0.0])
    Tensor([    0., -1000.])
    """
    return as_tensor(x).log_softmax(axis)


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """Return the larger of a and b, elementwise.

    Parameters
    ----------
    a, b : array_like
        Of shapes that broadcast together.

    Returns
    -------
    Tensor
        Where a = b, each takes half of the gradient, as in PyTorch.

    Examples
    --------
    >>> maximum([1.0, 5.0], 2.0)
    Tensor([2., 5.])
    """
    return apply(operations.maximum, a, b)


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """Return a where the condition holds, else b.

    Parameters
    ----------
    condition : array_like of bool
        Such as a comparison gives.
    a, b : array_like
        Of shapes that broadcast together with the condition.

    Returns
    -------
    Tensor
        The gradient of a is 0 where b was taken, and the other way round. If a came from an
        operation whose derivative there is infinite or NaN, 0 times that is NaN, as in PyTorch:
        choose a safe argument before such an operation instead of a value after it.

    Raises
    ------
    TypeError
        If the condition is not of bools.

    Examples
    --------
    >>> x = Tensor([-1.0, 2.0])
    >>> where(x > 0, x, 0.1 * x)
    Tensor([-0.1,  2. ])
    """
    chosen = as_tensor(condition).data
    if chosen.dtype != np.bool_:
        raise TypeError(
            f"condition must be an array of bools, got dtype {chosen.dtype}; compare, as in x > 0"
        )
    return apply(operations.where, a, b, condition=chosen)


def concatenate(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Return tensors joined along an axis they have.

    Parameters
    ----------
    tensors : sequence of array_like
        At least one, of equal shapes but for that axis.
    axis : int, default 0

    Returns
    -------
    Tensor

    Examples
    --------
    >>> concatenate([Tensor([1.0]), Tensor([2.0, 3.0])])
    Tensor([1., 2., 3.])
    """
    return apply(operations.concatenate, *_several(tensors), axis=axis)


def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Return tensors joined along a new axis.

    Parameters
    ----------
    tensors : sequence of array_like
        At least one, of equal shapes.
    axis : int, default 0
        The place of the new axis in the result.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> stack([Tensor(1.0), Tensor(2.0)])
    Tensor([1., 2.])
    """
    return apply(operations.stack, *_several(tensors), axis=axis)


def _several(tensors: Sequence[TensorLike]) -> Sequence[TensorLike]:
    if not len(tensors):
        raise ValueError("at least one tensor is needed, got none")
    return tensors
