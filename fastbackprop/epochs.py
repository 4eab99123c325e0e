"""Epochs of training: one by one or, where nobody looks between them, several in one call."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.data import refuse_values
from fastbackprop.division import (
    chunks_of,
    epoch_threads,
    has_long_updates,
    is_long,
    layers_by_inputs,
    short_rows,
    threads_to_try,
)
from fastbackprop.history import History
from fastbackprop.job import compile_kernels
from fastbackprop.optimizers import Optimizer
from fastbackprop.pace import Pace
from fastbackprop.plan import Array
from fastbackprop.probe import point_at
from fastbackprop.sources import ArraySource, Part, Source, named
from fastbackprop.spare import Spare
from fastbackprop.state import Former, State
from fastbackprop.stepping import (
    SUMS,
    DivergenceError,
    go_back,
    reserve_steps,
    take_steps,
    training_job,
)
from fastbackprop.team import Team

TRAINING_LOGS = ("loss", "accuracy", "learning_rate", "seconds", "rows_per_second")
"""What the logs of an epoch hold without validation data; accuracy only where there are classes."""

# How long a call may last that takes several epochs: Ctrl-C may have to wait for its end. What
# begins and ends an epoch takes 36 µs, and 50 more with a team of two, which has to be woken:
# 10,000 epochs of four rows took 0.36 s, of which the steps were 0.01.
_TOGETHER_SECONDS = 0.01

# Larger networks take them one by one: copies of the optimizer's arrays, to go back to, would take
# as long and as much memory as they save.
_TOGETHER_BYTES = 1024 * 1024


class _Totals:
    """What the steps of an epoch add up to, or those of each of several epochs."""

    def __init__(self, epochs: int = 1) -> None:
        self._epochs = epochs
        self.rows = self.steps = 0  # of all of them
        self._loss, self._score, self._weight, self._rate = np.zeros((4, epochs))
        self._has_score = True

    def add(self, part: Part, sums: Mapping[str, Array], rates: Array) -> None:
        """Add the steps on a part, at these learning rates."""
        self.rows += len(part.data.X) * part.epochs
        self.steps += part.steps
        by_epoch = {name: steps.reshape(self._epochs, -1) for name, steps in sums.items()}
        self._loss += by_epoch["step_loss"].sum(axis=1)
        self._score += by_epoch["step_score"].sum(axis=1)
        self._weight += by_epoch["step_weight"].sum(axis=1)
        self._has_score &= part.data.targets.score != SCORE_NONE
        self._rate = rates.reshape(self._epochs, -1)[:, -1]  # that of the last step

    def logs(self, seconds: float) -> dict[str, list[float]]:
        """What was measured, by epoch; the means are 0 where no row had any weight."""
        weight = np.where(self._weight == 0.0, 1.0, self._weight)
        logs = {"loss": (self._loss / weight).tolist()}
        if self._has_score:
            logs["accuracy"] = (self._score / weight).tolist()
        logs["learning_rate"] = self._rate.tolist()
        logs["seconds"] = [seconds / self._epochs] * self._epochs
        logs["rows_per_second"] = [self.rows / seconds] * self._epochs
        return logs


class Epochs:
    """Runs epochs of training on a state.

    Parameters
    ----------
    state : State
        The network.
    source : Source
        What it learns from.
    optimizer : Optimizer
        What it learns by.
    threads : int, optional
        Chosen by the work of a step, and by trial, unless given.
    most_together : int, default 1
        The most epochs that `run_several` will be asked for.
    """

    def __init__(
        self,
        state: State,
        source: Source,
        optimizer: Optimizer,
        threads: int | None = None,
        most_together: int = 1,
    ) -> None:
        self._state, self._source, self._optimizer = state, source, optimizer
        plan, batch, rows = state.plan, source.batch, source.batch * source.steps
        self._arrays = source if isinstance(source, ArraySource) else None
        self._most_together = 1
        if self._arrays is not None and state.params.nbytes <= _TOGETHER_BYTES:
            self._most_together = max(1, min(most_together, short_rows(plan) // rows))
        self._epoch_seconds = _TOGETHER_SECONDS  # of the last one; as long as that until then
        call_rows = rows * self._most_together
        count = epoch_threads(threads, plan, batch, call_rows)
        other = threads_to_try(count, threads, plan, batch, call_rows)
        # Among the calls that a network keeps.
        self._pace_key = Pace, batch, count, other
        self._pace: Pace = state.idle.take(self._pace_key) or Pace(count, other)
        self.team = Team(self._pace.most, background=is_long(plan, rows))
        # A schedule that gives no rate is refused while nothing has changed.
        state.rates(optimizer, source.steps)
        self._former: Former | None = state.former(optimizer)
        self._has_begun = False
        try:
            state.use(optimizer)
            self._job = training_job(state, optimizer)
            self._sums = {name: np.zeros(source.steps) for name in SUMS}
            self._rates = np.zeros(0)  # of the steps of the last part
            # Room for so many rows; and what decides how a step is rounded, which must follow from
            # its own rows, not from those before it, so that a resumed training has the same bits.
            self._rows, self._rounding, self._by_inputs = 0, (0, False), 0
            self._reserve(batch)
            self._good = Spare(state.params)
            # So that the first epoch's seconds are those of training.
            compile_kernels(plan.dtype)
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
            reserve_steps(self._job, self._state, self._optimizer, rows, threads, by_inputs)
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
            self._former = state.former(self._optimizer)
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
                go_back(state, self._good, self._former)
            raise
        except BaseException:  # Ctrl-C, or another signal that ends the program
            # Steps of a training that has diverged already, but has yet to find out.
            if not state.is_finite:
                go_back(state, self._good)
            raise
        # Rows that have all been seen are not looked at again.
        self._former = None
        self._epoch_seconds = seconds
        state.epoch += 1
        return {name: column[0] for name, column in totals.logs(seconds).items()}

    def run_several(self, most: int, record: History) -> dict[str, float]:
        """One epoch or, where they are short, up to ``most``; they are added to a record.

        They are those that `run` would run one by one, with the same bits. Where one of them goes
        wrong they are run one by one, so that it ends as it does there. Returns what was measured
        in the last of them.

        Raises
        ------
        DivergenceError
            As `run`; the epochs before are in the record.
        """
        count, failure, steps_before = 1, None, self._state.steps
        if self._arrays is not None:
            fitting = int(_TOGETHER_SECONDS / self._epoch_seconds)
            count = max(1, min(most, self._most_together, fitting))
        if self._arrays is not None and count > 1:
            try:
                measured = self._run_together(self._arrays, count, record)
                if measured is not None:
                    return measured
            except Exception as error:
                if self._state.steps > steps_before:  # from a handler of a signal
                    raise
                failure = error
        for _ in range(count):
            number = self._state.epoch
            logs = self.run()
            record.append(number, logs)
        if failure is not None:  # and of none of the epochs
            raise failure
        return logs

    def _run_together(
        self, source: ArraySource, count: int, record: History
    ) -> dict[str, float] | None:
        """Add so many epochs to the record, and return what was measured in the last of them.

        None, and everything is as before, if a loss or a parameter is not finite; as before it is,
        too, if a row is refused. Ctrl-C leaves whole steps, and the epochs that were completed are
        added.
        """
        state, record_before = self._state, len(record.epoch)
        epoch_before, steps_before = state.epoch, state.steps
        self._good.keep()
        former = state.former(self._optimizer)
        start = time.perf_counter()
        part = source.together(state.seed, epoch_before, count)
        steps = part.steps // count  # of an epoch

        def is_good(epochs: int) -> bool:
            losses = self._sums["step_loss"][: epochs * steps]
            return state.is_finite and bool(np.isfinite(losses).all())

        def add(epochs: int) -> dict[str, float]:
            logs = self._measured(part._replace(epochs=epochs), time.perf_counter() - start)
            if len(record.epoch) == record_before:
                record.append_several(range(epoch_before, epoch_before + epochs), logs)
            state.epoch = epoch_before + epochs
            return {name: column[-1] for name, column in logs.items()}

        try:
            self._take_steps_of(part)
            if is_good(count):
                logs = add(count)
                self._epoch_seconds = logs["seconds"]
                return logs
            go_back(state, self._good, former)
            return None
        except BaseException:
            done = (state.steps - steps_before) // steps
            if self._job.met_bad_row or not is_good(done):
                go_back(state, self._good, former)
            elif done > 0:
                add(done)
            raise

    def _measured(self, part: Part, seconds: float) -> dict[str, list[float]]:
        """What was measured in the epochs of a part, or of the beginning of the last one taken."""
        totals = _Totals(part.epochs)
        sums = {name: steps[: part.steps] for name, steps in self._sums.items()}
        totals.add(part, sums, self._rates[: part.steps])
        return totals.logs(seconds)

    def _run_part(self, part: Part, totals: _Totals) -> None:
        """All steps on a part of an epoch."""
        self._take_steps_of(part)
        bad = np.flatnonzero(~np.isfinite(self._sums["step_loss"]))
        if len(bad):
            loss = self._sums["step_loss"][bad[0]]
            self._diverge(f"the loss became {loss} in step {totals.steps + bad[0]} of")
        totals.add(part, self._sums, self._rates)
        if not self._source.is_whole:
            self._job.release()

    def _take_steps_of(self, part: Part) -> None:
        """The steps on a part, whatever comes of them."""
        state, job = self._state, self._job
        self._rates = state.rates(self._optimizer, part.steps)
        self._reserve(part.batch)
        if len(self._sums["step_loss"]) != part.steps:
            self._sums = {name: np.zeros(part.steps) for name in SUMS}
        point_at(job, part.data)
        job.point(order=part.order, rates=self._rates, **self._sums)
        job.set(
            batch=part.batch,
            epoch_steps=part.steps // part.epochs,
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
        go_back(self._state, self._good)
        self._state.epoch += 1
        raise DivergenceError(
            f"training diverged: {what} epoch {epoch}. The network has the parameters it had "
            "before that epoch. Try a smaller learning_rate, clip_norm in the optimizer, or "
            "inputs scaled to about 1."
        )
