"""Files: the same bits back, whole or not at all, and one line for each way to be wrong."""

import json
import os
import stat
import struct
import tracemalloc

import numpy as np
import pytest
from comparison import bits
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastbackprop as fb
from fastbackprop import storage

DTYPES = ("float32", "float64")
NETWORKS = {
    "sizes": lambda dtype: fb.Network([7, 17, 3], random_state=0, dtype=dtype),
    "every layer": lambda dtype: fb.Network(
        [
            fb.Rescaling(1 / 255, -0.5),
            fb.Dropout(0.2),
            fb.Dense(7, 9, fb.Activation("elu", 0.3), bias=False, init="orthogonal"),
            fb.Dropout(0.5),
            fb.Dense(9, 8, "gelu", init=fb.Initializer("uniform", low=-1, high=2)),
            fb.Dense(8, 5, bias_init=fb.Initializer("normal", std=0.1)),
        ],
        loss="cross_entropy",
        random_state=2**40,
        dtype=dtype,
    ),
    "output given": lambda dtype: fb.Network(
        [7, 3], "relu", fb.Loss("huber", 0.25), output_activation="softplus", dtype=dtype
    ),
    "output of layers given": lambda dtype: fb.Network(
        [fb.Dense(7, 3)], loss="mse", output_activation="tanh", dtype=dtype
    ),
}


def make_file(folder, kind="every layer", dtype="float32"):
    net = NETWORKS[kind](dtype)
    path = folder / "net.safetensors"
    net.save(path)
    return net, path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_round_trip(tmp_path, kind, dtype):
    net, path = make_file(tmp_path, kind, dtype)
    other = fb.load(path)
    X = np.random.default_rng(0).standard_normal((20, 7))
    np.testing.assert_array_equal(bits(other), bits(net))
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    assert other.layers == net.layers
    assert other.loss_function == net.loss_function
    assert other.dtype == net.dtype
    assert other.summary() == net.summary()
    assert repr(other) == repr(net)
    y = np.full((20, net.sizes[-1]), 1 / net.sizes[-1])
    assert other.loss(X, y) == net.loss(X, y)
    assert other.history.epoch == []


def test_extreme_parameters_survive(tmp_path):
    net = fb.Network([2, 2], dtype="float64")
    net.set_parameters([-0.0, 5e-324, 1.7976931348623157e308, -2.2250738585072014e-308, 1 / 3, 0.1])
    net.save(tmp_path / "net")
    np.testing.assert_array_equal(bits(fb.load(tmp_path / "net")), bits(net))


def test_loaded_parameters_are_writable(tmp_path):
    _, path = make_file(tmp_path)
    net = fb.load(str(path))
    net.weights[0][...] = 0
    net.fit(np.ones((3, 7)), [0, 1, 2], epochs=1, verbose=0)
    assert net.history.epoch == [0]


def test_tensors(tmp_path):
    net, path = make_file(tmp_path)
    tensors = load_file(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "layers.0.weight": (7, 9),
        "layers.1.weight": (9, 8),
        "layers.1.bias": (8,),
        "layers.2.weight": (8, 5),
        "layers.2.bias": (5,),
    }
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        np.testing.assert_array_equal(tensors[f"layers.{i}.weight"], w)
        if b is not None:
            np.testing.assert_array_equal(tensors[f"layers.{i}.bias"], b)
    assert all(tensor.dtype == net.dtype for tensor in tensors.values())


