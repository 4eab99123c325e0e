"""One job, run by a team of threads: the only place where Python and the kernels meet."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np

from fastbackprop._kernels import passes
from fastbackprop._kernels.gemm import scratch_bytes
from fastbackprop._kernels.records import JOB
from fastbackprop.plan import Array, Plan, aligned_zeros, leading_dimension

# What a second thread costs and brings, measured on two cores of a server with AVX-512. Each thread
# must fetch the parameters that the others changed, and take them back to change its own: a fifth
# of a nanosecond a byte, which makes a step of 784-30-10 twice as long on two threads as on one.
_FLOPS_A_SECOND = 95e9
_SECONDS_A_BYTE = 0.18e-9
_SECONDS_A_BARRIER = 0.5e-6

# Starting a team for one call.
_SECONDS_A_START = 150e-6


def available_threads() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fastest(seconds: Callable[[int], float]) -> int:
    """The number of threads for which a model of the time is least."""
    return min(range(1, available_threads() + 1), key=seconds)


def _seconds_lost(plan: Plan, rows: int, threads: int, by_inputs: int) -> float:
    """What a team loses in a step, of which it divides the first layers by their inputs.

    There outputs and their gradients travel, and with more threads than two, who share each half of
    a sum, some weights. In the other layers weights travel.
    """
    travel = 0.0
    for index, stage in enumerate(plan.stages):
        weights = stage.rows * stage.ld
        if index >= by_inputs:
            travel += 2 * (1 - 1 / threads) * weights
        else:
            travel += 2 * (1 - 1 / threads) * rows * stage.ld
            travel += max(0.0, 1 - 2 / threads) * weights
    barriers = 2 * max(1, by_inputs)
    if threads > 2:
        barriers += by_inputs + 1
    return travel * plan.dtype.itemsize * _SECONDS_A_BYTE + barriers * _SECONDS_A_BARRIER


def layers_by_inputs(plan: Plan, rows: int, threads: int) -> int:
    """How many layers, from the first, a team best divides by inputs, in steps of ``rows`` rows."""
    if threads == 1:
        return 0
    possible = 0
    while possible < len(plan.stages) and plan.stages[possible].is_split:
        possible += 1
    return min(range(possible + 1), key=lambda count: _seconds_lost(plan, rows, threads, count))


# Batches that are cut into chunks, and the most bytes that the gradients of all chunks may take.
_CHUNKED_ROWS = 1024
_CHUNKS = 8
_CHUNKED_BYTES = 512 * 1024


def chunks_of(plan: Plan, rows: int) -> int:
    """Into how many chunks steps of ``rows`` rows are cut; 0 is not at all.

    It decides the order of sums, so it must not depend on the number of threads.
    """
    small = _CHUNKS * plan.size * plan.dtype.itemsize <= _CHUNKED_BYTES
    drops = any(stage.dropout > 0.0 for stage in plan.stages)  # masks count rows of a whole batch
    return _CHUNKS if rows >= _CHUNKED_ROWS and small and not drops else 0


def training_threads(requested: int | None, plan: Plan, rows: int) -> int:
    """Threads for a team that takes steps of ``rows`` rows: as asked, else the fastest number."""
    if requested is not None:
        return requested

    def seconds(threads: int) -> float:
        arithmetic = plan.flops(rows) / _FLOPS_A_SECOND / threads
        if threads == 1 or chunks_of(plan, rows):
            return arithmetic + 2 * _SECONDS_A_BARRIER * (threads > 1)
        by_inputs = layers_by_inputs(plan, rows, threads)
        return arithmetic + _seconds_lost(plan, rows, threads, by_inputs)

    return _fastest(seconds)


def call_threads(requested: int | None, plan: Plan, rows: int) -> int:
    """Threads for a team that is started for one call on ``rows`` rows."""
    if requested is not None:
        return requested
    seconds = plan.flops(rows) / _FLOPS_A_SECOND
    return _fastest(lambda threads: seconds / threads + _SECONDS_A_START * (threads > 1))


# Every field of a record is a word: an integer or a float.
_FIELDS: Any = JOB.fields
_WORDS = {name: offset // 8 for name, (_, offset, *_) in _FIELDS.items()}
_FLOATS = frozenset(name for name, (kind, *_) in _FIELDS.items() if kind == np.float64)


class Job:
    """A filled-in JOB record, with every array that it points to kept alive.

    Parameters
    ----------
    plan : Plan
        The network.
    params : ndarray
        Its flat parameters.
    """

    def __init__(self, plan: Plan, params: Array) -> None:
        record = np.zeros(JOB.itemsize // 8, np.int64)
        self._integers, self._floats = record, record.view(np.float64)
        self._address = record.ctypes.data
        self._alive: dict[str, Array] = {}
        self._one = plan.dtype.type(1)
        self.dtype = plan.dtype
        # Rows of a product start from zeros: rows of parameters, or of gradients of the inputs.
        width = max(plan.widest, leading_dimension(plan.n_in, plan.dtype))
        self.point(params=params, zeros=aligned_zeros(width, plan.dtype))
        self.set(
            n_layers=len(plan.stages),
            loss=plan.loss.code,
            loss_delta=plan.loss.delta,
            x_scale=plan.rescaling.scale,
            x_offset=plan.rescaling.offset,
            threads=1,
        )
        self._stop = np.zeros(4, np.int64)
        self._barrier = aligned_zeros(16, np.dtype(np.int64))
        self.point(stop=self._stop, barrier=self._barrier)

    def set(self, **values: float) -> None:
        """Set numbers of the record."""
        for name, value in values.items():
            words = self._floats if name in _FLOATS else self._integers
            words[_WORDS[name]] = value

    def point(self, **arrays: Array | None) -> None:
        """Set addresses of the record; None is the address 0."""
        for name, array in arrays.items():
            self._integers[_WORDS[name]] = 0 if array is None else array.ctypes.data
            if array is None:
                self._alive.pop(name, None)
            else:
                self._alive[name] = array

    def reserve(self, plan: Plan, rows: int, threads: int, *, shared: bool) -> None:
        """Give the job workspaces for ``rows`` rows: one for the team, or one for each thread."""
        table, target_rows, size = plan.workspace(rows)
        line = 64 // plan.dtype.itemsize
        scratch = scratch_bytes(plan.widest * plan.dtype.itemsize) // plan.dtype.itemsize
        self.point(
            layers=table,
            work=aligned_zeros(size if shared else size * threads, plan.dtype),
            scratch=aligned_zeros((scratch + line) * threads, plan.dtype),
        )
        self.set(
            target_rows=target_rows,
            work_stride=0 if shared else size,
            scratch_stride=scratch + line,
            threads=threads,
        )

    def reserve_for_training(
        self, plan: Plan, rows: int, threads: int, *, clips: bool, by_inputs: int
    ) -> None:
        """Give the job what it needs for steps of ``rows`` rows."""
        chunks = chunks_of(plan, rows)
        self.set(chunks=chunks, chunk_size=plan.size, by_inputs=0 if chunks else by_inputs)
        if chunks:
            self.point(gradients=aligned_zeros(chunks * plan.size, plan.dtype))
            self.reserve(plan, min(rows, passes.BLOCK_ROWS), threads, shared=False)
        else:
            if clips:
                self.point(gradients=plan.zeros())
            self.reserve(plan, rows, threads, shared=True)
        if clips:
            self.point(row_norms=np.empty(plan.n_rows))

    @property
    def input_stride(self) -> int:
        """Elements from one row of the gathered inputs to the next."""
        return int(self._alive["layers"][0]["ld_x"])

    def stage_views(self, plan: Plan, rows: int) -> list[tuple[Array, Array, Array, Array]]:
        """The (x, z, a, dz) of each stage in the workspace, for the first ``rows`` rows."""
        table, work = self._alive["layers"], self._alive["work"]

        def view(offset: int, ld: int, columns: int) -> Array:
            return work[offset : offset + rows * ld].reshape(rows, ld)[:, :columns]

        views: list[tuple[Array, Array, Array, Array]] = []
        for stage, record in zip(plan.stages, table, strict=True):
            n_in, n_out = stage.dense.n_in, stage.dense.n_out
            dropped = not views or (self._integers[_WORDS["training"]] and stage.dropout > 0.0)
            x = view(record["x"], record["ld_x"], n_in) if dropped else views[-1][2]
            z, a = (view(record[name], record["ld_a"], n_out) for name in ("z", "a"))
            views.append((x, z, a, view(record["dz"], record["ld_dz"], n_out)))
        return views

    @property
    def steps_done(self) -> int:
        """Whole steps that the last call completed."""
        return int(self._stop[2])

    @property
    def met_bad_row(self) -> bool:
        """Whether the last call ended at a row of X that is not finite."""
        return bool(self._stop[3])

    def run(self, thread: int) -> None:
        """One thread's part of the work."""
        passes.run(self._address, thread, self._one)

    def begin(self) -> None:
        """Make the barrier and the stop request ready for the next call of a team."""
        self._stop[:] = 0
        self._barrier[0] = 0

    def request_stop(self) -> None:
        """Ask the team to return after the step that it is in."""
        self._stop[0] = 1


