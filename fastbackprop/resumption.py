"""Resuming a training: what a checkpoint must agree with, and how it is put back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbackprop import storage
from fastbackprop.callbacks import Callback, Checkpoint
from fastbackprop.checkpoints import CallbackState, Snapshot, read_newest
from fastbackprop.errors import FileFormatError
from fastbackprop.history import History
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Plan
from fastbackprop.sources import Source
from fastbackprop.specs import Spec
from fastbackprop.state import State

if TYPE_CHECKING:
    from fastbackprop.network import Network


def take_snapshot(
    net: Network,
    state: State,
    source: Source,
    optimizer: Optimizer,
    callbacks: Sequence[Callback],
    record: History,
) -> Snapshot:
    """The training as it is after an epoch, for a file; parameters and slots are views."""
    return Snapshot(
        storage.contents_of(net.layers, state, net.classes),
        {**_optimizer_facts(optimizer), **source.facts()},
        {name: state.plan.matrices(slot) for name, slot in state.slots.items()},
        state.steps,
        state.rate_factor,
        sorted(state.frozen),
        net.history,
        record,
        [CallbackState(type(callback).__name__, callback.state()) for callback in callbacks],
        net.stop_training,
    )


class Resumption:
    """A checkpoint that a training goes on from.

    Parameters
    ----------
    path : Path
        The file.
    snapshot : Snapshot
        What it holds.
    """

    def __init__(self, path: Path, snapshot: Snapshot) -> None:
        self._path, self.snapshot = path, snapshot

    def check(
        self,
        plan: Plan,
        source: Source,
        optimizer: Optimizer,
        callbacks: Sequence[Callback],
        epochs: int,
    ) -> None:
        """Refuse to go on with anything but the same training.

        Raises
        ------
        ValueError
            Naming the first difference.
        """
        network = self.snapshot.network
        dtype: np.dtype[Any] = np.dtype(network.dtype)
        stored = Plan(network.layers, network.loss, network.output_activation, dtype)
        here = {**_network_facts(plan), **_optimizer_facts(optimizer), **source.facts()}
        there = {**_network_facts(stored), **self.snapshot.facts}
        for name in {**there, **here}:
            if there.get(name) != here.get(name):
                raise ValueError(
                    f"{self._path}: {name} is {there.get(name)!r} in the checkpoint, but "
                    f"{here.get(name)!r} here; resume with what the training began with, or leave "
                    "resume_from out"
                )
        if set(self.snapshot.slots) != set(optimizer.slot_names):
            raise FileFormatError(
                f"{self._path}: slots {list(self.snapshot.slots)}; {optimizer!r} has "
                f"{list(optimizer.slot_names)}"
            )
        done = len(self.snapshot.record.epoch)
        if done > epochs:
            raise ValueError(
                f"{self._path}: the checkpoint has {done} epochs, more than epochs={epochs}, which "
                "counts them, too; ask for more, or resume from an earlier file"
            )
        self._states(callbacks)

    def apply(
        self, net: Network, state: State, source: Source, optimizer: Optimizer, record: History
    ) -> None:
        """Put everything back but the callbacks; ``record`` gets the history of the call of fit."""
        source.skip(len(self.snapshot.record.epoch))
        try:
            self._put_back(net, state, optimizer)
        except BaseException:  # Ctrl-C must not leave a half of it
            self._put_back(net, state, optimizer)
            raise
        finally:
            record.extend(self.snapshot.record)

    def _put_back(self, net: Network, state: State, optimizer: Optimizer) -> None:
        """Put back what is left of the snapshot, after an exception again.

        The snapshot is used up: what has been copied from it is let go, since it is as large as the
        network and the optimizer's state are.
        """
        snapshot = self.snapshot
        if snapshot.network.weights:
            storage.restore(snapshot.network, state)
            state.forget()
            snapshot.network.weights.clear()
        state.use(optimizer)
        for name in list(snapshot.slots):
            places = state.plan.matrices(state.slots[name])
            for own, stored in zip(places, snapshot.slots[name], strict=True):
                own[...] = stored
            del snapshot.slots[name]
        state.steps, state.rate_factor = snapshot.steps, snapshot.rate_factor
        state.frozen = frozenset(snapshot.frozen)
        net.history = snapshot.earlier
        net.stop_training = snapshot.ended

    def restore(self, callbacks: Sequence[Callback]) -> None:
        """Let callbacks go on from what they remembered.

        Raises
        ------
        FileFormatError
            If one does not understand its state.
        """
        for callback, (kind, state) in self._states(callbacks):
            try:
                callback.restore(state)
            except (KeyError, TypeError, ValueError) as error:
                raise FileFormatError(
                    f"{self._path}: the state of {kind} is not one that it can go on from "
                    f"({error!r})"
                ) from error

    def _states(self, callbacks: Sequence[Callback]) -> list[tuple[Callback, CallbackState]]:
        """Each remembered state with the callback that takes it: in order, for each class."""
        left = list(callbacks)
        pairs = []
        for saved in self.snapshot.callbacks:
            taker = next((c for c in left if type(c).__name__ == saved.type), None)
            if taker is not None:
                left.remove(taker)
                pairs.append((taker, saved))
            elif saved.state and saved.type != Checkpoint.__name__:  # it need not write more
                raise ValueError(
                    f"{self._path}: the checkpoint has the state of a {saved.type}, for which "
                    "callbacks has no taker; pass the callbacks that the training began with"
                )
        return pairs


def resumption(path: Path | None) -> Resumption | None:
    """The checkpoint to go on from; None where there is none yet.

    Raises
    ------
    FileNotFoundError, PermissionError, FileFormatError
        If a file was named, or is the newest of the folder, that cannot be read.
    """
    found = None if path is None else read_newest(path)
    return None if found is None else Resumption(*found)


def _network_facts(plan: Plan) -> dict[str, object]:
    """What a network computes, by names that an error can say."""
    facts: dict[str, object] = {
        "sizes": [plan.n_in, *(stage.dense.n_out for stage in plan.stages)],
        "dtype": plan.dtype.name,
        "loss": plan.loss.to_config(),
        "Rescaling": plan.rescaling.to_config(),
    }
    for i, stage in enumerate(plan.stages):
        facts[f"the activation of layer {i}"] = stage.activation.to_config()
        facts[f"the bias of layer {i}"] = stage.dense.bias
        facts[f"the dropout before layer {i}"] = stage.dropout
    return facts


def _optimizer_facts(optimizer: Optimizer) -> dict[str, object]:
    """Its fields by name. A rate that is a plain function is only known to be one."""
    plain, facts = optimizer, {}
    if callable(optimizer.learning_rate) and not isinstance(optimizer.learning_rate, Spec):
        plain = dataclasses.replace(optimizer, learning_rate=1.0)
        facts["the optimizer's learning_rate"] = "a function"
    config: Mapping[str, Any] = plain.to_config()
    return {f"the optimizer's {name}": value for name, value in config.items()} | facts
