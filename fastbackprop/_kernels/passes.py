"""Forward, backward and update over a table of layers: the two kernels that Python calls.

``train`` runs steps of an epoch in a team of threads. Each thread takes its own rows of the batch
through the network and back; after a barrier each takes its own rows of every weight matrix
through the gradient and the optimizer; after another the next step begins. No sum is ever split
between threads, so any number of them gives the same bits.

``evaluate`` takes any number of rows through the network only, a block at a time.
"""

from __future__ import annotations

import math

import numpy as np

from fastbackprop._kernels.activation import (
    activation_backward,
    activation_forward,
    softmax_forward,
)
from fastbackprop._kernels.codes import (
    ADAM,
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    NONE,
    SOFTMAX,
    STORE,
)
from fastbackprop._kernels.dropout import dropout, dropout_key
from fastbackprop._kernels.gather import gather_rows, gather_targets
from fastbackprop._kernels.gemm import (
    PANEL_BYTES,
    add_outer_products,
    gemm,
    gemm_transposed,
    panel_vectors,
    product_rows,
)
from fastbackprop._kernels.jit import entry_point, kernel
from fastbackprop._kernels.loss import loss_and_delta
from fastbackprop._kernels.micro import MR, NV, panel_product
from fastbackprop._kernels.records import LAYER, job_at, layer_at
from fastbackprop._kernels.simd import (
    atomic_load,
    flush_subnormals,
    itemsize,
    lanes,
    pointer,
    prefetch,
    restore_subnormals,
)
from fastbackprop._kernels.team import barrier, share
from fastbackprop._kernels.update import is_plain, row_square, rule_of, store_rows, update_rows

_LAYER_BYTES = LAYER.itemsize

# Rows that a thread takes through the network at a time when it only evaluates: enough to use each
# weight often while it is in a register or in L1, few enough that their activations stay in L2.
EVALUATION_ROWS = 64

# Batches from which the products of a tile take long enough to hide loads from L3. With and
# without these prefetches a step of 784-512-512-10 took the same within the noise of the machine.
_PREFETCH_ROWS = 32


@kernel
def _layer(job, index):
    return layer_at(job.layers + index * _LAYER_BYTES)


@kernel
def _drops_input(job, layer):
    return job.training != 0 and layer.keep_scale != 1.0


@kernel
def _input(job, index, work):
    """What layer ``index`` multiplies: the batch, or the activation before, with its dropout."""
    layer = _layer(job, index)
    if index == 0 or _drops_input(job, layer):
        return work + layer.x
    return work + _layer(job, index - 1).a


@kernel
def _mask(job, index, step, out, x, ld, first, last):
    """Layer ``index``'s dropout, of its input or of the gradient with respect to that."""
    layer = _layer(job, index)
    key = dropout_key(job.seed, job.epoch, step, index)
    dropout(out, x, ld, first, last, layer.n_in, key, layer.keep_below, layer.keep_scale)


@kernel
def _set_ones(x, ld, column, first, last):
    """The column that makes the bias one more row of the weights."""
    for i in range(first, last):
        x[i * ld + column] = 1.0


@kernel
def forward(job, work, scratch, step, first, last, logits_only):
    """z = x @ w + b and a = f(z), layer by layer, on rows [first, last) of the gathered batch.

    With ``logits_only`` the output activation is left to the loss that fuses it.
    """
    params, zeros = pointer(job.params, work), pointer(job.zeros, work)
    for index in range(job.n_layers):
        layer = _layer(job, index)
        x = _input(job, index, work)
        if _drops_input(job, layer):
            source = x if index == 0 else work + _layer(job, index - 1).a
            _mask(job, index, step, x, source, layer.ld_x, first, last)
            _set_ones(x, layer.ld_x, layer.n_in, first, last)
        w, z, a = params + layer.w, work + layer.z, work + layer.a
        gemm(
            z + first * layer.ld_a,
            layer.ld_a,
            w + layer.n_in * layer.ld_w if layer.has_bias != 0 else zeros,
            0,
            x + first * layer.ld_x,
            layer.ld_x,
            w,
            layer.ld_w,
            last - first,
            layer.n_out,
            layer.n_in,
            scratch,
        )
        if index == job.n_layers - 1 and logits_only:
            return
        if layer.activation == SOFTMAX:
            softmax_forward(a, z, layer.ld_a, first, last, layer.n_out)
        else:
            activation_forward(
                a, z, layer.ld_a, first, last, layer.n_out, layer.activation, layer.alpha
            )
        _set_ones(a, layer.ld_a, layer.n_out, first, last)


