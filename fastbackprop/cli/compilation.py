"""The wait for the compiler, which the first run on a machine has, told to the user."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastbackprop import job
from fastbackprop.cli.output import Output

_PATIENCE_SECONDS = 2.0  # the kernels come from the disk in less


@contextmanager
def compiling(output: Output, seconds: int) -> Iterator[None]:
    """Tell the user, if what is done in this context takes a while, that it is done once."""
    notice = threading.Timer(
        _PATIENCE_SECONDS,
        output.notice,
        [f"Compiling for this machine, which is done once and takes about {seconds} seconds ..."],
    )
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
        notice.join()


def compile_kernels(dtype: np.dtype[Any], output: Output) -> None:
    """Compile the kernels, or fetch them from the disk, so that no epoch's time includes it."""
    with compiling(output, seconds=10):
        job.compile_kernels(dtype)
