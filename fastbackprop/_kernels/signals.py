"""Ctrl-C while kernels compile: it waits for a moment at which the compiler can be left.

Numba and LLVM hand objects to each other that either frees. An exception between two lines of that
ends the process by a segmentation fault now and then, and one in a destructor is lost. Between two
kernels nothing is in flight: a tenth of a second at most, but for the two or three seconds in which
LLVM makes the machine code of them all.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

# By which programs are asked to end, and whose handlers raise.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_waiting: list[Callable[[], object]] = []


def _hold(handler: Callable[[int, FrameType | None], Any], number: int, frame: Any) -> None:
    _waiting.append(partial(handler, number, frame))


def _is_main_thread() -> bool:
    """Whether this is the thread in which Python calls handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def let_signals_in() -> None:
    """Call the handlers of signals that have come, which may raise."""
    while _waiting and _is_main_thread():
        _waiting.pop(0)()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let handlers of signals wait until `let_signals_in` is called, here or at the end."""
    if not _is_main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(let_signals_in)
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # and not the system's own
                stack.callback(signal.signal, number, handler)
                signal.signal(number, partial(_hold, handler))
        yield
