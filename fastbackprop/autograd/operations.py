"""Each operation beside its derivative, on plain NumPy arrays.

An operation f returns its value and one function for each array that it took. With L any scalar
that depends on the value v, that function turns g = ∂L/∂v into ∂L/∂(that array):

    v = f(a, b)        ∂L/∂a = gᵀ · ∂v/∂a        ∂L/∂b = gᵀ · ∂v/∂b

Where broadcasting repeated an array, the function may return a gradient of the larger shape; the
tape adds up what belongs to one entry. What a function needs later it keeps in its closure, as
arrays of its own name and nothing more: the tape looks there to notice that one has changed.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Axis = int | tuple[int, ...] | None
Pullback = Callable[[Array], Array]
Result = tuple[Array, tuple[Pullback, ...]]


def add(a: Array, b: Array) -> Result:
    """a + b, of the shape that both broadcast to."""
    return a + b, (lambda g: g, lambda g: g)


def subtract(a: Array, b: Array) -> Result:
    """a − b, of the shape that both broadcast to."""
    return a - b, (lambda g: g, lambda g: -g)


def multiply(a: Array, b: Array) -> Result:
    """a · b, of the shape that both broadcast to."""
    return a * b, (lambda g: g * b, lambda g: g * a)


def divide(a: Array, b: Array) -> Result:
    """a / b, of the shape that both broadcast to."""
    return a / b, (lambda g: g / b, lambda g: -g * (a / b) / b)


def negative(a: Array) -> Result:
    """−a."""
    return -a, (lambda g: -g,)


def power(a: Array, b: Array) -> Result:
    """aᵇ, of the shape that both broadcast to.

    At b = 0 it is constant in a; at a = 0 and b ≥ 0 it is taken as constant in b.
    """
    value = a**b
    return value, (
        lambda g: np.where(b == 0, 0, g * b * a ** np.where(b == 0, 1, b - 1)),
        lambda g: np.where((a == 0) & (b >= 0), 0, g * value * np.log(a)),
    )


def matmul(a: Array, b: Array) -> Result:
    """a @ b: (..., n, k) by (..., k, m) gives (..., n, m).

    A one-dimensional a is one row, a one-dimensional b one column; that axis is then left out.
    """
    rows = a if a.ndim != 1 else a[np.newaxis, :]
    columns = b if b.ndim != 1 else b[:, np.newaxis]
    is_row, is_column = a.ndim == 1, b.ndim == 1

    def full(g: Array) -> Array:
        g = g[..., np.newaxis] if is_column else g
        return g[..., np.newaxis, :] if is_row else g

    def from_columns(g: Array) -> Array:
        db = np.swapaxes(rows, -1, -2) @ full(g)
        return db[..., 0] if is_column else db

    return a @ b, (lambda g: full(g) @ np.swapaxes(columns, -1, -2), from_columns)


def exp(x: Array) -> Result:
    """eˣ, its own derivative."""
    value = np.exp(x)
    return value, (lambda g: g * value,)


def log(x: Array) -> Result:
    """The natural logarithm."""
    return np.log(x), (lambda g: g / x,)


def sqrt(x: Array) -> Result:
    """√x; its derivative at 0 is infinite."""
    value = np.sqrt(x)
    return value, (lambda g: g / (2 * value),)


def absolute(x: Array) -> Result:
    """|x|; its derivative at 0 is taken as 0."""
    return np.abs(x), (lambda g: g * np.sign(x),)


def tanh(x: Array) -> Result:
    """The hyperbolic tangent, with tanh′ = 1 − tanh²."""
    value = np.tanh(x)
    return value, (lambda g: g * (1 - value * value),)


def sigmoid(x: Array) -> Result:
    """σ(x) = 1 / (1 + e⁻ˣ), with σ′ = σ·(1 − σ); no exponent is ever positive."""
    e = np.exp(-np.abs(x))
    value = np.where(x >= 0, 1, e) / (1 + e)
    return value, (lambda g: g * value * (1 - value),)


def relu(x: Array) -> Result:
    """max(x, 0); its derivative at 0 is taken as 0."""
    return np.maximum(x, 0), (lambda g: np.where(x <= 0, 0, g),)


def leaky_relu(x: Array, slope: float) -> Result:
    """The x where it is positive, else slope · x; its derivative at 0 is taken as the slope."""
    return np.where(x > 0, x, slope * x), (lambda g: np.where(x > 0, g, slope * g),)


def softmax(x: Array, axis: int) -> Result:
    """s = eˣ / Σ eˣ, with ∂L/∂x = s·(g − Σ g·s); the largest x is subtracted first."""
    e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    s = e / e.sum(axis=axis, keepdims=True)
    return s, (lambda g: s * (g - (g * s).sum(axis=axis, keepdims=True)),)


def log_softmax(x: Array, axis: int) -> Result:
    """x − ln Σ eˣ, with ∂L/∂x = g − softmax(x) · Σ g; the largest x is subtracted first."""
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    value = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return value, (lambda g: g - np.exp(value) * g.sum(axis=axis, keepdims=True),)


def maximum(a: Array, b: Array) -> Result:
    """The larger of a and b; where they are equal, each takes half of the gradient."""
    return np.maximum(a, b), (
        lambda g: np.where(a == b, g / 2, np.where(a < b, 0, g)),
        lambda g: np.where(a == b, g / 2, np.where(b < a, 0, g)),
    )


def where(a: Array, b: Array, condition: Array) -> Result:
    """Choose a where the condition holds, else b."""
    return np.where(condition, a, b), (
        lambda g: np.where(condition, g, 0),
        lambda g: np.where(condition, 0, g),
    )


def spread(g: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Repeat along the axes of a reduction what was left of them."""
    if not keepdims and shape:
        g = np.expand_dims(g, tuple(range(len(shape))) if axis is None else axis)
    return np.broadcast_to(g, shape)


