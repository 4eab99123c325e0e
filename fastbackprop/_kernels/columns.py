"""The columns of a batch that are not zero in all of its rows, and the batch without the others.

A column of zeros adds nothing to a product, and the gradient of its row of weights is zero. Of the
784 pixels of MNIST half are zero throughout a batch of 10 images, a third throughout one of 128; of
one-hot features more. So the first layer multiplies live columns only: a copy of the batch has them
side by side, and the rows of weights that belong to them are packed or passed over. The bits are
those of the whole product, since a fused multiply-add of zero changes no sum.

Each half of the inputs (all of them, where sums are not made in two halves) has a list in the
scratch memory of every thread: three numbers, then a pair for each run of live columns, which ends
with the vector of columns that it lies in.
"""

from __future__ import annotations

import numpy as np

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import (
    address_of,
    as_bits,
    fill,
    lane_bits,
    lanes,
    load,
    pointer,
    store,
    trailing_zeros,
)

# The numbers of a list, and the first of its pairs: a run's first column, and where that is in the
# compact batch. One more pair says where the next run would be.
IS_COMPACT = 0  # whether there is a compact batch; else x is used whole
RUNS = 1
WAIT = 2  # of the first list: batches in which not to look, after one that was hardly worth it
FIRST_RUN = 3

# With fewer inputs there is too little to gain.
SPARSE_INPUTS = 64

# In a row, a dead column saves about a cycle for each vector of outputs, forward and in the
# gradient; to copy a run takes 8. Whatever the rows, a run takes 300 to be listed and for products
# to begin at it. A batch is made compact where that gains twice what it costs: not for 784 inputs
# and 30 outputs, of which 10 rows have half live in 50 runs, where a step took 12.5 us instead of
# 9.6. And a vector must fit behind the compact rows.
_COPY_CYCLES = 8
_RUN_CYCLES = 300
_LIVE_SHARE = 7 / 8
BATCHES_WITHOUT = 16


def list_words(ld_x: int) -> int:
    """Integers that a list may need, for rows of ``ld_x`` elements: whole cache lines."""
    return -(-(FIRST_RUN + 2 * (ld_x + 1)) // 8) * 8


@kernel
def column_list(job, scratch, half):
    """The list of a half of the inputs of the first layer, of the thread with this scratch."""
    return pointer(address_of(scratch + job.columns), np.int64(0)) + half * job.list_words


@kernel
def mark_columns(marks, x, ld_x, n, left, right):
    """One bit a column of [left, right): whether any of ``n`` rows of x is not zero there.

    marks : one integer for each vector of columns, from that of column 0 on
    """
    for j in range(left, right, lanes(x)):
        seen = as_bits(load(x + j))
        for i in range(ld_x, n * ld_x, ld_x):
            seen = seen | as_bits(load(x + (i + j)))
        # Without the sign, since a dropped input is -0.
        marks[j // lanes(x)] = lane_bits((seen << 1) != 0)


@kernel
def list_columns(columns, marks, x, n, vectors, left, right):
    """List the marked columns of [left, right); is it worth leaving the others out?

    It is for ``n`` rows, which are multiplied into so many ``vectors`` of outputs.
    """
    runs, count = FIRST_RUN, 0
    for j in range(left, right, lanes(x)):
        bits = marks[j // lanes(x)]
        if right - j < lanes(x):
            bits &= (1 << (right - j)) - 1
        column = j
        while bits != 0:
            dead = trailing_zeros(bits)
            bits >>= dead
            live = trailing_zeros(~bits)
            bits >>= live
            columns[runs] = column + dead
            columns[runs + 1] = count
            runs += 2
            column += dead + live
            count += live
    columns[runs] = right
    columns[runs + 1] = count
    columns[RUNS] = (runs - FIRST_RUN) // 2
    dead = right - left - count
    cost = columns[RUNS] * (_COPY_CYCLES * n + _RUN_CYCLES)
    worth = dead * vectors * n >= 2 * cost and dead * n >= 2 * count
    fits = count <= _LIVE_SHARE * (right - left)
    columns[IS_COMPACT] = 1 if worth and fits else 0
    return columns[IS_COMPACT] != 0


@kernel
def live_columns(columns):
    """How many columns a list has."""
    return columns[FIRST_RUN + 2 * columns[RUNS] + 1]


@kernel
def run_at(columns, run, column):
    """Go on from ``run`` to the first that ends behind ``column``; where there is none, the end."""
    end = FIRST_RUN + 2 * columns[RUNS]
    while run < end and columns[run] + columns[run + 3] - columns[run + 1] <= column:
        run += 2
    return run


@kernel
def columns_before(columns, run, column):
    """How many listed columns come before ``column``, which `run_at` found ``run`` for."""
    return columns[run + 1] + max(0, column - columns[run])


@kernel
def next_columns(address, run, left, right):
    """The first listed columns in [left, right) that lie side by side, as a range, and a run.

    The search begins at that run; the one that is returned is where to go on. The range is empty,
    and at the end, where there are no more.
    """
    columns = pointer(address, np.int64(0))
    run = run_at(columns, run, left)
    left = min(right, max(left, columns[run]))
    stop, end = left, FIRST_RUN + 2 * columns[RUNS]
    while run < end and columns[run] <= stop and stop < right:
        stop = min(right, columns[run] + columns[run + 3] - columns[run + 1])
        run += 2
    return left, stop, run


@kernel
def compact_rows(out, x, ld, columns, first, last):
    """out[i, :] = the listed columns of x[i], for rows [first, last), and what a vector has beyond.

    A run is copied as one vector, and what it has too much is overwritten by the next.
    """
    end = FIRST_RUN + 2 * columns[RUNS]
    for i in range(first * ld, last * ld, ld):
        for k in range(FIRST_RUN, end, 2):
            store(out + (i + columns[k + 1]), load(x + (i + columns[k])))


@kernel
def spread_rows(g, ld, n, rows, count, columns, run, top):
    """Rows [top, top + rows) of a gradient, from its last ``count``, which are the listed ones.

    g : (rows, n)    whole vectors of columns; the others become zero

    It goes forward in place: a row is never before the one that it takes.
    """
    zero = fill(load(g), 0.0)
    row, source = 0, rows - count
    while row < rows:
        begin = min(rows, max(row, columns[run] - top))
        end = min(rows, max(begin, columns[run] + columns[run + 3] - columns[run + 1] - top))
        for i in range(row, begin):
            for j in range(i * ld, i * ld + n, lanes(g)):
                store(g + j, zero)
        shift = (source - begin) * ld
        for i in range(begin, end):
            for j in range(i * ld, i * ld + n, lanes(g)):
                store(g + j, load(g + (j + shift)))
        source += end - begin
        row = end
        run += 2
