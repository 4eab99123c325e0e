"""The team: every row has one owner, and no thread passes a barrier before the last arrives."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Memory, address, jit
from numba import types

from fastbackprop._kernels.simd import atomic_add, atomic_load, pointer
from fastbackprop._kernels.team import (
    BARRIER_WORDS,
    SPINS_ALONE,
    SPINS_SHARED,
    barrier,
    share,
    take,
)


@jit
def _share(n, unit, threads, thread):
    return share(n, unit, threads, thread)


def check_shares(n, unit, threads):
    """Ranges that follow on each other, begin at multiples of the unit, and are equally long."""
    ranges = [_share(n, unit, threads, thread) for thread in range(threads)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == n
    for (_, end), (begin, _) in itertools.pairwise(ranges):
        assert begin == end
        assert begin % unit == 0 or begin == n
    sizes = [-(-(last - first) // unit) for first, last in ranges]
    assert min(sizes) >= 0
    assert max(sizes) - min(sizes) <= 1


def test_share_covers_every_row_once():
    for n, unit, threads in itertools.product(range(30), (1, 2, 6, 8), range(1, 8)):
        check_shares(n, unit, threads)


@settings(deadline=None, max_examples=200)
@given(n=st.integers(0, 10**6), unit=st.integers(1, 200), threads=st.integers(1, 70))
def test_any_share(n, unit, threads):
    check_shares(n, unit, threads)


@pytest.mark.parametrize(
    ("n", "unit", "expected"),
    [
        (10, 1, [(0, 5), (5, 10)]),
        (10, 8, [(0, 8), (8, 10)]),
        (7, 8, [(0, 0), (0, 7)]),
        (0, 8, [(0, 0), (0, 0)]),
    ],
)
def test_share_of_two(n, unit, expected):
    assert [_share(n, unit, 2, thread) for thread in range(2)] == expected


@jit
def _take_all(place, threads, rounds, total, parts, takers):
    """Take all parts, round after round with a barrier, as `run` does; counts how often each."""
    takers = pointer(takers, types.int64)
    taken, arrivals = 0, threads
    for _ in range(rounds):
        part = take(place, threads, taken, parts) - taken
        while part < total:
            for i in range(part, min(total, part + parts)):
                atomic_add(takers + i, 1)
            part = take(place, threads, taken + part + parts, parts) - taken
        taken += (total + parts - 1) // parts * parts + threads * parts
        arrivals = barrier(place, threads, arrivals, SPINS_SHARED)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize(("total", "parts"), [(0, 1), (1, 1), (7, 1), (200, 3), (8, 9)])
def test_each_part_is_taken_once_in_each_round(threads, total, parts):
    rounds = 100
    with Memory(np.int64) as memory:
        place, takers = memory.empty(BARRIER_WORDS), memory.empty(max(total, 1))
        place[:], takers[:] = 0, 0
        team = [
            threading.Thread(
                target=_take_all,
                args=(address(place), threads, rounds, total, parts, address(takers)),
            )
            for _ in range(threads)
        ]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        assert list(takers[:total]) == [rounds] * total
        if threads == 1:
            np.testing.assert_array_equal(place, 0)


@jit
def _rounds(place, counter, turn, threads, thread, rounds, seen):
    """Each round: all add to a counter; a barrier; all read it; a barrier. Counts wrong reads."""
    counter, seen = pointer(counter, types.int64), pointer(seen, types.int64)
    wrong = 0
    arrivals = threads
    for number in range(rounds):
        atomic_add(counter, 1)
        seen[thread] = number  # not atomic: the barrier must publish it
        arrivals = barrier(place, threads, arrivals, SPINS_SHARED)
        if atomic_load(counter) != threads * (number + 1):
            wrong += 1
        for other in range(threads):
            if seen[other] != number:
                wrong += 1
        arrivals = barrier(place, threads, arrivals, SPINS_SHARED)
        # One of them works alone from time to time, so that the others wait long enough to sleep.
        if (number + thread) % turn == 0:
            for _ in range(200_000):
                atomic_load(counter)
    return wrong


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_barrier(threads):
    rounds, wrong = 2000 if threads < 3 else 500, []
    with Memory(np.float64) as memory:
        place = memory.copy(np.zeros(BARRIER_WORDS, np.int64))
        counter = memory.copy(np.zeros(1, np.int64))
        seen = memory.copy(np.zeros(threads, np.int64))

        def work(thread, rounds=rounds):
            arguments = address(place), address(counter), 50, threads, thread, rounds
            wrong.append(_rounds(*arguments, address(seen)))

        work(0, rounds=0)  # compile
        team = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        assert wrong == [0] * (threads + 1)
        assert counter[0] == threads * rounds
        assert place[0] == (2 * threads * rounds if threads > 1 else 0)


@jit
def _late(place, thread):
    """A thread that is late until the other has lost its patience, which it tells."""
    if thread == 1:
        while atomic_load(pointer(place, types.int64) + 8) == 0:
            pass
    barrier(place, 2, 2, SPINS_ALONE)


def test_waits_are_short_after_a_late_thread():
    with Memory(np.float64) as memory:
        place = memory.copy(np.zeros(BARRIER_WORDS, np.int64))
        team = [threading.Thread(target=_late, args=(address(place), i)) for i in range(2)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        assert place.tolist() == [2, *[0] * 7, 2 + 2 * 1000, *[0] * 15]
