"""The shipped digits are MNIST's; load_mnist finds, verifies and downloads, or says what to do."""

import gzip
import hashlib
import http.server
import itertools
import socket
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fastbackprop.datasets import (
    load_digits,
    load_mnist,
    load_mnist_small,
    mnist,
    sample_image,
    sample_images,
)
from fastbackprop.errors import FileFormatError

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


@pytest.fixture(scope="module")
def full():
    try:
        return load_mnist(download=False)
    except FileNotFoundError:
        pytest.skip("the full MNIST is neither in FASTBACKPROP_DATA nor in the cache")


# ---------------------------------------------------------------- what ships


def test_mnist_small_is_balanced_and_not_in_order_of_class():
    (X_train, y_train), (X_test, y_test) = load_mnist_small()
    for X, y, per_class in ((X_train, y_train, 1000), (X_test, y_test, 200)):
        assert X.shape == (10 * per_class, 784)
        assert X.dtype == np.uint8
        assert y.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(y), [per_class] * 10)
        assert np.mean(y[1:] != y[:-1]) > 0.85  # 0.9 if the order is random
        for start in range(0, len(y), len(y) // 4):
            assert np.bincount(y[start : start + len(y) // 4], minlength=10).min() > per_class / 8
        assert X.min() == 0
        assert X.max() == 255
        assert 30 < X.mean() < 36  # 33.3 over all of MNIST


def test_mnist_small_is_the_callers_own():
    load_mnist_small()[0][0][:] = 7
    assert load_mnist_small()[0][0].max() == 255


def test_mnist_small_is_small_and_attributed():
    folder = Path(mnist.__file__).parent
    shipped = [*(folder / "data").iterdir(), *(folder / "samples").iterdir()]
    assert sum(path.stat().st_size for path in shipped) <= 2.5e6
    attribution = (folder / "data" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for word in ("LeCun", "Cortes", "Burges", "CC BY-SA"):
        assert word in attribution


def test_mnist_small_is_a_part_of_mnist(full):
    """Each shipped image is in the full set, with its label, and none is there twice."""
    for (X, y), (X_full, y_full) in zip(load_mnist_small(), full, strict=True):
        whole: dict[bytes, set[int]] = {}
        for image, label in zip(X_full, y_full.tolist(), strict=True):
            whole.setdefault(image.tobytes(), set()).add(label)
        rows = [image.tobytes() for image in X]
        assert all(label in whole[row] for row, label in zip(rows, y.tolist(), strict=True))
        assert len(set(rows)) == len(rows)


def test_full_mnist(full):
    (X_train, y_train), (X_test, y_test) = full
    assert X_train.shape == (60_000, 784)
    assert X_test.shape == (10_000, 784)
    assert y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    content = b"\0\0\x08\x03" + struct.pack(">3I", 10_000, 28, 28) + X_test.tobytes()
    test_images = mnist._FILES[2]
    assert len(content) == test_images.n_bytes
    assert hashlib.sha256(content).hexdigest() == test_images.sha256


def test_sample_images_are_ten_and_found_by_bare_name():
    assert [path.name for path in sample_images()] == [f"{digit}.png" for digit in range(10)]
    assert all(path.is_file() for path in sample_images())
    assert sample_image("3.png") == sample_images()[3]
    assert sample_image(Path("3.png")) == sample_images()[3]
    for other in ("10.png", "3", "3.PNG", "./3.png", "x/3.png", "../samples/3.png", ""):
        assert sample_image(other) is None


def test_samples_are_of_the_test_set_and_not_in_the_small_one(full):
    """Samples 0 and 1 are MNIST's pixels as they are, or each nine times, on white."""
    Image = pytest.importorskip("PIL.Image")
    shipped = {image.tobytes() for X, _ in load_mnist_small() for image in X}
    (_, _), (X_test, y_test) = full
    pixels = [np.asarray(Image.open(path)) for path in sample_images()[:2]]
    for digit, drawing in enumerate((pixels[0], 255 - pixels[1][::3, ::3])):
        matches = np.flatnonzero((X_test == drawing.reshape(-1)).all(axis=1))
        assert y_test[matches].tolist() == [digit]
        assert drawing.tobytes() not in shipped


# ---------------------------------------------------------------- digits


def test_digits_are_those_of_scikit_learn_split_by_class():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    bunch = sklearn_datasets.load_digits()
    (X_train, y_train), (X_test, y_test) = load_digits()
    assert X_train.dtype == X_test.dtype == np.uint8
    assert y_train.dtype == y_test.dtype == np.int64
    rows = sorted(
        (*x, y)
        for X, labels in ((X_train, y_train), (X_test, y_test))
        for x, y in zip(X.tolist(), labels.tolist(), strict=True)
    )
    assert rows == sorted(
        (*map(int, x), int(y)) for x, y in zip(bunch.data, bunch.target, strict=True)
    )
    np.testing.assert_allclose(np.bincount(y_test) / np.bincount(bunch.target), 0.2, atol=0.003)
    np.testing.assert_array_equal(load_digits()[1][0], X_test)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_digits()


# ---------------------------------------------------------------- load_mnist, from a folder


def tiny_contents() -> dict[str, bytes]:
    """Return the four files, of 6 training and 4 test images of 2 x 3 pixels."""
    contents = {}
    for part, n in (("train", 6), ("t10k", 4)):
        images = np.random.default_rng(n).integers(0, 256, (n, 2, 3), np.uint8)
        contents[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(n, dtype=np.uint8))
    return {name: contents[name] for name in NAMES}


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder: Path, spelling: str = "{}", **changed: bytes) -> Path:
    """Write the four tiny files, some changed, by that spelling, gzip'd if it ends in .gz."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**tiny_contents(), **changed}.items():
        packed = gzip.compress(content) if spelling.endswith(".gz") else content
        (folder / spelling.format(name)).write_bytes(packed)
    return folder


def assert_tiny(loaded) -> None:
    (X_train, y_train), (X_test, y_test) = loaded
    for X, y, n in ((X_train, y_train, 6), (X_test, y_test, 4)):
        expected = np.random.default_rng(n).integers(0, 256, (n, 2, 3), np.uint8)
        np.testing.assert_array_equal(X, expected.reshape(n, 6))
        np.testing.assert_array_equal(y, np.arange(n))
        assert X.dtype == np.uint8
        assert y.dtype == np.int64


@pytest.fixture(autouse=True)
def _own_folders(request, monkeypatch, tmp_path):
    """Keep each test from the user's data and cache, but for those that want the full set."""
    if "full" not in request.fixturenames:
        monkeypatch.delenv("FASTBACKPROP_DATA", raising=False)
        monkeypatch.setenv("FASTBACKPROP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("spelling", ["{}", "{}.gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_from_a_folder(tmp_path, spelling, dotted):
    folder = write(tmp_path / "data", spelling)
    if dotted:
        for path in folder.iterdir():
            path.rename(folder / path.name.replace("-idx", ".idx"))
    assert_tiny(load_mnist(folder))
    assert_tiny(load_mnist(str(folder), download=False))


def test_a_folder_that_lacks_files(tmp_path):
    folder = write(tmp_path / "data")
    (folder / NAMES[0]).unlink()
    (folder / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=f"data has no {NAMES[0]}, {NAMES[3]}"):
        load_mnist(folder)
    with pytest.raises(FileNotFoundError, match=f"nowhere is not a folder with {NAMES[0]}"):
        load_mnist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({NAMES[1]: idx_bytes(np.arange(5, dtype="u1"))}, f"{NAMES[0]}: 6 images, but {NAMES[1]} "),
        ({NAMES[0]: idx_bytes(np.zeros((6, 6), "u1"))}, "3 dimensions, these are uint8 in 2"),
        ({NAMES[3]: idx_bytes(np.zeros((4, 1), "u1"))}, "1 dimension, these are uint8 in 2"),
        ({NAMES[3]: b"\0\0\x0c\1\0\0\0\0"}, "these are int32 in 1"),
        ({NAMES[2]: idx_bytes(np.zeros((4, 2, 2), "u1"))}, f"{NAMES[2]}: images of 4 pixels, but "),
        ({NAMES[2]: b"<html>"}, f"{NAMES[2]}: not an IDX file"),
    ],
)
def test_files_that_do_not_fit_each_other(tmp_path, changed, fault):
    with pytest.raises(FileFormatError, match=fault):
        load_mnist(write(tmp_path / "data", **changed))


@pytest.mark.parametrize("inside", [".", "mnist"])
def test_from_the_folder_in_the_environment(monkeypatch, tmp_path, inside):
    write(tmp_path / "data" / inside)
    monkeypatch.setenv("FASTBACKPROP_DATA", str(tmp_path / "data"))
    assert_tiny(load_mnist())


def test_from_the_cache(monkeypatch, tmp_path):
    write(tmp_path / "cache" / "mnist", "{}.gz")
    monkeypatch.setenv("FASTBACKPROP_DATA", str(tmp_path / "nothing"))
    assert_tiny(load_mnist())


def test_nowhere_and_no_download(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTBACKPROP_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(download=False)
    message = str(caught.value)
    assert f"MNIST is not in {tmp_path / 'data'}, {tmp_path / 'data' / 'mnist'}" in message
    assert f"in {tmp_path / 'cache' / 'mnist'}, or in a folder" in message
    assert all(f"{name}.gz" in message for name in NAMES)


@pytest.mark.parametrize("folder", ["", "/somewhere/cache"])
def test_the_cache_is_where_pooch_has_it(monkeypatch, folder):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("FASTBACKPROP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert mnist._cache_folder() == Path(pooch.os_cache("fastbackprop"))


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("win32", "C:/Local/fastbackprop/fastbackprop/Cache"), ("darwin", "Caches/fastbackprop")],
)
def test_the_cache_on_other_systems(monkeypatch, platform, expected):
    monkeypatch.delenv("FASTBACKPROP_CACHE")
    monkeypatch.setenv("LOCALAPPDATA", "C:/Local")
    monkeypatch.setattr(sys, "platform", platform)
    assert mnist._cache_folder().as_posix().endswith(expected)


# ---------------------------------------------------------------- load_mnist, by download


@pytest.fixture
def serve(monkeypatch):
    """Give a function that serves {path: bytes} on loopback: (url, list of what was asked for)."""
    pytest.importorskip("pooch")
    monkeypatch.setenv("NO_PROXY", "*")
    files = [
        mnist._IdxFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in tiny_contents().items()
    ]
    monkeypatch.setattr(mnist, "_FILES", tuple(files))
    servers = []
    threads = set(threading.enumerate())

    def start(contents: dict[str, bytes]) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                asked.append(self.path[1:])
                self.wfile.write(self.answer())

            def answer(self) -> bytes:
                content = contents.get(self.path[1:])
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                return content or b""

            def log_message(self, *args) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/", asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
    for thread in set(threading.enumerate()) - threads:  # that ask mirrors, and were given up
        thread.join(60)
        assert not thread.is_alive()


def right_answers() -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in tiny_contents().items()}


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


ANSWERS = mnist._answers


def use_mirrors(monkeypatch, *mirrors: str) -> None:
    """Have the mirrors tried in this order, whichever answers first."""
    monkeypatch.setattr(mnist, "_MIRRORS", mirrors)
    monkeypatch.setattr(
        mnist, "_answers", lambda: sorted(ANSWERS(), key=lambda answer: mirrors.index(answer[0]))
    )


def test_download_then_cache(serve, monkeypatch, tmp_path):
    mirror, asked = serve(right_answers())
    monkeypatch.setattr(mnist, "_MIRRORS", (mirror,))
    assert_tiny(load_mnist())
    assert sorted(asked) == sorted(right_answers())
    cache = tmp_path / "cache" / "mnist"
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == tiny_contents()
    assert_tiny(load_mnist())
    assert_tiny(load_mnist(download=False))
    assert len(asked) == 4


def test_download_goes_on_where_it_stopped(serve, monkeypatch, tmp_path):
    mirror, asked = serve(right_answers())
    monkeypatch.setattr(mnist, "_MIRRORS", (mirror,))
    cache = write(tmp_path / "cache" / "mnist")
    (cache / NAMES[2]).write_bytes(b"damaged")
    (cache / NAMES[3]).unlink()
    assert_tiny(load_mnist())
    assert sorted(asked) == [f"{NAMES[2]}.gz", f"{NAMES[3]}.gz"]


TRAIN_IMAGES = tiny_contents()[NAMES[0]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (gzip.compress(TRAIN_IMAGES[:-1] + b"?"), "SHA256|hash"),
        (gzip.compress(bytes(10_000)), r"more than the \d+ bytes expected"),
        (gzip.compress(TRAIN_IMAGES)[:-4], "truncated"),
        (b"<html>", "SHA256|hash"),
        (None, "404"),
    ],
    ids=["other bytes", "too long", "truncated", "a page", "missing"],
)
def test_a_mirror_with_wrong_files_is_passed_over(serve, monkeypatch, tmp_path, answer, reason):
    wrong = {**right_answers(), f"{NAMES[0]}.gz": answer}
    bad, _ = serve({name: content for name, content in wrong.items() if content is not None})
    good, asked = serve(right_answers())
    use_mirrors(monkeypatch, bad, good)
    assert_tiny(load_mnist())
    assert len(asked) == 4

    for path in (tmp_path / "cache" / "mnist").iterdir():
        path.unlink()
    use_mirrors(monkeypatch, bad, closed_port())
    with pytest.raises(ConnectionError, match=reason) as caught:
        load_mnist()
    message = str(caught.value)
    assert f"put {NAMES[0]}.gz, {NAMES[1]}.gz, {NAMES[2]}.gz, {NAMES[3]}.gz in " in message
    assert str(tmp_path / "cache" / "mnist") in message
    assert "\n" not in message
    assert not list((tmp_path / "cache" / "mnist").iterdir())  # nothing half done is left


