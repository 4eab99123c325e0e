"""Training: epochs, validation, callbacks, and what happens when it goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.callbacks import Callback, Checkpoint
from fastbackprop.data import TrainingData, refuse_values
from fastbackprop.division import (
    call_threads,
    chunks_of,
    epoch_threads,
    has_long_updates,
    is_long,
    layers_by_inputs,
    threads_to_try,
)
from fastbackprop.evaluation import evaluation
from fastbackprop.history import History
from fastbackprop.job import Job, compile_kernels
from fastbackprop.metrics import Metric
from fastbackprop.optimizers import Optimizer
from fastbackprop.pace import Pace
from fastbackprop.plan import Array
from fastbackprop.probe import point_at
from fastbackprop.progress import progress
from fastbackprop.resumption import resumption, take_snapshot
from fastbackprop.sources import Part, Source, named
from fastbackprop.spare import Spare
from fastbackprop.state import Former, State
from fastbackprop.team import Team, run_together

if TYPE_CHECKING:
    from fastbackprop.network import Network

_SUMS = ("step_loss", "step_score", "step_weight")


class DivergenceError(ArithmeticError):
    """Training produced a loss or a parameter that is not finite.

    The network has the parameters of the end of the last good epoch, and no optimizer state.
    """


class Recipe(NamedTuple):
    """How to train: checked arguments of ``fit``."""

    epochs: int
    optimizer: Optimizer
    callbacks: Sequence[Callback] = ()
    metrics: Sequence[Metric] = ()
    threads: int | None = None
    verbose: int = 0
    resume_from: Path | None = None


TRAINING_LOGS = ("loss", "accuracy", "learning_rate", "seconds", "rows_per_second")
"""What the logs of an epoch hold without validation data; accuracy only where there are classes."""


class _Totals:
    """Sums over the steps of an epoch."""

    def __init__(self) -> None:
        self.rows = self.steps = 0
        self.loss = self.score = self.weight = 0.0
        self.has_score = True
        self.rate = 0.0  # of the last step

    def add(self, part: Part, sums: Mapping[str, Array], rate: float) -> None:
        """Add the steps on a part."""
        self.rows += len(part.data.X)
        self.steps += part.steps
        self.loss += float(sums["step_loss"].sum())
        self.score += float(sums["step_score"].sum())
        self.weight += float(sums["step_weight"].sum())
        self.has_score &= part.data.targets.score != SCORE_NONE
        self.rate = rate

    def logs(self, seconds: float) -> dict[str, float]:
        """What was measured in the epoch; the means are 0 where no row had any weight."""
        weight = self.weight or 1.0
        logs = {"loss": self.loss / weight}
        if self.has_score:
            logs["accuracy"] = self.score / weight
        logs["learning_rate"] = self.rate
        logs["seconds"] = seconds
        logs["rows_per_second"] = self.rows / seconds
        return logs


class Epochs:
    """Runs epochs of training on a state, one by one."""

    def __init__(self, state: State, source: Source, recipe: Recipe) -> None:
        self._state, self._source, self._recipe = state, source, recipe
        batch, steps = source.batch, source.steps
        threads = epoch_threads(recipe.threads, state.plan, batch, batch * steps)
        other = threads_to_try(threads, recipe.threads, state.plan, batch, batch * steps)
        # Among the calls that a network keeps.
        self._pace_key = Pace, batch, threads, other
        self._pace: Pace = state.idle.take(self._pace_key) or Pace(threads, other)
        self.team = Team(self._pace.most, background=is_long(state.plan, batch * steps))
        # A schedule that gives no rate is refused while nothing has changed.
        state.rates(recipe.optimizer, steps)
        self._former: Former | None = state.former(recipe.optimizer)
        self._has_begun = False
        try:
            state.use(recipe.optimizer)
            self._job = training_job(state, recipe.optimizer)
            self._sums = {name: np.zeros(steps) for name in _SUMS}
            # Room for so many rows; and what decides how a step is rounded, which must follow from
            # its own rows, not from those before it, so that a resumed training has the same bits.
            self._rows, self._rounding, self._by_inputs = 0, (0, False), 0
            self._reserve(batch)
            self._good = Spare(state.params)
            # So that the first epoch's seconds are those of training.
            compile_kernels(state.plan.dtype)
        except BaseException:
            self.give_up()
            raise

    def end(self) -> None:
        """Keep what was found out about threads for the next training."""
        self._state.idle.keep(self._pace_key, self._pace, 0)

    def give_up(self) -> None:
        """Put back the state of the optimizer before this one, if no epoch has begun."""
        if not self._has_begun:
            self._state.restore(self._former)

    def _reserve(self, rows: int) -> None:
        """Make room for steps on so many rows."""
        plan, threads = self._state.plan, self.team.threads
        rounding = chunks_of(plan, rows), has_long_updates(plan, rows)
        if rows > self._rows or rounding != self._rounding:
            by_inputs = layers_by_inputs(plan, rows, threads)
            reserve_steps(self._job, self._state, self._recipe.optimizer, rows, threads, by_inputs)
            self._by_inputs = by_inputs if not rounding[0] else 0  # chunks are not divided
            self._rows, self._rounding = rows, rounding

    def run(self) -> dict[str, float]:
        """One epoch; returns what was measured.

        Raises
        ------
        DivergenceError
            If a loss or a parameter is not finite at its end.
        """
        state = self._state
        self._has_begun = True
        self._good.keep()
        if self._former is None and not self._source.is_whole:
            self._former = state.former(self._recipe.optimizer)
        totals, steps_before = _Totals(), state.steps
        start = time.perf_counter()
        try:
            for part in self._source.parts(state.seed, state.epoch):
                self._run_part(part, totals)
                del part  # before the next one is read
            seconds = time.perf_counter() - start
            if not state.is_finite:
                # NaN makes the loss of the next step NaN; so it is of the last one, or infinite.
                self._diverge(f"{state.first_not_finite()} became infinite or NaN in")
        except DivergenceError:
            raise
        except Exception:  # a row, the source itself or a schedule
            if self._former is not None or state.steps != steps_before:
                _go_back(state, self._good, self._former)
            raise
        except BaseException:  # Ctrl-C, or another signal that ends the program
            # Steps of a training that has diverged already, but has yet to find out.
            if not state.is_finite:
                _go_back(state, self._good)
            raise
        # Rows that have all been seen are not looked at again.
        self._former = None
        state.epoch += 1
        return totals.logs(seconds)

    def _run_part(self, part: Part, totals: _Totals) -> None:
        """All steps on a part."""
        state, job = self._state, self._job
        learning_rates = state.rates(self._recipe.optimizer, part.steps)
        self._reserve(part.batch)
        if len(self._sums["step_loss"]) != part.steps:
            self._sums = {name: np.empty(part.steps) for name in _SUMS}
        for sums in self._sums.values():
            sums[...] = 0.0
        point_at(job, part.data)
        job.point(order=part.order, rates=learning_rates, **self._sums)
        job.set(
            batch=part.batch,
            steps_before=state.steps,
            # Dropout masks follow from the numbers of the epoch and of the step within the part.
            epoch=state.epoch if self._source.is_whole else -1 - state.steps,
        )
        step = 0
        while step < part.steps:
            step += self._take_some(step, part.steps, part.batch)
            if job.met_bad_row:
                with named(part.name):
                    refuse_values(part.data.X, state.plan.dtype)
        bad = np.flatnonzero(~np.isfinite(self._sums["step_loss"]))
        if len(bad):
            loss = self._sums["step_loss"][bad[0]]
            self._diverge(f"the loss became {loss} in step {totals.steps + bad[0]} of")
        totals.add(part, self._sums, float(learning_rates[-1]))
        if not self._source.is_whole:
            job.release()

    def _take_some(self, first: int, last: int, batch: int) -> int:
        """Take some of the steps [first, last), by the number of threads whose turn it is."""
        job = self._job
        threads, steps = self._pace.next(last - first, batch)
        # One thread has nothing to divide.
        by_inputs = self._by_inputs if threads == self.team.threads else 0
        job.set(first=first, last=first + steps, threads=threads, by_inputs=by_inputs)
        start = time.perf_counter()
        take_steps(self._state, job, lambda: self.team.run(job, threads))
        self._pace.note(threads, steps * batch, time.perf_counter() - start)
        return steps

    def _diverge(self, what: str) -> None:
        """Go back, and say so."""
        epoch = self._state.epoch
        _go_back(self._state, self._good)
        self._state.epoch += 1
        raise DivergenceError(
            f"training diverged: {what} epoch {epoch}. The network has the parameters it had "
            "before that epoch. Try a smaller learning_rate, clip_norm in the optimizer, or "
            "inputs scaled to about 1."
        )


def training_job(state: State, optimizer: Optimizer) -> Job:
    """A job that takes steps of ``optimizer``, on data that it has yet to be given."""
    job = Job(state.plan, state.params)
    job.point(**state.slot_arrays())
    job.set(seed=state.seed, training=1, update=optimizer.code, **optimizer.hyperparameters())
    return job


def reserve_steps(
    job: Job, state: State, optimizer: Optimizer, rows: int, threads: int, by_inputs: int
) -> None:
    """Make room in a job for steps of a team on so many rows."""
    job.reserve_for_training(
        state.plan,
        rows,
        threads,
        clips=optimizer.clip_norm is not None,
        by_inputs=by_inputs,
        frozen=state.frozen,
    )
    job.point(row_loss=np.empty(rows), row_score=np.empty(rows))


def take_steps(state: State, job: Job, run: Callable[[], None]) -> None:
    """Run a job, and count the steps that were done, whatever ends it."""
    steps_before = state.steps
    job.begin()  # forgets the last count, in case that an exception comes before ``run`` begins
    try:
        try:
            run()
        finally:
            state.steps = steps_before + job.steps_done
    finally:  # Ctrl-C may have come in place of the line above
        state.steps = steps_before + job.steps_done


def _go_back(state: State, parameters: Spare, former: Former | None = None) -> None:
    """Put back parameters and the optimizer's state, which without ``former`` is dropped."""

    def put_back() -> None:
        state.restore(former)
        parameters.put_back()

    try:
        put_back()
    except BaseException:  # Ctrl-C must not leave a half of it
        put_back()
        raise


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
    epochs = Epochs(state, source, recipe)
    try:
        for callback in callbacks:
            callback.on_train_begin(net)
        if former is not None:
            former.restore(callbacks)
        with epochs.team, progress(recipe.epochs, recipe.verbose, len(record.epoch)) as bar:
            while len(record.epoch) < recipe.epochs and not net.stop_training:
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


