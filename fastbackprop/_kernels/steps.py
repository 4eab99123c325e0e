"""What a step does once losses are known: gradients, their norm, and the optimizer."""

from __future__ import annotations

import math

import numpy as np

from fastbackprop._kernels.codes import STORE
from fastbackprop._kernels.dense import input_backward, layer_of, own_inputs
from fastbackprop._kernels.gradients import penalize, weight_gradients
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import lanes, load, pointer, store
from fastbackprop._kernels.team import barrier
from fastbackprop._kernels.update import row_square, rule_of, update_rows


@kernel
def row_norms(job, work, thread):
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
def global_norm(job):
    """√Σ g² over all parameters."""
    norms = pointer(job.row_norms, np.float64(0))
    row, total = 0, 0.0
    for index in range(job.n_layers):
        layer = layer_of(job, index)
        for _ in range(layer.n_in + layer.has_bias):
            total += norms[row]
            row += 1
    return math.sqrt(total)


@kernel
def apply_gradients(job, rule, work, thread):
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
def update_weights(job, work, scratch, step, thread, n, total_weight, arrivals):
    """The step of each layer's weights; before it, dz of the layers that are divided by inputs.

    Returns the count that ends the next barrier. It can be stopped where gradients are stored.
    """
    stop = job.stop if job.stores != 0 else 0
    for index in range(job.n_layers - 1, -1, -1):
        if job.first_trained < index < job.by_inputs:
            layer = layer_of(job, index)
            left, right = own_inputs(job, layer, work, thread)
            right = min(right, layer.n_in)
            input_backward(job, index, work, scratch, 0, n, left, right, stop)
        _weights_step(job, index, step, work, scratch, n, total_weight, thread)
        if 0 < index < job.by_inputs:
            arrivals = barrier(job.barrier, job.threads, arrivals, job.spins)
    return arrivals


@kernel
def add_chunks(job, work, thread, chunks, n, total_weight):
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