@pytest.mark.parametrize("piece", [1, 64, 10**6])
def test_bytes_are_those_of_safetensors(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(storage, "_PIECE_BYTES", piece)
    _, path = make_file(tmp_path)
    with safe_open(path, "numpy") as file:
        save_file(load_file(path), tmp_path / "same.safetensors", file.metadata())
    assert path.read_bytes() == (tmp_path / "same.safetensors").read_bytes()


def test_bytes_depend_on_the_network_alone(tmp_path):
    contents = set()
    for i in range(8):
        net = NETWORKS["every layer"]("float32")
        path = tmp_path / f"{i}.safetensors"
        net.save(path)
        fb.load(path).save(path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


# -------------------------------------------------------------------------------- whole or not


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["fsync", "replace", "fdopen"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, function, error):
    net, path = make_file(tmp_path)
    before = path.read_bytes()
    net.weights[0][...] = 0

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(os, function, fail)
        with pytest.raises(type(error)):
            net.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    net.save(path)
    assert not fb.load(path).weights[0].any()
    assert os.listdir(tmp_path) == [path.name]


def test_no_file_where_there_was_none(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"^$"):
        fb.Network([2, 1]).save(tmp_path / "net.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    net = fb.Network([2, 1])
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        net.save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="missing"):
        net.save(tmp_path / "missing" / "net.safetensors")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_permissions_follow_the_umask(tmp_path):
    path = tmp_path / "net.safetensors"
    before = os.umask(0o027)
    try:
        fb.Network([2, 1]).save(path)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# ---------------------------------------------------------------------------------- wrong files


def assert_not_read(path, message):
    with pytest.raises(fb.FileFormatError, match=message) as caught:
        fb.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 1000


def test_missing_and_unreadable_files_raise_the_usual_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        fb.load(tmp_path / "missing.safetensors")
    with pytest.raises(OSError, match=tmp_path.name):
        fb.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0" * 8,
        b"\xff" * 1000,
        np.random.default_rng(0).bytes(5000),
        b"GIF89a" + bytes(100),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 10) + b"not json!!",
    ],
    ids=["empty", "a byte", "zeros", "ones", "random", "an image", "no tensors", "no JSON"],
)
def test_files_of_something_else(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    assert_not_read(path, "not a (safetensors file|network of fastbackprop)")


def test_truncated_and_extended_files(tmp_path):
    _, path = make_file(tmp_path)
    content = path.read_bytes()
    for end in [1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:end])
        assert_not_read(path, "not a safetensors file")
    path.write_bytes(content + b"\0")
    assert_not_read(path, "not a safetensors file")


def test_a_file_of_another_library(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"layers.0.weight": np.ones((2, 3), np.float32)}, path)
    assert_not_read(path, "no 'fastbackprop' entry; was it saved by another library")
    save_file({"w": np.ones(3)}, path, {"format": "pt"})
    assert_not_read(path, "no 'fastbackprop' entry")


