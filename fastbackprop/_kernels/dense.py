"""One dense layer on any part of a batch: its inputs, products, activation and gradients.

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
from fastbackprop._kernels.codes import SOFTMAX, STORE
from fastbackprop._kernels.columns import (
    FIRST_RUN,
    IS_COMPACT,
    column_list,
    columns_before,
    compact_rows,
    list_columns,
    live_columns,
    mark_columns,
    run_at,
    spread_rows,
)
from fastbackprop._kernels.dropout import dropout, dropout_key
from fastbackprop._kernels.gemm import (
    PACKED_BYTES,
    add_outer_products,
    gemm,
    gemm_transposed,
    outer_products,
    product_rows,
)
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.records import LAYER, layer_at
from fastbackprop._kernels.simd import (
    FIRST_FLOAT,
    address_of,
    itemsize,
    lanes,
    load,
    pointer,
    store,
)
from fastbackprop._kernels.team import share
from fastbackprop._kernels.update import is_plain, penalize_rows, store_rows, update_rows

_LAYER_BYTES = LAYER.itemsize
_LINE_BYTES = 64


@kernel
def layer_of(job, index):
    """The record of layer ``index``."""
    return layer_at(job.layers + index * _LAYER_BYTES)


@kernel
def _first_row(job, index):
    """The number of the first row of layer ``index`` among the rows of all layers' parameters."""
    row = 0
    for before in range(index):
        layer = layer_of(job, before)
        row += layer.n_in + layer.has_bias
    return row


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
def _columns(job, index, scratch, half):
    """The address of the list of the columns in a half of the input; 0 where it is used whole."""
    if index > 0 or job.columns == 0:
        return 0
    columns = column_list(job, scratch, half)
    return address_of(columns) if columns[IS_COMPACT] != 0 else 0


@kernel
def _drops(job, index):
    return job.training != 0 and layer_of(job, index).keep_scale != 1.0


@kernel
def _input(job, index, work):
    """What layer ``index`` multiplies: the batch, or the activation before, with its dropout."""
    layer = layer_of(job, index)
    if index == 0 or _drops(job, index):
        return work + layer.x
    return work + layer_of(job, index - 1).a


@kernel
def lies_ready(job, like):
    """Whether rows of the caller's data can be multiplied where they lie, as elements of ``like``.

    That is for rows in their order which need no conversion.
    """
    size = itemsize(like)
    is_same = job.x_kind >= FIRST_FLOAT and job.x_size == size
    is_plain = job.x_scale == 1.0 and job.x_offset == 0.0 and job.x_starts == 0 and job.order == 0
    is_aligned = job.x % size == 0 and job.x_row % size == 0 and job.x_column == size
    return is_same and is_plain and is_aligned


@kernel
def finish_input(job, index, work, step, first, last, left, right):
    """Dropout on a part of what layer ``index`` takes, and the ones that multiply its bias.

    ``right`` is n_in + 1 for the part that has the column of ones.
    """
    layer = layer_of(job, index)
    x = _input(job, index, work)
    width = min(right, layer.n_in)
    if _drops(job, index):
        source = x if index == 0 else work + layer_of(job, index - 1).a
        _mask(job, index, step, x, source, layer.ld_x, first, last, left, width)
    if right > layer.n_in:
        for i in range(first, last):
            x[i * layer.ld_x + layer.n_in] = 1.0


@kernel
def _mask(job, index, step, out, x, ld, first, last, left, right):
    """Layer ``index``'s dropout, of its input or of the gradient with respect to that."""
    layer = layer_of(job, index)
    key = dropout_key(job.seed, job.epoch, step, index)
    dropout(out, x, ld, first, last, left, right, key, layer.keep_below, layer.keep_scale)


@kernel
def _half_of(layer, half):
    """The columns [left, right) of a half of the layer's input, with the one of ones.

    Where sums are not made in two halves the first has all of them.
    """
    middle = layer.middle if is_split(layer) else layer.n_in + 1
    return (0, middle) if half == 0 else (middle, layer.n_in + 1)


@kernel
def mark_input(job, work, n, left, right):
    """Mark which of the columns [left, right) of the batch are not zero in all of its n rows."""
    layer = layer_of(job, 0)
    marks = pointer(address_of(work + layer.marks), np.int64(0))
    mark_columns(marks, work + layer.x, layer.ld_x, n, left, right)


@kernel
def compact_input(job, work, scratch, half, n, first, last):
    """List the marked columns of a half of the batch, and make rows [first, last) compact.

    Returns whether that is worth it for ``n`` rows; else the half is used whole.
    """
    layer = layer_of(job, 0)
    left, right = _half_of(layer, half)
    if left == right:
        return False
    marks = pointer(address_of(work + layer.marks), np.int64(0))
    columns, x = column_list(job, scratch, half), work + layer.x
    vectors = (layer.n_out + lanes(x) - 1) // lanes(x)
    worth = list_columns(columns, marks, x, n, vectors, left, right)
    if worth:
        compact_rows(work + (layer.compact + left), x, layer.ld_x, columns, first, last)
    return worth


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
    k, x, ld_x = bottom - top, _input(job, index, work), layer.ld_x
    if index == 0 and place >= 0:
        x, ld_x = pointer(job.x + place * job.x_row, work), job.x_row // itemsize(work)
    w = params + (layer.w + top * layer.ld_w)
    columns = _columns(job, index, scratch, half)
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
def products_are_finite(job, work, n):
    """Whether the products of ``n`` rows with the first layer's weights are finite.

    Those with the first unit's will do: no sum with an infinite or NaN term is finite.
    """
    layer = layer_of(job, 0)
    out = work + (layer.parts if is_split(layer) else layer.z)
    seen = out[0] - out[0]
    for i in range(0, n * layer.ld_a, layer.ld_a):
        seen += out[i] - out[i]
        if is_split(layer):
            seen += out[layer.part + i] - out[layer.part + i]
    return seen == 0.0


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
def input_backward(job, index, work, scratch, step, first, last, left, right, stop):
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
        _mask(job, index, step, dx, dx, ld, first, last, left, right)
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


