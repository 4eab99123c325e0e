"""A strict reader of IDX files, the format MNIST is distributed in."""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastbackprop.errors import FileFormatError
from fastbackprop.limits import allowance

__all__ = ["read_idx"]

_DTYPES: dict[int, np.dtype] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_DIMENSIONS = 32  # NumPy 1's limit; the header has room for 255
_CHUNK = 1 << 16


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip, into an array.

    The file must be exactly what its header says: a known type code, at least one dimension, as
    many bytes as the dimensions need, and nothing after them. What is allocated follows from the
    bytes that are really there, up to the size in the header, so a header that lies costs nothing.

    Parameters
    ----------
    path : str or path-like
        The file. Gzip is recognised by its first bytes, not by the name.

    Returns
    -------
    ndarray
        Writable, in the machine's byte order, with the file's shape and dtype (uint8, int8,
        int16, int32, float32 or float64).

    Raises
    ------
    FileFormatError
        The file is not an IDX file, or is truncated, corrupt or too long.
    FileNotFoundError, PermissionError
        The file cannot be opened.

    References
    ----------
    "The IDX file format", at the end of Y. LeCun, C. Cortes, C. Burges, *The MNIST database of
    handwritten digits*, http://yann.lecun.com/exdb/mnist/.

    Examples
    --------
    >>> import struct, tempfile
    >>> from pathlib import Path
    >>> from fastbackprop.datasets import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(b"\\0\\0\\x08\\x01" + struct.pack(">I", 3) + bytes([5, 0, 4]))
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    data = bytearray()
    header = None
    with path.open("rb") as file:
        for chunk in content_chunks(file, path):
            data += chunk
            header = header or _parse_header(data, path)
            if header and len(data) > header.n_bytes:
                raise FileFormatError(
                    f"{path}: more data than the {header.n_bytes} bytes that {header} needs"
                )
    if not header:
        raise FileFormatError(
            f"{path}: {len(data)} bytes are too few for the header of an IDX file"
        )
    if len(data) < header.n_bytes:
        raise FileFormatError(
            f"{path}: truncated: {header} needs {header.n_bytes} bytes, the file holds {len(data)}"
        )
    values = np.frombuffer(data, header.dtype, offset=header.offset)
    try:
        values = values.reshape(header.shape)
    except ValueError:  # a 0 among dimensions whose product overflows
        raise FileFormatError(f"{path}: {header} is too large for an array") from None
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def content_chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield what an open file holds, decompressed if it is gzip, at most 64 KiB at a time.

    `zlib` rather than `gzip`, which takes zero bytes and further streams after the first.
    """
    head = file.read(2)
    file.seek(0)
    if head != b"\x1f\x8b":
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    size = os.fstat(file.fileno()).st_size
    left = allowance(size)
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    while not inflate.eof:
        packed = inflate.unconsumed_tail or file.read(_CHUNK)
        if not packed:
            raise FileFormatError(f"{path}: the gzip stream is truncated")
        try:
            chunk = inflate.decompress(packed, _CHUNK)
        except zlib.error as error:
            raise FileFormatError(f"{path}: the gzip stream is corrupt ({error})") from None
        left -= len(chunk)
        if left < 0:
            raise FileFormatError(
                f"{path}: the gzip stream holds more than {allowance(size)} bytes, though the file "
                f"holds {size}; if you trust it, decompress it with gunzip"
            )
        if chunk:
            yield chunk
    n_after = len(inflate.unused_data) + len(file.read(_CHUNK))
    if n_after:
        raise FileFormatError(f"{path}: {n_after} or more bytes follow the end of the gzip stream")


class _Header:
    """Shape and dtype of an IDX file, and the sizes that follow from them."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self.offset = 4 + 4 * len(shape)
        self.n_bytes = self.offset + math.prod(shape) * dtype.itemsize

    def __str__(self) -> str:
        return f"an IDX file of {self.dtype.name} {' x '.join(map(str, self.shape))}"


def _parse_header(data: bytearray, path: Path) -> _Header | None:
    """Return the header at the start of data, or None if data does not hold all of it yet."""
    if len(data) < 4:
        return None
    zeros, code, n_dimensions = struct.unpack_from(">HBB", data)
    if zeros != 0:
        raise FileFormatError(
            f"{path}: not an IDX file: it starts with the bytes {data[:4].hex(' ')}, "
            "an IDX file with 00 00, a type code and the number of dimensions"
        )
    if code not in _DTYPES:
        known = ", ".join(f"{known:#04x} ({dtype.name})" for known, dtype in _DTYPES.items())
        raise FileFormatError(f"{path}: IDX type code {code:#04x} is unknown; known are {known}")
    if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
        raise FileFormatError(
            f"{path}: an IDX file has 1 to {_MAX_DIMENSIONS} dimensions, this one {n_dimensions}"
        )
    if len(data) < 4 + 4 * n_dimensions:
        return None
    return _Header(struct.unpack_from(f">{n_dimensions}I", data, 4), _DTYPES[code])
