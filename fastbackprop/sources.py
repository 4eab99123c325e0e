"""Where the rows of an epoch come from: arrays, files one by one, or batches as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from fastbackprop.data import Array, TrainingData
from fastbackprop.errors import FileFormatError
from fastbackprop.shards import Shards

Check = Callable[[Any, Any, Any], TrainingData]
"""Makes checked data of X, y and sample_weight, or raises."""


class Part(NamedTuple):
    """Rows that one call of the kernel takes steps on."""

    data: TrainingData
    batch: int  # rows a step
    order: Array | None = None  # that of each epoch after the other
    name: str = ""  # for error messages
    epochs: int = 1

    @property
    def steps(self) -> int:
        """How many steps it takes; the last one of an epoch takes what is left."""
        return self.epochs * -(-len(self.data.X) // self.batch)


class Source(ABC):
    """What an epoch reads, part by part.

    Attributes
    ----------
    batch : int
        Rows that a step takes, as far as is known beforehand.
    steps : int
        Steps that a part takes, as far as is known beforehand.
    is_whole : bool
        Whether an epoch is one part, with the same rows each time, so that whatever is wrong with
        them is found in the first.
    """

    batch: int
    steps: int
    is_whole = False

    @abstractmethod
    def parts(self, seed: int, epoch: int) -> Iterator[Part]:
        """The parts of an epoch."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What must be the same where a training is resumed, as JSON can hold it, by name."""

    def skip(self, epochs: int) -> None:  # noqa: B027
        """Go on as if so many epochs had been read; to most sources each is like the first."""


# Rows that are shuffled in one call of NumPy, which Ctrl-C has to wait for: some 50 ms.
_SHUFFLED_ROWS = 1 << 21


