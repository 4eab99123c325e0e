"""MNIST: the part that ships with the package, and all of it from a folder, cache or mirror."""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop.datasets.idx import content_chunks, read_idx
from fastbackprop.datasets.splits import Dataset
from fastbackprop.errors import FileFormatError

__all__ = ["load_mnist", "load_mnist_small", "sample_image", "sample_images"]

_DATA = Path(__file__).parent / "data"
_SAMPLES = Path(__file__).parent / "samples"


class _IdxFile(NamedTuple):
    """One of the four files of MNIST: its name, and length and SHA-256 when decompressed."""

    name: str
    n_bytes: int
    sha256: str


# The SHA-256 is of the content, not of the .gz: whoever compresses the files anew changes only
# the latter. The MD5s of these contents are the well-known 6bbc9ace..., a25bea73..., 2646ac64...
# and 27ae3e4e....
_FILES = (
    _IdxFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _IdxFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    _IdxFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _IdxFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_ANSWER_SECONDS = 5.0  # for a mirror to answer at all
_READ_SECONDS = 15.0  # between two pieces of a download


def load_mnist_small() -> Dataset:
    """Load the part of MNIST that ships with the package: 12,000 of its 70,000 images.

    1,000 training and 200 test images of each digit, taken at even distances from all of that
    digit in the full training and test set, and in the order of the full set, which is not
    sorted by class. For real results use `load_mnist`.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        X : uint8, shape (10000, 784) and (2000, 784), values 0 (paper) to 255 (ink).
        y : int64, shape (n,), the digits 0 to 9.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*,
    http://yann.lecun.com/exdb/mnist/. See ``datasets/data/ATTRIBUTION.md`` for the licence.

    Examples
    --------
    >>> from fastbackprop.datasets import load_mnist_small
    >>> (X_train, y_train), (X_test, y_test) = load_mnist_small()
    >>> X_train.shape, X_test.shape, X_train.dtype
    ((10000, 784), (2000, 784), dtype('uint8'))
    >>> y_train[:8]
    array([5, 0, 4, 1, 9, 2, 3, 6])
    """
    return _read_folder(_find(_DATA))


def load_mnist(path: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """Load all of MNIST: 60,000 training and 10,000 test images of handwritten digits.

    The four files are looked for in ``path``, if given, and nowhere else. Without it, in the
    folder the environment variable FASTBACKPROP_DATA names, or ``mnist`` inside it; then in
    ``mnist`` in the user's cache (FASTBACKPROP_CACHE, else ``~/.cache/fastbackprop`` on Linux,
    ``~/Library/Caches/fastbackprop`` on macOS, ``%LOCALAPPDATA%`` on Windows); and then they are
    downloaded into that cache (11 MB).

    Parameters
    ----------
    path : str or path-like, optional
        A folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, as they are or as .gz; train-images.idx3-ubyte etc. are found too.
        Any data set in this form will do, such as Fashion-MNIST.
    download : bool, default True
        Whether to download what is not on this machine, which needs
        ``pip install "fastbackprop[data]"``. Each file's SHA-256 is checked.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        X : uint8, shape (60000, 784) and (10000, 784), values 0 (paper) to 255 (ink).
        y : int64, shape (n,), the digits 0 to 9.

    Raises
    ------
    FileNotFoundError
        A file is not in ``path``, or not on this machine and ``download`` is False.
    FileFormatError
        A file is damaged, or the four do not fit each other.
    ConnectionError
        No mirror could be reached or gave the right files; says where to put them by hand.
    ImportError
        A download is needed and pooch is not installed.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document
    recognition*, Proceedings of the IEEE 86(11), 1998, https://doi.org/10.1109/5.726791.

    Examples
    --------
    >>> from fastbackprop.datasets import load_mnist
    >>> (X_train, y_train), (X_test, y_test) = load_mnist()  # doctest: +SKIP
    >>> X_train.shape, y_test.shape  # doctest: +SKIP
    ((60000, 784), (10000,))
    """
    if path is not None:
        folder = Path(path)
        found = _find(folder)
        missing = [file.name for file in _FILES if file.name not in found]
        if missing:
            what = "has no" if folder.is_dir() else "is not a folder with"
            raise FileNotFoundError(f"{folder} {what} {', '.join(missing)} (or .gz)")
        return _read_folder(found)

    cache = _cache_folder() / "mnist"
    given = os.environ.get("FASTBACKPROP_DATA")
    folders = ([Path(given), Path(given) / "mnist"] if given else []) + [cache]
    for folder in folders:
        found = _find(folder)
        if len(found) == len(_FILES):
            return _read_folder(found)
    looked_in = ", ".join(map(str, folders))
    if not download:
        raise FileNotFoundError(f"MNIST is not in {looked_in}; {_by_hand(cache)}")
    _download(cache)
    return _read_folder(_find(cache))


def sample_images() -> list[Path]:
    """Return the paths of the ten sample images, ``0.png`` to ``9.png``, that ship here.

    They are test images of MNIST that `load_mnist_small` does not hold, in various sizes, modes
    and colours, as a user's might be.

    Examples
    --------
    >>> from fastbackprop.datasets import sample_images
    >>> [path.name for path in sample_images()][:3]
    ['0.png', '1.png', '2.png']
    """
    return [_SAMPLES / f"{digit}.png" for digit in range(10)]


def sample_image(name: str | os.PathLike[str]) -> Path | None:
    """Return the path of the sample image of that name, or None if there is none.

    Parameters
    ----------
    name : str or path-like
        A bare file name: ``"9.png"``. A name with a folder in it is not a sample's.

    Examples
    --------
    >>> from fastbackprop.datasets import sample_image
    >>> sample_image("9.png").name
    '9.png'
    >>> sample_image("photos/9.png") is None
    True
    """
    return next((path for path in sample_images() if path.name == os.fspath(name)), None)


def _find(folder: Path) -> dict[str, Path]:
    """Return which of the four files are in folder, by their usual name."""
    found = {}
    for name, _, _ in _FILES:
        dotted = name.replace("-idx", ".idx")
        for spelling in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if (folder / spelling).is_file():
                found[name] = folder / spelling
                break
    return found


def _read_folder(found: dict[str, Path]) -> Dataset:
    """Read the four files and check that they belong together."""
    train_images, train_labels, test_images, test_labels = (found[file.name] for file in _FILES)
    train = _read_pair(train_images, train_labels)
    test = _read_pair(test_images, test_labels)
    if train[0].shape[1] != test[0].shape[1]:
        raise FileFormatError(
            f"{test_images}: images of {test[0].shape[1]} pixels, but those of "
            f"{train_images.name} have {train[0].shape[1]}"
        )
    return train, test


def _read_pair(image_path: Path, label_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images as rows, (n, height * width) uint8, and their labels, (n,) int64."""
    images, labels = read_idx(image_path), read_idx(label_path)
    for path, array, ndim, what in (
        (image_path, images, 3, "images are uint8 in 3 dimensions"),
        (label_path, labels, 1, "labels are uint8 in 1 dimension"),
    ):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise FileFormatError(f"{path}: {what}, these are {array.dtype} in {array.ndim}")
    n, height, width = images.shape
    if images.size == 0:
        raise FileFormatError(f"{image_path}: {n} images of {height} x {width} pixels are none")
    if n != len(labels):
        raise FileFormatError(f"{image_path}: {n} images, but {label_path.name} has {len(labels)}")
    return images.reshape(n, height * width), labels.astype(np.int64)


def _cache_folder() -> Path:
    """Return the user's cache for this package: the folder `pooch.os_cache` would name.

    Said here in full, so that files downloaded with pooch are found without it.
    """
    if given := os.environ.get("FASTBACKPROP_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(local, "fastbackprop", "fastbackprop", "Cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastbackprop"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastbackprop")


def _by_hand(folder: Path) -> str:
    names = ", ".join(f"{file.name}.gz" for file in _FILES)
    return f"put {names} in {folder}, or in a folder that you give as path or FASTBACKPROP_DATA"


def _download(folder: Path) -> None:
    """Download the four files, decompressed and verified, from the first mirror that has them."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "downloading MNIST needs pooch, which is not installed: "
            f'pip install "fastbackprop[data]"; or {_by_hand(folder)}'
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    for mirror, no_answer in _answers():
        try:
            if no_answer is not None:
                raise no_answer
            for file in _FILES:
                pooch.retrieve(
                    f"{mirror}{file.name}.gz",
                    known_hash=f"sha256:{file.sha256}",
                    fname=file.name,
                    path=folder,
                    downloader=_fetch_decompressed,
                )
            return
        # OSError: the network; ValueError: pooch's for a wrong hash, ours for wrong gzip.
        except (OSError, ValueError) as error:
            reasons.append(f"{mirror}: {' '.join(str(error).split())}")
    raise ConnectionError(
        f"MNIST could not be downloaded; {_by_hand(folder)} ({'; '.join(reasons)})"
    )


def _answers() -> Iterator[tuple[str, Exception | None]]:
    """Ask all mirrors at once; yield each as it answers, with its error if it cannot be reached.

    The threads bound the whole of it: a timeout of requests holds for each address of a host
    (S3 has eight), and looking up the name has none.
    """
    import requests

    answers: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            requests.head(f"{mirror}{_FILES[1].name}.gz", timeout=_ANSWER_SECONDS).close()
        except Exception as error:  # whatever it is, the loop below reports it
            answers.put((mirror, error))
        else:
            answers.put((mirror, None))

    silent = list(_MIRRORS)
    for mirror in _MIRRORS:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + _ANSWER_SECONDS
    while silent:
        try:
            mirror, error = answers.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            break
        silent.remove(mirror)
        yield mirror, error
    for mirror in silent:
        yield mirror, TimeoutError(f"no answer in {_ANSWER_SECONDS:g} s")


def _fetch_decompressed(url: str, output_file: str, pooch_object: Any) -> None:
    """Download url and write its content, without gzip, to output_file: a downloader for pooch."""
    import pooch

    packed = Path(f"{output_file}.gz")
    limit = max(file.n_bytes for file in _FILES)
    try:
        fetch = pooch.HTTPDownloader(chunk_size=1 << 16, timeout=_READ_SECONDS)
        fetch(url, str(packed), pooch_object)
        with packed.open("rb") as source, open(output_file, "wb") as target:
            for chunk in content_chunks(source, packed):
                target.write(chunk)
                if target.tell() > limit:
                    raise FileFormatError(f"{url}: more than the {limit} bytes expected")
    finally:
        packed.unlink(missing_ok=True)
