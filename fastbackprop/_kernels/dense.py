"""One dense layer on any part of a batch: inputs, products, activation, and back to the inputs.

Rows are those of the batch, [first, last); columns are units, [left, right), from the start of a
cache line to the start of another or to the last unit.

A sum over many inputs is made in two halves, z = (Σ over the first) + (b + Σ over the second):
then two threads can each multiply with the half of the weights that it keeps in its own cache.
One thread alone does the same, so that the bits are the same.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.activation import (
    activation_backward,
    activation_forward,
    softmax_forward,
)
from fastbackprop._kernels.codes import SOFTMAX
from fastbackprop._kernels.columns import IS_COMPACT, column_list, live_columns
from fastbackprop._kernels.dropout import dropout, dropout_backward, dropout_key
from fastbackprop._kernels.gemm import gemm, gemm_transposed
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.narrow import is_long_and_narrow, narrow_gemm
from fastbackprop._kernels.records import LAYER, epoch_of, layer_at
from fastbackprop._kernels.simd import address_of, itemsize, lanes, load, pointer, store
from fastbackprop._kernels.team import share

_LAYER_BYTES = LAYER.itemsize
_LINE_BYTES = 64


@kernel
def layer_of(job, index):
    """The record of layer ``index``."""
    return layer_at(job.layers + index * _LAYER_BYTES)


@kernel
def is_split(layer):
    """Whether the sums over this layer's inputs are made in two halves."""
    return layer.middle < layer.n_in


@kernel
def own_inputs(job, layer, work, thread):
    """The range [top, bottom) of rows of the layer's weights that are one thread's to change.

    The bias is row n_in; the column of ones, which stands for it in x, is there without a bias,
    too. Whole cache lines of x, so that no two threads write to one.
    """
    return share(layer.n_in + 1, _LINE_BYTES // itemsize(work), job.threads, thread)


@kernel
def listed_columns(job, index, scratch, half):
    """The address of the list of the columns in a half of the input; 0 where it is used whole."""
    if index > 0 or job.columns == 0:
        return 0
    columns = column_list(job, scratch, half)
    return address_of(columns) if columns[IS_COMPACT] != 0 else 0


@kernel
def _drops(job, index):
    return job.training != 0 and layer_of(job, index).keep_scale != 1.0


@kernel
def layer_input(job, index, work):
    """What layer ``index`` multiplies: the batch, or the activation before, with its dropout."""
    layer = layer_of(job, index)
    if index == 0 or _drops(job, index):
        return work + layer.x
    return work + layer_of(job, index - 1).a


@kernel
def finish_input(job, index, work, step, first, last, left, right):
    """Dropout on a part of what layer ``index`` takes, and the ones that multiply its bias.

    ``right`` is n_in + 1 for the part that has the column of ones.
    """
    layer = layer_of(job, index)
    x = layer_input(job, index, work)
    width = min(right, layer.n_in)
    if _drops(job, index):
        source = x if index == 0 else work + layer_of(job, index - 1).a
        epoch, number = epoch_of(job, step)
        key = dropout_key(job.seed, job.epoch + epoch, number, index)
        keep_below, keep_scale = layer.keep_below, layer.keep_scale
        dropout(x, source, layer.ld_x, first, last, left, width, key, keep_below, keep_scale)
    if right > layer.n_in:
        for i in range(first, last):
            x[i * layer.ld_x + layer.n_in] = 1.0


@kernel
def product_forward(job, index, work, scratch, half, first, last, place):
    """One half of z = x @ w + b on rows [first, last), into its part; or all of it, into z.

    Not both halves into z, which can be the activation that the step before still reads. The first
    layer's x is the gathered batch or, if ``place`` is not -1, the data from that row on.
    """
    layer = layer_of(job, index)
    params, zeros = pointer(job.params, work), pointer(job.zeros, work)
    bias = params + (layer.w + layer.n_in * layer.ld_w) if layer.has_bias != 0 else zeros
    out = work + (layer.parts + half * layer.part if is_split(layer) else layer.z)
    top = 0 if half == 0 else layer.middle
    bottom = layer.middle if half == 0 else layer.n_in
    k, x, ld_x = bottom - top, layer_input(job, index, work), layer.ld_x
    if index == 0 and place >= 0:
        x, ld_x = pointer(job.x + place * job.x_row, work), job.x_row // itemsize(work)
    w = params + (layer.w + top * layer.ld_w)
    if index > 0 and is_long_and_narrow(layer.n_in, layer.n_out, work):
        start = zeros if half == 0 and is_split(layer) else bias
        narrow_gemm(
            out + first * layer.ld_a,
            layer.ld_a,
            start,
            x + (first * ld_x + top),
            ld_x,
            w,
            layer.ld_w,
            last - first,
            layer.n_out,
            k,
            scratch,
        )
        return
    columns = listed_columns(job, index, scratch, half)
    if columns != 0:
        # All but the ones, which are the last of the last half.
        k = live_columns(pointer(columns, np.int64(0))) - (1 if bottom == layer.n_in else 0)
        x, w = work + layer.compact, params + layer.w
    gemm(
        out + first * layer.ld_a,
        layer.ld_a,
        zeros if half == 0 and is_split(layer) else bias,
        0,
        x + (first * ld_x + top),
        ld_x,
        index > 0 or place < 0,
        w,
        layer.ld_w,
        last - first,
        layer.n_out,
        k,
        scratch,
        columns,
        job.stop,
    )


@kernel
def finish_output(job, index, work, first, last, left, right, logits_only):
    """z = the sum of its two parts where it was split, and a = f(z), on a part of the output.

    With ``logits_only`` the activation is left to the loss that fuses it.
    """
    layer = layer_of(job, index)
    z, a, width = work + (layer.z + left), work + (layer.a + left), right - left
    if is_split(layer):
        parts = work + (layer.parts + left)
        for i in range(first * layer.ld_a, last * layer.ld_a, layer.ld_a):
            for j in range(i, i + width, lanes(z)):
                store(z + j, load(parts + j) + load(parts + (layer.part + j)))
    if logits_only:
        return
    if layer.activation == SOFTMAX:
        softmax_forward(a, z, layer.ld_a, first, last, width)
    else:
        activation_forward(a, z, layer.ld_a, first, last, width, layer.activation, layer.alpha)


@kernel
def input_backward(job, index, work, scratch, first, last, left, right, stop):
    """Dx = dz @ w.T with its dropout, on a part of the layer's inputs; and dz = dx · f'(z) there.

    For layer 0 the gradient of the batch, where the job wants it. ``stop`` is as in a product.
    """
    layer = layer_of(job, index)
    if index > 0:
        previous = layer_of(job, index - 1)
        dx, ld = work + previous.dz, previous.ld_dz
    else:
        dx, ld = pointer(job.input_gradients, work), layer.ld_x
    gemm_transposed(
        dx + (first * ld + left),
        ld,
        pointer(job.zeros, work),
        work + (layer.dz + first * layer.ld_dz),
        layer.ld_dz,
        pointer(job.params, work) + (layer.w + left * layer.ld_w),
        layer.ld_w,
        last - first,
        right - left,
        layer.n_out,
        scratch,
        stop,
    )
    if _drops(job, index):
        dropout_backward(
            dx, ld, work + layer.x, layer.ld_x, first, last, left, right, layer.keep_scale
        )
    if index > 0:
        previous = layer_of(job, index - 1)
        activation_backward(
            dx + left,
            ld,
            work + (previous.a + left),
            work + (previous.z + left),
            previous.ld_a,
            first,
            last,
            right - left,
            previous.activation,
            previous.alpha,
        )
