"""Forward, backward and update over a table of layers: ``run``, the kernel that Python calls.

``_train`` runs steps of an epoch in a team of threads, which divide the work of a step in one of
two ways. No sum is ever split between threads, so both ways and any number of them give the same
bits.

By rows of the batch: each thread takes its own through the network and back, and after a barrier
its own rows of every weight matrix through the gradient and the optimizer. Weights that one thread
changed travel to the others in each step, activations hardly do: for many rows and few weights.

By inputs of the layers: each thread keeps to its own rows of a weight matrix, forward, backward and
in the update, so that they stay in its cache, and activations travel: for many weights and few
rows. Each output needs the products of all threads, so there is a barrier after each such layer.

The first ``job.by_inputs`` layers are divided by inputs, which must be split; the others by rows.

A large batch of a small network is cut into ``job.chunks`` chunks instead, whatever the number of
threads. Each goes forward and backward a block of rows at a time, so that activations stay in L1,
and adds to gradients of its own; these are added up in order.

``_evaluate`` takes any number of rows through the network only, a block at a time.

Where Python asks for a stop, each thread skips what is left of a step until all meet at a barrier,
and the step is dropped before it changes a parameter. A step so long that its update, too, would
take long stores its gradient first, as one whose norm is clipped does.
"""

from __future__ import annotations

import math

import numpy as np

from fastbackprop._kernels.codes import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, NONE, POISSON, STORE
from fastbackprop._kernels.columns import (
    BATCHES_WITHOUT,
    IS_COMPACT,
    WAIT,
    column_list,
)
from fastbackprop._kernels.dense import (
    add_gradients,
    compact_input,
    finish_input,
    finish_output,
    input_backward,
    is_split,
    layer_of,
    lies_ready,
    mark_input,
    own_inputs,
    penalize,
    product_forward,
    products_are_finite,
    weight_gradients,
)
from fastbackprop._kernels.gather import gather_rows, gather_targets
from fastbackprop._kernels.jit import entry_point, kernel
from fastbackprop._kernels.loss import losses_and_deltas
from fastbackprop._kernels.records import (
    STOP_BAD_ROW,
    STOP_DROPPED,
    STOP_FIRST_IS_BACK,
    STOP_REQUESTED,
    STOP_STEPS_DONE,
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
    store,
    sum_lanes,
)
from fastbackprop._kernels.team import barrier, is_stopped, share
from fastbackprop._kernels.update import row_square, rule_of, update_rows

# Rows that a thread takes through the network at a time when it evaluates, or takes a chunk: enough
# to use each weight often while it is in a register or in L1, few enough that their activations
# stay in L2.
BLOCK_ROWS = 64

# Rows of a batch between two looks at the request to stop: a few milliseconds for all but products,
# which look themselves. Enough that a panel of weights that is packed for them pays.
_PIECE_ROWS = 1024


@kernel
def _gather(job, work, step, first, last, begin, left, right):
    """Columns [left, right) of the batch, the last of which is one of ones; are all finite?"""
    head = layer_of(job, 0)
    width = min(right, head.n_in)
    finite = gather_rows(work + head.x, head.ld_x, left, width, job, first, last, begin)
    finish_input(job, 0, work, step, first, last, left, right)
    return finite


@kernel
def _gather_pieces(job, work, step, first, last, begin, left, right):
    """`_gather`, a piece at a time, until the job is stopped."""
    finite = True
    for top in range(first, last, _PIECE_ROWS):
        if is_stopped(job.stop):
            break
        end = min(last, top + _PIECE_ROWS)
        finite &= _gather(job, work, step, top, end, begin, left, right)
    return finite


@kernel
def _looks_for_zeros(job, scratch):
    """Whether to look for columns of zeros in this batch; until then its columns are used whole."""
    # What is no zero after it is rescaled is no zero in any batch.
    if job.columns == 0 or job.x_offset != 0.0:
        return False
    _use_all_columns(job, scratch)
    first = column_list(job, scratch, 0)
    first[WAIT] -= 1
    return first[WAIT] < 0


@kernel
def _use_all_columns(job, scratch):
    """Use the batch whole until its live columns are listed, which not every division does."""
    if job.columns != 0:
        for half in range(2):
            column_list(job, scratch, half)[IS_COMPACT] = 0


@kernel
def _leave_zeros_out(job, work, scratch, n, thread, threads):
    """Make what thread ``thread`` of ``threads`` multiplies of the compact batch of ``n`` rows.

    Of a team of two each has marked the half that it multiplies; else all columns are marked.
    """
    worth = False
    for half in range(2):
        if threads != 2 or half == thread:
            first, last = _half_rows(n, threads, thread, half)
            worth |= compact_input(job, work, scratch, half, n, first, last)
    if not worth:
        column_list(job, scratch, 0)[WAIT] = BATCHES_WITHOUT