def test_a_mirror_that_serves_it_uncompressed(serve, monkeypatch):
    """As does a server that has the client decompress it on the way."""
    mirror, _ = serve({f"{name}.gz": content for name, content in tiny_contents().items()})
    monkeypatch.setattr(mnist, "_MIRRORS", (mirror,))
    assert_tiny(load_mnist())


@pytest.mark.usefixtures("serve")
def test_offline(monkeypatch):
    monkeypatch.setattr(mnist, "_MIRRORS", (closed_port(), closed_port()))
    with pytest.raises(ConnectionError, match=r"could not be downloaded; put train-images.* in "):
        load_mnist()


def test_mirrors_that_never_answer_are_not_waited_for(serve, monkeypatch):
    monkeypatch.setattr(mnist, "_ANSWER_SECONDS", 0.3)
    good, _ = serve(right_answers())
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        monkeypatch.setattr(mnist, "_MIRRORS", (silent, silent + "2/"))
        with pytest.raises(ConnectionError, match=r"no answer in 0\.3 s|[Tt]imed? ?out"):
            load_mnist()
        monkeypatch.setattr(mnist, "_MIRRORS", (silent, good))
        assert_tiny(load_mnist())


@pytest.mark.usefixtures("serve")
def test_a_name_that_is_looked_up_for_ever(monkeypatch):
    """The resolver has no timeout of its own; a call that hangs stands for it."""
    given_up = threading.Event()
    monkeypatch.setattr("requests.head", lambda *_, **__: given_up.wait(20))
    monkeypatch.setattr(mnist, "_ANSWER_SECONDS", 0.1)
    try:
        with pytest.raises(ConnectionError, match=r"no answer in 0\.1 s"):
            load_mnist()
    finally:
        given_up.set()


def test_there_are_two_mirrors_over_https():
    assert len(mnist._MIRRORS) >= 2
    assert all(url.startswith("https://") and url.endswith("/") for url in mnist._MIRRORS)
    hosts = [url.split("/")[2] for url in mnist._MIRRORS]
    assert all(a != b for a, b in itertools.combinations(hosts, 2))


def test_download_without_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "fastbackprop\[data\]"; or put train-im'):
        load_mnist()
    assert not (tmp_path / "cache").exists()
