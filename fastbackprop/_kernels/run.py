"""``run``, the kernel that Python calls: steps of training in a team of threads, or evaluation.

A large batch of a small network is cut into ``job.chunks`` chunks, whatever the number of threads.
Each goes forward and backward a block of rows at a time, so that activations stay in L1, and adds
to gradients of its own; these are added up in order. Other batches go through the network whole.

Where Python asks for a stop, each thread skips what is left of a step until all meet at a barrier,
and the step is dropped before it changes a parameter. A step so long that its update, too, would
take long stores its gradient first, as one whose norm is clipped does.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.codes import NONE
from fastbackprop._kernels.dense import layer_of, own_inputs
from fastbackprop._kernels.gather import gather_targets, prefetch_targets
from fastbackprop._kernels.gradients import add_gradients
from fastbackprop._kernels.inputs import (
    PIECE_ROWS,
    forget_columns,
    gather_batch,
    gather_pieces,
    leave_zeros_out,
    lies_ready,
    looks_for_zeros,
    mark_input,
)
from fastbackprop._kernels.jit import entry_point, kernel
from fastbackprop._kernels.loss import is_fused
from fastbackprop._kernels.passes import backward_by_rows, forward, losses
from fastbackprop._kernels.records import (
    SCORE_NONE,
    STOP_BAD_ROW,
    STOP_DROPPED,
    STOP_FIRST_IS_BACK,
    STOP_REQUESTED,
    STOP_STEPS_DONE,
    epoch_of,
    job_at,
)
from fastbackprop._kernels.simd import (
    atomic_load,
    fill,
    flush_subnormals,
    lanes,
    load,
    pointer,
    restore_subnormals,
    sum_lanes,
)
from fastbackprop._kernels.steps import (
    add_chunks,
    apply_gradients,
    global_norm,
    row_norms,
    update_weights,
)
from fastbackprop._kernels.team import barrier, is_stopped, share, take
from fastbackprop._kernels.update import rule_of

# Rows that a thread takes through the network at a time when it evaluates: enough to use each
# weight often while it is in a register or in L1, few enough that their activations stay in L2.
BLOCK_ROWS = 64

# The same when it takes a chunk, of a network so small that to begin each product counts: 4-32-16-4
# takes 445 µs for 10,000 rows, in blocks of 64 487, of 256 449.
CHUNK_BLOCK_ROWS = 128

# How often a thread that evaluates many blocks takes some of them. The count is shared, so that
# small networks do not ask for each block; who is late keeps the others waiting for one turn.
_TURNS = 16


@kernel
def _batch_weight(job, begin, n):
    """Σ of the batch's sample weights; the number of rows where there are none."""
    if job.weights == 0:
        return float(n)
    order, weights = pointer(job.order, np.int64(0)), pointer(job.weights, np.float64(0))
    total = 0.0
    for i in range(begin, begin + n):
        total += weights[order[i] if job.order != 0 else i]
    return total


@kernel
def _sum(rows, n):
    """Their sum, in as many parts as a vector has lanes, which do not wait for each other."""
    whole = n - n % lanes(rows)
    parts = fill(load(rows), 0.0)
    for i in range(0, whole, lanes(rows)):
        parts = parts + load(rows + i)
    total = sum_lanes(parts)
    for i in range(whole, n):
        total += rows[i]
    return total


@kernel
def _sum_step(job, step, n, total_weight):
    row_loss = pointer(job.row_loss, np.float64(0))
    row_score = pointer(job.row_score, np.float64(0))
    pointer(job.step_loss, np.float64(0))[step] = _sum(row_loss, n)
    if job.score != SCORE_NONE:
        pointer(job.step_score, np.float64(0))[step] = _sum(row_score, n)
    pointer(job.step_weight, np.float64(0))[step] = total_weight