@kernel
def _half_rows(n, threads, thread, half):
    """The rows that a thread multiplies with a half of the inputs: n of 2n in all, in one row."""
    first, last = share(2 * n, 1, threads, thread)
    return min(max(first - half * n, 0), n), min(max(last - half * n, 0), n)


@kernel
def _forward(job, work, scratch, step, thread, first, last, n, arrivals, logits_only, place):
    """The network on ``n`` rows, of which [first, last) are this thread's own.

    They are gathered or, if ``place`` is not -1, lie in the data from that row on. Returns the
    count that ends the next barrier.
    """
    for index in range(job.n_layers):
        n_out = layer_of(job, index).n_out
        top, bottom, left, right = first, last, 0, n_out + 1
        is_last = index == job.n_layers - 1
        if index < job.by_inputs:
            for half in range(2):
                begin, end = _half_rows(n, job.threads, thread, half)
                product_forward(job, index, work, scratch, half, begin, end, place)
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
            if index + 1 < job.by_inputs:
                top, bottom = 0, n
                left, right = own_inputs(job, layer_of(job, index + 1), work, thread)
        for begin in range(top, bottom, _PIECE_ROWS):
            if is_stopped(job.stop):
                break
            end = min(bottom, begin + _PIECE_ROWS)
            if index >= job.by_inputs:
                product_forward(job, index, work, scratch, 0, begin, end, place)
                if is_split(layer_of(job, index)):
                    product_forward(job, index, work, scratch, 1, begin, end, place)
                if index == 0 and place >= 0:
                    _look_at_rows(job, work, n, place)
            finish_output(
                job, index, work, begin, end, left, min(right, n_out), is_last and logits_only
            )
            if not is_last:
                finish_input(job, index + 1, work, step, begin, end, left, right)
        if index + 1 < job.by_inputs and job.threads > 2:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
    return arrivals


@kernel
def _look_at_rows(job, work, n, begin):
    """Report that ``n`` rows which were multiplied where they lie are not all finite.

    Products can also overflow, so that the rows are looked at where these are not finite.
    """
    if not products_are_finite(job, work, n):
        width = layer_of(job, 0).n_in + 1
        if not _gather(job, work, 0, 0, n, begin, 0, width):
            pointer(job.stop, np.int64(0))[STOP_BAD_ROW] = 1


@kernel
def _losses(job, work, first, last, begin, total_weight, row):
    """Loss and score of rows [first, last), into ``row_loss`` and ``row_score`` from ``row`` on."""
    layer = layer_of(job, job.n_layers - 1)
    losses_and_deltas(
        pointer(job.row_loss, np.float64(0)) + row,
        pointer(job.row_score, np.float64(0)) + row,
        work + layer.dz,
        work + layer.z,
        work + layer.a,
        work + job.target_rows,
        job,
        layer,
        first,
        last,
        begin,
        total_weight,
    )


@kernel
def _row_norms(job, work, thread):
    """Σ g² of this thread's own rows, so that the global norm is one sum in one order."""
    gradients, norms = pointer(job.gradients, work), pointer(job.row_norms, np.float64(0))
    row = 0
    for index in range(job.n_layers):
        layer = layer_of(job, index)
        rows = layer.n_in + layer.has_bias
        top, bottom = own_inputs(job, layer, work, thread)
        for i in range(top, min(bottom, rows)):
            norms[row + i] = row_square(gradients + (layer.w + i * layer.ld_w), layer.n_out)
        row += rows


@kernel
def _global_norm(job):
    norms = pointer(job.row_norms, np.float64(0))
    row, total = 0, 0.0
    for index in range(job.n_layers):
        layer = layer_of(job, index)
        for _ in range(layer.n_in + layer.has_bias):
            total += norms[row]
            row += 1
    return math.sqrt(total)


@kernel
def _apply_gradients(job, rule, work, thread):
    """The optimizer step from stored gradients, on this thread's own rows."""
    params, gradients = pointer(job.params, work), pointer(job.gradients, work)
    slot0, slot1, slot2 = (
        pointer(job.slot0, work),
        pointer(job.slot1, work),
        pointer(job.slot2, work),
    )
    for index in range(job.n_layers):
        layer = layer_of(job, index)
        if layer.frozen != 0:
            continue
        top, bottom = own_inputs(job, layer, work, thread)
        place = layer.w + top * layer.ld_w
        update_rows(
            job.update,
            rule,
            params + place,
            slot0 + place,
            slot1 + place,
            slot2 + place,
            gradients + place,
            layer.ld_w,
            min(bottom, layer.n_in + layer.has_bias) - top,
            layer.n_out,
        )


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
    pointer(job.step_score, np.float64(0))[step] = _sum(row_score, n)
    pointer(job.step_weight, np.float64(0))[step] = total_weight


