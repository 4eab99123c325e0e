"""Optimizers: what becomes of a gradient, on rows of parameters. Formulas as in PyTorch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastbackprop._kernels.codes import ADAM, MOMENTUM, SGD
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    fill,
    fma,
    inverse,
    inverse_root,
    lanes,
    larger,
    load,
    pointer,
    sqrt,
    store,
    sum_lanes,
)
from fastbackprop._kernels.vmath import smallest_normal


class Rule(NamedTuple):
    """One step's numbers."""

    rate: float
    scale: float  # of the gradient: clipping by norm
    decay: float  # weight decay that is added to the gradient
    keep: float  # what is left of w by decoupled weight decay
    momentum: float
    fresh: float  # the gradient's share in the momentum: 1 - dampening
    nesterov: bool
    beta1: float
    beta2: float
    root_scale: float  # of √v: 1 / √(1 - β₂ᵗ)
    adam_rate: float  # rate / (1 - β₁ᵗ)
    eps: float
    alpha: float
    centered: bool


@kernel
def rule_of(job, step, norm):
    """The rule of step ``step`` of the epoch, for a gradient with this global norm."""
    rate = pointer(job.rates, np.float64(0))[step]
    t = job.steps_before + step + 1
    scale = 1.0
    if job.clip_norm > 0.0:
        scale = min(1.0, job.clip_norm / (norm + 1e-6))
    decoupled = job.decoupled != 0.0
    root_scale = 1.0 / math.sqrt(1.0 - job.beta2**t)
    return Rule(
        rate,
        scale,
        0.0 if decoupled else job.weight_decay,
        1.0 - rate * job.weight_decay if decoupled else 1.0,
        job.momentum,
        1.0 if t == 1 else 1.0 - job.dampening,  # the first momentum is the gradient itself
        job.nesterov != 0.0,
        job.beta1,
        job.beta2,
        root_scale,
        rate / (1.0 - job.beta1**t),
        job.eps * root_scale if job.eps_uncorrected != 0.0 else job.eps,
        job.alpha,
        job.centered != 0.0,
    )


@kernel
def is_plain(code, rule):
    """Whether the step is w - rate · g, which a product can be added to directly."""
    return code == SGD and rule.scale == 1.0 and rule.decay == 0.0 and rule.keep == 1.0


@kernel
def _sgd_row(rule, w, g, n):
    for j in range(0, n, lanes(w)):
        gradient, parameters = _gradient(rule, w + j, g + j)
        store(w + j, parameters * rule.keep - gradient * rule.rate)


@kernel
def _momentum_row(rule, w, slot, g, n):
    """b = momentum · b + fresh · g; w -= rate · b, or with Nesterov's rate · (g + momentum · b)."""
    for j in range(0, n, lanes(w)):
        gradient, parameters = _gradient(rule, w + j, g + j)
        b = load(slot + j) * rule.momentum + gradient * rule.fresh
        store(slot + j, b)
        step = gradient + b * rule.momentum if rule.nesterov else b
        store(w + j, parameters * rule.keep - step * rule.rate)


@kernel
def _adam_row(rule, w, m_slot, v_slot, g, n):
    """m += (1 - β₁)(g - m); v = β₂ v + (1 - β₂) g²; w -= rate · m̂ / (√v̂ + ε)."""
    for j in range(0, n, lanes(w)):
        gradient, parameters = _gradient(rule, w + j, g + j)
        m = load(m_slot + j)
        m = fma(gradient - m, fill(m, 1.0 - rule.beta1), m)
        v = fma(gradient * gradient, fill(m, 1.0 - rule.beta2), load(v_slot + j) * rule.beta2)
        store(m_slot + j, m)
        store(v_slot + j, v)
        # A division and a root take over 30 cycles a vector, these 10. √0 is 0 · 1/√tiny.
        root = v * inverse_root(larger(v, smallest_normal(v)))
        over = inverse(fma(root, fill(m, rule.root_scale), fill(m, rule.eps)))
        store(w + j, fma(m * -rule.adam_rate, over, parameters * rule.keep))


@kernel
def _rmsprop_row(rule, w, square_slot, mean_slot, momentum_slot, g, n):
    """v = α v + (1 - α) g²; w -= rate · g / (√(v [- mean²]) + ε), or a momentum of that."""
    for j in range(0, n, lanes(w)):
        gradient, parameters = _gradient(rule, w + j, g + j)
        v = load(square_slot + j) * rule.alpha + gradient * gradient * (1.0 - rule.alpha)
        store(square_slot + j, v)
        if rule.centered:
            mean = load(mean_slot + j)
            mean = mean + (gradient - mean) * (1.0 - rule.alpha)
            store(mean_slot + j, mean)
            v = larger(fill(v, 0.0), v - mean * mean)  # rounding may take it below 0
        step = gradient / (sqrt(v) + rule.eps)
        if rule.momentum > 0.0:
            step = load(momentum_slot + j) * rule.momentum + step
            store(momentum_slot + j, step)
        store(w + j, parameters * rule.keep - step * rule.rate)


@kernel
def _gradient(rule, w, g):
    """The gradient after clipping and weight decay, and the parameters it belongs to."""
    parameters = load(w)
    return fma(parameters, fill(parameters, rule.decay), load(g) * rule.scale), parameters


@kernel
def update_rows(code, rule, w, slot0, slot1, slot2, g, ld, rows, n):
    """One optimizer step on (rows, n) parameters, whole vectors of columns.

    w, slot0, slot1, slot2, g : (rows, ld)    g is the gradient; slots that the optimizer lacks
                                              are not touched
    """
    for i in range(0, rows * ld, ld):
        if code == SGD:
            _sgd_row(rule, w + i, g + i, n)
        elif code == MOMENTUM:
            _momentum_row(rule, w + i, slot0 + i, g + i, n)
        elif code == ADAM:
            _adam_row(rule, w + i, slot0 + i, slot1 + i, g + i, n)
        else:
            _rmsprop_row(rule, w + i, slot0 + i, slot1 + i, slot2 + i, g + i, n)


@kernel
def penalize_rows(g, w, ld, rows, n, penalty, squares, portion):
    """Add the gradient of ½ penalty · Σ w²: g += penalty · w on (rows, n), whole vectors.

    squares : (rows,)    grows by portion · Σ w² of each row
    """
    for i in range(rows):
        total = fill(load(w), 0.0)
        for j in range(i * ld, i * ld + n, lanes(w)):
            v = load(w + j)
            store(g + j, fma(v, fill(v, penalty), load(g + j)))
            total = fma(v, v, total)
        squares[i] += portion * sum_lanes(total)


@kernel
def store_rows(out, g, ld, rows, n):
    """Keep the gradient: out = g on (rows, n), whole vectors of columns."""
    for i in range(0, rows * ld, ld):
        for j in range(i, i + n, lanes(g)):
            store(out + j, load(g + j))


@kernel
def row_square(g, n):
    """Σ g² over one row, in float64 so that a large network's norm keeps its digits."""
    total = 0.0
    for j in range(n):
        total += np.float64(g[j]) * np.float64(g[j])
    return total
