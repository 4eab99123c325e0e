"""Layers and losses for teaching: each is a few lines on the tape, to be read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from numbers import Integral

import numpy as np

from fastbackprop.autograd.tensor import Tensor, TensorLike, as_tensor


class Module(ABC):
    """A function of a tensor, with parameters of its own.

    A module of one's own is a subclass with `forward`. Its parameters are found in its
    attributes, as in PyTorch.

    Examples
    --------
    >>> class Network(Module):
    ...     def __init__(self):
    ...         self.hidden = Linear(2, 8)
    ...         self.out = Linear(8, 1)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> net = Network()
    >>> net(np.ones((5, 2))).shape
    (5, 1)
    >>> [parameter.shape for parameter in net.parameters()]
    [(2, 8), (8,), (8, 1), (1,)]
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the output; the module itself can be called instead, with any array."""

    def parameters(self) -> list[Tensor]:
        """Return the tensors to be learned, each once, in the order of assignment.

        They are the leaves that require a gradient among the attributes, and in the modules,
        lists, tuples and dicts there. One whose `requires_grad` is False is frozen: left out.
        """
        return list(_parameters(vars(self), {id(self)}))

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def __call__(self, x: TensorLike) -> Tensor:
        """Return the output for a tensor or an array."""
        return self.forward(as_tensor(x))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _parameters(thing: object, seen: set[int]) -> Iterator[Tensor]:
    """The parameters in a thing, but those in things already seen."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    inside: Iterable[object] = ()
    if isinstance(thing, Tensor):
        if thing.is_leaf and thing.requires_grad:
            yield thing
    elif isinstance(thing, Module):
        has_own = type(thing).parameters is not Module.parameters
        inside = thing.parameters() if has_own else vars(thing).values()
    elif isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple):
        inside = thing
    for part in inside:
        yield from _parameters(part, seen)


class Linear(Module):
    """The layer x @ weight + bias.

    Weights and bias are drawn uniformly between ±1/√n_in, as in PyTorch; the weights have the
    shape of this package's networks, which is the transpose of PyTorch's.

    Parameters
    ----------
    n_in, n_out : int
        Inputs and outputs, at least 1.
    bias : bool, default True
        Whether there is a bias.
    random_state : int or numpy.random.Generator, optional
        For several layers pass one generator: with one int all start from the same numbers.
    dtype : dtype, default "float64"
        Of the parameters.

    Attributes
    ----------
    weight : Tensor, (n_in, n_out)
    bias : Tensor, (n_out,), or None

    Raises
    ------
    TypeError
        If a size is not an integer.
    ValueError
        If a size is below 1; when called, if the last axis of x does not have `n_in` entries.

    Examples
    --------
    >>> layer = Linear(784, 10, random_state=0)
    >>> layer(np.zeros((32, 784))).shape
    (32, 10)
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        bias: bool = True,
        *,
        random_state: int | np.random.Generator | None = None,
        dtype: str | type = "float64",
    ) -> None:
        for name, size in (("n_in", n_in), ("n_out", n_out)):
            if not isinstance(size, Integral) or isinstance(size, bool):
                raise TypeError(f"{name} must be an integer, got {size!r}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        rng, bound = np.random.default_rng(random_state), 1 / math.sqrt(n_in)

        def draw(*shape: int) -> Tensor:
            return Tensor(rng.uniform(-bound, bound, shape).astype(dtype), requires_grad=True)

        self.weight = draw(n_in, n_out)
        self.bias = draw(n_out) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ weight + bias, (..., n_out), for an x of the shape (..., n_in)."""
        n_in = self.weight.shape[0]
        if x.ndim == 0 or x.shape[-1] != n_in:
            raise ValueError(f"x has shape {x.shape}; {self!r} expects (..., {n_in})")
        z = x @ self.weight
        return z if self.bias is None else z + self.bias

    def __repr__(self) -> str:
        n_in, n_out = self.weight.shape
        return f"Linear({n_in}, {n_out}{', bias=False' if self.bias is None else ''})"


