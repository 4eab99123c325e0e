"""Tensor: a NumPy array whose operations are recorded, so that gradients can flow back."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fastbackprop.autograd import operations
from fastbackprop.autograd.operations import Array, Axis, Result
from fastbackprop.autograd.tape import Node, gradients, is_recording

TensorLike: TypeAlias = Union["Tensor", npt.ArrayLike]
_PLAIN = (float, np.generic)  # np.float64(2), too, counts as a plain number


def as_tensor(value: TensorLike) -> Tensor:
    """A tensor as it is; anything else as a constant, which may share an array's memory."""
    return value if isinstance(value, Tensor) else Tensor._of(_real(np.asarray(value)))


def _fixed(index: Any) -> Any:
    """An index that nothing else can change, with arrays for tensors."""
    if isinstance(index, tuple):
        return tuple(map(_fixed, index))
    return index._data.copy() if isinstance(index, Tensor) else copy.deepcopy(index)


def _real(array: Array) -> Array:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers, got {array!r:.60}")
    return array


def apply(operation: Callable[..., Result], *values: TensorLike, **options: Any) -> Tensor:
    """The value of an operation, on the tape if one of `values` requires a gradient."""
    tensors = [as_tensor(value) for value in values]
    arrays = [tensor._data for tensor in tensors]
    # Integers and plain numbers take the dtype of the floating operands, as in PyTorch.
    floating = {
        x.dtype
        for value, x in zip(values, arrays, strict=True)
        if x.dtype.kind == "f" and not isinstance(value, _PLAIN)
    }
    if floating:
        dtype = np.result_type(*floating)
        arrays = [x.astype(dtype, copy=False) for x in arrays]
    with np.errstate(all="ignore"):  # as PyTorch: an overflow gives inf without a warning
        value, pullbacks = operation(*arrays, **options)
    node = None
    links = [link for link in zip(tensors, pullbacks, strict=True) if link[0].requires_grad]
    if links and is_recording():
        node = Node(tuple(x for x, _ in links), tuple(pullback for _, pullback in links))
    return Tensor._of(np.asarray(value), node)


def _binary(operation: Callable[..., Result]) -> Callable[[Tensor, TensorLike], Tensor]:
    return lambda self, other: apply(operation, self, other)


def _reflected(operation: Callable[..., Result]) -> Callable[[Tensor, TensorLike], Tensor]:
    return lambda self, other: apply(operation, other, self)


def _in_place(operation: Callable[..., Result]) -> Callable[[Tensor, TensorLike], Tensor]:
    def method(self: Tensor, other: TensorLike) -> Tensor:
        result = apply(operation, self, other)
        if result._node is not None and self._node is None and self.requires_grad:
            raise RuntimeError(
                "a tensor that requires a gradient is not updated in place on the tape; "
                "do it under no_grad(), or write x = x + y for a new tensor"
            )
        if result._node is not None:
            return result
        np.copyto(self._data, result._data, casting="same_kind")
        return self

    return method


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Any, object], Any]:
    return lambda x, y: compare(x._data, y._data if isinstance(y, Tensor) else y)


def _function(operation: Callable[..., Result]) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor) -> Tensor:
        return apply(operation, self._floating())

    method.__name__, method.__doc__ = operation.__name__, operation.__doc__
    return method


