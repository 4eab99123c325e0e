"""Each loss beside its gradient, and both fused with the output activation."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels import vmath
from fastbackprop._kernels.activation import (
    activation_backward,
    largest_of,
    softmax_exponentials,
)
from fastbackprop._kernels.codes import (
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    HUBER,
    MAE,
    POISSON,
    QUADRATIC,
    QUANTILE,
    SOFTMAX,
)
from fastbackprop._kernels.jit import inlined_kernel, kernel
from fastbackprop._kernels.records import LINEAR, SCORE_LARGEST, SCORE_NONE
from fastbackprop._kernels.simd import (
    absolute,
    fill,
    lane_bits,
    lanes,
    larger,
    live_lanes,
    load,
    pointer,
    select,
    smaller,
    store,
    sum_lanes,
    trailing_zeros,
)


@kernel
def _pointwise(code, parameter, a, t):
    """(ℓ(a, t), ∂ℓ/∂a) of the losses that are a sum over outputs."""
    d = a - t
    if code == QUADRATIC:
        return d * d * 0.5, d
    if code == MAE:
        sign = select(d > 0.0, fill(d, 1.0), select(d < 0.0, fill(d, -1.0), 0.0))
        return absolute(d), sign
    if code == HUBER:
        size = absolute(d)
        limit = fill(d, parameter)
        inner = d * d * 0.5
        outer = (size - limit * 0.5) * limit
        return select(size <= limit, inner, outer), smaller(limit, larger(-limit, d))
    if code == QUANTILE:
        above = fill(d, 1.0 - parameter)
        slope = select(d > 0.0, above, select(d < 0.0, above - 1.0, 0.0))
        return d * select(d > 0.0, above, above - 1.0), slope  # NaN passes through d
    if code == LINEAR:
        return t * a, t
    return d * d, d + d  # MSE


@kernel
def _sum_over_outputs(code, parameter, dz, a, t, n, scale):
    """ℓ of one row, and dz = scale · ∂ℓ/∂a; returns ℓ."""
    total = fill(load(a), 0.0)
    for j in range(0, n, lanes(a)):
        v = load(a + j)
        live = live_lanes(v, j, n)
        value, slope = _pointwise(code, parameter, v, load(t + j))
        total = total + select(live, value, 0.0)
        store(dz + j, select(live, slope * scale, 0.0))
    return sum_lanes(total)


@kernel
def _cross_entropy(dz, z, t, n, scale):
    """ℓ = -Σ t log softmax(z) and dz = scale · (softmax(z) Σt - t) for one row; returns ℓ."""
    top, total = softmax_exponentials(dz, z, n)
    log_total = vmath.log(fill(load(z), total))
    target_sum, value = fill(load(t), 0.0), fill(load(t), 0.0)
    for j in range(0, n, lanes(t)):
        v = load(t + j)
        # Padding and impossible classes: 0 · log 0 is 0, also where z is -inf.
        value = value + select(v > 0.0, v * (log_total - (load(z + j) - top)), 0.0)
        target_sum = target_sum + v
    factor = sum_lanes(target_sum) / total
    for j in range(0, n, lanes(t)):
        store(dz + j, (load(dz + j) * factor - load(t + j)) * scale)
    return sum_lanes(value)


@kernel
def _binary_cross_entropy(dz, z, t, n, scale):
    """ℓ = Σ max(z, 0) - z t + ln(1 + e^-|z|) and dz = scale · (sigmoid(z) - t); returns ℓ."""
    total = fill(load(z), 0.0)
    for j in range(0, n, lanes(z)):
        v, target = load(z + j), load(t + j)
        live = live_lanes(v, j, n)
        total = total + select(live, vmath.softplus(v) - v * target, 0.0)
        store(dz + j, select(live, (vmath.sigmoid(v) - target) * scale, 0.0))
    return sum_lanes(total)


@kernel
def _poisson(dz, z, t, n, scale):
    """ℓ = Σ eᶻ - t z + t ln t - t and dz = scale · (eᶻ - t); returns ℓ."""
    total = fill(load(z), 0.0)
    for j in range(0, n, lanes(z)):
        v, target = load(z + j), load(t + j)
        live = live_lanes(v, j, n)
        mean = vmath.exp(v)
        # 0 · ln 0 is 0.
        excess = select(target > 0.0, target * (vmath.log(target) - v - 1.0), 0.0)
        total = total + select(live, mean + excess, 0.0)
        store(dz + j, select(live, (mean - target) * scale, 0.0))
    return sum_lanes(total)


@kernel
def _linear_of_softmax(code, parameter, dz, a, t, n, scale):
    """ℓ = Σ t a of one row, and dz = scale · a · (t - ℓ), by the softmax's Jacobian; returns ℓ."""
    mean = _sum_over_outputs(code, parameter, dz, a, t, n, scale)
    for j in range(0, n, lanes(a)):
        v = load(a + j)
        product = v * (load(dz + j) - mean * scale)
        store(dz + j, select(live_lanes(v, j, n), product, 0.0))  # the padding of a has a 1
    return mean


