"""Training: epochs, validation, history, progress, and what happens when it goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.callbacks import Callback
from fastbackprop.data import TrainingData, refuse_values
from fastbackprop.division import call_threads, layers_by_inputs, training_threads
from fastbackprop.inference import means
from fastbackprop.job import Job, compile_kernels
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Array
from fastbackprop.probe import data_job
from fastbackprop.schedules import rates
from fastbackprop.state import Former, State
from fastbackprop.team import Team

if TYPE_CHECKING:
    from fastbackprop.network import Network

# An epoch longer than this runs beside the caller's thread, which stays free for Ctrl-C.
_BACKGROUND_FLOPS = 1_000_000_000


class DivergenceError(ArithmeticError):
    """Training produced a loss or a parameter that is not finite.

    The network has the parameters of the end of the last good epoch, and no optimizer state.
    """


class History(Mapping[str, list[float]]):
    """What was measured in each epoch: a mapping from names to lists.

    The names are those of the ``logs`` of `Callback.on_epoch_end`.

    Attributes
    ----------
    epoch : list of int
        The number of each epoch, counted from 0 over all calls of ``fit``.

    Examples
    --------
    >>> history = History()
    >>> history.append(0, {"loss": 0.5})
    >>> history["loss"], history.epoch, len(history.epoch)
    ([0.5], [0], 1)
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self._columns: dict[str, list[float]] = {}

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add an epoch; a name that it or earlier ones lack is NaN there."""
        for name in logs:
            self._columns.setdefault(name, [float("nan")] * len(self.epoch))
        self.epoch.append(epoch)
        for name, column in self._columns.items():
            column.append(float(logs.get(name, float("nan"))))

    def extend(self, other: History) -> None:
        """Add all epochs of another."""
        for row, epoch in enumerate(other.epoch):
            self.append(epoch, {name: column[row] for name, column in other.items()})

    def __getitem__(self, name: str) -> list[float]:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns) or "none: no epoch was completed"
            raise KeyError(f"{name!r} was not measured; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        if not self.epoch:
            return "<History: no epochs>"
        last = ", ".join(f"{name} {column[-1]:.4g}" for name, column in self._columns.items())
        return f"<History: {len(self.epoch)} epochs; the last: {last}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("epoch", *self._columns))
        body = "".join(
            "<tr>" + "".join(f"<td>{value:.5g}</td>" for value in row) + "</tr>"
            for row in zip(self.epoch, *self._columns.values(), strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Recipe(NamedTuple):
    """Checked arguments of ``fit``."""

    epochs: int
    batch_size: int
    optimizer: Optimizer
    shuffle: bool | Array  # an array is the order of rows, the same in every epoch
    callbacks: Sequence[Callback]
    threads: int | None
    verbose: int


def epoch_order(seed: int, epoch: int, n: int) -> Array:
    """The order of rows in an epoch: a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class Epochs:
    """Runs epochs of training on a state, one by one."""

    def __init__(self, state: State, data: TrainingData, recipe: Recipe) -> None:
        self._state, self._data, self._recipe = state, data, recipe
        self._n = len(data.X)
        self._batch = min(recipe.batch_size, self._n)
        self._steps = -(-self._n // self._batch)
        step_flops = state.plan.flops(self._batch)
        threads = training_threads(recipe.threads, state.plan, self._batch)
        self.team = Team(threads, background=step_flops * self._steps > _BACKGROUND_FLOPS)
        # A schedule that gives no rate is refused while nothing has changed.
        rates(recipe.optimizer.learning_rate, state.steps_with(recipe.optimizer), self._steps)
        # Until every row has been seen once, all of the state may have to be put back.
        self._former: Former | None = state.former(recipe.optimizer)
        state.use(recipe.optimizer)
        self._sums = {
            name: np.zeros(self._steps) for name in ("step_loss", "step_score", "step_weight")
        }
        self._job = training_job(state, data, recipe.optimizer, self._batch, self._sums)
        self._job.reserve_for_training(
            state.plan,
            self._batch,
            threads,
            clips=recipe.optimizer.clip_norm is not None,
            by_inputs=layers_by_inputs(state.plan, self._batch, threads),
        )
        self._good = np.empty_like(state.params)
        compile_kernels(state.plan.dtype)  # so that the first epoch's seconds are those of training

    def run(self) -> dict[str, float]:
        """One epoch; returns what was measured.

        Raises
        ------
        DivergenceError
            If a loss or a parameter is not finite at its end.
        """
        state, recipe = self._state, self._recipe
        order: Array | None = None
        if recipe.shuffle is True:
            order = epoch_order(state.seed, state.epoch, self._n)
        elif recipe.shuffle is not False:
            order = recipe.shuffle
        learning_rates = rates(recipe.optimizer.learning_rate, state.steps, self._steps)
        self._good[...] = state.params
        for sums in self._sums.values():
            sums[...] = 0.0
        self._job.point(order=order, rates=learning_rates)
        self._job.set(first=0, last=self._steps, steps_before=state.steps, epoch=state.epoch)
        start = time.perf_counter()
        try:
            self.team.run(self._job)
        finally:
            state.steps += self._job.steps_done
        seconds = time.perf_counter() - start
        self._check_inputs()
        self._check_finite()
        state.epoch += 1
        total = self._sums["step_weight"].sum()
        logs = {"loss": float(self._sums["step_loss"].sum() / total)}
        if self._data.targets.score != SCORE_NONE:
            logs["accuracy"] = float(self._sums["step_score"].sum() / total)
        logs["learning_rate"] = float(learning_rates[-1])
        logs["seconds"] = seconds
        logs["rows_per_second"] = self._n / seconds
        return logs

    def _check_inputs(self) -> None:
        """Put everything back if a row of X is not finite."""
        if self._job.met_bad_row:
            self._state.params[...] = self._good
            self._state.restore(self._former)
            refuse_values(self._data.X, self._state.plan.dtype)
        self._former = None

    def _check_finite(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self._sums["step_loss"]))
        if len(bad) == 0 and np.isfinite(self._state.params).all():
            return
        state = self._state
        if len(bad):
            what = f"the loss became {self._sums['step_loss'][bad[0]]} in step {bad[0]} of"
        else:
            what = "a parameter became infinite or NaN in"
        state.params[...] = self._good
        epoch = state.epoch
        state.epoch += 1
        state.forget()
        raise DivergenceError(
            f"training diverged: {what} epoch {epoch}. The network has the parameters it had "
            "before that epoch. Try a smaller learning_rate, clip_norm in the optimizer, or "
            "inputs scaled to about 1."
        )


