"""The tape: which operation each tensor came from, and the way back through them.

While a result is computed forwards, each operation leaves a `Node` that knows which tensors it
took and how a gradient goes back through it. `gradients` walks the nodes from the newest to the
oldest: in that order each has its whole gradient before it passes it on.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import TYPE_CHECKING, cast

import numpy as np

from fastbackprop.autograd.operations import Array, Pullback

if TYPE_CHECKING:
    from fastbackprop.autograd.tensor import Tensor

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_numbers = itertools.count()


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Switch the tape on or off for a while, in this thread or task only."""
    token = _recording.set(on)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether operations leave nodes."""
    return _recording.get()


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside a ``with no_grad():`` block, or a function under ``@no_grad()``.

    Examples
    --------
    >>> from fastbackprop.autograd import Tensor, no_grad
    >>> x = Tensor(3.0, requires_grad=True)
    >>> with no_grad():
    ...     x -= 1.0
    >>> x
    Tensor(2., requires_grad=True)
    """
    with recording(False):
        yield


def _digest(array: Array) -> int:
    """A checksum, which a change of the array leaves as it was one time in 2³²."""
    return zlib.crc32(np.ascontiguousarray(array).data)


class Node:
    """One operation on the tape."""

    __slots__ = ("inputs", "number", "pullbacks", "saved")

    def __init__(self, inputs: tuple[Tensor, ...], pullbacks: tuple[Pullback, ...]) -> None:
        self.number = next(_numbers)  # higher than those of the nodes it depends on
        self.inputs, self.pullbacks = inputs, pullbacks
        closures = [cast(FunctionType, pullback).__closure__ or () for pullback in pullbacks]
        contents = [cell.cell_contents for closure in closures for cell in closure]
        self.saved = [(x, _digest(x)) for x in contents if isinstance(x, np.ndarray)]

    def check(self) -> None:
        """Refuse to go back where a derivative can no longer be right."""
        if not self.pullbacks:
            raise RuntimeError(
                "an earlier backward has freed this graph; "
                "give that one retain_graph=True, or compute the result anew"
            )
        for array, digest in self.saved:
            if _digest(array) != digest:
                raise RuntimeError(
                    f"data of shape {array.shape} that backward needs has been changed in place "
                    "since it was used; call backward first, or change a copy"
                )

    def free(self) -> None:
        """Let go of all that backward needs."""
        self.inputs, self.pullbacks, self.saved = (), (), []


def _reduced(gradient: Array, tensor: Tensor) -> Array:
    """Add up what belongs to one entry that broadcasting repeated."""
    extra = gradient.ndim - tensor.ndim
    repeated = [i for i, n in enumerate(tensor.shape, start=extra) if n != gradient.shape[i]]
    if extra or repeated:
        gradient = gradient.sum(axis=(*range(extra), *repeated), keepdims=True)
    return gradient.reshape(tensor.shape).astype(tensor.dtype, copy=False)


def gradients(output: Tensor, gradient: Array, retain_graph: bool) -> dict[Tensor, Array]:
    """The gradient of each leaf that `output` was computed from, given its own."""
    seen, unread, nodes = {output}, [output], {}
    while unread:
        tensor = unread.pop()
        if tensor._node is not None:
            tensor._node.check()
            nodes[tensor] = tensor._node
            new = set(tensor._node.inputs) - seen
            seen |= new
            unread.extend(new)

    pending = {output: gradient}
    with np.errstate(all="ignore"):
        for tensor in sorted(nodes, key=lambda tensor: nodes[tensor].number, reverse=True):
            node, g = nodes[tensor], pending.pop(tensor)
            for x, pullback in zip(node.inputs, node.pullbacks, strict=True):
                dx = _reduced(np.asarray(pullback(g)), x)
                pending[x] = pending[x] + dx if x in pending else dx
            if not retain_graph:
                node.free()
    return {leaf: np.array(g) for leaf, g in pending.items()}
