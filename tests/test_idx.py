"""The IDX reader takes exactly what the format allows, and memory only for bytes that are there."""

import gzip
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastbackprop.datasets import read_idx
from fastbackprop.errors import FileFormatError

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_header(code: int, *shape: int) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def idx_bytes(values: np.ndarray) -> bytes:
    """Encode an array whose dtype is a key of CODES."""
    code = next(code for name, code in CODES.items() if np.dtype(name) == values.dtype)
    return idx_header(code, *values.shape) + values.tobytes()


def write(folder: Path, content: bytes) -> Path:
    path = folder / "file-idx"
    path.write_bytes(content)
    return path


LABELS = idx_bytes(np.arange(10, dtype="u1"))
IMAGES = idx_bytes(np.arange(5 * 7 * 3, dtype="u1").reshape(5, 7, 3))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(1,), (6,), (0,), (2, 3), (4, 0, 5), (3, 28, 28), (1,) * 32])
def test_reads_what_was_written(tmp_path, compress, dtype, shape):
    numbers = np.random.default_rng(0).integers(-100, 100, shape)
    values = numbers.astype(dtype) if dtype != "u1" else (numbers + 100).astype("u1")
    read = read_idx(write(tmp_path, compress(idx_bytes(values))))
    assert read.shape == shape
    assert read.dtype == values.dtype.newbyteorder("=")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, values)
    read[...] = 0  # writable


def test_takes_a_name_as_text_and_more_than_one_chunk(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    for content in (idx_bytes(values), gzip.compress(idx_bytes(values))):
        np.testing.assert_array_equal(read_idx(str(write(tmp_path, content))), values)


PACKED = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "0 bytes are too few"),
        (b"\0\0\x08", "3 bytes are too few"),
        (b"\0\0\x08\x03\0\0\0\1", "8 bytes are too few"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: it starts with the bytes 89 50 4e 47"),
        (b"<!DOCTYPE html>", "not an IDX file"),
        (b"\0\1" + LABELS[2:], "not an IDX file"),
        (b"\0\0\x0a" + LABELS[3:], "type code 0x0a is unknown; known are 0x08"),
        (b"\0\0\x08\0", "1 to 32 dimensions, this one 0"),
        (idx_header(0x08, *[1] * 33) + b"\0", "1 to 32 dimensions, this one 33"),
        (LABELS[:-1], "truncated: an IDX file of uint8 10 needs 18 bytes, the file holds 17"),
        (LABELS + b"\0", "more data than the 18 bytes"),
        (IMAGES[:-1], "uint8 5 x 7 x 3 needs 121 bytes, the file holds 120"),
        (idx_header(0x0E, 2) + b"\0" * 15, "float64 2 needs 24 bytes"),
        (idx_header(0x08, *[2**32 - 1] * 32), "truncated"),
        (idx_header(0x08, 0, *[2**32 - 1] * 3), "too large for an array"),
        (PACKED[:-1], "gzip stream is truncated"),
        (PACKED[:2], "gzip stream is truncated"),
        (PACKED[: len(PACKED) // 2], "gzip stream is truncated"),
        (PACKED[:-8] + bytes(8), r"gzip stream is corrupt \(.*incorrect data check"),
        (PACKED[:12] + b"\xff\xff" + PACKED[14:], "gzip stream is corrupt"),
        (PACKED + b"\0", "1 or more bytes follow the end of the gzip stream"),
        (PACKED + b"garbage", "7 or more bytes follow"),
        (PACKED + PACKED, "bytes follow the end of the gzip stream"),
        (gzip.compress(LABELS[:-1]), "truncated: .* needs 18 bytes, the file holds 17"),
        (gzip.compress(LABELS + b"\0"), "more data than the 18 bytes"),
        (gzip.compress(b""), "0 bytes are too few"),
        (gzip.compress(PACKED), "not an IDX file: it starts with the bytes 1f 8b"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_by_name_and_fault(tmp_path, content, fault):
    path = write(tmp_path, content)
    with pytest.raises(FileFormatError, match=fault) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")
    with pytest.raises(OSError, match=tmp_path.name):
        read_idx(tmp_path)


def peak_of_refusal(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_header_that_promises_gigabytes_costs_nothing(tmp_path, compress):
    path = write(tmp_path, compress(idx_header(0x0E, 2**31, 28, 28) + bytes(1000)))
    assert peak_of_refusal(path) < 1_000_000


def test_a_stream_that_goes_on_after_its_header_is_not_decompressed(tmp_path):
    path = write(tmp_path, gzip.compress(idx_header(0x08, 100) + bytes(50_000_000)))
    assert peak_of_refusal(path) < 1_000_000


@pytest.mark.parametrize("packed", [False, True])
def test_a_thousand_mutations(tmp_path, packed):
    """Each is refused with FileFormatError or read as what its header says; none costs memory."""
    original = np.frombuffer(PACKED if packed else IMAGES, np.uint8)
    rng = np.random.default_rng(20260101)
    n_refused = 0
    tracemalloc.start()
    try:
        for _ in range(1000):
            content = original.copy()
            kind = rng.integers(4)
            if kind == 0:  # cut off
                content = content[: rng.integers(len(content))]
            elif kind == 1:  # add
                content = np.append(content, rng.integers(0, 256, rng.integers(1, 9), np.uint8))
            else:  # change some bytes, half of the time in the header
                end = 20 if kind == 2 else len(content)
                at = rng.integers(0, end, rng.integers(1, 4))
                content[at] = rng.integers(0, 256, len(at))
            path = write(tmp_path, content.tobytes())
            try:
                values = read_idx(path)
            except FileFormatError as error:
                n_refused += 1
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
            else:
                n_bytes = 4 + 4 * values.ndim + values.nbytes
                assert math.prod(values.shape) == values.size
                assert n_bytes == len(IMAGES if packed else content)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert n_refused > 500
