"""Training: epochs, validation, callbacks, and what happens when it goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastbackprop.callbacks import Callback, Checkpoint
from fastbackprop.epochs import Epochs
from fastbackprop.evaluation import evaluation
from fastbackprop.history import History
from fastbackprop.metrics import Metric
from fastbackprop.optimizers import Optimizer
from fastbackprop.progress import progress
from fastbackprop.resumption import resumption, take_snapshot
from fastbackprop.sources import Source
from fastbackprop.state import State

if TYPE_CHECKING:
    from fastbackprop.network import Network


class Recipe(NamedTuple):
    """How to train: checked arguments of ``fit``."""

    epochs: int
    optimizer: Optimizer
    callbacks: Sequence[Callback] = ()
    metrics: Sequence[Metric] = ()
    threads: int | None = None
    verbose: int = 0
    resume_from: Path | None = None


def fit(
    net: Network,
    state: State,
    source: Source,
    validation: Source | None,
    recipe: Recipe,
    record: History,
) -> None:
    """Train for ``recipe.epochs`` epochs, or until told to stop, adding each to ``record``."""
    callbacks, optimizer = recipe.callbacks, recipe.optimizer
    checkpoints = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    former = resumption(recipe.resume_from)
    if former is not None:
        former.check(state.plan, source, optimizer, callbacks, recipe.epochs)
    for checkpoint in checkpoints:
        checkpoint.prepare(state.epoch if former is None else former.snapshot.network.epoch)
    net.stop_training = False
    if former is not None:
        former.apply(net, state, source, optimizer, record)
    # Then epochs need not end one by one.
    is_unwatched = not callbacks and validation is None
    most_together = recipe.epochs - len(record.epoch) if is_unwatched else 1
    epochs = Epochs(state, source, optimizer, recipe.threads, most_together)
    try:
        for callback in callbacks:
            callback.on_train_begin(net)
        if former is not None:
            former.restore(callbacks)
        with epochs.team, progress(recipe.epochs, recipe.verbose, len(record.epoch)) as bar:
            while len(record.epoch) < recipe.epochs and not net.stop_training:
                if is_unwatched:
                    done = len(record.epoch)
                    logs = epochs.run_several(recipe.epochs - done, record)
                    bar.advance(logs, len(record.epoch) - done)
                    continue
                number = state.epoch
                for callback in callbacks:
                    callback.on_epoch_begin(net, number)
                logs = epochs.run()
                _complete(record, number, logs, state, validation, recipe)
                bar.advance(logs)
                for callback in callbacks:
                    callback.on_epoch_end(net, number, dict(logs))
                # After all callbacks, since a checkpoint holds what each of them remembers.
                is_last = net.stop_training or len(record.epoch) == recipe.epochs
                for checkpoint in checkpoints:
                    if checkpoint.is_due(state.epoch, is_last):
                        snapshot = take_snapshot(net, state, source, optimizer, callbacks, record)
                        checkpoint.save(state.epoch, is_last, snapshot)
    except BaseException:
        epochs.give_up()
        raise
    finally:
        epochs.team.dismiss()
    epochs.end()
    for callback in callbacks:
        callback.on_train_end(net)


def _complete(
    record: History,
    number: int,
    logs: dict[str, float],
    state: State,
    validation: Source | None,
    recipe: Recipe,
) -> None:
    """Add an epoch to ``record``, with what the validation data give added to its ``logs``."""
    try:
        if validation is not None:
            measured = evaluation(state, validation, recipe.metrics, recipe.threads)
            logs.update({f"val_{name}": value for name, value in measured.items()})
    finally:  # an interrupted evaluation does not undo the epoch
        record.append(number, logs)