class ReLU(Module):
    """The activation max(x, 0).

    Examples
    --------
    >>> ReLU()([-1.0, 2.0])
    Tensor([0., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, 0)."""
        return x.relu()


class LeakyReLU(Module):
    """The activation that is x where x is positive, else negative_slope · x.

    Parameters
    ----------
    negative_slope : float, default 0.01

    Examples
    --------
    >>> LeakyReLU(0.1)([-1.0, 2.0])
    Tensor([-0.1,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Return x or negative_slope · x."""
        return x.leaky_relu(self.negative_slope)

    def __repr__(self) -> str:
        return f"LeakyReLU({self.negative_slope})"


class Sigmoid(Module):
    """The activation 1 / (1 + e⁻ˣ).

    Examples
    --------
    >>> Sigmoid()([0.0, 1000.0])
    Tensor([0.5, 1. ])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 / (1 + e⁻ˣ)."""
        return x.sigmoid()


class Tanh(Module):
    """The hyperbolic tangent as activation.

    Examples
    --------
    >>> Tanh()([0.0, 1.0])
    Tensor([0.        , 0.76159416])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh x."""
        return x.tanh()


class Sequential(Module):
    """Modules applied one after the other.

    Parameters
    ----------
    *modules : Module
        ``model[i]`` is the i-th of them.

    Raises
    ------
    TypeError
        If one of them is not a module, such as a function.

    Examples
    --------
    >>> model = Sequential(Linear(784, 128), ReLU(), Linear(128, 10))
    >>> [parameter.shape for parameter in model.parameters()]
    [(784, 128), (128,), (128, 10), (10,)]
    """

    def __init__(self, *modules: Module) -> None:
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(
                    f"the parts of Sequential must be modules, got {module!r:.60}; "
                    "for a function, write a Module whose forward calls it"
                )
        self.modules = modules

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last module."""
        for module in self.modules:
            x = module(x)
        return x

    def __getitem__(self, i: int) -> Module:
        return self.modules[i]

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.modules))})"


def mse_loss(outputs: TensorLike, targets: TensorLike) -> Tensor:
    """Return the mean of (outputs − targets)² over all entries.

    Parameters
    ----------
    outputs, targets : array_like
        Of one shape.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        If the shapes differ, even where they would broadcast.

    Examples
    --------
    >>> mse_loss([1.0, 2.0], [1.0, 4.0])
    Tensor(2.)
    """
    outputs, targets = as_tensor(outputs), as_tensor(targets)
    if outputs.shape != targets.shape:
        raise ValueError(f"targets must have the shape {outputs.shape}, got {targets.shape}")
    error = outputs - targets
    return (error * error).mean()


def cross_entropy_loss(logits: TensorLike, targets: TensorLike) -> Tensor:
    """Return the mean over the rows of −Σⱼ targetⱼ · ln softmax(logits)ⱼ.

    Parameters
    ----------
    logits : array_like, (n, classes)
        The last layer's outputs as they are, without softmax.
    targets : array_like, (n, classes) or (n,)
        One-hot rows or rows of probabilities; or integers from 0 to classes − 1.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        If the shapes do not fit, or if a label is not one of the classes.

    Examples
    --------
    >>> logits = [[0.0, 0.0], [1000.0, 0.0]]
    >>> cross_entropy_loss(logits, [[1, 0], [1, 0]])
    Tensor(0.34657359)
    >>> cross_entropy_loss(logits, [0, 0])
    Tensor(0.34657359)
    """
    logits, targets = as_tensor(logits), as_tensor(targets)
    if logits.ndim != 2:
        raise ValueError(f"logits must have the shape (n, classes), got {logits.shape}")
    n, classes = logits.shape
    if targets.shape == logits.shape:
        return -(targets * logits.log_softmax()).sum() / n
    labels = targets.data
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"targets must be one-hot rows of the shape {logits.shape} or {n} integers, "
            f"got shape {labels.shape} and dtype {labels.dtype}"
        )
    if n and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return -logits.log_softmax()[np.arange(n), labels].mean()
