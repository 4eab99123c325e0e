"""Rows of the caller's data, of any numeric type and strides, into a padded batch of floats."""

from __future__ import annotations

import numpy as np
from numba import literal_unroll

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import fill, fma, itemsize, lanes, load, load_as, pointer, store

# The kernel is told an element type by its position here.
ELEMENT_TYPES = (
    np.uint8(0),
    np.int8(0),
    np.uint16(0),
    np.int16(0),
    np.uint32(0),
    np.int32(0),
    np.uint64(0),
    np.int64(0),
    np.float32(0),
    np.float64(0),
)


@kernel
def _gather_row(out, source, column_stride, n_in, scale, offset):
    """out[j] = source[j] · scale + offset for j < n_in; column n_in is set to 1.

    Elements are converted first and rescaled after, so that strides do not change a bit. ``out``
    is padded to whole vectors, and the padding may be written.
    """
    vector = load(out)
    factor, shift = fill(vector, scale), fill(vector, offset)
    whole = n_in - n_in % lanes(out) if column_stride == 1 else 0
    for j in range(0, whole, lanes(out)):
        store(out + j, fma(load_as(source + j, vector), factor, shift))
    for j in range(whole, n_in):
        out[j] = source[j * column_stride]
    for j in range(whole, n_in, lanes(out)):
        store(out + j, fma(load(out + j), factor, shift))
    out[n_in] = 1.0


@kernel
def gather_rows(out, ld_out, n_in, job, first, last, begin):
    """Rows [first, last) of ``out`` from the caller's data, rescaled, with a last column of ones.

    Row ``i`` is row ``order[begin + i]`` of the data, or ``begin + i`` where there is no order.
    """
    order = pointer(job.order, np.int64(0))
    kind = 0
    for element in literal_unroll(ELEMENT_TYPES):
        if job.x_kind == kind:
            columns = job.x_column // itemsize(element)
            for i in range(first, last):
                row = order[begin + i] if job.order != 0 else begin + i
                source = pointer(job.x + row * job.x_row, element)
                _gather_row(out + i * ld_out, source, columns, n_in, job.x_scale, job.x_offset)
        kind += 1


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