@kernel
def losses(job, work, first, last, begin, total_weight, row):
    """Loss and score of rows [first, last), into ``row_loss`` and ``row_score`` from ``row`` on."""
    layer = _layer(job, job.n_layers - 1)
    order, weights = pointer(job.order, np.int64(0)), pointer(job.weights, np.float64(0))
    row_loss, row_score = (
        pointer(job.row_loss, np.float64(0)),
        pointer(job.row_score, np.float64(0)),
    )
    targets = work + job.target_rows
    for i in range(first, last):
        weight = 1.0
        if job.weights != 0:
            weight = weights[order[begin + i] if job.order != 0 else begin + i]
        loss, score = loss_and_delta(
            job,
            layer,
            work + (layer.dz + i * layer.ld_dz),
            work + (layer.z + i * layer.ld_a),
            work + (layer.a + i * layer.ld_a),
            targets + i * layer.ld_dz,
            weight,
            total_weight,
        )
        row_loss[row + i] = loss
        row_score[row + i] = score


@kernel
def backward(job, work, scratch, step, first, last):
    """Dz of every layer from that of the last: dx = dz @ w.T, then dz = dx · f'(z).

    On rows [first, last) of the batch; the gradient of the input too where the job wants it.
    """
    params, zeros = pointer(job.params, work), pointer(job.zeros, work)
    for index in range(job.n_layers - 1, -1, -1):
        layer = _layer(job, index)
        if index > 0:
            previous = _layer(job, index - 1)
            dx, ld = work + previous.dz, previous.ld_dz
        elif job.input_gradients != 0:
            dx, ld = pointer(job.input_gradients, work), layer.ld_x
        else:
            return
        gemm_transposed(
            dx + first * ld,
            ld,
            zeros,
            work + (layer.dz + first * layer.ld_dz),
            layer.ld_dz,
            params + layer.w,
            layer.ld_w,
            last - first,
            layer.n_in,
            layer.n_out,
            scratch,
        )
        if _drops_input(job, layer):
            _mask(job, index, step, dx, dx, ld, first, last)
        if index > 0:
            activation_backward(
                dx,
                ld,
                work + previous.a,
                work + previous.z,
                previous.ld_a,
                first,
                last,
                previous.n_out,
                previous.activation,
                previous.alpha,
            )


@kernel
def _prefetch_rows(job, code, work, place, ld, rows):
    """Ask for the parameters and slots of some rows while the products before them are computed."""
    line = 64 // itemsize(work)
    for i in range(rows):
        for j in range(place + i * ld, place + i * ld + NV * lanes(work), line):
            prefetch(pointer(job.params, work) + j)
            if code == ADAM:
                prefetch(pointer(job.slot0, work) + j)
                prefetch(pointer(job.slot1, work) + j)


@kernel
def weight_gradients(job, rule, code, work, scratch, n, thread):
    """dw = x.T @ dz and db = Σ dz (the row of ones in x.T), some rows at a time.

    Finished rows go to the optimizer while they are in L1, so that the gradient need not exist;
    it is kept where ``code`` is STORE. Plain SGD adds the products to the parameters in registers.
    Each thread has its own rows.
    """
    params, zeros = pointer(job.params, work), pointer(job.zeros, work)
    slot0, slot1 = pointer(job.slot0, work), pointer(job.slot1, work)
    slot2, gradients = pointer(job.slot2, work), pointer(job.gradients, work)
    products = scratch + PANEL_BYTES // itemsize(work)
    for index in range(job.n_layers):
        layer = _layer(job, index)
        x, dz = _input(job, index, work), work + layer.dz
        top, bottom = share(layer.n_in + layer.has_bias, MR, job.threads, thread)
        if is_plain(code, rule):
            add_outer_products(
                params + (layer.w + top * layer.ld_w),
                layer.ld_w,
                x + top,
                layer.ld_x,
                dz,
                layer.ld_dz,
                -rule.rate,
                bottom - top,
                layer.n_out,
                n,
                scratch,
            )
            continue
        block = product_rows(layer.ld_w, work)
        for i in range(top, bottom, block):
            rows = min(block, bottom - i)
            place = layer.w + i * layer.ld_w
            for j in range(0, layer.n_out, NV * lanes(work)):
                if n >= _PREFETCH_ROWS and i + block < bottom:
                    _prefetch_rows(
                        job, code, work, place + block * layer.ld_w + j, layer.ld_w, rows
                    )
                panel_product(
                    rows,
                    panel_vectors(layer.n_out, j, work),
                    products + j,
                    layer.ld_w,
                    zeros,
                    0,
                    x + i,
                    1,
                    layer.ld_x,
                    dz + j,
                    layer.ld_dz,
                    n,
                )
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
def _row_norms(job, work, thread):
    """Σ g² of this thread's own rows, so that the global norm is one sum in one order."""
    gradients, norms = pointer(job.gradients, work), pointer(job.row_norms, np.float64(0))
    row = 0
    for index in range(job.n_layers):
        layer = _layer(job, index)
        rows = layer.n_in + layer.has_bias
        top, bottom = share(rows, MR, job.threads, thread)
        for i in range(top, bottom):
            norms[row + i] = row_square(gradients + (layer.w + i * layer.ld_w), layer.n_out)
        row += rows


