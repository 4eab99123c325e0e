"""Readers of files, a valid file or more for each, and seeded ways to damage them."""

import gzip
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastbackprop as fb
from fastbackprop import checkpoints, datasets
from fastbackprop.cli.data import load_task
from fastbackprop.images import read_digit_image

Wrap = Callable[[bytes], bytes]


class Form(NamedTuple):
    """Bytes to be damaged, and what makes a file of them, so that its checksums still fit."""

    content: bytes
    wrap: Wrap = bytes


class Reader(NamedTuple):
    """A function of the package that reads a file."""

    file_name: str
    read: Callable[[Path], object]
    forms: Callable[[], Sequence[Form]]
    companions: Callable[[], Mapping[str, bytes]] = dict
    # Bytes that it may take for any file below a megabyte: what is allowed it, and as much again
    # where a buffer that grows is moved.
    memory: int = 160 * 2**20


# --------------------------------------------------------------------------------------- models


def _file_of(write, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


def _networks():
    deep = [fb.Rescaling(1 / 255, -0.5), fb.Dense(5, 4, "relu"), fb.Dropout(0.5), fb.Dense(4, 3)]
    classifier = fb.Network(deep, loss="cross_entropy", random_state=0)
    classifier.classes = ["cat", "dog", 3]
    return [
        classifier,
        fb.Network([fb.Dense(2, 1, bias=False)], loss=fb.Loss("huber", 0.5), dtype="float64"),
        fb.Network([3, 2, 2], fb.Activation("elu", 0.3), random_state=0),
    ]


def _read_model(path):
    net = fb.load(path)
    return net.predict(np.zeros((1, net.sizes[0])))


def _table_form(content):
    """The JSON table of tensors, with its length in front and the tensors behind."""
    (length,) = struct.unpack_from("<Q", content)
    rest = content[8 + length :]
    return Form(content[8 : 8 + length], lambda table: struct.pack("<Q", len(table)) + table + rest)


def _description_form(content):
    """The network's own JSON inside that table."""
    (length,) = struct.unpack_from("<Q", content)
    table = json.loads(content[8 : 8 + length])
    rest = content[8 + length :]

    def wrap(description):
        table["__metadata__"]["fastbackprop"] = description.decode("utf-8", "replace")
        packed = json.dumps(table).encode()
        return struct.pack("<Q", len(packed)) + packed + rest

    return Form(table["__metadata__"]["fastbackprop"].encode(), wrap)


def _model_forms():
    files = [_file_of(net.save, "net") for net in _networks()]
    return [make(file) for file in files for make in (Form, _table_form, _description_form)]


def _checkpoint_forms():
    net = fb.Network([2, 3, 2], loss="cross_entropy", random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [fb.Checkpoint(folder), fb.EarlyStopping("loss")]
        net.fit(np.eye(2), [0, 1], 2, optimizer="adam", callbacks=callbacks, verbose=0)
        file = max(Path(folder).iterdir()).read_bytes()
    return [make(file) for make in (Form, _table_form, _description_form)]


def _onnx_forms():
    networks = [
        *_networks(),
        *(fb.Network([2, 3, 1], name, random_state=0) for name in ("gelu", "silu", "softplus")),
    ]
    return [*(Form(_file_of(net.to_onnx, "net.onnx")) for net in networks), Form(_foreign_onnx())]


def _foreign_onnx():
    """Two classes and their names as skl2onnx writes them, after softplus as PyTorch does."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        ("MatMul", ["x", "w1"], "m"),
        ("Add", ["m", "b1"], "z"),
        ("Greater", ["z", "limit"], "far"),
        ("Softplus", ["z"], "near"),
        ("Where", ["far", "z", "near"], "a"),
        ("Gemm", ["a", "w2"], "s"),
        ("Sigmoid", ["s"], "p"),
        ("Sub", ["one", "p"], "q"),
        ("Concat", ["q", "p"], "both", {"axis": 1}),
        ("ArgMax", ["both"], "i", {"axis": 1}),
        ("ArrayFeatureExtractor", ["names", "i"], "label", {"domain": "ai.onnx.ml"}),
        ("Squeeze", ["p", "axes"], "single"),
        ("ZipMap", ["both"], "y", {"domain": "ai.onnx.ml", "classlabels_strings": ["no", "yes"]}),
    ]
    constants = {
        "w1": np.ones((2, 3), np.float32),
        "b1": np.zeros(3, np.float32),
        "limit": np.float32(20),
        "w2": np.ones((3, 1), np.float32),
        "one": np.ones(1, np.float32),
        "names": np.array(["no", "yes"], object),
        "axes": np.array([1]),
    }
    graph = helper.make_graph(
        [
            helper.make_node(operator, inputs, [output], **(more[0] if more else {}))
            for operator, inputs, output, *more in nodes
        ],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph).SerializeToString()


# ----------------------------------------------------------------------------------------- data


def _packed(content):
    return gzip.compress(content, mtime=0)


def _idx(values, code):
    header = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return header + values.tobytes()


_IMAGES = _idx(np.arange(6 * 3 * 2, dtype=np.uint8).reshape(6, 3, 2), 0x08)
_LABELS = _idx(np.arange(6, dtype=np.uint8), 0x08)


def _idx_forms():
    contents = [_IMAGES, _LABELS, _idx(np.linspace(-1, 1, 8).reshape(4, 2).astype(">f8"), 0x0E)]
    packed = [Form(_packed(content)) for content in contents]
    return [*map(Form, contents), *packed, *(Form(content, _packed) for content in contents)]


def _mnist_forms():
    return [Form(_IMAGES), Form(_packed(_IMAGES)), Form(_IMAGES, _packed)]


def _mnist_companions():
    return {
        "train-labels-idx1-ubyte": _LABELS,
        "t10k-images-idx3-ubyte": _IMAGES,
        "t10k-labels-idx1-ubyte": _LABELS,
    }


def npy_bytes(values, version=(1, 0)):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(values), version)
    return buffer.getvalue()


_X = np.arange(24.0).reshape(12, 2)
_Y = np.arange(12) % 2
_PETS = np.array(["cat", "dog"])[_Y]


def npz_bytes(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _npz_forms():
    x, y, pets = npy_bytes(_X), npy_bytes(_Y, (2, 0)), npy_bytes(_PETS)
    sets = [("X_train.npy", x), ("y_train.npy", y), ("x_test.npy", x), ("y_test.npy", y)]
    deflated = zipfile.ZIP_DEFLATED
    return [
        Form(npz_bytes([("X.npy", x), ("y.npy", y)])),
        Form(npz_bytes([("X.npy", x), ("y.npy", pets)], deflated)),
        Form(npz_bytes(sets, deflated)),
        Form(x, lambda x: npz_bytes([("X.npy", x), ("y.npy", y)])),
        Form(y, lambda y: npz_bytes([("X.npy", x), ("y.npy", y)], deflated)),
        Form(pets, lambda y: npz_bytes([("X.npy", x), ("y.npy", y)], deflated)),
        Form(npy_bytes(_PETS.astype("S")), lambda y: npz_bytes([("X.npy", x), ("y.npy", y)])),
        Form(x, lambda x: npz_bytes([*sets[:2], ("X_test.npy", x), sets[3]])),
    ]


def _csv_forms():
    numbers = "".join(f"{i}.5,-{i}e-3,{i % 2}\n" for i in range(12))
    names = '\ufeffwidth,"the ""kind""",class\r\n' + "1,2,cat\r\n3,4,dog\r\n" * 5
    return [Form(numbers.encode()), Form(names.encode()), Form(f"a,b,y\n{numbers}".encode())]


def _as_classes_or_numbers(read):
    """Read a table in both ways; it is refused if both refuse it."""

    def both(path):
        faults = []
        for regression in (False, True):
            try:
                _, _, classes = read(path, regression=regression)
                "".join(map(str, () if classes is None else classes)).encode("utf-8", "replace")
            except fb.FileFormatError as error:
                faults.append(error)
        if len(faults) == 2:
            raise faults[0]

    return both


def _read_shard(path):
    return datasets.Shards(path, path)[0]


def _shard_forms():
    fortran = npy_bytes(np.asfortranarray(_X.astype(np.float32)))
    return [Form(npy_bytes(_X)), Form(fortran), Form(npy_bytes(_X.astype(np.uint8), (2, 0)))]


# --------------------------------------------------------------------------------------- images


def _image_forms():
    from PIL import Image

    grey = np.zeros((24, 18), np.uint8)
    grey[4:20, 8:11] = 255
    page = Image.fromarray(grey)
    clear = Image.merge("RGBA", [page, page, page, page])
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [
        (page, "PNG", {}),
        (clear, "PNG", {}),
        (page.convert("P"), "PNG", {"transparency": 3}),
        (Image.fromarray(grey.astype(np.uint16) * 257), "PNG", {}),
        (page.convert("RGB"), "JPEG", {"exif": exif}),
        (page, "JPEG", {"progressive": True}),
        (page, "GIF", {"transparency": 0}),
        (page, "BMP", {}),
        (page.convert("1"), "TIFF", {"compression": "group4"}),
        (page, "TIFF", {}),
        (page, "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(grey.astype(np.float32) / 255), "TIFF", {"compression": "tiff_deflate"}),
        (clear, "WEBP", {"lossless": True}),
        (page.convert("RGB"), "WEBP", {}),
        (page, "PPM", {}),
    ]
    files = [
        _file_of(lambda path, p=picture, f=kind, o=options: p.save(path, f, **o), "image")
        for picture, kind, options in pictures
    ]
    return [*map(Form, files), *(Form(*_png_form(file)) for file in files[:4])]


def _png_form(content):
    """A PNG without its checksums, and what puts them in."""

    def wrap(bare):
        parts, at = [content[:8]], 0
        while at + 8 <= len(bare):
            (length,) = struct.unpack_from(">I", bare, at)
            part = bare[at + 4 : at + 8 + length]
            parts += [bare[at : at + 4], part, struct.pack(">I", zlib.crc32(part))]
            at += 8 + length
        return b"".join(parts)

    bare, at = bytearray(), 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        bare += content[at : at + 8 + length]
        at += 12 + length
    return bytes(bare), wrap


READERS = {
    "model": Reader("net.safetensors", _read_model, _model_forms),
    "checkpoint": Reader("epoch-2.safetensors", checkpoints.read, _checkpoint_forms),
    "idx": Reader("labels-idx1-ubyte", datasets.read_idx, _idx_forms),
    "mnist": Reader(
        "train-images-idx3-ubyte",
        lambda path: load_task(str(path.parent)),
        _mnist_forms,
        _mnist_companions,
    ),
    "npz": Reader("data.npz", _as_classes_or_numbers(datasets.read_npz), _npz_forms),
    "csv": Reader("data.csv", _as_classes_or_numbers(datasets.read_csv), _csv_forms),
    "image": Reader("digit.png", read_digit_image, _image_forms, memory=450 * 2**20),
    "onnx": Reader("net.onnx", fb.from_onnx, _onnx_forms),
    "shard": Reader("x.npy", _read_shard, _shard_forms),
}
"""What reads which file; the names are those of the targets in fuzz/."""


# -------------------------------------------------------------------------------------- damaging

_EDGES = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_NUMBERS = (b"0", b"-1", b"0.5", b"9" * 10, b"9" * 19, b"9" * 400, b"1e999", b"NaN", b"-Infinity")
_TOKENS = (
    *(opening * 3000 for opening in (b"[", b"{", b"(", b'{"a":', b"-", b"((", b"1,", b'"')),
    *(b"null", b"true", b"'|O'", b"'<f4,(9999,9999)f8'", b"../../", b"/etc/passwd"),
    *("é١½".encode(), b"1_0", b"\x80" * 12, b"A" * 5000, b"\0", b"\n", b"\xff"),
)  # fmt: skip


def _flip(rng, data):
    for at in rng.integers(0, len(data) * 8, rng.integers(1, 9)):
        data[at // 8] ^= 1 << at % 8


def _overwrite(rng, data):
    for at in rng.integers(0, len(data), rng.integers(1, 5)):
        data[at] = rng.integers(256)


def _truncate(rng, data):
    del data[rng.integers(len(data)) :]


def _extend(rng, data):
    data += rng.bytes(rng.integers(1, 30)) if rng.random() < 0.5 else data[: rng.integers(1, 99)]


def _lie(rng, data):
    """A length or a dimension at its limit, in some width and byte order."""
    width = (1, 2, 4, 8)[rng.integers(4)]
    value = _EDGES[rng.integers(len(_EDGES))] % 256**width
    at = rng.integers(len(data))
    order = ("little", "big")[rng.integers(2)]
    data[at : at + width] = value.to_bytes(width, order)


def _move(rng, data):
    """A stretch that is taken out, put elsewhere, or doubled."""
    start, to = rng.integers(0, len(data), 2)
    stretch = data[start : start + rng.integers(1, 40)]
    if rng.random() < 0.5:
        del data[start : start + len(stretch)]
    if rng.random() < 0.7:
        data[to:to] = stretch


def _renumber(rng, data):
    """Another number in place of one that is written out."""
    starts = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    if starts:
        start = end = starts[rng.integers(len(starts))]
        while data[end : end + 1].isdigit():
            end += 1
        data[start:end] = _NUMBERS[rng.integers(len(_NUMBERS))]


def _insert(rng, data):
    at = rng.integers(len(data) + 1)
    data[at:at] = _TOKENS[rng.integers(len(_TOKENS))]


_DAMAGES = (_flip, _overwrite, _truncate, _extend, _lie, _move, _renumber, _insert)


def damaged(forms, seed):
    """A damaged file: the same one for the same seed."""
    rng = np.random.default_rng(seed)
    content, wrap = forms[rng.integers(len(forms))]
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if data:
            _DAMAGES[rng.integers(len(_DAMAGES))](rng, data)
    return wrap(bytes(data))


def fault_of(reader, path):
    """What the reader said against a file, or None if it took it; anything else is raised.

    Raises
    ------
    AssertionError
        If the message is not one line of moderate length that begins with a file's name.
    """
    try:
        reader.read(path)
    except fb.FileFormatError as error:
        message = str(error)
        assert message.startswith(str(path.parent)), message
        assert message.isprintable(), message
        assert len(message) < 1100, message
        return message
    return None
