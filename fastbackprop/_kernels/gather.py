"""Rows of the caller's data, of any numeric type and strides, into a padded batch of floats."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    FIRST_FLOAT,
    any_lane,
    as_bits,
    fill,
    fma,
    itemsize,
    lanes,
    live_lanes,
    load,
    load_any,
    pointer,
    select,
    store,
)


@kernel
def _same_type(address, kind, out, like):
    return load(pointer(address, out))


@kernel
def _bytes(address, kind, out, like):
    return load_any(address, 0, like)


@kernel
def _any_type(address, kind, out, like):
    return load_any(address, kind, like)


@kernel
def _convert(vector_at, out, source, kind, size, width, factor, shift):
    """out[j] = source[j] · factor + shift for whole vectors; returns the bits of all v - v."""
    # They are 0 for what is finite and NaN else: an OR takes one cycle, a sum would make every
    # vector wait four for the one before.
    seen = as_bits(fill(factor, 0.0))
    for j in range(0, width, lanes(out)):
        v = fma(vector_at(source + j * size, kind, out, factor), factor, shift)
        seen = seen | as_bits(v - v)
        store(out + j, v)
    return seen


@kernel
def _gather_row(out, source, end, kind, size, stride, width, scale, offset):
    """out[j] = source[j] · scale + offset for j < width; returns whether all are finite.

    ``source`` is the address of the first of elements of type ``kind``, ``size`` bytes each and
    ``stride`` bytes apart; up to ``end`` is memory that can be read.

    Elements are converted first and rescaled after, so that strides do not change a bit. ``out``
    is padded to whole vectors, and the padding is written.
    """
    zero = fill(load(out), 0.0)
    factor, shift = fill(zero, scale), fill(zero, offset)
    whole = width - width % lanes(out) if stride == size else 0
    # LLVM does not take the choice of a type out of the loop: 12 cycles a vector instead of 4.
    if kind >= FIRST_FLOAT and size == itemsize(out):
        seen = _convert(_same_type, out, source, kind, size, whole, factor, shift)
    elif kind == 0:
        seen = _convert(_bytes, out, source, kind, size, whole, factor, shift)
    else:
        seen = _convert(_any_type, out, source, kind, size, whole, factor, shift)
    # What is left is read as a vector, too, if that does not go beyond the data: rows of 4 take a
    # third of the time. LLVM 20 makes an ordinary load of a masked one, which would.
    is_readable = stride == size and source + (whole + lanes(out)) * size <= end
    if not is_readable:
        for j in range(whole, width):
            out[j] = load_any(source + j * stride, kind, out[j])
    for j in range(whole, width, lanes(out)):
        v = load_any(source + j * size, kind, zero) if is_readable else load(out + j)
        v = fma(v, factor, shift)
        v = select(live_lanes(v, j, width), v, zero)
        seen = seen | as_bits(v - v)
        store(out + j, v)
    return not any_lane(seen != 0)


@kernel
def _gather_compressed_row(out, job, row, left, right):
    """Columns [left, right) of a row of which only some elements are stored; the others are 0.

    Returns whether all are finite. ``out`` is padded to whole vectors, and the padding is written.
    """
    starts = pointer(job.x_starts, np.int64(0))
    columns = pointer(job.x_columns, np.int64(0))
    empty = fill(load(out), job.x_offset)
    for j in range(0, right - left, lanes(out)):
        store(out + j, select(live_lanes(empty, j, right - left), empty, 0.0))
    finite = True
    for k in range(starts[row], starts[row + 1]):
        if left <= columns[k] and columns[k] < right:
            v = load_any(job.x + k * job.x_size, job.x_kind, out[0]) * job.x_scale
            finite &= v - v == 0.0
            out[columns[k] - left] += v  # a column may occur twice
    return finite


@kernel
def gather_rows(out, ld_out, left, right, job, first, last, begin):
    """Rows [first, last) and columns [left, right) of ``out`` from the caller's data, rescaled.

    Row ``i`` is row ``order[begin + i]`` of the data, or ``begin + i`` where there is no order.
    Returns whether every value is finite: it costs nothing here, and a pass over memory elsewhere.
    Asking for the next batch's rows ahead was tried at 784-30-10 on float32 images in random order:
    no gain for the first lines of a row, longer for all; on a noisy machine.
    """
    order = pointer(job.order, np.int64(0))
    finite = True
    end = job.x + max(0, (job.n - 1) * job.x_row) + right * job.x_size
    for i in range(first, last):
        row = order[begin + i] if job.order != 0 else begin + i
        if job.x_starts != 0:
            finite &= _gather_compressed_row(out + (i * ld_out + left), job, row, left, right)
            continue
        source = job.x + row * job.x_row + left * job.x_column
        place = out + (i * ld_out + left)
        finite &= _gather_row(
            place,
            source,
            end,
            job.x_kind,
            job.x_size,
            job.x_column,
            right - left,
            job.x_scale,
            job.x_offset,
        )
    return finite


@kernel
def gather_targets(out, ld_out, n_out, job, first, last, begin):
    """Rows [first, last) of the targets: one-hot from labels, or copied; the padding is zero."""
    order = pointer(job.order, np.int64(0))
    labels = pointer(job.labels, np.int64(0))
    targets = pointer(job.targets, out)
    for i in range(first, last):
        row = order[begin + i] if job.order != 0 else begin + i
        target = out + i * ld_out
        for j in range(0, n_out, lanes(out)):
            store(target + j, fill(load(target), 0.0))
        if job.labels != 0:
            target[labels[row]] = 1.0
        else:
            for j in range(n_out):
                target[j] = targets[row * n_out + j]
