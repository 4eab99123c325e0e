"""How many threads take a step, and how they divide it: a model of what each way costs."""

from __future__ import annotations

from collections.abc import Callable

from fastbackprop._kernels.jit import VECTOR_BITS
from fastbackprop.cores import available_threads
from fastbackprop.plan import Plan

# What a second thread costs and brings, measured on two cores of a server with AVX-512: 95 GFLOP/s
# of float32 for one, which are 16 lanes. Each thread must fetch the parameters that the others
# changed, and take them back to change its own: a fifth of a nanosecond a byte.
_FLOPS_A_SECOND_AND_LANE = 6e9
_SECONDS_A_BYTE = 0.18e-9

# What a row costs besides its products: to fetch it, activations, loss. 4-32-32-2 forward took
# 39 ns a row, of which products at that rate would be 26.
_SECONDS_A_ROW = 40e-9

# A barrier itself takes half a microsecond. But where others share the machine, the later of two
# threads is later by more: so this is careful. What it turns down in training is tried (pace.py).
_SECONDS_A_BARRIER = 3e-6

# What a team must save of a step, by this model of one machine, before it is trusted: 16-64-64-1 on
# batches of 64 took 23 µs on one thread and 34 on two, which were to take 22.
_LEAST_SAVED = 1 / 4

# Starting a team for one call, whose first share is the caller's own. And how fast the core is that
# must not lose by it: 10,000 rows through 4-32-32-2 took one thread of another server 204 µs, as by
# these, and two threads, by the numbers above, 250 to 350; 1,000 rows 39, and 287.
_SECONDS_A_START = 300e-6
_FAST_FLOPS_A_SECOND_AND_LANE = 12e9
_FAST_SECONDS_A_ROW = 20e-9

# Where the model takes a team for steps that are longer than this on one thread, one thread is not
# tried: barriers are nothing beside them, and a trial would take long.
_SURE_SECONDS = 3e-3


def _fastest(seconds: Callable[[int], float], least: int = 1) -> int:
    """The number of threads, ``least`` or more, for which a model of the time is least."""
    return min(range(least, available_threads() + 1), key=seconds)


def _seconds_alone(plan: Plan, rows: int) -> float:
    """What one thread takes for a step of ``rows`` rows, without the update."""
    flops_a_second = _lanes(plan) * _FLOPS_A_SECOND_AND_LANE
    return plan.flops(rows) / flops_a_second + rows * _SECONDS_A_ROW


def _lanes(plan: Plan) -> float:
    """Elements of a vector."""
    return VECTOR_BITS / 8 / plan.dtype.itemsize


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
# With eight, two threads took 236 µs for a step of 4-32-16-4 or, as soon as one of them was a
# quarter slower than the other, 295: five chunks by one, three by the other.
_CHUNKED_ROWS = 1024
_CHUNKS = 16, 8
_CHUNKED_BYTES = 512 * 1024


def chunks_of(plan: Plan, rows: int) -> int:
    """Into how many chunks steps of ``rows`` rows are cut; 0 is not at all.

    It decides the order of sums, so it must not depend on the number of threads.
    """
    drops = any(stage.dropout > 0.0 for stage in plan.stages)  # masks count rows of a whole batch
    if rows < _CHUNKED_ROWS or drops:
        return 0
    n_bytes = plan.size * plan.dtype.itemsize
    return next((chunks for chunks in _CHUNKS if chunks * n_bytes <= _CHUNKED_BYTES), 0)


# Ctrl-C waits for a call that is made in the caller's thread, and for an update that has begun. So
# they take no more arithmetic than so much: 10 ms and a tenth of a second, or twice that on a slow
# core. An update is a third of a step. A row costs as much as 3,000 operations in any network.
_LONG_CALL = 1e9
_LONG_UPDATE = 4e10 / 3
_FLOPS_A_ROW = 3000

# With fewer rows in a step, to store the gradient would cost more than a twentieth of the time.
_STORED_ROWS = 256


def short_rows(plan: Plan) -> int:
    """The most rows that a call can take without leaving the caller's thread free for Ctrl-C."""
    return int(_LONG_CALL / (plan.flops(1) + _FLOPS_A_ROW))


def is_long(plan: Plan, rows: int) -> bool:
    """Whether a call on so many rows must leave the caller's thread free for Ctrl-C."""
    return rows > short_rows(plan)


def has_long_updates(plan: Plan, rows: int) -> bool:
    """Whether steps of ``rows`` rows are so long that an update must not begin while one is made.

    It decides how a step is rounded, so it must not depend on the number of threads.
    """
    return rows >= _STORED_ROWS and plan.flops(rows) / 3 > _LONG_UPDATE


def training_threads(requested: int | None, plan: Plan, rows: int) -> int:
    """Threads for a team that takes steps of ``rows`` rows: as asked, else the fastest number."""
    if requested is not None:
        return requested
    seconds = _step_seconds(plan, rows)
    fastest = _fastest(seconds)
    return fastest if seconds(fastest) <= (1 - _LEAST_SAVED) * seconds(1) else 1


def _step_seconds(plan: Plan, rows: int) -> Callable[[int], float]:
    """What a step of ``rows`` rows takes, without the update, by the number of threads."""

    def seconds(threads: int) -> float:
        arithmetic = _seconds_alone(plan, rows) / threads
        if threads == 1 or chunks_of(plan, rows):
            return arithmetic + 2 * _SECONDS_A_BARRIER * (threads > 1)
        by_inputs = layers_by_inputs(plan, rows, threads)
        return arithmetic + _seconds_lost(plan, rows, threads, by_inputs)

    return seconds


def call_threads(requested: int | None, plan: Plan, rows: int) -> int:
    """Threads for a team that is started for one call on ``rows`` rows."""
    if requested is not None:
        return requested
    flops_a_second = _lanes(plan) * _FAST_FLOPS_A_SECOND_AND_LANE
    seconds = plan.flops(rows) / flops_a_second + rows * _FAST_SECONDS_A_ROW
    if seconds <= _SECONDS_A_START:
        return 1
    return _fastest(lambda threads: seconds / threads + _SECONDS_A_START * (threads > 1))


def epoch_threads(requested: int | None, plan: Plan, batch: int, rows: int) -> int:
    """Threads for a team that takes steps of ``batch`` rows, ``rows`` of them a call.

    It is woken for each call, which costs about as much as to start it: a full batch of 1,000 rows
    of 4-32-16-4 took 143 µs on one thread and 171 on two.
    """
    if requested is not None:
        return requested
    return min(training_threads(None, plan, batch), call_threads(None, plan, rows))


def threads_to_try(threads: int, requested: int | None, plan: Plan, batch: int, rows: int) -> int:
    """Another number of threads that may be faster than `epoch_threads`, or that if there is none.

    The model takes a barrier for what it is where others share the machine, which may be wrong.
    """
    if requested is not None or call_threads(None, plan, rows) == 1:
        return threads
    if threads == 1:
        return _fastest(_step_seconds(plan, batch), least=2)
    return 1 if _seconds_alone(plan, batch) < _SURE_SECONDS else threads
