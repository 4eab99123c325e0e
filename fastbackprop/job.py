"""A job: the record that the kernels read, and the only place where networks call them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastbackprop._kernels.columns import SPARSE_INPUTS, list_words
from fastbackprop._kernels.gemm import scratch_bytes
from fastbackprop._kernels.packing import packed_bytes
from fastbackprop._kernels.records import (
    JOB,
    STOP_BAD_ROW,
    STOP_DROPPED,
    STOP_FIRST_IS_BACK,
    STOP_REQUESTED,
    STOP_STEPS_DONE,
    STOP_WORDS,
)
from fastbackprop._kernels.run import CHUNK_BLOCK_ROWS, run
from fastbackprop._kernels.signals import signals_held
from fastbackprop._kernels.team import BARRIER_OPEN, BARRIER_WORDS, SPINS_ALONE, SPINS_SHARED
from fastbackprop.cores import available_threads
from fastbackprop.division import chunks_of, has_long_updates
from fastbackprop.plan import Array, Plan, aligned_zeros, leading_dimension

# Every field of a record is a word: an integer or a float.
_FIELDS: Any = JOB.fields
_WORDS = {name: offset // 8 for name, (_, offset, *_) in _FIELDS.items()}
_FLOATS = frozenset(name for name, (kind, *_) in _FIELDS.items() if kind == np.float64)

_DATA = ("x", "x_starts", "x_columns", "labels", "targets", "weights", "order")
_DATA_WORDS = np.array([_WORDS[name] for name in _DATA])


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
            loss_parameter=plan.loss.parameter,
            x_scale=plan.rescaling.scale,
            x_offset=plan.rescaling.offset,
            threads=1,
        )
        self._stop = np.zeros(STOP_WORDS, np.int64)
        self._barrier = aligned_zeros(BARRIER_WORDS, np.dtype(np.int64))
        self.point(stop=self._stop, barrier=self._barrier)

    def set(self, **values: float) -> None:
        """Set numbers of the record."""
        for name, value in values.items():
            words = self._floats if name in _FLOATS else self._integers
            words[_WORDS[name]] = value

    def point(self, **arrays: Array | None) -> None:
        """Set addresses of the record; None is the address 0."""
        for name, array in arrays.items():
            if array is None:
                self._integers[_WORDS[name]] = 0
                self._alive.pop(name, None)
            elif self._alive.get(name) is not array:  # to ask for an address takes a while
                self._integers[_WORDS[name]] = array.ctypes.data
                self._alive[name] = array

    def release(self) -> None:
        """Let go of the caller's data."""
        self._integers[_DATA_WORDS] = 0
        for name in _DATA:
            self._alive.pop(name, None)

    def reserve(self, plan: Plan, rows: int, threads: int, *, shared: bool) -> None:
        """Give the job workspaces for ``rows`` rows: one for the team, or one for each thread."""
        table, target_rows, size = plan.workspace(rows)
        itemsize = plan.dtype.itemsize
        line = 64 // itemsize
        sizes = plan.widest * itemsize, plan.largest * itemsize, rows
        columns = scratch_bytes(*sizes) // itemsize
        words = list_words(int(table[0]["ld_x"]))
        scratch = columns + 2 * words * 8 // itemsize
        self.point(
            layers=table,
            work=aligned_zeros(size if shared else size * threads, plan.dtype),
            scratch=aligned_zeros((scratch + line) * threads, plan.dtype),
        )
        self.set(
            target_rows=target_rows,
            work_stride=0 if shared else size,
            scratch_stride=scratch + line,
            products=packed_bytes(*sizes) // itemsize,
            columns=columns if plan.n_in >= SPARSE_INPUTS else 0,
            list_words=words,
            threads=threads,
            spins=SPINS_ALONE if threads <= available_threads() else SPINS_SHARED,
        )

    def reserve_for_training(
        self,
        plan: Plan,
        rows: int,
        threads: int,
        *,
        clips: bool,
        by_inputs: int,
        frozen: frozenset[int],
    ) -> None:
        """Give the job what it needs for steps of ``rows`` rows that leave ``frozen`` stages."""
        chunks = chunks_of(plan, rows)
        stores = clips or (not chunks and has_long_updates(plan, rows))
        self.set(chunks=chunks, chunk_size=plan.size, by_inputs=0 if chunks else by_inputs)
        self.set(stores=stores)
        if chunks:
            self.point(gradients=aligned_zeros(chunks * plan.size, plan.dtype))
            self.reserve(plan, min(rows, CHUNK_BLOCK_ROWS), threads, shared=False)
        else:
            if stores:
                self.point(gradients=plan.zeros())
            self.reserve(plan, rows, threads, shared=True)
        if clips:
            self.point(row_norms=np.empty(plan.n_rows))
        if frozen:
            table = self._alive["layers"].copy()
            table["frozen"][list(frozen)] = 1
            self.point(layers=table)
            self.set(first_trained=int(np.argmin(table["frozen"])))

    @property
    def n_bytes(self) -> int:
        """Memory that it keeps besides the network's parameters."""
        return sum(array.nbytes for name, array in self._alive.items() if name != "params")

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
        return int(self._stop[STOP_STEPS_DONE])

    @property
    def met_bad_row(self) -> bool:
        """Whether the last call ended at a row of X that is not finite."""
        return bool(self._stop.item(STOP_BAD_ROW))

    @property
    def has_run_first(self) -> bool:
        """Whether the first thread's part has been run since `begin`.

        The kernel says so, so that no exception can come between the part and this.
        """
        return bool(self._stop.item(STOP_FIRST_IS_BACK))

    def run(self, thread: int) -> None:
        """One thread's part of the work."""
        run(self._address, thread, self._one)

    def begin(self) -> None:
        """Make the barrier and the stop request ready for the next call of a team."""
        self._stop.fill(0)
        self._barrier.fill(0)

    def request_stop(self) -> None:
        """Ask the team to return at once, and to drop the step that it is in."""
        self._stop[STOP_REQUESTED] = 1

    def abandon(self) -> None:
        """Let the team return although one thread's part will never be run.

        The others are in the first step then, in which they wait for that thread at the latest. The
        step is dropped.
        """
        self._stop[STOP_REQUESTED] = 1
        # Who waits already does not look again: it finds the decision, and the barrier open.
        self._stop[STOP_DROPPED] = self._integers[_WORDS["first"]] + 1
        self._barrier[0] = BARRIER_OPEN


@cache
def compile_kernels(dtype: np.dtype[Any]) -> None:
    """Compile the kernels for a float type, or fetch them from the disk."""
    from numba import from_dtype, types

    signature = (types.intp, types.intp, from_dtype(dtype))
    if signature not in run.overloads:
        with signals_held():
            run.compile(signature)