class _Step:
    """A step on a batch, prepared for an optimizer, which can be taken again and again."""

    # It must not hold the state, which holds it: only the garbage collector would free them.
    def __init__(self, state: State, optimizer: Optimizer) -> None:
        self._optimizer, self._frozen = optimizer, state.frozen
        self._before = Spare(state.params)
        self._sums = {name: np.empty(1) for name in _SUMS}
        self._rate = np.empty(1)
        self._room = (0, 0, 0, False)  # rows, threads, chunks and whether updates are long
        self.n_bytes = 0
        self._job = training_job(state, optimizer)
        self._job.point(rates=self._rate, **self._sums)
        self._job.set(first=0, last=1)

    def serves(self, state: State, optimizer: Optimizer) -> bool:
        """Whether steps of this optimizer are what it was prepared for."""
        return self._optimizer == optimizer and self._frozen == state.frozen

    def _reserve(self, state: State, n: int) -> None:
        """Make room for a step on ``n`` rows, unless there is."""
        plan = state.plan
        threads, chunks = call_threads(None, plan, n), chunks_of(plan, n)
        long = has_long_updates(plan, n)
        rows, *others = self._room
        if n > rows or others != [threads, chunks, long]:
            reserve_steps(self._job, state, self._optimizer, n, threads, by_inputs=0)
            self._room = n, threads, chunks, long
            self.n_bytes = self._job.n_bytes + state.params.nbytes

    def go_back(self, state: State) -> None:
        """Put back the parameters from before the step."""
        _go_back(state, self._before)

    def run(self, state: State, data: TrainingData, rate: float) -> float:
        """Take the step; returns the loss from before it."""
        self._before.keep()
        job, n = self._job, len(data.X)
        # The optimizer's arrays may be others since the last step.
        job.point(**state.slot_arrays())
        self._reserve(state, n)
        self._rate[0] = rate
        point_at(job, data)
        job.set(batch=n, seed=state.seed, steps_before=state.steps, epoch=-1 - state.steps)
        background = is_long(state.plan, n)
        take_steps(state, job, lambda: run_together(job, self._room[1], background=background))
        job.release()
        if job.met_bad_row:  # in which case the step has not changed anything
            refuse_values(data.X, state.plan.dtype)
        total = self._sums["step_weight"][0]
        return float(self._sums["step_loss"][0] / total) if total else 0.0


def step(state: State, data: TrainingData, optimizer: Optimizer) -> float:
    """One step on all rows as one batch; returns its loss from before the step."""
    rate = state.rates(optimizer, 1)[0]
    former = Former(state.optimizer, state.slots, state.steps, state.rate_factor)
    state.use(optimizer)
    prepared = state.idle.take(_Step)
    if prepared is None or not prepared.serves(state, optimizer):
        prepared = _Step(state, optimizer)
    try:
        loss = prepared.run(state, data, rate)
        if not (np.isfinite(loss) and state.is_finite):
            what = f"its loss was {loss}"
            if np.isfinite(loss):
                what = f"{state.first_not_finite()} became infinite or NaN"
            prepared.go_back(state)
            raise DivergenceError(
                f"the step diverged: {what}. The parameters are as they were. Try a smaller "
                "learning_rate, clip_norm in the optimizer, or inputs scaled to about 1."
            )
    except DivergenceError:
        raise
    except Exception:  # before which the step has not changed anything
        state.restore(former)
        raise
    except BaseException:
        if not state.is_finite:
            prepared.go_back(state)
        raise
    state.idle.keep(_Step, prepared, prepared.n_bytes)
    return loss