class Tensor:
    """An array on the tape.

    Arithmetic (``+ - * / ** @``), indexing and the methods take tensors, arrays and numbers,
    broadcast as NumPy does and return tensors. Numbers and integers take the dtype of the
    floating operand (float32 stays float32); functions such as `exp` make integers float64.
    Comparisons return arrays of bools, yet as keys of a dict tensors differ by identity.
    ``+= -= *= /=`` update the data where nothing is recorded, else they make a new tensor.

    Parameters
    ----------
    data : array_like
        Real numbers of any shape; copied. The dtype is NumPy's: float64 for Python's floats.
    requires_grad : bool, default False
        Whether `backward` is to leave the gradient with respect to this tensor in `grad`.

    Attributes
    ----------
    grad : ndarray or None
        The sum of the gradients since the last `zero_grad`, in the shape and dtype of the data.
        None before the first, and always for the result of an operation.

    Raises
    ------
    TypeError
        If `data` is not real numbers, or if integers are to require a gradient.

    Examples
    --------
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x**2 + 2 * x + 1).mean()
    >>> y.backward()
    >>> x.grad  # (2x + 2) / n
    array([1.33333333, 2.        , 2.66666667])
    >>> x.data -= 0.3 * x.grad
    >>> x
    Tensor([0.6, 1.4, 2.2], requires_grad=True)
    """

    __slots__ = ("__weakref__", "_data", "_node", "_requires_grad", "grad")
    __array_ufunc__ = None  # array * tensor is for Tensor.__rmul__, not for the array
    __hash__ = object.__hash__
    grad: Array | None

    def __init__(self, data: TensorLike, requires_grad: bool = False) -> None:
        self._data: Array = _real(np.array(data))
        self._node: Node | None = None
        self.grad = None
        self.requires_grad = requires_grad

    @classmethod
    def _of(cls, data: Array, node: Node | None = None) -> Tensor:
        tensor = cls.__new__(cls)
        tensor._data, tensor._node, tensor.grad = data, node, None
        tensor._requires_grad = node is not None
        return tensor

    @property
    def data(self) -> Array:
        """The values, an ndarray. To write to it or assign another is not recorded.

        A later `backward` that needs what was overwritten is refused: the tape keeps checksums.
        """
        return self._data

    @data.setter
    def data(self, values: TensorLike) -> None:
        array = as_tensor(values)._data
        if array.shape != self.shape:
            raise ValueError(f"data must have the shape {self.shape}, got {array.shape}")
        self._data = array.astype(self.dtype, casting="same_kind", copy=False)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients reach this tensor. It can be set, to freeze a parameter."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if flag and self.dtype.kind != "f":
            raise TypeError(
                f"only floating-point tensors have gradients, got dtype {self.dtype}; "
                "write 3.0 for 3, or convert an array by astype(float)"
            )
        if not flag and self._node is not None:
            raise ValueError("requires_grad of an operation's result is fixed; use detach()")
        self._requires_grad = bool(flag)

    shape = property(lambda self: self._data.shape, doc="The length of each axis.")
    ndim = property(lambda self: self._data.ndim, doc="The number of axes.")
    size = property(lambda self: self._data.size, doc="The number of entries.")
    dtype = property(lambda self: self._data.dtype, doc="The NumPy dtype of the entries.")
    T = property(lambda self: self.transpose(), doc="The tensor with its axes reversed.")

    def item(self) -> Any:
        """The value of a tensor of one entry, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one entry, got shape {self.shape}")
        return self._data.item()

    def detach(self) -> Tensor:
        """The same values, in the same memory, off the tape."""
        return Tensor._of(self._data)

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` becomes None."""
        self.grad = None

    def backward(self, gradient: TensorLike | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to the `grad` of every leaf it was computed from.

        Parameters
        ----------
        gradient : array_like, optional
            ∂L/∂(this tensor), of its shape. 1 if not given, for a tensor of one entry.
        retain_graph : bool, default False
            Whether to keep the graph for another backward through it. Else it is freed.

        Raises
        ------
        ValueError
            If this tensor has several entries and no `gradient` is given, or one of another
            shape; or if nothing it was computed from requires a gradient.
        RuntimeError
            If the graph has been freed, or data that it needs was changed in place.

        Examples
        --------
        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).backward([1.0, 10.0])
        >>> x.grad
        array([ 2., 40.])
        """
        if not self.requires_grad:
            raise ValueError(
                "backward from a tensor that requires no gradient: nothing it was computed from "
                "has requires_grad=True, or it was computed under no_grad()"
            )
        if gradient is None and self.size != 1:
            raise ValueError(
                f"backward needs a scalar, got shape {self.shape}; "
                "reduce it by sum() or mean(), or give a gradient of that shape"
            )
        seed = np.ones(self.shape) if gradient is None else as_tensor(gradient)._data
        if seed.shape != self.shape:
            raise ValueError(f"gradient must have the shape {self.shape}, got {seed.shape}")
        for leaf, g in gradients(self, seed.astype(self.dtype), retain_graph).items():
            leaf.grad = g if leaf.grad is None else leaf.grad + g

    __add__, __radd__ = _binary(operations.add), _reflected(operations.add)
    __sub__, __rsub__ = _binary(operations.subtract), _reflected(operations.subtract)
    __mul__, __rmul__ = _binary(operations.multiply), _reflected(operations.multiply)
    __truediv__, __rtruediv__ = _binary(operations.divide), _reflected(operations.divide)
    __pow__, __rpow__ = _binary(operations.power), _reflected(operations.power)
    __matmul__, __rmatmul__ = _binary(operations.matmul), _reflected(operations.matmul)
    __iadd__, __isub__ = _in_place(operations.add), _in_place(operations.subtract)
    __imul__, __itruediv__ = _in_place(operations.multiply), _in_place(operations.divide)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __eq__ = _comparison(operator.eq)
    __ne__ = _comparison(operator.ne)

    exp, log, sqrt = (
        _function(operations.exp),
        _function(operations.log),
        _function(operations.sqrt),
    )
    abs, tanh = _function(operations.absolute), _function(operations.tanh)
    sigmoid, relu = _function(operations.sigmoid), _function(operations.relu)
    __abs__ = abs

    def __neg__(self) -> Tensor:
        return apply(operations.negative, self)

    def leaky_relu(self, negative_slope: float = 0.01) -> Tensor:
        """Each x where it is positive, else negative_slope · x."""
        return apply(operations.leaky_relu, self._floating(), slope=negative_slope)

    def softmax(self, axis: int = -1) -> Tensor:
        """Probabilities eˣ / Σ eˣ along an axis."""
        return apply(operations.softmax, self._floating(), axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """The logarithm of `softmax`, exact for probabilities that are rounded to 0."""
        return apply(operations.log_softmax, self._floating(), axis=axis)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over one axis, several, or all."""
        return apply(operations.reduce_sum, self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over one axis, several, or all."""
        total = self.sum(axis, keepdims)
        return total / (self.size / max(total.size, 1))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The largest over one axis, several, or all; equal ones share the gradient evenly."""
        return apply(operations.reduce_max, self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        """The same entries in another shape, given as numbers or as a tuple."""
        return apply(operations.reshape, self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: int) -> Tensor:
        """The axes in the order given, as in NumPy: all of them, or none to reverse them."""
        order = tuple(axis % self.ndim for axis in axes) or tuple(reversed(range(self.ndim)))
        return apply(operations.transpose, self, axes=order)

    def __getitem__(self, index: Any) -> Tensor:
        return apply(operations.getitem, self, index=_fixed(index))

    def __setitem__(self, index: Any, value: TensorLike) -> None:
        if is_recording() and (self.requires_grad or as_tensor(value).requires_grad):
            raise RuntimeError(
                "an assignment to a part of a tensor is not recorded; "
                "do it under no_grad(), or build a new tensor by where() or concatenate()"
            )
        self._data[_fixed(index)] = as_tensor(value)._data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise TypeError(
                "a tensor that requires a gradient does not become an array unasked, off the "
                "tape; take its .data, or join several by stack()"
            )
        return np.array(self._data, dtype=dtype, copy=copy)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __repr__(self) -> str:
        values = np.array2string(self._data, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype in (float, int, bool) else f", dtype={self.dtype}"
        return f"Tensor({values}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def _floating(self) -> Tensor:
        return self if self.dtype.kind == "f" else Tensor._of(self._data.astype(np.float64))
