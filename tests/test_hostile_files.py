"""Files from strangers: one exception that names the file, in little time and memory."""

import contextlib
import gzip
import os
import struct
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
from hostile import READERS, damaged, fault_of, npy_bytes, npz_bytes

import fastbackprop as fb
from fastbackprop.cli import main

N_DAMAGED = 20_000 if "FASTBACKPROP_FULL" in os.environ else 250
SECONDS = 1.0  # of the processor


@contextlib.contextmanager
def limits(reader):
    """Refuse a block more memory than a reader may take, and the test more time."""
    began = time.process_time()
    with memory_limit(reader.memory):
        yield
    assert time.process_time() - began < SECONDS


@contextlib.contextmanager
def memory_limit(n_bytes):
    """Let no more than so many bytes be added to this process; only Linux counts them rightly."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/status") as file:
        used = next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture
def place(tmp_path):
    """Return where the file of a reader goes, beside the others that it needs."""

    def make(reader):
        for name, content in reader.companions().items():
            (tmp_path / name).write_bytes(content)
        return tmp_path / reader.file_name

    return make


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_limits_are_felt():
    with memory_limit(10**8), pytest.raises(MemoryError):
        np.empty(2 * 10**8, np.uint8)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(place, name):
    reader = READERS[name]
    path, forms = place(reader), reader.forms()
    for content, wrap in forms:
        path.write_bytes(wrap(content))
        assert fault_of(reader, path) is None
    n_refused = 0
    for seed in range(N_DAMAGED):
        path.write_bytes(damaged(forms, seed))
        try:
            with limits(reader):
                n_refused += fault_of(reader, path) is not None
        except BaseException as error:
            error.add_note(f"the file is damaged(READERS[{name!r}].forms(), {seed})")
            raise
    assert n_refused > N_DAMAGED / 3


# ------------------------------------------------------------------------------ small but enormous


def png(width, height, depth, colour):
    """A PNG of nothing but zeros."""

    def part(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    bits = {0: 1, 2: 3, 4: 2, 6: 4}[colour] * depth * width
    row = bytes(1 + -(-bits // 8))
    deflate = zlib.compressobj()
    rows = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    ends = part(b"IDAT", rows) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + ends


def zeros_npz(names, n_bytes, method):
    """An archive of arrays (n, 1) of zeros."""
    member = npy_bytes(np.zeros((n_bytes, 1), np.uint8))
    return npz_bytes([(f"{name}.npy", member) for name in names], method)


def onnx_of_sums(n_sums, width):
    """One layer whose bias is added again and again."""
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["t0"])]
    nodes += [helper.make_node("Add", [f"t{i}", "b"], [f"t{i + 1}"]) for i in range(n_sums)]
    constants = {"w": np.ones((1, width), np.float32), "b": np.ones(width, np.float32)}
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info(f"t{n_sums}", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph).SerializeToString()


ENORMOUS = {
    "gzip bomb": (
        "idx",
        lambda: gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10**8) + bytes(10**8)),
        r"the gzip stream holds more than 67108864 bytes",
    ),
    "npz bomb": (
        "npz",
        lambda: zeros_npz(["X", "y"], 40_000_000, zipfile.ZIP_DEFLATED),
        r"its arrays take more than 67108864 bytes",
    ),
    "npz in lzma": (
        "npz",
        lambda: zeros_npz(["X", "y"], 1000, zipfile.ZIP_LZMA),
        r"X\.npy is compressed in a way that NumPy does not use",
    ),
    "npz with doubles": (
        "npz",
        lambda: zeros_npz(["X", "y"], 1000, zipfile.ZIP_DEFLATED).replace(b"y.npy", b"X.npy"),
        "holds X twice",
    ),
    "one long label": (
        "csv",
        lambda: b"1," + b"a" * 100_000 + b"\n" + b"1,a\n" * 50_000,
        "a label has 100000 characters; is it the right column",
    ),
    "as many classes as rows": (
        "csv",
        lambda: "".join(f"1,a{i}\n" for i in range(60_000)).encode(),
        "60000 rows are too few",
    ),
    "one line": ("csv", lambda: b"1," * 300_000 + b"x\n", "0 rows are too few|1 rows are too few"),
    "one quote": ("csv", lambda: b'"' * 1_000_000, "larger than field limit"),
    "a tower of pixels": ("image", lambda: png(1, 100_000, 1, 0), "a side has at most 65,535"),
    "49 million pixels": ("image", lambda: png(7000, 7000, 1, 0), "the image is blank"),
    "9 million deep pixels": ("image", lambda: png(3000, 3000, 16, 0), "the image is blank"),
    "biases without end": ("onnx", lambda: onnx_of_sums(5000, 50_000), "bias number 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENORMOUS)
def test_small_files_that_would_be_enormous(place, case):
    name, make, fault = ENORMOUS[case]
    reader = READERS[name]
    path = place(reader)
    path.write_bytes(make())
    with limits(reader), pytest.raises(fb.FileFormatError, match=fault) as caught:
        reader.read(path)
    assert str(caught.value).startswith(str(path))


def test_names_that_climb_out_of_an_archive_are_not_followed(place):
    reader = READERS["npz"]
    path = place(reader)
    member = npy_bytes(np.zeros((10, 2)))
    path.write_bytes(npz_bytes([("../X.npy", member), ("/y.npy", member)]))
    with pytest.raises(fb.FileFormatError, match="of these it has none"):
        reader.read(path)
    assert list(path.parent.iterdir()) == [path]
    assert not (path.parent.parent / "X.npy").exists()


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_that_are_no_text(place, kind):
    reader = READERS["npz"]
    path = place(reader)
    labels = bytearray(npy_bytes(np.array(["cat", "dog"] * 5, kind)))
    labels[-1] = 0xFF
    path.write_bytes(npz_bytes([("X.npy", npy_bytes(np.zeros((10, 2)))), ("y.npy", bytes(labels))]))
    with pytest.raises(fb.FileFormatError, match="y has elements that are no text"):
        reader.read(path)


def test_mnist_of_no_images(place):
    reader = READERS["mnist"]
    path = place(reader)
    path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, 0, 28, 28))
    (path.parent / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 0))
    with pytest.raises(fb.FileFormatError, match="0 images of 28 x 28 pixels are none"):
        reader.read(path)


# ------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("name", ["model", "image"])
def test_predict_says_one_line_and_ends_with_a_code(tmp_path, capsys, name):
    layers = [fb.Rescaling(1 / 255), fb.Dense(784, 10)]
    net = fb.Network(layers, loss="cross_entropy", random_state=0)
    files = {"model": tmp_path / "model", "image": tmp_path / "image"}
    net.save(files["model"])
    files["image"].write_bytes(fb.datasets.sample_image("9.png").read_bytes())
    content = files[name].read_bytes()
    n_refused = 0
    for seed in range(10 * N_DAMAGED // 250):
        files[name].write_bytes(damaged([(content, bytes)], seed))
        code = main(["predict", str(files["model"]), str(files["image"])])
        output, errors = capsys.readouterr()
        assert code in (0, 2)
        assert len(errors.splitlines()) == (code == 2), errors
        assert bool(output) == (code == 0)
        if code == 2:
            assert errors.startswith(f"fastbackprop: error: {tmp_path}")
            n_refused += 1
    assert n_refused