def training_job(
    state: State,
    data: TrainingData,
    optimizer: Optimizer,
    batch: int,
    sums: Mapping[str, Array],
) -> Job:
    """A job that takes steps of ``optimizer``."""
    job = data_job(state, data)
    job.point(row_loss=np.empty(batch), row_score=np.empty(batch), **sums, **state.slot_arrays())
    job.set(batch=batch, training=1, update=optimizer.code, **optimizer.hyperparameters())
    return job


def fit(
    net: Network,
    state: State,
    data: TrainingData,
    validation: TrainingData | None,
    recipe: Recipe,
    record: History,
) -> None:
    """Train for ``recipe.epochs`` epochs, adding each to ``record``."""
    epochs = Epochs(state, data, recipe)
    for callback in recipe.callbacks:
        callback.on_train_begin(net)
    with epochs.team, _progress(recipe) as bar:
        for _ in range(recipe.epochs):
            number = state.epoch
            for callback in recipe.callbacks:
                callback.on_epoch_begin(net, number)
            logs = epochs.run()
            if validation is not None:
                result = means(state, validation, threads=recipe.threads)
                logs["val_loss"] = result.loss
                if result.score is not None:
                    logs["val_accuracy"] = result.score
            record.append(number, logs)
            bar.advance(logs)
            for callback in recipe.callbacks:
                callback.on_epoch_end(net, number, dict(logs))
    for callback in recipe.callbacks:
        callback.on_train_end(net)


def step(state: State, data: TrainingData, optimizer: Optimizer) -> float:
    """One step on all rows as one batch; returns its loss from before the step."""
    n = len(data.X)
    learning_rate = optimizer.learning_rate
    first = state.steps_with(optimizer)
    learning_rates = rates(learning_rate, first, 1)
    former = Former(state.optimizer, state.slots, state.steps)
    state.use(optimizer)
    sums = {name: np.empty(1) for name in ("step_loss", "step_score", "step_weight")}
    job = training_job(state, data, optimizer, n, sums)
    flops = state.plan.flops(n)
    threads = call_threads(None, state.plan, n)
    clips = optimizer.clip_norm is not None
    job.reserve_for_training(state.plan, n, threads, clips=clips, by_inputs=0)
    job.point(rates=learning_rates)
    job.set(first=0, last=1, steps_before=first, epoch=-1 - first)
    before = state.params.copy()
    with Team(threads, background=flops > _BACKGROUND_FLOPS) as team:
        team.run(job)
    if job.met_bad_row:  # in which case the step has not changed anything
        state.restore(former)
        refuse_values(data.X, state.plan.dtype)
    total = sums["step_weight"][0]
    loss = float(sums["step_loss"][0] / total) if total else 0.0
    if not (np.isfinite(loss) and np.isfinite(state.params).all()):
        state.params[...] = before
        state.forget()
        raise DivergenceError(
            f"the step diverged: its loss was {loss}. The parameters are as they were. Try a "
            "smaller learning_rate, clip_norm in the optimizer, or inputs scaled to about 1."
        )
    state.steps += 1
    return loss


class _Silent:
    """The progress of training that nobody watches."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, logs: Mapping[str, float]) -> None:
        pass


class _Bar(_Silent):
    """A bar over epochs, in a terminal or a notebook."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, logs: Mapping[str, float]) -> None:
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        text = {name: f"{logs[name]:.4f}" for name in shown if name in logs}
        self._bar.set_postfix(text, refresh=False)
        self._bar.update()


def _progress(recipe: Recipe) -> _Silent:
    if not recipe.verbose:
        return _Silent()
    from tqdm import auto

    class Bar(auto.tqdm):
        monitor_interval = 0  # no thread of its own may outlive fit

    # A notebook's bar would take "disable unless a terminal" for "disable".
    in_notebook = auto.tqdm is not auto.asyncio_tqdm
    return _Bar(
        Bar(
            total=recipe.epochs,
            desc="epochs",
            unit="epoch",
            disable=False if in_notebook else None,
            dynamic_ncols=True,
        )
    )