@cache
def compile_kernels(dtype: np.dtype[Any]) -> None:
    """Compile the kernels for a float type, or fetch them from the disk."""
    from numba import from_dtype, types

    signature = (types.intp, types.intp, from_dtype(dtype))
    if signature not in passes.run.overloads:
        passes.run.compile(signature)


class _Call:
    """One run of a job by every worker of a team, begun and awaited by lines that may be repeated.

    An exception such as KeyboardInterrupt may be raised between any two lines of the caller's
    thread, who then cannot know whether the last of them took effect.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self._job = job
        self._begun = [False] * threads
        self._ended = [False] * threads
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.failure: BaseException | None = None

    def take_part(self, number: int) -> None:
        """Do the share of worker ``number``, once."""
        if self._begun[number]:
            return
        self._begun[number] = True
        try:
            self._job.run(number)
        except BaseException as error:
            self.failure = error
        self._ended[number] = True
        self._news.put(None)

    def wait(self) -> None:
        """Wait until all workers have done their share."""
        while not all(self._ended):
            self._news.get()


class Team:
    """Threads that run one job together; a context manager, since they must not outlive it.

    The caller's thread only waits, so that Ctrl-C reaches it at once: it then asks the kernel to
    stop after the current step, waits for that, and lets the KeyboardInterrupt go on.

    Parameters
    ----------
    threads : int
        With 1, the caller's thread does the work itself unless ``background``.
    background : bool
        Whether the work is long enough that the caller's thread must stay free for Ctrl-C.
    """

    def __init__(self, threads: int, *, background: bool = True) -> None:
        self.threads = threads
        self._background = background or threads > 1
        self._calls: list[queue.SimpleQueue[_Call | None]] = []
        self._workers: list[threading.Thread] = []

    def __enter__(self) -> Team:
        if self._background:
            try:
                for number in range(self.threads):
                    calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
                    worker = threading.Thread(
                        target=_work,
                        args=(calls, number),
                        name=f"fastbackprop-{number}",
                        daemon=True,
                    )
                    self._calls.append(calls)
                    self._workers.append(worker)
                    worker.start()
            except BaseException:
                self._dismiss()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._dismiss()

    def _dismiss(self) -> None:
        for calls in self._calls:
            calls.put(None)
        for worker in self._workers:
            if worker.is_alive():
                worker.join()

    def run(self, job: Job) -> None:
        """Run the job to its last step.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the current step is complete.
        """
        compile_kernels(job.dtype)
        job.begin()
        if not self._background:
            job.run(0)
            return
        call = _Call(job, self.threads)
        interrupt: BaseException | None = None
        while True:
            # No exception may leave before the whole team has begun and has come back.
            try:
                for calls in self._calls:
                    calls.put(call)
                call.wait()
                break
            except BaseException as error:
                interrupt = error
                job.request_stop()
        failure = call.failure or interrupt
        if failure is not None:
            raise failure


def _work(calls: queue.SimpleQueue[_Call | None], number: int) -> None:
    """The life of a worker: to take part in each call until there are no more."""
    while (call := calls.get()) is not None:
        call.take_part(number)