def reduce_sum(x: Array, axis: Axis, keepdims: bool) -> Result:
    """Σ x over the axes."""
    shape = x.shape
    return x.sum(axis=axis, keepdims=keepdims), (lambda g: spread(g, shape, axis, keepdims),)


def reduce_mean(x: Array, axis: Axis, keepdims: bool) -> Result:
    """Σ x / n over the axes, which float16 adds up in float32."""
    total = x.sum(axis=axis, keepdims=keepdims, dtype=np.result_type(x, np.float32))
    shape, n = x.shape, x.size / max(total.size, 1)
    value = (total / n).astype(x.dtype)
    return value, (lambda g: spread(g / np.float64(n), shape, axis, keepdims),)


def reduce_max(x: Array, axis: Axis, keepdims: bool) -> Result:
    """The largest x over the axes; equal ones share the gradient evenly. Beside NaN it is NaN."""

    def pullback(g: Array) -> Array:
        largest = x == x.max(axis=axis, keepdims=True)
        count = largest.sum(axis=axis, keepdims=True)
        return largest * (spread(g, x.shape, axis, keepdims) / count)

    return x.max(axis=axis, keepdims=keepdims), (pullback,)


def reshape(x: Array, shape: tuple[int, ...]) -> Result:
    """The same entries in another shape."""
    former = x.shape
    return x.reshape(shape), (lambda g: g.reshape(former),)


def transpose(x: Array, axes: tuple[int, ...]) -> Result:
    """The axes in another order."""
    return x.transpose(axes), (lambda g: g.transpose(np.argsort(axes)),)


def getitem(x: Array, index: Any) -> Result:
    """x[index]; an entry taken several times collects the gradient of each."""
    shape = x.shape

    def pullback(g: Array) -> Array:
        dx = np.zeros(shape, g.dtype)
        np.add.at(dx, index, g)
        return dx

    return x[index], (pullback,)


def concatenate(*arrays: Array, axis: int) -> Result:
    """Arrays one after the other along an axis."""
    value = np.concatenate(arrays, axis)
    before = (slice(None),) * (axis % value.ndim)
    ends = list(accumulate(array.shape[axis] for array in arrays))

    def part(start: int, end: int) -> Pullback:
        return lambda g: g[(*before, slice(start, end))]

    return value, tuple(part(start, end) for start, end in pairwise([0, *ends]))


def stack(*arrays: Array, axis: int) -> Result:
    """Arrays side by side along a new axis."""

    def part(i: int) -> Pullback:
        return lambda g: np.take(g, i, axis)

    return np.stack(arrays, axis), tuple(part(i) for i in range(len(arrays)))
