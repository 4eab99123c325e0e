"""Networks in files: safetensors with one JSON entry, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from fastbackprop import activations, losses
from fastbackprop import layers as layer_specs
from fastbackprop.activations import Activation
from fastbackprop.construction import as_classes
from fastbackprop.errors import FileFormatError
from fastbackprop.layers import Dense, Layer
from fastbackprop.losses import Loss
from fastbackprop.plan import Array
from fastbackprop.specs import checked_size
from fastbackprop.state import State

# One key, since the order of several differs from run to run, and with it the bytes.
_KEY = "fastbackprop"
_VERSION = 1

# What is copied at a time to be written.
_PIECE_BYTES = 1024 * 1024

# What is left to the disk at a time: Ctrl-C has to wait until that is written.
_SYNCED_BYTES = 16 * 1024 * 1024

TRAINING = "training"
"""The key of what a checkpoint has beside the network, and where the names of its tensors begin."""

_DTYPES = {"float32": "F32", "float64": "F64"}


class Contents(NamedTuple):
    """A network as a file holds it."""

    layers: Sequence[Layer]
    loss: Loss
    output_activation: Activation
    dtype: str
    seed: int
    epoch: int
    weights: list[Array]
    biases: list[Array | None]
    classes: tuple[Any, ...] | None = None


def contents_of(layers: Sequence[Layer], state: State, classes: tuple[Any, ...] | None) -> Contents:
    """What a file of a network holds; weights and biases are views."""
    plan = state.plan
    return Contents(
        layers,
        plan.loss,
        plan.stages[-1].activation,
        plan.dtype.name,
        state.seed,
        state.epoch,
        plan.weights(state.params),
        plan.biases(state.params),
        classes,
    )


def restore(contents: Contents, state: State) -> None:
    """Put the parameters, the seed and the number of epochs into the state of such a network."""
    state.seed, state.epoch = contents.seed, contents.epoch
    for own, stored in zip(state.plan.weights(state.params), contents.weights, strict=True):
        own[...] = stored
    for bias, stored_bias in zip(state.plan.biases(state.params), contents.biases, strict=True):
        if bias is not None:
            bias[...] = stored_bias


def write(
    path: str | PathLike[str],
    contents: Contents,
    training: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Array | list[Array]] | None = None,
) -> None:
    """Write a network, replacing the file in one step.

    Parameters
    ----------
    path : str or path
        The file.
    contents : Contents
        The network.
    training : mapping, optional
        What else a checkpoint describes, as JSON can hold it.
    arrays : mapping from str to ndarray or list of ndarray, optional
        What else it holds; a list is one vector, of the elements of each in turn.

    Raises
    ------
    OSError
        If it cannot be written; an existing file is as it was then.
    """
    header: dict[str, Any] = {
        "version": _VERSION,
        "layers": [layer.to_config() for layer in contents.layers],
        "loss": contents.loss.to_config(),
        "output_activation": contents.output_activation.to_config(),
        "dtype": contents.dtype,
        "seed": contents.seed,
        "epoch": contents.epoch,
        "classes": contents.classes,
    }
    tensors: dict[str, Array | list[Array]] = {}
    for i, (w, b) in enumerate(zip(contents.weights, contents.biases, strict=True)):
        tensors[f"layers.{i}.weight"] = w
        if b is not None:
            tensors[f"layers.{i}.bias"] = b
    if training is not None:
        header[TRAINING] = training
    for name, array in (arrays or {}).items():
        tensors[f"{TRAINING}.{name}"] = array
    write_atomically(path, _file_of(tensors, {_KEY: json.dumps(header)}))


def _type_name(dtype: np.dtype[Any]) -> str:
    """A type as safetensors call it: F32, I64, BOOL.

    Raises
    ------
    TypeError
        If there is no such type.
    """
    if dtype == np.bool_:
        return "BOOL"
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise TypeError(f"an array of {dtype} cannot be saved; expected numbers of at most 64 bits")
    return f"{dtype.kind.upper()}{8 * dtype.itemsize}"


def _file_of(
    tensors: Mapping[str, Array | list[Array]], metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """The safetensors file of some arrays, or vectors in parts, piece by piece.

    safetensors' own `save` makes it of contiguous arrays (a padded one it would write wrong), all
    in memory at once: two copies of a network.
    """
    parts = {
        name: tensor if isinstance(tensor, list) else [tensor] for name, tensor in tensors.items()
    }
    # In its order, in which each tensor is aligned: the largest elements first, then by name.
    names = sorted(parts, key=lambda name: (-parts[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        size = sum(part.size for part in parts[name])
        end += size * parts[name][0].itemsize
        header[name] = {
            "dtype": _type_name(parts[name][0].dtype),
            "shape": [size] if isinstance(tensor, list) else tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        for part in parts[name]:
            rows = np.atleast_1d(part.astype(part.dtype.newbyteorder("<"), copy=False))
            step = max(1, _PIECE_BYTES * len(rows) // max(1, rows.nbytes))
            for start in range(0, len(rows), step):
                yield rows[start : start + step].tobytes()


def read(path: str | PathLike[str]) -> Contents:
    """Read what `write` wrote; nothing in the file is executed.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        If there is no file that may be read.
    FileFormatError
        If it is not a network that this version can read.
    """
    with opened(path, "network") as file:
        return read_contents(file, read_header(file))


@contextlib.contextmanager
def opened(path: str | PathLike[str], kind: str) -> Iterator[Any]:
    """The tensors of a file; any fault that is found in it names the file.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        If there is no file that may be read.
    FileFormatError
        For whatever is found to be wrong with it.
    """
    name = os.fspath(path)
    with open(name, "rb"):  # the usual errors of missing and unreadable files
        pass
    with _named(name, kind), safe_open(name, framework="numpy") as file:
        yield file


@contextlib.contextmanager
def _named(name: str, kind: str) -> Iterator[None]:
    """Turn any fault of the contents into a FileFormatError that names the file."""
    try:
        yield
    except SafetensorError as error:
        raise FileFormatError(f"{name}: not a safetensors file ({error})") from None
    except RecursionError:
        raise FileFormatError(f"{name}: its description is nested too deeply") from None
    except KeyError as error:
        raise FileFormatError(
            f"{name}: not a {kind} of fastbackprop (its description lacks {error})"
        ) from None
    except (ValueError, TypeError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise FileFormatError(f"{name}: not a {kind} of fastbackprop ({text})") from None


def read_header(file: Any) -> dict[str, Any]:
    """The description in an opened file."""
    metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise ValueError(f"it has no {_KEY!r} entry; was it saved by another library?")
    header = json.loads(metadata[_KEY])
    if not isinstance(header, dict) or header.get("version") != _VERSION:
        version = header.get("version") if isinstance(header, dict) else None
        raise ValueError(f"format version {version!r}; this release reads {_VERSION}")
    return header


def read_contents(file: Any, header: dict[str, Any]) -> Contents:
    """The network in an opened file, of which a checkpoint holds one, too."""
    if not isinstance(header["layers"], list):
        raise TypeError(f"layers must be a list, got {header['layers']!r}")
    chain = tuple(layer_specs.from_config(config) for config in header["layers"])
    layer_specs.check_chain(chain)
    loss = losses.from_config(header["loss"])
    output_activation = activations.from_config(header["output_activation"])
    loss.check_output(output_activation)
    seed, epoch = (counter(name, header[name]) for name in ("seed", "epoch"))
    dtype = header["dtype"]
    if dtype not in list(_DTYPES):
        raise ValueError(f"dtype {dtype!r}; expected float32 or float64")
    dense = [layer for layer in chain if isinstance(layer, Dense)]
    expected: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(dense):
        expected[f"layers.{i}.weight"] = (layer.n_in, layer.n_out)
        if layer.bias:
            expected[f"layers.{i}.bias"] = (layer.n_out,)
    names = set(file.keys())
    if TRAINING in header:
        names = {name for name in names if not name.startswith(f"{TRAINING}.")}
    if names != set(expected):
        raise ValueError(f"tensors {sorted(names)}; expected {sorted(expected)}")
    # Shapes are compared before anything is allocated: the file's size bounds its tensors.
    for key, shape in expected.items():
        part = file.get_slice(key)
        if tuple(part.get_shape()) != shape or part.get_dtype() != _DTYPES[dtype]:
            raise ValueError(
                f"{key} is {part.get_dtype()} {part.get_shape()}; expected {dtype} {list(shape)}"
            )
    tensors = {key: file.get_tensor(key) for key in expected}
    for key, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{key} contains NaN or infinity")
    return Contents(
        chain,
        loss,
        output_activation,
        dtype,
        seed,
        epoch,
        [tensors[f"layers.{i}.weight"] for i in range(len(dense))],
        [tensors.get(f"layers.{i}.bias") for i in range(len(dense))],
        as_classes(header.get("classes"), dense[-1].n_out),  # files of early versions have none
    )


def counter(name: str, value: object) -> int:
    """A number that the kernels hold in 64 bits."""
    number = checked_size(name, value, minimum=0)
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {number}")
    return number


def write_atomically(path: str | PathLike[str], content: Iterable[bytes]) -> None:
    """Replace a file in one step, so that a crash leaves the old one or the new.

    Parameters
    ----------
    path : str or path
        The file.
    content : iterable of bytes
        What it shall hold, piece by piece.

    Raises
    ------
    OSError
        If it cannot be written, naming the file; an existing one is as it was then.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                written = 0
                for piece in content:
                    written += file.write(piece)
                    if written >= _SYNCED_BYTES:
                        _sync(file)
                        written = 0
                _sync(file)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _make_durable(target.parent)
    except OSError as error:
        if error.errno is None:
            raise
        # The system names a temporary file, or on a full disk none.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _sync(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _make_durable(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system has a way to."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be written without being read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that keep no folders
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
