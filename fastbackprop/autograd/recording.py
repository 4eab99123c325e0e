"""Recording: whether operations go on the tape, in each thread and task for itself.

The blocks that a thread or task is inside are a tuple in a context variable, of which the last
one decides. On leaving, a block is taken out from wherever it stands by then: generators may
leave theirs in another order than they entered them, or in another context.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, overload

Function = TypeVar("Function", bound=Callable[..., Any])

_blocks: ContextVar[tuple[Recording, ...]] = ContextVar("blocks", default=())


def is_recording() -> bool:
    """Whether operations go on the tape."""
    blocks = _blocks.get()
    return not blocks or blocks[-1].on


class Recording:
    """A block, or a function, inside which recording is on or off. It serves again and again."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __enter__(self) -> None:
        _blocks.set((*_blocks.get(), self))

    def __exit__(self, *_: object) -> None:
        blocks = _blocks.get()
        if self in blocks:  # not if a generator ends in another context than it began in
            i = len(blocks) - 1 - blocks[::-1].index(self)
            _blocks.set(blocks[:i] + blocks[i + 1 :])

    def __call__(self, function: Function) -> Function:
        """The function as it is inside the block; a generator is there while it runs."""
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"no_grad decorates functions and methods, got {function!r:.60}")

        @wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        @wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            steps = function(*args, **kwargs)
            resume: Callable[[Any], Any] = steps.send
            sent: Any = None
            while True:
                try:
                    with self:
                        value = resume(sent)
                except StopIteration as end:
                    return end.value
                try:
                    resume, sent = steps.send, (yield value)
                except BaseException as error:
                    resume, sent = steps.throw, error

        @wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        wrapped: Any = inside
        if inspect.isgeneratorfunction(function):
            wrapped = generator
        elif inspect.iscoroutinefunction(function):
            wrapped = coroutine
        return wrapped


@overload
def no_grad() -> Recording: ...
@overload
def no_grad(function: Function) -> Function: ...
def no_grad(function: Any = None) -> Any:
    """Record nothing inside a ``with no_grad():`` block, or a function under ``@no_grad``.

    It holds for the thread, or the asyncio task, that enters it. What ``no_grad()`` returns can
    be used again, inside itself too. A decorated generator function records nothing in its own
    body, and leaves its caller's recording as it was; a generator that yields from inside a
    ``with`` block keeps recording off for its caller until it leaves the block, as in PyTorch.

    Parameters
    ----------
    function : callable, optional
        A function, generator function or coroutine function to decorate, as by ``@no_grad``.

    Returns
    -------
    context manager, which also decorates; or the decorated function

    Raises
    ------
    TypeError
        If `function` is a class, or cannot be called.

    Examples
    --------
    >>> from fastbackprop.autograd import Tensor, no_grad
    >>> x = Tensor(3.0, requires_grad=True)
    >>> with no_grad():
    ...     x -= 1.0
    >>> x
    Tensor(2., requires_grad=True)
    >>> @no_grad
    ... def double(x):
    ...     return x * 2
    >>> double(x)
    Tensor(4.)
    """
    block = Recording(on=False)
    return block if function is None else block(function)