@kernel
def _is_fused(loss):
    return loss in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, POISSON)


@kernel
def _weights_step(job, index, step, work, scratch, n, total_weight, thread):
    """The gradient of this thread's own rows of layer ``index``, and the optimizer's step on them.

    Where the gradient is stored, the step has to wait for all layers.
    """
    layer = layer_of(job, index)
    if layer.frozen != 0:
        return
    top, bottom = own_inputs(job, layer, work, thread)
    bottom = min(bottom, layer.n_in + layer.has_bias)
    code = STORE if job.stores != 0 else job.update
    rule = rule_of(job, step, 0.0)
    weight_gradients(job, index, rule, code, work, scratch, n, total_weight, top, bottom)


@kernel
def _backward_by_rows(job, work, scratch, step, first, last):
    """Dz of the layers that are divided by rows, from that of the last, on rows [first, last).

    That of the last layer before them, too, and the gradient of the batch where the job wants it.
    """
    for index in range(job.n_layers - 1, job.by_inputs - 1, -1):
        if index > job.first_trained or job.input_gradients != 0:
            n_in = layer_of(job, index).n_in
            for begin in range(first, last, _PIECE_ROWS):
                if is_stopped(job.stop):
                    return
                end = min(last, begin + _PIECE_ROWS)
                input_backward(job, index, work, scratch, step, begin, end, 0, n_in, job.stop)


@kernel
def _update(job, work, scratch, step, thread, n, total_weight, arrivals):
    """The step of each layer's weights; before it, dz of the layers that are divided by inputs.

    Returns the count that ends the next barrier. It can be stopped where gradients are stored.
    """
    stop = job.stop if job.stores != 0 else 0
    for index in range(job.n_layers - 1, -1, -1):
        if job.first_trained < index < job.by_inputs:
            layer = layer_of(job, index)
            left, right = own_inputs(job, layer, work, thread)
            right = min(right, layer.n_in)
            input_backward(job, index, work, scratch, step, 0, n, left, right, stop)
        _weights_step(job, index, step, work, scratch, n, total_weight, thread)
        if 0 < index < job.by_inputs:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
    return arrivals


@kernel
def _chunk(job, work, scratch, chunk, chunks, n, begin, total_weight):
    """Losses and gradients of one chunk of a batch of ``n``; are all its inputs finite?"""
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    first, last = share(n, 1, chunks, chunk)
    gradients = pointer(job.gradients, work) + chunk * job.chunk_size
    finite = True
    for top in range(first, last, BLOCK_ROWS):
        if is_stopped(job.stop):
            break
        rows, place = min(BLOCK_ROWS, last - top), begin + top
        finite &= _gather(job, work, 0, 0, rows, place, 0, head.n_in + 1)
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, 0, rows, place)
        _forward(job, work, scratch, 0, 0, 0, rows, rows, 0, _is_fused(job.loss), -1)
        _losses(job, work, 0, rows, place, total_weight, top)
        _backward_by_rows(job, work, scratch, 0, 0, rows)
        for index in range(job.n_layers):
            if layer_of(job, index).frozen != 0:
                continue
            add_gradients(job, index, gradients, work, scratch, rows, top == first)
    return finite


@kernel
def _add_chunks(job, work, thread, chunks, n, total_weight):
    """The gradient, in the place of the first chunk's, of this thread's own rows of the weights.

    With that of the penalty.
    """
    gradients = pointer(job.gradients, work)
    for index in range(job.n_layers):
        layer = layer_of(job, index)
        top, bottom = own_inputs(job, layer, work, thread)
        bottom = min(bottom, layer.n_in + layer.has_bias)
        for j in range(layer.w + top * layer.ld_w, layer.w + bottom * layer.ld_w, lanes(work)):
            total = load(gradients + j)
            for chunk in range(1, chunks):
                total = total + load(gradients + (chunk * job.chunk_size + j))
            store(gradients + j, total)
        place = gradients + (layer.w + top * layer.ld_w)
        penalize(job, index, place, top, bottom - top, n, total_weight)


