"""Arrays in NPY files: nothing is evaluated or unpickled, and no size is believed unseen."""

from __future__ import annotations

import math
import re
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from fastbackprop.errors import FileFormatError
from fastbackprop.plan import Array

_MAGIC = b"\x93NUMPY"
_VERSIONS = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}  # and the bytes of the length of their headers
_LONGEST_HEADER = 10_000
_CHUNK = 1 << 20  # as a whole, a member of an archive would take three times its memory

# What `numpy.save` and its like in other languages write for numbers and text: a literal of
# Python's, which NumPy evaluates, and which may nest deeply or hold any other literal. The L is
# that of Python 2.
_HEADER = re.compile(
    rb"\{ *'descr': *'([^'\\]{1,20})', *'fortran_order': *(True|False), *"
    rb"'shape': *\(((?:\d{1,19}L?, ?)*(?:\d{1,19}L?)?)\) *,? *\}[ \n]*"
)
_DTYPE = re.compile(r"[<>|=]?[biufcSU][1-9]\d{0,9}")


class Header(NamedTuple):
    """What the header of an NPY file says of the array behind it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]  # "C", or "F" if the first index runs fastest
    offset: int  # bytes before the elements

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], size: int, name: str) -> Header:
    """Read the header of an NPY file that holds ``size`` bytes, and check it against these.

    Raises
    ------
    FileFormatError
        If it is not an NPY file of numbers or text, or has more or fewer elements than it says.
        The message begins with ``name``.
    """
    start = file.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC):
        hint = "; is it an NPZ archive? Save each array apart" if start.startswith(b"PK") else ""
        raise FileFormatError(f"{name}: not an NPY file{hint}")
    n_length = _VERSIONS.get(start[len(_MAGIC) :])
    if n_length is None:
        raise FileFormatError(f"{name} is of an unknown version of NPY")
    length = int.from_bytes(file.read(n_length), "little")
    text = file.read(min(length, _LONGEST_HEADER))
    found = _HEADER.fullmatch(text) if len(text) == length else None
    if found is None:
        raise FileFormatError(
            f"{name}: its NPY header is damaged, or that of other things than numbers and text"
        )
    kind = found[1].decode("latin-1")
    if "O" in kind:
        raise FileFormatError(
            f"{name} holds pickled objects, which are not read; save numbers or text instead"
        )
    try:
        if not _DTYPE.fullmatch(kind):
            raise TypeError
        dtype = np.dtype(kind)
    except (TypeError, ValueError):
        raise FileFormatError(f"{name} has elements of the unknown type {kind!r}") from None
    shape = tuple(map(int, re.findall(rb"\d+", found[3])))
    offset = len(start) + n_length + length
    header = Header(shape, dtype, "F" if found[2] == b"True" else "C", offset)
    if header.n_bytes != size:
        raise FileFormatError(
            f"{name} needs {header.n_bytes} bytes by its header, but holds {size}"
        )
    return header


def read_array(file: IO[bytes], size: int, name: str) -> Array:
    """Read the array of an NPY file that holds ``size`` bytes.

    Raises
    ------
    FileFormatError
        As `read_header` does.
    """
    header = read_header(file, size, name)
    values = np.empty(size - header.offset, np.uint8)
    left = values.data
    while left and (chunk := file.read(min(len(left), _CHUNK))):
        left[: len(chunk)] = chunk
        left = left[len(chunk) :]
    if left:
        raise FileFormatError(f"{name}: truncated: {len(left)} bytes less than by its header")
    try:
        return values.view(header.dtype).reshape(header.shape, order=header.order)
    except ValueError:  # too many dimensions, or a 0 among dimensions whose product overflows
        raise FileFormatError(f"{name}: {header.shape} is no shape of an array") from None
