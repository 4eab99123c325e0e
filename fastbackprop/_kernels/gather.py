"""Rows of the caller's data, of any numeric type and strides, into a padded batch of floats."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.jit import inlined_kernel, kernel
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
    prefetch,
    select,
    store,
)

# Rows in random order come from far away, and the processor foresees none of them: while a row is
# copied, one that is at least so far behind it is asked for. That took the gathering of ten images
# from 3.1 to 1.9 us, in a step of 784-30-10 of 9.9. Not all lines before the row, which took 2.3:
# requests that wait for a place hold up those behind them. To ask for the next batch's rows while
# products are made took less time here, but 0.4 us more there, and gained nothing at 784-128-10.
_AHEAD_BYTES = 2048


@kernel
def _same_type(address, kind, like):
    return load(pointer(address, like))


@kernel
def _bytes(address, kind, like):
    return load_any(address, 0, load(like))


@kernel
def _any_type(address, kind, like):
    return load_any(address, kind, load(like))


@kernel
def _gather_elements(place, source, stride, kind, factor, shift, n):
    """What is left of a row in `_gather_dense_rows`, ``n`` elements one by one, and the padding.

    Returns, for each lane, bits that are 0 where all are finite.
    """
    seen = as_bits(factor) & 0
    for j in range(n):
        place[j] = load_any(source + j * stride, kind, place[0])
    for j in range(0, n, lanes(place)):
        v = fma(load(place + j), factor, shift)
        v = select(live_lanes(v, j, n), v, 0.0)
        seen = seen | as_bits(v - v)
        store(place + j, v)
    return seen


@inlined_kernel
def _gather_dense_rows(vector_at, out, ld_out, left, right, job, first, last, begin):
    """`gather_rows` where every element is stored, ``vector_at`` reads those of a vector.

    Elements are converted first and rescaled after, so that strides do not change a bit.
    """
    order = pointer(job.order, np.int64(0))
    kind, size, stride, width = job.x_kind, job.x_size, job.x_column, right - left
    # In registers: any store could change them in the job, as far as LLVM knows.
    has_order, x, x_row = job.order != 0, job.x + left * stride, job.x_row
    zero = fill(load(out), 0.0)
    factor, shift = fill(zero, job.x_scale), fill(zero, job.x_offset)
    whole = width - width % lanes(out) if stride == size else 0
    live = live_lanes(zero, whole, width)
    # What is left is read as a vector, too, if that does not go beyond the data: rows of 4 take a
    # third of the time. A masked load would not do: LLVM 20 made an ordinary one of it.
    last_readable = 0  # the last address of a whole vector; all are beyond it in strided rows
    if stride == size:
        last_readable = job.x + max(0, (job.n - 1) * job.x_row) + (right - lanes(out)) * size
    # The bits of v - v are 0 for what is finite and NaN else: an OR of them takes one cycle, a sum
    # would make every vector wait four for the one before.
    seen = as_bits(zero)
    distance = max(1, _AHEAD_BYTES // max(1, width * size))
    end = (begin // job.n + 1) * job.n  # of the epoch in whose order ``begin`` is
    for i in range(first, last):
        row = order[begin + i] if has_order else begin + i
        source, place = x + row * x_row, out + (i * ld_out + left)
        following = min(begin + i + distance, end - 1)
        ahead = x + (order[following] if has_order else following) * x_row
        for j in range(0, whole, lanes(out)):
            prefetch(ahead + j * size)
            v = fma(vector_at(source + j * size, kind, out), factor, shift)
            seen = seen | as_bits(v - v)
            store(place + j, v)
        if whole == width:
            continue
        prefetch(ahead + whole * size)
        rest = source + whole * size
        if rest <= last_readable:
            v = select(live, fma(vector_at(rest, kind, out), factor, shift), zero)
            seen = seen | as_bits(v - v)
            store(place + whole, v)
        else:
            seen = seen | _gather_elements(
                place + whole, rest, stride, kind, factor, shift, width - whole
            )
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
    ``out`` is padded to whole vectors, and the padding is written.
    """
    if job.x_starts != 0:
        order = pointer(job.order, np.int64(0))
        finite = True
        for i in range(first, last):
            row = order[begin + i] if job.order != 0 else begin + i
            finite &= _gather_compressed_row(out + (i * ld_out + left), job, row, left, right)
        return finite
    # LLVM does not take the choice of a type out of the loop: 12 cycles a vector instead of 4.
    if job.x_kind >= FIRST_FLOAT and job.x_size == itemsize(out):
        return _gather_dense_rows(_same_type, out, ld_out, left, right, job, first, last, begin)
    if job.x_kind == 0:
        return _gather_dense_rows(_bytes, out, ld_out, left, right, job, first, last, begin)
    return _gather_dense_rows(_any_type, out, ld_out, left, right, job, first, last, begin)


@kernel
def prefetch_targets(like, n_out, job, first, last, begin):
    """Ask for the targets of rows [first, last), which are gathered once the outputs are there."""
    order = pointer(job.order, np.int64(0))
    has_labels = job.labels != 0
    address = job.labels if has_labels else job.targets
    row_bytes = 8 if has_labels else n_out * itemsize(like)
    if job.order != 0:
        for i in range(first, last):
            target = address + order[begin + i] * row_bytes
            prefetch(target)
            prefetch(target + row_bytes - 1)  # often in another line, and rarely in a third


@kernel
def gather_targets(out, ld_out, n_out, job, first, last, begin):
    """Rows [first, last) of the targets: one-hot from labels, or copied; the padding is zero."""
    order = pointer(job.order, np.int64(0))
    labels = pointer(job.labels, np.int64(0))
    targets = pointer(job.targets, out)
    has_order, has_labels = job.order != 0, job.labels != 0
    zero = fill(load(out), 0.0)
    whole = n_out - n_out % lanes(out)
    live = live_lanes(zero, whole, n_out)
    last_readable = job.n * n_out - lanes(out)  # the last element that begins a whole vector
    for i in range(first, last):
        row = order[begin + i] if has_order else begin + i
        target, place = out + i * ld_out, row * n_out
        if has_labels:
            for j in range(0, n_out, lanes(out)):
                store(target + j, zero)
            target[labels[row]] = 1.0
            continue
        for j in range(0, whole, lanes(out)):
            store(target + j, load(targets + (place + j)))
        if whole == n_out:
            continue
        if place + whole <= last_readable:
            store(target + whole, select(live, load(targets + (place + whole)), zero))
        else:
            store(target + whole, zero)
            for j in range(whole, n_out):
                target[j] = targets[place + j]