@kernel
def _chunk(job, work, scratch, chunk, chunks, n, begin, total_weight):
    """Losses and gradients of one chunk of a batch of ``n``; are all its inputs finite?"""
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    first, last = share(n, 1, chunks, chunk)
    gradients = pointer(job.gradients, work) + chunk * job.chunk_size
    finite = True
    for top in range(first, last, CHUNK_BLOCK_ROWS):
        if is_stopped(job.stop):
            break
        rows, place = min(CHUNK_BLOCK_ROWS, last - top), begin + top
        finite &= gather_batch(job, work, 0, 0, rows, place, 0, head.n_in + 1)
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, 0, rows, place)
        forward(job, work, scratch, 0, 0, 0, rows, rows, 0, is_fused(job.loss), -1)
        losses(job, work, 0, rows, place, total_weight, top)
        backward_by_rows(job, work, scratch, 0, rows)
        for index in range(job.n_layers):
            if layer_of(job, index).frozen != 0:
                continue
            add_gradients(job, index, gradients, work, scratch, rows, top == first)
    return finite


@kernel
def _batch(job, work, scratch, step, thread, n, begin, total_weight, arrivals):
    """The whole batch forward and, in the layers that are divided by rows, backward.

    Returns the count that ends the next barrier, and whether all inputs were finite.
    """
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    first, last = share(n, 1, job.threads, thread)
    prefetch_targets(work, tail.n_out, job, first, min(last, first + PIECE_ROWS), begin)
    if job.by_inputs > 0 or job.threads == 1:
        left, right = own_inputs(job, head, work, thread)
        finite = gather_pieces(job, work, step, 0, n, begin, left, right)
        looks = looks_for_zeros(job, scratch)
        if looks:
            mark_input(job, work, n, left, right)
        if job.threads > 2:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
        if looks:
            leave_zeros_out(job, work, scratch, n, thread, job.threads)
    else:
        finite = gather_pieces(job, work, step, first, last, begin, 0, head.n_in + 1)
    arrivals = forward(
        job, work, scratch, step, thread, first, last, n, arrivals, is_fused(job.loss), -1
    )
    for piece in range(first, last, PIECE_ROWS):
        if is_stopped(job.stop):
            break
        end = min(last, piece + PIECE_ROWS)
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, piece, end, begin)
        losses(job, work, piece, end, begin, total_weight, 0)
    if job.update != NONE:
        backward_by_rows(job, work, scratch, first, last)
    return arrivals, finite


@kernel
def _train(job, work, scratch, thread):
    """Steps [first, last), as thread ``thread`` of a team of ``job.threads``.

    Where Python asks for a stop, or a row is not finite, the team returns before the step that it
    is in changes anything.
    """
    stop = pointer(job.stop, np.int64(0))
    arrivals, taken = job.threads, 0
    for step in range(job.first, job.last):
        epoch, number = epoch_of(job, step)
        begin = number * job.batch
        n = min(job.batch, job.n - begin)
        if job.order != 0:
            begin += epoch * job.n
        total_weight = _batch_weight(job, begin, n)
        chunks = min(job.chunks, n)
        if chunks > 0:
            finite = True
            chunk = take(job.barrier, job.threads, taken, 1) - taken
            while chunk < chunks:
                finite &= _chunk(job, work, scratch, chunk, chunks, n, begin, total_weight)
                chunk = take(job.barrier, job.threads, taken + chunk + 1, 1) - taken
            taken += chunks + job.threads  # each finds once that there are no more
        else:
            arrivals, finite = _batch(
                job, work, scratch, step, thread, n, begin, total_weight, arrivals
            )
        if not finite:
            stop[STOP_BAD_ROW] = step + 1
        # Threads may be a step apart, so one that has been stopped says in which step all are.
        if is_stopped(job.stop):
            stop[STOP_DROPPED] = step + 1
        arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
        if (
            atomic_load(stop + STOP_BAD_ROW) == step + 1
            or atomic_load(stop + STOP_DROPPED) == step + 1
        ):
            break

        if thread == 0:
            _sum_step(job, step, n, total_weight)
        if chunks > 0:
            add_chunks(job, work, thread, chunks, n, total_weight)
        elif job.update != NONE:
            arrivals = update_weights(job, work, scratch, step, thread, n, total_weight, arrivals)
        norm = 0.0
        if job.stores != 0:
            if job.clip_norm > 0.0:
                row_norms(job, work, thread)
            # Another number than above, where a slow thread may still be about to look.
            if is_stopped(job.stop):
                stop[STOP_DROPPED] = -(step + 1)
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
            if atomic_load(stop + STOP_DROPPED) == -(step + 1):
                break
            if job.clip_norm > 0.0:
                norm = global_norm(job)
        if job.stores != 0 or chunks > 0:
            apply_gradients(job, rule_of(job, step, norm), work, thread)
        # Two threads that divide the first layer by inputs next wait after its product: until then
        # each writes only what the other is done with. Others read each other's weights at once.
        if job.by_inputs == 0 or job.threads > 2 or job.stores != 0:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
        if thread == 0:
            stop[STOP_STEPS_DONE] = step + 1 - job.first