@kernel
def penalize(job, index, gradients, top, rows, n, total_weight):
    """Add the gradient of the penalty to that of rows [top, top + rows) of the weights, not of b.

    It is that of a batch of ``n`` rows, whose weights add up to ``total_weight``.
    """
    if job.penalty == 0.0 or total_weight == 0.0:
        return
    layer = layer_of(job, index)
    penalize_rows(
        gradients,
        pointer(job.params, gradients) + (layer.w + top * layer.ld_w),
        layer.ld_w,
        min(rows, layer.n_in - top),
        layer.n_out,
        job.penalty / total_weight,
        pointer(job.row_squares, np.float64(0)) + (_first_row(job, index) + top),
        n / total_weight,
    )


@kernel
def weight_gradients(job, index, rule, code, work, scratch, n, total_weight, top, bottom):
    """dw = x.T @ dz and db = Σ dz (the row of ones in x.T), on rows [top, bottom) of the weights.

    Finished rows go to the optimizer while they are in L1, so that the gradient need not exist;
    it is kept where ``code`` is STORE. The gradient of the penalty is added before. Plain SGD adds
    the products to the parameters in registers. What goes to the optimizer is not stopped.
    """
    for half in range(2):
        left, right = _half_of(layer_of(job, index), half)
        first, last = max(top, left), min(bottom, right)
        if first < last:
            columns = _columns(job, index, scratch, half)
            _half_gradients(
                job,
                index,
                rule,
                code,
                work,
                scratch,
                n,
                total_weight,
                first,
                last,
                left,
                columns,
            )


@kernel
def _half_gradients(
    job, index, rule, code, work, scratch, n, total_weight, top, bottom, left, columns
):
    """Those of a half of the inputs, the compact batch of which begins at column ``left``."""
    params, zeros = pointer(job.params, work), pointer(job.zeros, work)
    slot0, slot1 = pointer(job.slot0, work), pointer(job.slot1, work)
    slot2, gradients = pointer(job.slot2, work), pointer(job.gradients, work)
    products = scratch + PACKED_BYTES // itemsize(work)
    layer = layer_of(job, index)
    x, dz = _input(job, index, work), work + layer.dz
    if job.penalty == 0.0 and is_plain(code, rule):
        add_outer_products(
            params + layer.w,
            layer.ld_w,
            x,
            layer.ld_x,
            dz,
            layer.ld_dz,
            -rule.rate,
            top,
            bottom,
            layer.n_out,
            n,
            scratch,
            columns,
        )
        return
    block = product_rows(layer.ld_w, n, work)
    listed, run = pointer(columns, np.int64(0)), FIRST_RUN
    for i in range(top, bottom, block):
        rows = min(block, bottom - i)
        place = layer.w + i * layer.ld_w
        live, begin = rows, i
        if columns != 0:
            run = run_at(listed, run, i)
            begin = columns_before(listed, run, i)
            live = columns_before(listed, run_at(listed, run, i + rows), i + rows) - begin
            begin += left
        outer_products(
            products + (rows - live) * layer.ld_w,
            layer.ld_w,
            zeros,
            0,
            (x if columns == 0 else work + layer.compact) + begin,
            layer.ld_x,
            dz,
            layer.ld_dz,
            live,
            layer.n_out,
            n,
            scratch,
            job.stop if code == STORE else 0,
        )
        if columns != 0:
            spread_rows(products, layer.ld_w, layer.n_out, rows, live, listed, run, i)
        penalize(job, index, products, i, rows, n, total_weight)
        if code == STORE:
            store_rows(gradients + place, products, layer.ld_w, rows, layer.n_out)
        else:
            update_rows(
                code,
                rule,
                params + place,
                slot0 + place,
                slot1 + place,
                slot2 + place,
                products,
                layer.ld_w,
                rows,
                layer.n_out,
            )


@kernel
def add_gradients(job, index, gradients, work, scratch, n, begins):
    """gradients += x.T @ dz of a layer on ``n`` rows of a batch; from zero where it ``begins``."""
    layer = layer_of(job, index)
    g, zeros = gradients + layer.w, pointer(job.zeros, work)
    outer_products(
        g,
        layer.ld_w,
        zeros if begins else g,
        0 if begins else layer.ld_w,
        _input(job, index, work),
        layer.ld_x,
        work + layer.dz,
        layer.ld_dz,
        layer.n_in + layer.has_bias,
        layer.n_out,
        n,
        scratch,
        job.stop,
    )
