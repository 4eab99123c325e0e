"""The wait for the compiler, which the first run on a machine has, told to the user."""

import threading
from typing import Any

import numpy as np

from fastbackprop import job
from fastbackprop.cli.output import Output

_PATIENCE_SECONDS = 2.0  # the kernels come from the disk in less


def compile_kernels(dtype: np.dtype[Any], output: Output) -> None:
    """Compile the kernels, or fetch them from the disk, so that no epoch's time includes it."""
    notice = threading.Timer(
        _PATIENCE_SECONDS,
        output.notice,
        ["Compiling for this machine, which is done once and takes about 10 seconds ..."],
    )
    notice.daemon = True
    notice.start()
    try:
        job.compile_kernels(dtype)
    finally:
        notice.cancel()
        notice.join()