@kernel
def _evaluate(job, work, scratch):
    """Outputs, or losses and scores, of rows [first, last) of the data, in blocks of rows.

    Each of ``job.threads`` threads, with a workspace of its own, takes some blocks at a time until
    there are no more. Rows that need no conversion stay where they are, but in blocks in which
    zeros are looked for: to copy all took a sixth of the time of 784-128-10.
    """
    blocks = (job.last - job.first + BLOCK_ROWS - 1) // BLOCK_ROWS
    parts = max(1, blocks // (_TURNS * job.threads))
    stop = pointer(job.stop, np.int64(0))
    in_place = lies_ready(job, work[0])
    block = take(job.barrier, job.threads, 0, parts)
    while block < blocks:
        first = job.first + block * BLOCK_ROWS
        last = min(job.last, first + parts * BLOCK_ROWS)
        for begin in range(first, last, BLOCK_ROWS):
            if atomic_load(stop + STOP_REQUESTED) != 0:
                return
            n = min(BLOCK_ROWS, last - begin)
            _evaluate_block(job, work, scratch, stop, begin, n, in_place)
        block = take(job.barrier, job.threads, block + parts, parts)


@kernel
def _evaluate_block(job, work, scratch, stop, begin, n, in_place):
    """The same of ``n`` rows from ``begin`` on, as many as a workspace has."""
    outputs = pointer(job.outputs, work)
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    looks, place = looks_for_zeros(job, scratch), begin
    if looks or not in_place:
        place = -1
        if not gather_batch(job, work, 0, 0, n, begin, 0, head.n_in + 1):
            stop[STOP_BAD_ROW] = 1
    if looks:
        mark_input(job, work, n, 0, head.n_in + 1)
        leave_zeros_out(job, work, scratch, n, 0, 1)
    logits_only = job.outputs == 0 and is_fused(job.loss)
    forward(job, work, scratch, 0, 0, 0, n, n, 0, logits_only, place)
    if job.outputs == 0:
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, 0, n, begin)
        losses(job, work, 0, n, begin, 1.0, begin)
    else:
        for i in range(n):
            for j in range(tail.n_out):
                a = work + (tail.a + i * tail.ld_a)
                outputs[(begin + i) * tail.n_out + j] = a[j]


@entry_point
def run(job_address, thread, like):
    """The share of thread ``thread`` in a job; ``like`` is a number of the network's float type.

    One entry point for training and evaluation, since most programs need both, and most of the
    code, and of the seconds to compile it, is common to them.
    """
    job = job_at(job_address)
    work = pointer(job.work, like) + thread * job.work_stride
    scratch = pointer(job.scratch, like) + thread * job.scratch_stride
    mode = flush_subnormals()
    forget_columns(job, scratch)
    if job.evaluates != 0:
        _evaluate(job, work, scratch)
    else:
        _train(job, work, scratch, thread)
    restore_subnormals(mode)
    if thread == 0:
        pointer(job.stop, np.int64(0))[STOP_FIRST_IS_BACK] = 1