@kernel
def _global_norm(job):
    norms = pointer(job.row_norms, np.float64(0))
    row, total = 0, 0.0
    for index in range(job.n_layers):
        layer = _layer(job, index)
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
        layer = _layer(job, index)
        top, bottom = share(layer.n_in + layer.has_bias, MR, job.threads, thread)
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
            bottom - top,
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
def _sum_step(job, step, n, total_weight):
    row_loss, row_score = (
        pointer(job.row_loss, np.float64(0)),
        pointer(job.row_score, np.float64(0)),
    )
    loss, score = 0.0, 0.0
    for i in range(n):
        loss += row_loss[i]
        score += row_score[i]
    pointer(job.step_loss, np.float64(0))[step] = loss
    pointer(job.step_score, np.float64(0))[step] = score
    pointer(job.step_weight, np.float64(0))[step] = total_weight


@kernel
def _is_fused(loss):
    return loss in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY)


@entry_point
def train(job_address, thread, like):
    """Steps [first, last) of an epoch, as thread ``thread`` of a team of ``job.threads``.

    ``like`` is a number of the network's float type. Where Python asks for a stop, the team returns
    after the step that it is in; where a row is not finite, before that step changes anything.
    """
    job = job_at(job_address)
    work = pointer(job.work, like)
    scratch = pointer(job.scratch, like) + thread * job.scratch_stride
    head, tail = _layer(job, 0), _layer(job, job.n_layers - 1)
    clipping = job.clip_norm > 0.0 and job.update != STORE
    mode = flush_subnormals()
    stop = pointer(job.stop, np.int64(0))
    arrivals = job.threads
    for step in range(job.first, job.last):
        begin = step * job.batch
        n = min(job.batch, job.n - begin)
        total_weight = _batch_weight(job, begin, n)

        first, last = share(n, 1, job.threads, thread)
        if not gather_rows(work + head.x, head.ld_x, head.n_in, job, first, last, begin):
            stop[3] = 1
        gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, first, last, begin)
        forward(job, work, scratch, step, first, last, _is_fused(job.loss))
        losses(job, work, first, last, begin, total_weight, 0)
        if job.update != NONE:
            backward(job, work, scratch, step, first, last)
        arrivals = barrier(job.barrier, job.threads, arrivals)
        if atomic_load(stop + 3) != 0:
            break

        if thread == 0:
            _sum_step(job, step, n, total_weight)
        if job.update != NONE:
            rule = rule_of(job, step, 0.0)
            code = STORE if clipping else job.update
            weight_gradients(job, rule, code, work, scratch, n, thread)
        if clipping:
            _row_norms(job, work, thread)
            arrivals = barrier(job.barrier, job.threads, arrivals)
            _apply_gradients(job, rule_of(job, step, _global_norm(job)), work, thread)
        # One thread decides for all; none can decide again before all have read this.
        if thread == 0 and atomic_load(stop) != 0:
            stop[1] = 1
        arrivals = barrier(job.barrier, job.threads, arrivals)
        if thread == 0:
            stop[2] = step + 1 - job.first
        if atomic_load(stop + 1) != 0:
            break
    restore_subnormals(mode)


@entry_point
def evaluate(job_address, thread, like):
    """Outputs, or losses and scores, of rows [first, last) of the data, in blocks of rows.

    The blocks are shared among ``job.threads`` threads, each with a workspace of its own.
    """
    job = job_at(job_address)
    work = pointer(job.work, like) + thread * job.work_stride
    scratch = pointer(job.scratch, like) + thread * job.scratch_stride
    outputs = pointer(job.outputs, like)
    head, tail = _layer(job, 0), _layer(job, job.n_layers - 1)
    first, last = share(job.last - job.first, EVALUATION_ROWS, job.threads, thread)
    stop = pointer(job.stop, np.int64(0))
    mode = flush_subnormals()
    for begin in range(job.first + first, job.first + last, EVALUATION_ROWS):
        if atomic_load(stop) != 0:
            break
        n = min(EVALUATION_ROWS, job.first + last - begin)
        if not gather_rows(work + head.x, head.ld_x, head.n_in, job, 0, n, begin):
            stop[3] = 1
        forward(job, work, scratch, 0, 0, n, job.outputs == 0 and _is_fused(job.loss))
        if job.outputs == 0:
            gather_targets(work + job.target_rows, tail.ld_dz, tail.n_out, job, 0, n, begin)
            losses(job, work, 0, n, begin, 1.0, begin)
        else:
            for i in range(n):
                for j in range(tail.n_out):
                    a = work + (tail.a + i * tail.ld_a)
                    outputs[(begin + i) * tail.n_out + j] = a[j]
    restore_subnormals(mode)
