"""The tape: which operation each tensor came from, and the way back through them.

While a result is computed forwards, each operation leaves a `Node` that knows which tensors it
took and how a gradient goes back through it. `gradients` walks the nodes from the newest to the
oldest: in that order each has its whole gradient before it passes it on.
"""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastbackprop.autograd.operations import Array, Pullback

if TYPE_CHECKING:
    from fastbackprop.autograd.tensor import Tensor

Link: TypeAlias = "tuple[Tensor, Pullback]"
_numbers = itertools.count()


def _digest(array: Array) -> int:
    """A checksum, which a change of the array leaves as it was one time in 2³²."""
    return zlib.crc32(np.ascontiguousarray(array).data)


class Node:
    """One operation on the tape: the tensors it took, each with the way back to it."""

    __slots__ = ("links", "number", "saved")

    def __init__(self, links: tuple[Link, ...]) -> None:
        self.number = next(_numbers)  # higher than those of the nodes it depends on
        self.links = links
        closures = [getattr(pullback, "__closure__", None) or () for _, pullback in links]
        contents = [cell.cell_contents for closure in closures for cell in closure]
        self.saved = [(x, _digest(x)) for x in contents if isinstance(x, np.ndarray)]

    def checked_links(self) -> tuple[Link, ...]:
        """The links, unless a derivative can no longer be right."""
        links = self.links
        if not links:
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
        return links

    def free(self) -> None:
        """Let go of all that backward needs."""
        self.links, self.saved = (), []


def _reduced(gradient: Array, tensor: Tensor) -> Array:
    """Add up what belongs to one entry that broadcasting repeated."""
    extra = gradient.ndim - tensor.ndim
    repeated = [i for i, n in enumerate(tensor.shape, start=extra) if n != gradient.shape[i]]
    if extra or repeated:
        gradient = gradient.sum(axis=(*range(extra), *repeated), keepdims=True)
    return gradient.reshape(tensor.shape).astype(tensor.dtype, copy=False)


def gradients(output: Tensor, gradient: Array, retain_graph: bool) -> dict[Tensor, Array]:
    """The gradient of each leaf that `output` was computed from, given its own."""
    seen, unread, steps = {output}, [output], []
    while unread:
        tensor = unread.pop()
        if tensor._node is not None:
            # Kept here, so that a backward of another thread may free the node meanwhile.
            links = tensor._node.checked_links()
            steps.append((tensor._node, tensor, links))
            new = {x for x, _ in links} - seen
            seen |= new
            unread.extend(new)

    pending = {output: gradient}
    with np.errstate(all="ignore"):
        for node, tensor, links in sorted(steps, key=lambda step: step[0].number, reverse=True):
            g = pending.pop(tensor)
            for x, pullback in links:
                dx = _reduced(np.asarray(pullback(g)), x)
                pending[x] = pending[x] + dx if x in pending else dx
            if not retain_graph:
                node.free()
    return {leaf: np.array(g) for leaf, g in pending.items()}
