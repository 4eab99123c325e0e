"""Tensor: a NumPy array whose operations are recorded, so that gradients can flow back."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from inspect import cleandoc
from threading import Lock
from typing import Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fastbackprop.autograd import operations
from fastbackprop.autograd.operations import Array, Axis, Result
from fastbackprop.autograd.promotion import common_dtype, real
from fastbackprop.autograd.recording import is_recording
from fastbackprop.autograd.tape import Node, gradients

TensorLike: TypeAlias = Union["Tensor", npt.ArrayLike]
Operator: TypeAlias = Callable[["Tensor", TensorLike], "Tensor"]

_accumulating = Lock()  # grad = grad + g of two threads at once would lose one


def as_tensor(value: TensorLike) -> Tensor:
    """A tensor as it is; anything else as a constant, which may share an array's memory."""
    return value if isinstance(value, Tensor) else Tensor._of(real(np.asarray(value)))


def _fixed(index: Any) -> Any:
    """An index that nothing else can change, with arrays for tensors."""
    if isinstance(index, tuple):
        return tuple(map(_fixed, index))
    return index._data.copy() if isinstance(index, Tensor) else copy.deepcopy(index)


def apply(operation: Callable[..., Result], *values: TensorLike, **options: Any) -> Tensor:
    """The value of an operation, on the tape if one of `values` requires a gradient."""
    tensors = [as_tensor(value) for value in values]
    arrays = [tensor._data for tensor in tensors]
    dtype = common_dtype(values, arrays)
    if dtype.kind == "b" and operation in (operations.subtract, operations.negative):
        raise TypeError("bools are not subtracted or negated; make numbers of them by x * 1")
    if dtype.kind in "iu" and operation is operations.power and (arrays[1] < 0).any():
        raise ValueError("integers have no negative powers; write -1.0 for -1, for float64")
    with np.errstate(all="ignore"):  # as PyTorch: an overflow gives inf without a warning
        value, pullbacks = operation(*(x.astype(dtype, copy=False) for x in arrays), **options)
    links = tuple(link for link in zip(tensors, pullbacks, strict=True) if link[0].requires_grad)
    node = Node(links) if links and is_recording() else None
    return Tensor._of(np.asarray(value), node)


# The operators of Tensor: each its operation, told by that one's docstring and an example.


def _described(method: Any, name: str, text: str | None, example: str) -> Any:
    method.__name__, method.__qualname__ = f"__{name}__", f"Tensor.__{name}__"
    method.__doc__ = f"{cleandoc(text or '')}\n\n>>> a = Tensor([2.0, 4.0])\n>>> {example}\n"
    return method


def _binary(operation: Callable[..., Result], name: str, example: str) -> Operator:
    return _described(lambda a, b: apply(operation, a, b), name, operation.__doc__, example)


def _reflected(operation: Callable[..., Result], name: str, example: str) -> Operator:
    return _described(lambda b, a: apply(operation, a, b), name, operation.__doc__, example)


def _in_place(operation: Callable[..., Result], name: str, example: str) -> Operator:
    def method(self: Tensor, other: TensorLike) -> Tensor:
        result = apply(operation, self, other)
        if result.is_leaf:
            with np.errstate(all="ignore"):
                np.copyto(self._data, result._data, casting="same_kind")
            return self
        if self.is_leaf and self.requires_grad:
            raise RuntimeError(
                "a tensor that requires a gradient is not updated in place on the tape; "
                "do it under no_grad(), or write x = x + y for a new tensor"
            )
        return result

    text = f"a {example.split()[1]} b, in the shape of a; a new tensor where it is recorded."
    return _described(method, name, text, example)


def _comparison(name: str, example: str) -> Callable[[Any, object], Any]:
    def method(a: Tensor, b: object) -> Any:
        return getattr(operator, name)(a._data, b._data if isinstance(b, Tensor) else b)

    text = "An array of bools, of the shape that both broadcast to."
    return _described(method, name, text, example)