def rewrite(path, change_header=None, change_tensors=None):
    """Save the file again with its header or its tensors changed in place."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fastbackprop"])
    tensors = load_file(path)
    if change_header is not None:
        change_header(header)
    if change_tensors is not None:
        change_tensors(tensors)
    save_file(tensors, path, {"fastbackprop": json.dumps(header)})


def setting(*keys, to):
    """A change of header[keys[0]][keys[1]]...; the layers are those of "every layer"."""

    def change(header):
        *path, last = keys
        for key in path:
            header = header[key]
        header[last] = to

    return change


def without(key):
    return lambda header: header.pop(key)


BAD_HEADERS = {
    "newer version": (setting("version", to=2), "format version 2; this release reads 1"),
    "no version": (without("version"), "format version None; this release reads 1"),
    "version of another type": (setting("version", to=[1]), r"format version \[1\]"),
    "no layers": (without("layers"), "its description lacks 'layers'"),
    "no dtype": (without("dtype"), "its description lacks 'dtype'"),
    "no loss": (without("loss"), "its description lacks 'loss'"),
    "no seed": (without("seed"), "its description lacks 'seed'"),
    "layers that are no list": (setting("layers", to=5), "layers must be a list, got 5"),
    "empty layers": (setting("layers", to=[]), "at least one Dense"),
    "a layer that is a number": (setting("layers", 0, to=3), "a layer must be a dict, got 3"),
    "unknown layer": (
        setting("layers", 0, "type", to="Conv"),
        "unknown layer type 'Conv'.*Known: Dense, Dropout, Rescaling",
    ),
    "unknown field": (setting("layers", 0, "colour", to=1), "unknown key.*'colour'"),
    "missing field": (lambda header: header["layers"][0].pop("scale"), "needs the key 'scale'"),
    "wrong type": (setting("layers", 2, "n_in", to="7"), "n_in must be a positive integer"),
    "negative size": (setting("layers", 2, "n_in", to=-7), "n_in must be a positive integer"),
    "fractional size": (setting("layers", 2, "n_out", to=9.0), "n_out must be a positive integer"),
    "broken chain": (setting("layers", 2, "n_out", to=10), "takes 9 inputs.*has 10 outputs"),
    "another size": (setting("layers", 2, "n_in", to=8), r"F32 \[7, 9\]; expected .*\[8, 9\]"),
    "unknown activation": (setting("layers", 2, "activation", to="rleu"), "mean 'relu'"),
    "nan dropout": (setting("layers", 1, "rate", to=float("nan")), r"rate must be.*got nan"),
    "infinite scale": (setting("layers", 0, "scale", to=float("inf")), "scale must be a finite"),
    "unknown dtype": (setting("dtype", to="float16"), "dtype 'float16'; expected float32 or"),
    "dtype of another type": (setting("dtype", to=["float32"]), r"dtype \['float32'\]; expected"),
    "another dtype": (setting("dtype", to="float64"), r"F32 \[7, 9\]; expected float64"),
    "unknown loss": (setting("loss", "name", to="l2"), "unknown loss 'l2'"),
    "a loss that does not fit": (setting("loss", "name", to="mse"), "'softmax' needs the loss"),
    "an output that does not fit": (
        setting("output_activation", "name", to="tanh"),
        "'cross_entropy' needs the output activation 'softmax', got 'tanh'",
    ),
    "negative seed": (setting("seed", to=-1), "seed must be an integer >= 0, got -1"),
    "large seed": (setting("seed", to=2**63), "seed must be below"),
    "large epoch": (setting("epoch", to=2**63), "epoch must be below"),
    "fractional epoch": (setting("epoch", to=0.5), r"epoch must be an integer >= 0, got 0\.5"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_wrong_descriptions(tmp_path, case):
    _, path = make_file(tmp_path)
    change, message = BAD_HEADERS[case]
    rewrite(path, change)
    assert_not_read(path, f"not a network of fastbackprop.*{message}")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("", "not a network"),
        ("{", "not a network"),
        ("[]", "format version None"),
        ("null", "format version None"),
        ("[" * 200_000, "nested too deeply|not a network"),
        ('{"version":1,"layers":' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply|not a"),
        ('{"version": 1' + "0" * 10_000 + "}", "not a network"),
    ],
    ids=["empty", "cut", "a list", "null", "deep", "deep and valid", "long number"],
)
def test_descriptions_that_are_no_dict(tmp_path, description, message):
    _, path = make_file(tmp_path)
    save_file(load_file(path), path, {"fastbackprop": description})
    assert_not_read(path, message)


def put(name, tensor):
    return lambda tensors: tensors.__setitem__(name, tensor)


BAD_TENSORS = {
    "extra": (put("layers.9.weight", np.ones(2, np.float32)), r"tensors .*layers\.9\.weight"),
    "missing": (lambda tensors: tensors.pop("layers.1.bias"), r"expected .*layers\.1\.bias"),
    "transposed": (
        put("layers.0.weight", np.ones((9, 7), np.float32)),
        r"layers\.0\.weight is F32 \[9, 7\]; expected float32 \[7, 9\]",
    ),
    "flat": (put("layers.0.weight", np.ones(63, np.float32)), r"is F32 \[63\]; expected"),
    "double": (put("layers.2.bias", np.ones(5)), r"layers\.2\.bias is F64 \[5\]; expected float32"),
    "half": (put("layers.2.bias", np.ones(5, np.float16)), r"is F16 \[5\]; expected float32"),
    "integer": (put("layers.2.bias", np.ones(5, np.int32)), r"is I32 \[5\]; expected float32"),
    "NaN": (put("layers.2.bias", np.float32([1, 2, np.nan, 4, 5])), "layers.2.bias contains NaN"),
    "inf": (put("layers.2.bias", np.float32([1, 2, 3, 4, -np.inf])), "NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_wrong_tensors(tmp_path, case):
    _, path = make_file(tmp_path)
    change, message = BAD_TENSORS[case]
    rewrite(path, change_tensors=change)
    assert_not_read(path, f"not a network of fastbackprop.*{message}")


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [10**6, 10**9, 10**30])
def test_sizes_that_are_lies_allocate_nothing(tmp_path, size):
    path = tmp_path / "net.safetensors"
    fb.Network([fb.Dense(3, 3), fb.Dense(3, 2)], loss="mse").save(path)

    def inflate(header):
        header["layers"][0]["n_out"] = header["layers"][1]["n_in"] = size

    rewrite(path, inflate)
    peak = peak_of(lambda: assert_not_read(path, r"layers\.0\.weight is F32 \[3, 3\]; expected"))
    assert peak < 1_000_000


def test_a_tensor_table_that_lies_allocates_nothing(tmp_path):
    path = tmp_path / "net.safetensors"
    table = {"layers.0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert peak_of(lambda: assert_not_read(path, "not a safetensors file")) < 1_000_000
    path.write_bytes(struct.pack("<Q", 2**60) + header + bytes(4))
    assert peak_of(lambda: assert_not_read(path, "not a safetensors file")) < 1_000_000


def test_classes(tmp_path):
    net, path = make_file(tmp_path)
    assert net.classes is None
    assert fb.load(path).classes is None
    for names in (["a", "b", "ç", "d", "e\x1b"], np.arange(1, 6), [0.5, 1, 2, "x", -1]):
        net.classes = names
        net.save(path)
        assert fb.load(path).classes == net.classes == tuple(names)
    assert net.clone().classes == net.classes
    assert all(type(name) in (int, float, str) for name in net.classes)


def test_a_file_without_classes(tmp_path):
    """As the first version wrote them."""
    net, path = make_file(tmp_path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fastbackprop"])
    del header["classes"]
    save_file(load_file(path), path, {"fastbackprop": json.dumps(header)})
    assert fb.load(path).classes is None
    np.testing.assert_array_equal(bits(fb.load(path)), bits(net))


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("abcde", TypeError),
        (5, TypeError),
        ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, TypeError),
        ([1, 2, 3, 4, None], TypeError),
        ([1, 2, 3, 4, float("nan")], TypeError),
        ([1, 2, 3, 4, float("inf")], TypeError),
        ([1, 2, 3, 4], ValueError),
        ([1, 2, 3, 4, 4], ValueError),
    ],
    ids=str,
)
def test_wrong_classes(tmp_path, names, error):
    net, path = make_file(tmp_path)
    with pytest.raises(error, match="class"):
        net.classes = names
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fastbackprop"])
    header["classes"] = names
    save_file(load_file(path), path, {"fastbackprop": json.dumps(header)})
    with pytest.raises(fb.FileFormatError, match="class"):
        fb.load(path)


def test_a_large_file_goes_to_the_disk_in_parts(tmp_path, monkeypatch):
    """Ctrl-C has to wait for a part, not for the file."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(storage, "_SYNCED_BYTES", 1000)
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle)), sync(handle)))
    storage.write_atomically(tmp_path / "file", [b"a" * 600] * 5)
    sizes = [file.st_size for file in synced if stat.S_ISREG(file.st_mode)]
    assert sizes == [1200, 2400, 3000]
    assert (tmp_path / "file").read_bytes() == b"a" * 3000


@pytest.mark.parametrize("reached", [0, 1, 3])
def test_ctrl_c_while_a_file_is_written_leaves_the_old_one(tmp_path, reached):
    def pieces():
        yield from [b"new"] * reached
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(path, pieces())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