@kernel
def _from_logits(code, parameter, dz, z, t, n, scale):
    """ℓ of one row, and dz, of the losses that are fused with the output activation."""
    if code == CROSS_ENTROPY:
        return _cross_entropy(dz, z, t, n, scale)
    if code == BINARY_CROSS_ENTROPY:
        return _binary_cross_entropy(dz, z, t, n, scale)
    return _poisson(dz, z, t, n, scale)


@kernel
def _largest_at(row, n):
    """Where the first of the largest of n elements is, but of NaN; n or more if all are.

    Comparing one with the next, which no branch predictor foresees, took 130 cycles for two rows
    of 10: a sixteenth of a step of 784-30-10.
    """
    top = largest_of(row, n)
    for j in range(0, n, lanes(row)):
        bits = lane_bits(load(row + j) == top)
        if bits != 0:
            return j + trailing_zeros(bits)
    return n


@kernel
def _score(kind, outputs, t, n, half):
    """1 if the row is classified rightly, or the share of its outputs that are."""
    if kind == SCORE_LARGEST:
        return 1.0 if _largest_at(outputs, n) == _largest_at(t, n) else 0.0
    right = 0
    for j in range(n):
        if (outputs[j] > half) == (t[j] > 0.5):
            right += 1
    return right / n


@kernel
def is_fused(code):
    """Whether the loss comes with the output activation, from the logits."""
    return code in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, POISSON)


@inlined_kernel
def _each_row(loss_of_row, row_loss, dz, z, t, job, layer, first, last, begin, total_weight):
    """`losses_and_deltas` without the scores, of the loss ``loss_of_row`` from ``z``.

    One loop for all, with what each needs in registers, took 24 cycles for a row of 4 outputs
    instead of 15; one for each loss takes as long as these, and 0.9 s more to compile.
    """
    order, weights = pointer(job.order, np.int64(0)), pointer(job.weights, np.float64(0))
    has_order, has_weights = job.order != 0, job.weights != 0
    n, ld_dz, ld_z, code, parameter = (
        layer.n_out,
        layer.ld_dz,
        layer.ld_a,
        job.loss,
        job.loss_parameter,
    )
    mean = 1.0 if code in (QUADRATIC, CROSS_ENTROPY, LINEAR) else 1.0 / n
    # Without weights it is divided once: a quotient a row took as long as the rest of a row with
    # one output.
    factor, scale = mean, 1.0 / total_weight * mean
    for i in range(first, last):
        if has_weights:
            weight = weights[order[begin + i] if has_order else begin + i]
            factor, scale = weight * mean, weight / total_weight * mean
        value = loss_of_row(code, parameter, dz + i * ld_dz, z + i * ld_z, t + i * ld_dz, n, scale)
        row_loss[i] = factor * value


@kernel
def _scores(row_score, outputs, t, job, layer, first, last, begin):
    """row_score = weight · score of rows [first, last); as it is where there are no scores.

    To write zeros there took 7 cycles of the 185 that a row of 4-32-16-4 takes in training.
    """
    if job.score == SCORE_NONE:
        return
    order, weights = pointer(job.order, np.int64(0)), pointer(job.weights, np.float64(0))
    half = 0.0 if job.loss == BINARY_CROSS_ENTROPY else 0.5
    for i in range(first, last):
        weight = 1.0
        if job.weights != 0:
            weight = weights[order[begin + i] if job.order != 0 else begin + i]
        score = _score(job.score, outputs + i * layer.ld_a, t + i * layer.ld_dz, layer.n_out, half)
        row_score[i] = weight * score


@kernel
def losses_and_deltas(
    row_loss, row_score, dz, z, a, t, job, layer, first, last, begin, total_weight
):
    """Losses, scores and gradients with respect to the logits of rows [first, last) of a batch.

        row_loss = weight · ℓ      row_score = weight · score, where the job has one
        dz = ∂(Σ weight · ℓ / total_weight)/∂z

    dz, t : (last, n_out), rows of ld_dz          row_loss, row_score : (last,) float64
    z, a  : (last, n_out), rows of ld_a           padded to whole vectors; that of dz becomes 0

    The batch begins at row ``begin`` of the data's order; ``total_weight`` is its sum of weights.
    """
    if total_weight == 0.0:
        total_weight = 1.0
    code = job.loss
    # The logits of those that are fused; they are in the same order as the outputs.
    outputs = z if is_fused(code) else a
    if is_fused(code):
        _each_row(
            _from_logits, row_loss, dz, outputs, t, job, layer, first, last, begin, total_weight
        )
    elif code == LINEAR and layer.activation == SOFTMAX:
        _each_row(
            _linear_of_softmax,
            row_loss,
            dz,
            outputs,
            t,
            job,
            layer,
            first,
            last,
            begin,
            total_weight,
        )
    else:
        _each_row(
            _sum_over_outputs,
            row_loss,
            dz,
            outputs,
            t,
            job,
            layer,
            first,
            last,
            begin,
            total_weight,
        )
    _scores(row_score, outputs, t, job, layer, first, last, begin)
    if not is_fused(code):
        activation_backward(
            dz,
            layer.ld_dz,
            a,
            z,
            layer.ld_a,
            first,
            last,
            layer.n_out,
            layer.activation,
            layer.alpha,
        )
