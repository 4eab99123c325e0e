"""Gradients of one layer's weights, and what becomes of them while they are in cache."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.accumulate import add_outer_products
from fastbackprop._kernels.codes import STORE
from fastbackprop._kernels.columns import FIRST_RUN, columns_before, run_at, spread_rows
from fastbackprop._kernels.dense import layer_input, layer_of, listed_columns
from fastbackprop._kernels.gemm import (
    outer_products,
    pack_gradient,
    packs_gradient,
    product_rows,
)
from fastbackprop._kernels.inputs import half_of
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import pointer
from fastbackprop._kernels.update import is_plain, penalize_rows, store_rows, update_rows


@kernel
def _first_row(job, index):
    """The number of the first row of layer ``index`` among the rows of all layers' parameters."""
    row = 0
    for before in range(index):
        layer = layer_of(job, before)
        row += layer.n_in + layer.has_bias
    return row


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

    Finished rows go to the optimizer while they are in cache, so that the gradient need not exist;
    it is kept where ``code`` is STORE. The gradient of the penalty is added before. Plain SGD adds
    the products to the parameters in registers. What goes to the optimizer is not stopped.
    """
    for half in range(2):
        left, right = half_of(layer_of(job, index), half)
        first, last = max(top, left), min(bottom, right)
        if first < last:
            columns = listed_columns(job, index, scratch, half)
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
    products = scratch + job.products
    layer = layer_of(job, index)
    x, dz = layer_input(job, index, work), work + layer.dz
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
    is_packed = packs_gradient(layer.ld_dz, bottom - top, layer.n_out, n, work)
    if is_packed:
        pack_gradient(dz, layer.ld_dz, layer.n_out, n, scratch, job.stop if code == STORE else 0)
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
            is_packed,
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
        layer_input(job, index, work),
        layer.ld_x,
        work + layer.dz,
        layer.ld_dz,
        False,
        layer.n_in + layer.has_bias,
        layer.n_out,
        n,
        scratch,
        job.stop,
    )
