"""A batch on its way into the first layer: gathered or left in place, without columns of zeros."""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.columns import (
    BATCHES_WITHOUT,
    IS_COMPACT,
    WAIT,
    column_list,
    compact_rows,
    list_columns,
    mark_columns,
)
from fastbackprop._kernels.dense import finish_input, is_split, layer_of
from fastbackprop._kernels.gather import gather_rows
from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.records import STOP_BAD_ROW
from fastbackprop._kernels.simd import FIRST_FLOAT, address_of, itemsize, lanes, pointer
from fastbackprop._kernels.team import is_stopped, share

# Rows of a batch between two looks at the request to stop: a few milliseconds for all but products,
# which look themselves. Enough that a panel of weights that is packed for them pays.
PIECE_ROWS = 1024


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
def gather_batch(job, work, step, first, last, begin, left, right):
    """Columns [left, right) of the batch, the last of which is one of ones; are all finite?"""
    head = layer_of(job, 0)
    width = min(right, head.n_in)
    finite = gather_rows(work + head.x, head.ld_x, left, width, job, first, last, begin)
    finish_input(job, 0, work, step, first, last, left, right)
    return finite


@kernel
def gather_pieces(job, work, step, first, last, begin, left, right):
    """`gather_batch`, a piece at a time, until the job is stopped."""
    finite = True
    for top in range(first, last, PIECE_ROWS):
        if is_stopped(job.stop):
            break
        end = min(last, top + PIECE_ROWS)
        finite &= gather_batch(job, work, step, top, end, begin, left, right)
    return finite


@kernel
def half_of(layer, half):
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
def _compact_input(job, work, scratch, half, n, first, last):
    """List the marked columns of a half of the batch, and make rows [first, last) compact.

    Returns whether that is worth it for ``n`` rows; else the half is used whole.
    """
    layer = layer_of(job, 0)
    left, right = half_of(layer, half)
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
def looks_for_zeros(job, scratch):
    """Whether to look for columns of zeros in this batch; until then its columns are used whole."""
    # What is no zero after it is rescaled is no zero in any batch.
    if job.columns == 0 or job.x_offset != 0.0:
        return False
    use_all_columns(job, scratch)
    first = column_list(job, scratch, 0)
    first[WAIT] -= 1
    return first[WAIT] < 0


@kernel
def use_all_columns(job, scratch):
    """Use the batch whole until its live columns are listed, which not every division does."""
    if job.columns != 0:
        for half in range(2):
            column_list(job, scratch, half)[IS_COMPACT] = 0


@kernel
def forget_columns(job, scratch):
    """Begin a call: other threads may have taken other steps before it than this one."""
    use_all_columns(job, scratch)
    if job.columns != 0:
        column_list(job, scratch, 0)[WAIT] = 0


@kernel
def leave_zeros_out(job, work, scratch, n, thread, threads):
    """Make what thread ``thread`` of ``threads`` multiplies of the compact batch of ``n`` rows.

    Of a team of two each has marked the half that it multiplies; else all columns are marked.
    """
    worth = False
    for half in range(2):
        if threads != 2 or half == thread:
            first, last = half_rows(n, threads, thread, half)
            worth |= _compact_input(job, work, scratch, half, n, first, last)
    if not worth:
        column_list(job, scratch, 0)[WAIT] = BATCHES_WITHOUT


@kernel
def half_rows(n, threads, thread, half):
    """The rows that a thread multiplies with a half of the inputs: n of 2n in all, in one row."""
    first, last = share(2 * n, 1, threads, thread)
    return min(max(first - half * n, 0), n), min(max(last - half * n, 0), n)


@kernel
def _products_are_finite(job, work, n):
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
def look_at_rows(job, work, n, begin):
    """Report that ``n`` rows which were multiplied where they lie are not all finite.

    Products can also overflow, so that the rows are looked at where these are not finite.
    """
    if not _products_are_finite(job, work, n):
        width = layer_of(job, 0).n_in + 1
        if not gather_batch(job, work, 0, 0, n, begin, 0, width):
            pointer(job.stop, np.int64(0))[STOP_BAD_ROW] = 1
