"""Optimizers: what becomes of a gradient, on rows of parameters. Formulas as in PyTorch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastbackprop._kernels.codes import ADAM, MOMENTUM, SGD
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    inverse,
    inverse_root,
    lanes,
    larger,
    load,
    pointer,
    sqrt,
    store,
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
        1.0 / math.sqrt(1.0 - job.beta2**t),
        rate / (1.0 - job.beta1**t),
        job.eps,
        job.alpha,
        job.centered != 0.0,
    )


@kernel
def _momentum(slot, g, rule):
    """B = momentum · b + fresh · g; returns the direction of the step."""
    b = load(slot) * rule.momentum + g * rule.fresh
    store(slot, b)
    return g + b * rule.momentum if rule.nesterov else b


@kernel
def _adam(m_slot, v_slot, g, rule):
    """M += (1 - β₁)(g - m); v = β₂ v + (1 - β₂) g²; returns m̂ / (√v̂ + ε) · rate."""
    m = load(m_slot)
    m = m + (g - m) * (1.0 - rule.beta1)
    v = load(v_slot) * rule.beta2 + g * g * (1.0 - rule.beta2)
    store(m_slot, m)
    store(v_slot, v)
    # The square root and the division took a third of a step of 784-128-10. √0 is 0 · 1/√tiny.
    root = v * inverse_root(larger(v, smallest_normal(v)))
    return m * rule.adam_rate * inverse(root * rule.root_scale + rule.eps)


@kernel
def _rmsprop(square_slot, mean_slot, momentum_slot, g, rule):
    """V = α v + (1 - α) g²; returns the direction g / (√(v [- mean²]) + ε), with its momentum."""
    v = load(square_slot) * rule.alpha + g * g * (1.0 - rule.alpha)
    store(square_slot, v)
    if rule.centered:
        mean = load(mean_slot)
        mean = mean + (g - mean) * (1.0 - rule.alpha)
        store(mean_slot, mean)
        v = v - mean * mean
    direction = g / (sqrt(v) + rule.eps)
    if rule.momentum > 0.0:
        direction = load(momentum_slot) * rule.momentum + direction
        store(momentum_slot, direction)
    return direction


@kernel
def update_rows(code, rule, w, slot0, slot1, slot2, ld_w, g, ld_g, rows, n):
    """One optimizer step on (rows, n) parameters, whole vectors of columns.

    w, slot0, slot1, slot2 : (rows, ld_w)    slots that the optimizer lacks are not touched
    g                      : (rows, ld_g)    the gradient
    """
    for i in range(rows):
        for j in range(0, n, lanes(w)):
            place = i * ld_w + j
            parameters = load(w + place)
            gradient = load(g + (i * ld_g + j)) * rule.scale
            gradient = gradient + parameters * rule.decay
            if code == SGD:
                step = gradient * rule.rate
            elif code == MOMENTUM:
                step = _momentum(slot0 + place, gradient, rule) * rule.rate
            elif code == ADAM:
                step = _adam(slot0 + place, slot1 + place, gradient, rule)
            else:
                step = _rmsprop(slot0 + place, slot1 + place, slot2 + place, gradient, rule)
                step = step * rule.rate
            store(w + place, parameters * rule.keep - step)


@kernel
def store_rows(out, ld_out, g, ld_g, rows, n):
    """Keep the gradient: out = g on (rows, n), whole vectors of columns."""
    for i in range(rows):
        for j in range(0, n, lanes(g)):
            store(out + (i * ld_out + j), load(g + (i * ld_g + j)))


@kernel
def row_square(g, n):
    """Σ g² over one row, in float64 so that a large network's norm keeps its digits."""
    total = 0.0
    for j in range(n):
        total += float(g[j]) * float(g[j])
    return total