def shuffled(rng: np.random.Generator, n: int) -> Array:
    """The numbers below ``n`` in random order.

    Many rows are dealt into buckets at random, and each bucket is shuffled: every order is as
    likely as any other then, too (Rao 1961; Sandelius 1962).
    """
    if n <= _SHUFFLED_ROWS:
        return rng.permutation(n)
    buckets: list[list[Array]] = [[] for _ in range(2 * n // _SHUFFLED_ROWS)]
    for first in range(0, n, _SHUFFLED_ROWS):
        count = min(_SHUFFLED_ROWS, n - first)
        chosen = rng.integers(len(buckets), size=count, dtype=np.uint16)
        rows = first + np.argsort(chosen, kind="stable")
        ends = np.cumsum(np.bincount(chosen, minlength=len(buckets)))
        for bucket, part in zip(buckets, np.split(rows, ends[:-1]), strict=True):
            bucket.append(part)
    order = np.empty(n, np.int64)
    place = 0
    for bucket in buckets:
        part = np.concatenate(bucket)
        rng.shuffle(part)
        order[place : place + len(part)] = part
        place += len(part)
    return order


# Few rows are shuffled for a series of epochs at once, so long that it is a power of two: to make a
# generator takes 8 µs, in which four rows are trained on ten times. Another 6 µs are what one epoch
# may lose by that if it is the only one.
_ROWS_OF_SERIES = 1024
_LONGEST_SERIES = 64


class ArraySource(Source):
    """All rows in arrays.

    Parameters
    ----------
    data : TrainingData
        The rows.
    batch_size : int
        Rows a step.
    shuffle : bool or ndarray
        Whether each epoch has an order of its own, which is nothing to one that is a single step;
        or the order, the same in every epoch.
    """

    is_whole = True

    def __init__(self, data: TrainingData, batch_size: int, shuffle: bool | Array) -> None:
        self._data, self._shuffle = data, shuffle
        self.batch = min(batch_size, len(data.X))
        self.steps = -(-len(data.X) // self.batch)
        self._series = 0, -1  # the seed and the number of that whose orders there are

    def parts(self, seed: int, epoch: int) -> Iterator[Part]:
        """All rows, in the order of this epoch."""
        yield self.together(seed, epoch, 1)

    def together(self, seed: int, epoch: int, epochs: int) -> Part:
        """So many epochs, from this one on."""
        orders: list[Array] = []
        if not isinstance(self._shuffle, bool):
            orders = [self._shuffle] * epochs
        elif self._shuffle and self.steps > 1:
            orders = [self._order(seed, epoch + i) for i in range(epochs)]
        order = None
        if orders:
            order = orders[0] if epochs == 1 else np.concatenate(orders)
        return Part(self._data, self.batch, order, epochs=epochs)

    def _order(self, seed: int, epoch: int) -> Array:
        """The rows in the order of an epoch, which follows from these two numbers."""
        n = len(self._data.X)
        epochs = min(_LONGEST_SERIES, 1 << (_ROWS_OF_SERIES // n).bit_length() >> 1)
        if epochs <= 1:
            return shuffled(np.random.default_rng([seed, epoch]), n)
        series, place = divmod(epoch, epochs)
        if self._series != (seed, series):
            rows = np.tile(np.arange(n), (epochs, 1))
            self._orders = np.random.default_rng([seed, series]).permuted(rows, axis=1)
            self._series = seed, series
        orders: Array = self._orders[place]
        return orders

    def facts(self) -> dict[str, object]:
        """Rows, and how they are divided."""
        shuffle = self._shuffle if isinstance(self._shuffle, bool) else "an order of rows"
        return {"rows": len(self._data.X), "batch_size": self.batch, "shuffle": shuffle}


class ShardSource(Source):
    """Files that are read one after another.

    Parameters
    ----------
    shards : Shards
        The files.
    check : callable
        Looks at the rows of each file as it is read.
    batch_size : int
        Rows a step; the last step on a file takes what is left of it.
    shuffle : bool
        Whether each epoch has an order of its own, of the files and of the rows in each.
    """

    def __init__(self, shards: Shards, check: Check, batch_size: int, shuffle: bool) -> None:
        self._shards, self._check, self._shuffle = shards, check, shuffle
        self.batch = min(batch_size, shards.most_rows)
        self.steps = -(-shards.most_rows // self.batch)

    def parts(self, seed: int, epoch: int) -> Iterator[Part]:
        """A part for each file."""
        rng = np.random.default_rng([seed, epoch])
        files = rng.permutation(len(self._shards)) if self._shuffle else range(len(self._shards))
        for index in files:
            yield self._part(int(index), rng)  # and keep none, so that one is in memory at a time

    def facts(self) -> dict[str, object]:
        """Rows and files, and how they are divided."""
        return {
            "rows": self._shards.n_rows,
            "files": len(self._shards),
            "batch_size": self.batch,
            "shuffle": self._shuffle,
        }

    def _part(self, index: int, rng: np.random.Generator) -> Part:
        name = self._shards.names[index]
        with named(name):
            data = self._check(*self._shards[index])
        order = shuffled(rng, len(data.X)) if self._shuffle else None
        return Part(data, self.batch, order, name)


class BatchSource(Source):
    """Batches of an iterable, each of which is a step.

    Parameters
    ----------
    batches : iterable
        Of (X, y) or (X, y, sample_weight). The first is taken, and checked, at once.
    check : callable
        Looks at each batch as it comes.
    epochs : int
        How many epochs will be asked for.
    steps_per_epoch : int, optional
        Batches that an epoch takes from where the last one ended, from the beginning again when
        there are no more. Without it an epoch takes all.
    name : str, default "X"
        The caller's argument, for error messages.

    Raises
    ------
    TypeError, ValueError
        If the first batch, or the number of batches, is not what training needs.
    """

    steps = 1

    def __init__(
        self,
        batches: Iterable[Any],
        check: Check,
        epochs: int,
        steps_per_epoch: int | None = None,
        name: str = "X",
    ) -> None:
        self._batches, self._check, self._steps_per_epoch = batches, check, steps_per_epoch
        self._name = name
        self._what = f"{name}, a {type(batches).__name__},"
        self._iterator = iter(batches)
        self._is_spent_once = self._iterator is batches
        if self._is_spent_once and steps_per_epoch is None and epochs > 1:
            steps = "steps_per_epoch, or " if name == "X" else ""
            raise ValueError(
                f"{name} is a {type(batches).__name__}, which can be read only once, but epochs is "
                f"{epochs}: pass {steps}an object that can be iterated again"
            )
        self._taken = 0
        self._first: Part | None = self._next()
        if self._first is None:
            raise ValueError(f"{self._what} gives no batch")
        self.batch = self._first.batch

    def parts(self, seed: int, epoch: int) -> Iterator[Part]:
        """A part for each batch."""
        if self._steps_per_epoch is not None:
            for _ in range(self._steps_per_epoch):
                yield self._first_or_next() or self._again()
            return
        yield self._first_or_next() or self._again()
        while (part := self._next()) is not None:
            yield part

    def facts(self) -> dict[str, object]:
        """How many batches an epoch takes, if that was given."""
        return {"steps_per_epoch": self._steps_per_epoch}

    def skip(self, epochs: int) -> None:
        """Read the batches of so many epochs, where the next one goes on from there."""
        if self._steps_per_epoch is not None:
            for _ in range(epochs):
                deque(self.parts(0, 0), maxlen=0)

    def _first_or_next(self) -> Part | None:
        first, self._first = self._first, None
        return first or self._next()

    def _again(self) -> Part:
        """The first batch of another round."""
        if self._is_spent_once:
            raise ValueError(
                f"{self._what} ended after {self._taken} batches, too early for epochs and "
                "steps_per_epoch; let it go on for ever, or ask for less"
            )
        self._iterator = iter(self._batches)
        part = self._next()
        if part is None:
            raise ValueError(f"{self._what} gives no batch any more")
        return part

    def _next(self) -> Part | None:
        try:
            batch = next(self._iterator)
        except StopIteration:
            return None
        name = f"batch {self._taken} of {self._name}"
        self._taken += 1
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise TypeError(
                f"{name} must be (X, y) or (X, y, sample_weight), got {type(batch).__name__}"
                + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
            )
        X, y, *weight = batch
        with named(name):
            data = self._check(X, y, *(weight or [None]))
        return Part(data, len(data.X), None, name)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let an error begin with the name of the rows it is about; "" for all of them."""
    try:
        yield
    except FileFormatError:  # which begins with the name already
        raise
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}" if name else str(error)) from None