@kernel
def _batch(job, work, scratch, step, thread, n, begin, total_weight, arrivals):
    """The whole batch forward and, in the layers that are divided by rows, backward.

    Returns the count that ends the next barrier, and whether all inputs were finite.
    """
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    first, last = share(n, 1, job.threads, thread)
    if job.by_inputs > 0 or job.threads == 1:
        left, right = own_inputs(job, head, work, thread)
        finite = _gather_pieces(job, work, step, 0, n, begin, left, right)
        looks = _looks_for_zeros(job, scratch)
        if looks:
            mark_input(job, work, n, left, right)
        if job.threads > 2:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
        if looks:
            _leave_zeros_out(job, work, scratch, n, thread, job.threads)
    else:
        finite = _gather_pieces(job, work, step, first, last, begin, 0, head.n_in + 1)
    arrivals = _forward(
        job, work, scratch, step, thread, first, last, n, arrivals, _is_fused(job.loss), -1
    )
    for piece in range(first, last, _PIECE_ROWS):
        if is_stopped(job.stop):
            break
        end = min(last, piece + _PIECE_ROWS)
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, piece, end, begin)
        _losses(job, work, piece, end, begin, total_weight, 0)
    if job.update != NONE:
        _backward_by_rows(job, work, scratch, step, first, last)
    return arrivals, finite


@kernel
def _train(job, work, scratch, thread):
    """Steps [first, last) of an epoch, as thread ``thread`` of a team of ``job.threads``.

    Where Python asks for a stop, or a row is not finite, the team returns before the step that it
    is in changes anything.
    """
    stop = pointer(job.stop, np.int64(0))
    arrivals = job.threads
    for step in range(job.first, job.last):
        begin = step * job.batch
        n = min(job.batch, job.n - begin)
        total_weight = _batch_weight(job, begin, n)
        chunks = min(job.chunks, n)
        if chunks > 0:
            finite = True
            first, last = share(chunks, 1, job.threads, thread)
            for chunk in range(first, last):
                finite &= _chunk(job, work, scratch, chunk, chunks, n, begin, total_weight)
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
            _add_chunks(job, work, thread, chunks, n, total_weight)
        elif job.update != NONE:
            arrivals = _update(job, work, scratch, step, thread, n, total_weight, arrivals)
        norm = 0.0
        if job.stores != 0:
            if job.clip_norm > 0.0:
                _row_norms(job, work, thread)
            # Another number than above, where a slow thread may still be about to look.
            if is_stopped(job.stop):
                stop[STOP_DROPPED] = -(step + 1)
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
            if atomic_load(stop + STOP_DROPPED) == -(step + 1):
                break
            if job.clip_norm > 0.0:
                norm = _global_norm(job)
        if job.stores != 0 or chunks > 0:
            _apply_gradients(job, rule_of(job, step, norm), work, thread)
        # Two threads that divide the first layer by inputs next wait after its product: until then
        # each writes only what the other is done with. Others read each other's weights at once.
        if job.by_inputs == 0 or job.threads > 2 or job.stores != 0:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
        if thread == 0:
            stop[STOP_STEPS_DONE] = step + 1 - job.first


@kernel
def _evaluate(job, work, scratch, thread):
    """Outputs, or losses and scores, of rows [first, last) of the data, in blocks of rows.

    The blocks are shared among ``job.threads`` threads, each with a workspace of its own. Rows that
    need no conversion stay where they are, but in blocks in which zeros are looked for: to copy all
    took a sixth of the time of 784-128-10.
    """
    outputs = pointer(job.outputs, work)
    head, tail = layer_of(job, 0), layer_of(job, job.n_layers - 1)
    first, last = share(job.last - job.first, BLOCK_ROWS, job.threads, thread)
    stop = pointer(job.stop, np.int64(0))
    in_place = lies_ready(job, work[0])
    for begin in range(job.first + first, job.first + last, BLOCK_ROWS):
        if atomic_load(stop + STOP_REQUESTED) != 0:
            break
        n = min(BLOCK_ROWS, job.first + last - begin)
        looks, place = _looks_for_zeros(job, scratch), begin
        if looks or not in_place:
            place = -1
            if not _gather(job, work, 0, 0, n, begin, 0, head.n_in + 1):
                stop[STOP_BAD_ROW] = 1
        if looks:
            mark_input(job, work, n, 0, head.n_in + 1)
            _leave_zeros_out(job, work, scratch, n, 0, 1)
        logits_only = job.outputs == 0 and _is_fused(job.loss)
        _forward(job, work, scratch, 0, 0, 0, n, n, 0, logits_only, place)
        if job.outputs == 0:
            gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, 0, n, begin)
            _losses(job, work, 0, n, begin, 1.0, begin)
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
    _use_all_columns(job, scratch)
    if job.evaluates != 0:
        _evaluate(job, work, scratch, thread)
    else:
        _train(job, work, scratch, thread)
    restore_subnormals(mode)
    if thread == 0:
        pointer(job.stop, np.int64(0))[STOP_FIRST_IS_BACK] = 1
