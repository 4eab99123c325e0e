"""The arguments of ``fit``, checked: what to learn from, what to validate with, and how."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastbackprop import metrics as metric_specs
from fastbackprop import optimizers
from fastbackprop.callbacks import Callback
from fastbackprop.class_weight import ClassWeight, checked_class_weight, weighted
from fastbackprop.data import TrainingData, checked_data, checked_inputs
from fastbackprop.epochs import TRAINING_LOGS
from fastbackprop.metrics import Metric
from fastbackprop.plan import Array, Plan
from fastbackprop.shards import Shards
from fastbackprop.sources import ArraySource, BatchSource, Check, ShardSource, Source, named
from fastbackprop.specs import checked_size
from fastbackprop.training import Recipe

# A bound that no machine's cores reach in a dense network, below what a system starts readily.
_MOST_THREADS = 256


class Given(NamedTuple):
    """The arguments of ``fit`` that say what to learn from, as the caller gave them."""

    X: Any
    y: Any
    sample_weight: Any
    class_weight: Any
    batch_size: Any
    shuffle: Any
    steps_per_epoch: Any
    validation_data: Any


def checked_recipe(
    epochs: Any,
    optimizer: Any,
    callbacks: Any,
    metrics: Any,
    threads: Any,
    verbose: int,
    resume_from: Any,
) -> Recipe:
    """How to train.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as `Network.fit` describes it.
    """
    return Recipe(
        checked_size("epochs", epochs),
        optimizers.get(optimizer),
        _as_callbacks(callbacks),
        metric_specs.checked(metrics),
        _as_threads(threads),
        verbose,
        _as_path(resume_from),
    )


def checked_source(given: Given, plan: Plan, recipe: Recipe) -> tuple[Source, Source | None]:
    """What to learn from, and what to validate with.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as `Network.fit` describes it.
    """
    validation = _validation(given.validation_data, plan, recipe)
    if recipe.metrics and given.validation_data is None:
        raise ValueError(
            "metrics are measured on validation data, and there is none: pass validation_data, or "
            "ask evaluate for them afterwards"
        )
    class_weight = checked_class_weight(given.class_weight, plan.n_out)
    batch_size = checked_size("batch_size", given.batch_size)
    source: Source
    if given.y is not None:
        if given.steps_per_epoch is not None:
            raise ValueError(
                f"steps_per_epoch is {given.steps_per_epoch!r}, but X and y are arrays: an epoch "
                "takes all rows, batch_size at a time; leave it out"
            )
        data = checked_data(plan, given.X, given.y, given.sample_weight)
        if isinstance(given.validation_data, float):
            data, held_back = _split(data, given.validation_data)
            with named(f"rows {len(data.X)} and later, held back by validation_data"):
                checked_inputs(held_back.X, plan.n_in, values_in=plan.dtype)
            validation = _in_order(held_back, plan, recipe.metrics)
        data = weighted(data, class_weight)
        if data.weights is not None and not data.weights.any():
            raise ValueError(
                f"class_weight={class_weight!r} leaves every row with the weight 0, so there is "
                "nothing to learn from"
            )
        order = _as_order(given.shuffle, len(data.X))
        source = ArraySource(data, batch_size, order)
    else:
        source = _training_stream(given, plan, recipe.epochs, batch_size, class_weight)
    names = list(TRAINING_LOGS)
    if validation is not None:
        measured = dict.fromkeys(["loss", "accuracy", *(metric.name for metric in recipe.metrics)])
        names += [f"val_{name}" for name in measured]
    for callback in recipe.callbacks:
        callback.check_logs(names)
    return source, validation


def checked_rows(
    X: Any, y: Any, sample_weight: Any, plan: Plan, metrics: Sequence[Metric]
) -> Source:
    """What to evaluate.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as `Network.evaluate` describes it.
    """
    if y is not None:
        return _in_order(checked_data(plan, X, y, sample_weight), plan, metrics)
    _check_stream(X, sample_weight)
    return _stream("X", X, _check_of(plan, metrics=metrics), plan.n_in)


def _in_order(data: TrainingData, plan: Plan, metrics: Sequence[Metric]) -> Source:
    """Rows to evaluate, fit for these metrics."""
    for metric in metrics:
        metric.check(data.targets, plan.n_out)
    return ArraySource(data, len(data.X), shuffle=False)


def _check_of(
    plan: Plan,
    class_weight: ClassWeight = None,
    metrics: Sequence[Metric] = (),
    *,
    values: bool = False,
) -> Check:
    """What looks at the rows of a stream as they come."""

    def check(*batch: Any) -> TrainingData:
        data = checked_data(plan, *batch, all_zero=True, values=values)
        for metric in metrics:
            metric.check(data.targets, plan.n_out)
        return weighted(data, class_weight)

    return check


def _check_stream(X: Any, sample_weight: Any) -> None:
    """Refuse X that brings no targets of its own."""
    if isinstance(X, np.ndarray) or not isinstance(X, Iterable) or isinstance(X, str):
        raise TypeError(
            f"y is missing: without it X must be fb.datasets.Shards or an iterable of batches "
            f"(X, y), got {type(X).__name__}"
        )
    if sample_weight is not None:
        raise ValueError(
            f"sample_weight does not go with X as {type(X).__name__}: put weights beside their "
            "rows, (X, y, sample_weight) in a batch or Shards(X, y, sample_weight)"
        )


def _stream(
    name: str,
    X: Iterable[Any],
    check: Check,
    n_in: int,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    batch_size: int = 1,
    shuffle: bool = False,
) -> Source:
    """What brings its own targets: shards, or an iterable of batches."""
    if not isinstance(X, Shards):
        return BatchSource(X, check, epochs, steps_per_epoch, name)
    if X.n_in != n_in:
        raise ValueError(f"{X!r} has {X.n_in} columns; layer 0 expects (n, {n_in})")
    return ShardSource(X, check, batch_size, shuffle)


def _training_stream(
    given: Given, plan: Plan, epochs: int, batch_size: int, class_weight: ClassWeight
) -> Source:
    """Shards, or an iterable of batches, to learn from."""
    X = given.X
    _check_stream(X, given.sample_weight)
    if class_weight == "balanced":
        raise ValueError(
            f"class_weight='balanced' counts the classes of all rows, which X as {type(X).__name__}"
            " does not show: pass a dict of weights"
        )
    if isinstance(given.validation_data, float):
        raise ValueError(
            f"validation_data={given.validation_data} takes rows from arrays; with X as "
            f"{type(X).__name__} pass (X, y)"
        )
    if not isinstance(given.shuffle, bool | np.bool_):
        raise ValueError("shuffle can be an order of rows only where X and y are arrays")
    steps = given.steps_per_epoch
    if steps is not None:
        if isinstance(X, Shards):
            raise ValueError(
                f"steps_per_epoch is {steps!r}, but an epoch takes all files of Shards; leave it "
                "out"
            )
        steps = checked_size("steps_per_epoch", steps)
    check = _check_of(plan, class_weight)
    return _stream("X", X, check, plan.n_in, epochs, steps, batch_size, bool(given.shuffle))


def _validation(given: Any, plan: Plan, recipe: Recipe) -> Source | None:
    """What to validate with, unless it is a share of the rows to learn from, or nothing."""
    if given is None or isinstance(given, float):
        return None
    if isinstance(given, tuple | list) and len(given) in (2, 3):
        with named("validation_data"):
            return _in_order(checked_data(plan, *given, values=True), plan, recipe.metrics)
    if not isinstance(given, Iterable) or isinstance(given, np.ndarray | str | tuple | list | dict):
        raise TypeError(
            "validation_data must be (X, y), (X, y, sample_weight), a fraction, "
            "fb.datasets.Shards or another iterable of batches that is no list, got "
            f"{type(given).__name__}"
        )
    # Values, too, which the kernels would find: there only after an epoch of training.
    beforehand = _check_of(plan, metrics=recipe.metrics, values=True)
    source = _stream("validation_data", given, beforehand, plan.n_in, recipe.epochs)
    if isinstance(given, Shards):
        _look_through(source)
        source = _stream("validation_data", given, _check_of(plan), plan.n_in)
    return source


def _look_through(source: Source) -> None:
    """Read all parts once, to find what is wrong with one of them."""
    weights = [part.data.weights for part in source.parts(seed=0, epoch=0)]
    if not any(weight is None or weight.any() for weight in weights):
        raise ValueError("sample_weight is 0 for every row of validation_data")


def _split(data: TrainingData, fraction: float) -> tuple[TrainingData, TrainingData]:
    """The first rows to learn from, and the rest to validate with."""
    n = len(data.X)
    held = round(n * fraction) if 0.0 < fraction < 1.0 else 0
    if not 0 < held < n:
        raise ValueError(
            f"validation_data is {fraction}; as a fraction of {n} rows it must leave at least one "
            "to learn from and one to validate with"
        )
    parts = data.rows(slice(None, n - held)), data.rows(slice(n - held, None))
    for part, which in zip(parts, ("left", "held back"), strict=True):
        if part.weights is not None and not part.weights.any():
            raise ValueError(
                f"sample_weight is 0 for every row {which} by validation_data={fraction}; take "
                "another fraction, or shuffle the rows"
            )
    return parts


def _as_order(shuffle: Any, n: int) -> bool | Array:
    if isinstance(shuffle, bool | np.bool_):
        return bool(shuffle)
    order = np.asarray(shuffle)
    if order.shape != (n,) or order.dtype.kind not in "iu":
        raise ValueError(
            f"shuffle must be True, False or {n} integer row numbers, got an array of shape "
            f"{order.shape} and dtype {order.dtype}"
        )
    outside = np.flatnonzero((order < 0) | (order >= n))
    if len(outside):
        raise ValueError(
            f"shuffle[{outside[0]}] is {order[outside[0]]}; row numbers must be from 0 to {n - 1}"
        )
    return order.astype(np.int64)  # a copy, which a callback cannot change while kernels follow it


def _as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    if isinstance(callbacks, Callback):
        return (callbacks,)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of Callback, got {callbacks!r}")
    given = tuple(callbacks)
    for callback in given:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback must derive from Callback, got {callback!r}")
    return given


def _as_path(resume_from: Any) -> Path | None:
    if resume_from is None:
        return None
    if not isinstance(resume_from, str | PathLike):
        raise TypeError(
            f"resume_from must be the path of a checkpoint or of a folder of them, got "
            f"{resume_from!r}"
        )
    return Path(os.fspath(resume_from))


def _as_threads(threads: Any) -> int | None:
    if threads is None:
        return None
    count = checked_size("threads", threads)
    if count > _MOST_THREADS:
        raise ValueError(
            f"threads must be at most {_MOST_THREADS}, got {count}; more than there are cores "
            "makes nothing faster"
        )
    return count