class Tensor:
    """An array on the tape.

    Arithmetic (``+ - * / ** @``), indexing and the methods take tensors, arrays and numbers,
    broadcast as NumPy does and return tensors. What has no axes does not upcast what has, nor
    integers floats: float32 stays float32. Functions such as `exp` make integers float64.
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
        self._data: Array = real(np.array(data))
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
        with np.errstate(all="ignore"):
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

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor, so that it can keep a gradient."""
        return self._node is None

    def item(self) -> Any:
        """Return the value of a tensor of one entry, as a Python number.

        >>> Tensor([[2.5]]).item()
        2.5
        """
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one entry, got shape {self.shape}")
        return self._data.item()

    def detach(self) -> Tensor:
        """Return the same values, in the same memory, off the tape.

        >>> Tensor([1.0, 2.0], requires_grad=True).detach()
        Tensor([1., 2.])
        """
        return Tensor._of(self._data)

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` becomes None.

        >>> x = Tensor(1.0, requires_grad=True)
        >>> x.backward()
        >>> x.zero_grad()
        >>> x.grad is None
        True
        """
        self.grad = None

    def backward(self, gradient: TensorLike | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to the `grad` of every leaf it was computed from.

        Threads may do so at once, to the same leaves too: no gradient is lost. Gradients are
        plain arrays, off the tape, so that there are no second derivatives.

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
        with np.errstate(all="ignore"):
            found = gradients(self, seed.astype(self.dtype), retain_graph)
            with _accumulating:
                for leaf, g in found.items():
                    leaf.grad = g if leaf.grad is None else leaf.grad + g

    __add__ = _binary(operations.add, "add", "a + [1.0, 2.0]\nTensor([3., 6.])")
    __radd__ = _reflected(operations.add, "radd", "[1.0, 2.0] + a\nTensor([3., 6.])")
    __sub__ = _binary(operations.subtract, "sub", "a - [1.0, 2.0]\nTensor([1., 2.])")
    __rsub__ = _reflected(operations.subtract, "rsub", "[1.0, 2.0] - a\nTensor([-1., -2.])")
    __mul__ = _binary(operations.multiply, "mul", "a * [1.0, 2.0]\nTensor([2., 8.])")
    __rmul__ = _reflected(operations.multiply, "rmul", "[1.0, 2.0] * a\nTensor([2., 8.])")
    __truediv__ = _binary(operations.divide, "truediv", "a / [1.0, 2.0]\nTensor([2., 2.])")
    __rtruediv__ = _reflected(operations.divide, "rtruediv", "[1.0, 2.0] / a\nTensor([0.5, 0.5])")
    __pow__ = _binary(operations.power, "pow", "a ** [1.0, 2.0]\nTensor([ 2., 16.])")
    __rpow__ = _reflected(operations.power, "rpow", "[1.0, 2.0] ** a\nTensor([ 1., 16.])")
    __matmul__ = _binary(operations.matmul, "matmul", "a @ [1.0, 2.0]\nTensor(10.)")
    __rmatmul__ = _reflected(operations.matmul, "rmatmul", "[1.0, 2.0] @ a\nTensor(10.)")
    __iadd__ = _in_place(operations.add, "iadd", "a += [1.0, 2.0]; a\nTensor([3., 6.])")
    __isub__ = _in_place(operations.subtract, "isub", "a -= [1.0, 2.0]; a\nTensor([1., 2.])")
    __imul__ = _in_place(operations.multiply, "imul", "a *= [1.0, 2.0]; a\nTensor([2., 8.])")
    __itruediv__ = _in_place(operations.divide, "itruediv", "a /= [1.0, 2.0]; a\nTensor([2., 2.])")
    __lt__ = _comparison("lt", "a < [2.0, 5.0]\narray([False,  True])")
    __le__ = _comparison("le", "a <= [2.0, 5.0]\narray([ True,  True])")
    __gt__ = _comparison("gt", "a > [2.0, 5.0]\narray([False, False])")
    __ge__ = _comparison("ge", "a >= [2.0, 5.0]\narray([ True, False])")
    __eq__ = _comparison("eq", "a == [2.0, 5.0]\narray([ True, False])")
    __ne__ = _comparison("ne", "a != [2.0, 5.0]\narray([False,  True])")

    def __neg__(self) -> Tensor:
        """Return −x, of the same shape.

        >>> -Tensor([1.0, -2.0])
        Tensor([-1.,  2.])
        """
        return apply(operations.negative, self)

    def __abs__(self) -> Tensor:
        """Return |x|, of the same shape; the derivative at 0 is 0.

        >>> abs(Tensor([1.0, -2.0]))
        Tensor([1., 2.])
        """
        return apply(operations.absolute, self)

    abs = __abs__

    def exp(self) -> Tensor:
        """Return eˣ, of the same shape.

        >>> Tensor([0.0, 1.0]).exp()
        Tensor([1.        , 2.71828183])
        """
        return apply(operations.exp, self._floating())

    def log(self) -> Tensor:
        """Return the natural logarithm, of the same shape: −inf at 0 and NaN below.

        >>> Tensor([1.0, 10.0]).log()
        Tensor([0.        , 2.30258509])
        """
        return apply(operations.log, self._floating())

    def sqrt(self) -> Tensor:
        """Return √x, of the same shape; the derivative at 0 is infinite.

        >>> Tensor([4.0, 9.0]).sqrt()
        Tensor([2., 3.])
        """
        return apply(operations.sqrt, self._floating())

    def tanh(self) -> Tensor:
        """Return the hyperbolic tangent, of the same shape.

        >>> Tensor([0.0, 1.0]).tanh()
        Tensor([0.        , 0.76159416])
        """
        return apply(operations.tanh, self._floating())

    def sigmoid(self) -> Tensor:
        """Return 1 / (1 + e⁻ˣ), of the same shape.

        >>> Tensor([0.0, 1000.0]).sigmoid()
        Tensor([0.5, 1. ])
        """
        return apply(operations.sigmoid, self._floating())

    def relu(self) -> Tensor:
        """Return max(x, 0), of the same shape; the derivative at 0 is 0.

        >>> Tensor([-1.0, 2.0]).relu()
        Tensor([0., 2.])
        """
        return apply(operations.relu, self._floating())

    def leaky_relu(self, negative_slope: float = 0.01) -> Tensor:
        """Return each x where it is positive, else negative_slope · x, of the same shape.

        >>> Tensor([-1.0, 2.0]).leaky_relu(0.1)
        Tensor([-0.1,  2. ])
        """
        return apply(operations.leaky_relu, self._floating(), slope=negative_slope)

    def softmax(self, axis: int = -1) -> Tensor:
        """Return the probabilities eˣ / Σ eˣ along an axis, of the same shape.

        >>> Tensor([[0.0, 0.0], [1000.0, 0.0]]).softmax()
        Tensor([[0.5, 0.5],
                [1. , 0. ]])
        """
        return apply(operations.softmax, self._floating(), axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """Return the logarithm of `softmax`, exact for probabilities that are rounded to 0.

        >>> Tensor([1000.0, 0.0]).log_softmax()
        Tensor([    0., -1000.])
        """
        return apply(operations.log_softmax, self._floating(), axis=axis)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the sum over one axis, several (a tuple), or all.

        The shape is without those axes, or has length 1 there with `keepdims`.

        >>> x = Tensor([[1.0, 2.0], [5.0, 4.0]])
        >>> x.sum(), x.sum(axis=0), x.sum(axis=1, keepdims=True).shape
        (Tensor(12.), Tensor([6., 6.]), (2, 1))
        """
        return apply(operations.reduce_sum, self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the mean over one axis, several, or all; shapes as for `sum`.

        >>> Tensor([[1.0, 2.0], [5.0, 4.0]]).mean(axis=0)
        Tensor([3., 3.])
        """
        return apply(operations.reduce_mean, self._floating(), axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the largest over one axis, several, or all; shapes as for `sum`.

        Equal ones share the gradient evenly.

        >>> Tensor([[1.0, 2.0], [5.0, 4.0]]).max(axis=1)
        Tensor([2., 5.])
        """
        return apply(operations.reduce_max, self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        """Return the same entries in another shape, given as numbers or as a tuple.

        >>> Tensor([1.0, 2.0, 3.0, 4.0]).reshape(2, -1)
        Tensor([[1., 2.],
                [3., 4.]])
        """
        return apply(operations.reshape, self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: int | tuple[int, ...]) -> Tensor:
        """Return the axes in the order given: all of them, or none to reverse them.

        As in NumPy, and PyTorch's `permute`; numbers or a tuple.

        >>> Tensor([[[1.0, 2.0]]]).transpose(2, 0, 1).shape
        (2, 1, 1)
        """
        given: Any = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
        order = tuple(map(operator.index, given)) or tuple(reversed(range(self.ndim)))
        order = tuple(axis + self.ndim if axis < 0 else axis for axis in order)
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"transpose needs each axis of shape {self.shape} once, got {given}")
        return apply(operations.transpose, self, axes=order)

    def __getitem__(self, index: Any) -> Tensor:
        """Return entries or a part, by any index of NumPy; an entry may be taken twice.

        >>> Tensor([[1.0, 2.0], [3.0, 4.0]])[[1, 1], 0]
        Tensor([3., 3.])
        """
        return apply(operations.getitem, self, index=_fixed(index))

    def __setitem__(self, index: Any, value: TensorLike) -> None:
        """Change entries or a part, where nothing is recorded; the value broadcasts to it.

        >>> x = Tensor([1.0, 2.0, 3.0])
        >>> x[1:] = 0.0
        >>> x
        Tensor([1., 0., 0.])
        """
        if is_recording() and (self.requires_grad or as_tensor(value).requires_grad):
            raise RuntimeError(
                "an assignment to a part of a tensor is not recorded; do it under no_grad(), "
                "or build a new tensor by where() or concatenate()"
            )
        with np.errstate(all="ignore"):
            self._data[_fixed(index)] = as_tensor(value)._data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise TypeError(
                "a tensor that requires a gradient becomes no array unasked, off the tape; "
                "take its .data, or join several by stack()"
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
