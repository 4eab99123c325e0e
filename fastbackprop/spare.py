"""A copy of parameters to go back to: in memory or, where they are many, in a temporary file."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from typing import Any

import numpy as np

from fastbackprop.plan import Array

# Larger copies go to a file, so that training with Adam takes three times the memory of the
# parameters instead of four, or six where it goes on. 200 MB took 0.08 s instead of 0.05.
_IN_MEMORY_BYTES = 64 * 1024 * 1024

# What is written or read at a time: Ctrl-C has to wait for that.
_PIECE_BYTES = 16 * 1024 * 1024


class Spare:
    """A copy of an array, which can be made and put back again and again.

    A large one is in a temporary file without a name, which ends with the process at the latest;
    where that cannot be written, in memory. Nothing is saved where the folder of temporary files is
    in memory, too: TMPDIR names another.

    Parameters
    ----------
    array : ndarray
        Contiguous.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self._bytes = array.view(np.uint8).data
        self._copy: Array | None = None
        self._file: Any = None
        self._process = 0

    def keep(self) -> None:
        """Make the copy."""
        if self._copy is None and self._array.nbytes > _IN_MEMORY_BYTES:
            with contextlib.suppress(OSError):  # after which it is in memory from now on
                self._write()
                return
        if self._copy is None:
            self._copy = np.empty_like(self._array)
        self._copy[...] = self._array

    def _write(self) -> None:
        if self._file is None or os.getpid() != self._process:  # a fork would share the file
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, later copies use it, too
            self._process = os.getpid()
            weakref.finalize(self, self._file.close)
        self._file.seek(0)
        place = 0
        while place < len(self._bytes):
            place += self._file.write(self._bytes[place : place + _PIECE_BYTES])

    def put_back(self) -> None:
        """Let the array be as it was when the copy was made."""
        if self._copy is not None:
            self._array[...] = self._copy
            return
        self._file.seek(0)
        place = 0
        while place < len(self._bytes):
            place += self._file.readinto(self._bytes[place : place + _PIECE_BYTES])
