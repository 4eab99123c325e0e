"""Checkpoints in files: a network with all that its training needs to go on in another process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop import storage
from fastbackprop.errors import FileFormatError
from fastbackprop.history import History
from fastbackprop.plan import Array
from fastbackprop.specs import NON_NEGATIVE, checked_flag, checked_number
from fastbackprop.storage import TRAINING, Contents, counter

BEST = "best.safetensors"
"""The file of the epoch with the best measurement."""

_NUMBERED = re.compile(r"epoch-(\d{6,})\.safetensors")


class CallbackState(NamedTuple):
    """What a callback remembers, and the name of its class."""

    type: str
    state: dict[str, Any]


class Snapshot(NamedTuple):
    """A training between two epochs."""

    network: Contents
    facts: Mapping[str, object]  # what must be the same where it is resumed, by name
    slots: dict[str, list[Array]]  # the optimizer's, (n_in + bias, n_out) for each Dense layer
    steps: int
    rate_factor: float
    frozen: Sequence[int]
    earlier: History  # of the calls of fit before
    record: History  # of this one
    callbacks: Sequence[CallbackState]
    ended: bool  # whether a callback has ended it


def file_for(folder: Path, epochs: int) -> Path:
    """The file of the checkpoint after so many epochs.

    Examples
    --------
    >>> file_for(Path("run"), 12).name
    'epoch-000012.safetensors'
    """
    return folder / f"epoch-{epochs:06d}.safetensors"


def numbered(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their numbers of epochs, in order."""
    matches = ((_NUMBERED.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def remove_remains(folder: Path) -> None:
    """Delete what writers that were killed left behind."""
    for pattern in (".epoch-*.safetensors.*", f".{BEST}.*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def write(path: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint, whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written; an existing file is as it was then.
    TypeError
        If the state of a callback is nothing that a file can hold.
    """
    arrays: dict[str, Array | list[Array]] = {
        f"slots.{name}": slot for name, slot in snapshot.slots.items()
    }
    callbacks = []
    for i, (kind, state) in enumerate(snapshot.callbacks):
        plain, own = {}, []
        for key, value in state.items():
            if isinstance(value, np.ndarray):
                own.append(key)
                arrays[f"callbacks.{i}.{key}"] = value
            else:
                plain[key] = _checked_plain(kind, key, value)
        callbacks.append({"type": kind, "state": plain, "arrays": own})
    training = {
        "facts": snapshot.facts,
        "slots": list(snapshot.slots),
        "steps": snapshot.steps,
        "rate_factor": snapshot.rate_factor,
        "frozen": list(snapshot.frozen),
        "callbacks": callbacks,
        "ended": snapshot.ended,
    }
    for which, history in (("earlier", snapshot.earlier), ("record", snapshot.record)):
        training[which] = list(history)
        arrays[f"{which}.epoch"] = np.array(history.epoch, np.int64)
        for i, column in enumerate(history.values()):
            arrays[f"{which}.{i}"] = np.array(column, np.float64)
    storage.write(path, snapshot.network, training, arrays)


def _checked_plain(kind: str, key: str, value: object) -> object:
    """A value of a callback's state as JSON can hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"state() of {kind} has {value!r:.100} under {key!r}; a checkpoint can hold NumPy "
            "arrays and what JSON can: None, numbers, strings, lists and dicts"
        ) from None
    return value


def read(path: str | PathLike[str]) -> Snapshot:
    """Read what `write` wrote; nothing in the file is executed.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        If there is no file that may be read.
    FileFormatError
        If it is not a checkpoint that this version can read, or damaged.
    """
    with storage.opened(path, "checkpoint") as file:
        header = storage.read_header(file)
        network = storage.read_contents(file, header)
        if TRAINING not in header:
            raise ValueError("it holds a network, but no training; fastbackprop.load reads it")
        return _snapshot(network, _mapping(TRAINING, header[TRAINING]), file)


def newest(path: Path) -> Path | None:
    """The checkpoint that a path stands for: a file, or the newest of a folder; None without any.

    The best one is taken where there is no other yet. A file that is named as one need not exist.
    """
    if path.is_dir():
        best = path / BEST
        return next(reversed(numbered(path).values()), best if best.exists() else None)
    return path if path.suffix == ".safetensors" or path.exists() else None


def read_newest(path: Path) -> tuple[Path, Snapshot] | None:
    """Read the checkpoint that a path stands for, see `newest`.

    Raises
    ------
    FileNotFoundError, PermissionError
        If a file was named that may not be read.
    FileFormatError
        If it is damaged; the one before it is not taken unasked.
    """
    file = newest(path)
    if file is None:
        return None
    try:
        return file, read(file)
    except FileFormatError as error:
        before = list(numbered(path).values())[-2:-1] if path.is_dir() else []
        if not before:
            raise
        raise FileFormatError(
            f"{error}. To go on from the one before, {before[0].name}, delete it"
        ) from None


# ------------------------------------------------------------------------------------- contents


class _Arrays:
    """The tensors of an opened checkpoint, each of which must be asked for once."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = {name for name in file.keys() if name.startswith(f"{TRAINING}.")}  # noqa: SIM118

    def take(self, name: str) -> Array:
        key = f"{TRAINING}.{name}"
        if key not in self._left:
            raise ValueError(f"there is no tensor {key}")
        self._left.remove(key)
        array: Array = self._file.get_tensor(key)
        return array

    def finish(self) -> None:
        if self._left:
            raise ValueError(f"unexpected tensors {sorted(self._left)}")


def _snapshot(network: Contents, training: Mapping[str, Any], file: Any) -> Snapshot:
    arrays = _Arrays(file)
    pairs = zip(network.weights, network.biases, strict=True)
    shapes = [(len(w) + (b is not None), w.shape[1]) for w, b in pairs]
    ends = np.cumsum([rows * n_out for rows, n_out in shapes])
    slots = {}
    for name in _names("slots", training["slots"]):
        slot = arrays.take(f"slots.{name}")
        if slot.shape != (ends[-1],) or slot.dtype != network.dtype:
            raise ValueError(
                f"the slot {name} is {slot.dtype} {slot.shape}; expected {network.dtype} "
                f"({ends[-1]},)"
            )
        parts = np.split(slot, ends[:-1])
        slots[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    frozen = [counter("frozen", number) for number in _list("frozen", training["frozen"])]
    if any(number >= len(network.weights) for number in frozen):
        raise ValueError(f"frozen is {frozen}; there are {len(network.weights)} Dense layers")
    callbacks = []
    for i, entry in enumerate(_list("callbacks", training["callbacks"])):
        described = _mapping("a callback", entry)
        state = dict(_mapping("a callback's state", described["state"]))
        for key in _names("arrays of a callback", described["arrays"]):
            state[key] = arrays.take(f"callbacks.{i}.{key}")
        callbacks.append(CallbackState(str(described["type"]), state))
    snapshot = Snapshot(
        network,
        _mapping("facts", training["facts"]),
        slots,
        counter("steps", training["steps"]),
        checked_number("rate_factor", training["rate_factor"], NON_NEGATIVE),
        frozen,
        _history("earlier", training["earlier"], arrays),
        _history("record", training["record"], arrays),
        callbacks,
        checked_flag("ended", training["ended"]),
    )
    arrays.finish()
    return snapshot


def _history(which: str, names: object, arrays: _Arrays) -> History:
    epochs = arrays.take(f"{which}.epoch")
    if epochs.ndim != 1 or epochs.dtype != np.int64:
        raise ValueError(f"{which}.epoch is {epochs.dtype} {epochs.shape}; expected integers")
    columns = {}
    for i, name in enumerate(_names(which, names)):
        column = arrays.take(f"{which}.{i}")
        if column.shape != epochs.shape or column.dtype != np.float64:
            raise ValueError(
                f"{which}.{i} is {column.dtype} {column.shape}; expected float64 {epochs.shape}"
            )
        columns[name] = column.tolist()
    history = History()
    for row, epoch in enumerate(epochs.tolist()):
        history.append(epoch, {name: column[row] for name, column in columns.items()})
    return history


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, got {value!r:.100}")
    return value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list, got {value!r:.100}")
    return value


def _names(name: str, value: object) -> list[str]:
    names = _list(name, value)
    if not all(isinstance(item, str) for item in names) or len(set(names)) < len(names):
        raise TypeError(f"{name} must be different names, got {value!r:.100}")
    return names
