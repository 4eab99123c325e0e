"""Forward and backward passes over a table of layers, as one thread of a team.

No sum is ever split between threads, so that any number of them gives the same bits. They divide
the work of a batch in one of two ways.

By rows of the batch: each thread takes its own through the network and back, and after a barrier
its own rows of every weight matrix through the gradient and the optimizer. Weights that one thread
changed travel to the others in each step, activations hardly do: for many rows and few weights.

By inputs of the layers: each thread keeps to its own rows of a weight matrix, forward, backward and
in the update, so that they stay in its cache, and activations travel: for many weights and few
rows. Each output needs the products of all threads, so there is a barrier after each such layer.

The first ``job.by_inputs`` layers are divided by inputs, which must be split; the others by rows.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.dense import (
    finish_input,
    finish_output,
    input_backward,
    is_split,
    layer_of,
    own_inputs,
    product_forward,
)
from fastbackprop._kernels.inputs import PIECE_ROWS, half_rows, look_at_rows
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.loss import losses_and_deltas
from fastbackprop._kernels.simd import pointer
from fastbackprop._kernels.team import barrier, is_stopped


@kernel
def forward(job, work, scratch, step, thread, first, last, n, arrivals, logits_only, place):
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
                begin, end = half_rows(n, job.threads, thread, half)
                product_forward(job, index, work, scratch, half, begin, end, place)
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
            if index + 1 < job.by_inputs:
                top, bottom = 0, n
                left, right = own_inputs(job, layer_of(job, index + 1), work, thread)
        for begin in range(top, bottom, PIECE_ROWS):
            if is_stopped(job.stop):
                break
            end = min(bottom, begin + PIECE_ROWS)
            if index >= job.by_inputs:
                product_forward(job, index, work, scratch, 0, begin, end, place)
                if is_split(layer_of(job, index)):
                    product_forward(job, index, work, scratch, 1, begin, end, place)
                if index == 0 and place >= 0:
                    look_at_rows(job, work, n, place)
            finish_output(
                job, index, work, begin, end, left, min(right, n_out), is_last and logits_only
            )
            if not is_last:
                finish_input(job, index + 1, work, step, begin, end, left, right)
        if index + 1 < job.by_inputs and job.threads > 2:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
    return arrivals


@kernel
def losses(job, work, first, last, begin, total_weight, row):
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
def backward_by_rows(job, work, scratch, first, last):
    """Dz of the layers that are divided by rows, from that of the last, on rows [first, last).

    That of the last layer before them, too, and the gradient of the batch where the job wants it.
    """
    for index in range(job.n_layers - 1, job.by_inputs - 1, -1):
        if index > job.first_trained or job.input_gradients != 0:
            n_in = layer_of(job, index).n_in
            for begin in range(first, last, PIECE_ROWS):
                if is_stopped(job.stop):
                    return
                end = min(last, begin + PIECE_ROWS)
                input_backward(job, index, work, scratch, begin, end, 0, n_in, job.stop)
