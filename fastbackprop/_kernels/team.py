"""A team of threads in one kernel: the barrier between them, and which part of work each does."""

from __future__ import annotations

import os

from numba.core import types

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import atomic_add, atomic_load, pointer, spin_hint

# A wait is spun through; then the core is offered to others, a few times; then the thread sleeps.
# Without sleep, a process that competes for a core got a whole time slice of 3 ms at every barrier
# (Linux 6.18 puts off who yields): four threads on two cores, one of them taken, took 440 to 1,030
# ms for an epoch that takes 12 ms with it, as it does with no competitor. No yields at all: 30 ms,
# since each wait for a thread without a core then lasts a sleep. 100 yields: 12 to 110.
_YIELDS = 16

# How long a wait is spun through: some 2 ms where each thread has a core, which no other thread of
# the team waits for, and some 20 µs where threads share cores. A step of 1.1 ms on two threads, one
# of which is now and then late, took 1.8 ms with 20 µs: a sleep of 20 µs lasts 70.
SPINS_ALONE = 40_000
SPINS_SHARED = 400

# A thread that is later than that has lost its core to another program. While this thread spins
# Linux leaves the late one to wait for its turn there; when it sleeps, the late one may have its
# core. So the next waits are short: an epoch of two threads, 5 ms alone, takes 9 to 14 ms beside a
# process that keeps a core busy, and took 36 to 52.
_SHORT_WAITS = 1000

# A barrier's memory: the counter and, each on another cache line, the count up to which waits are
# short, and how many parts of the work have been taken.
BARRIER_WORDS = 24
_SHORT_UNTIL = 8
_TAKEN = 16
BARRIER_OPEN = 1 << 62  # a count at which nobody waits any longer

if os.name == "nt":
    _yield_core = types.ExternalFunction("SwitchToThread", types.int32())
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))
    _SLEEP = 0  # its unit is a millisecond, which is too long; 0 is another way to yield
else:
    _yield_core = types.ExternalFunction("sched_yield", types.int32())
    _sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _SLEEP = 20  # microseconds; Linux makes about 70 of them


@kernel
def barrier(counter_address, threads, arrivals, most_spins):
    """Wait until all ``threads`` have arrived; returns the count that ends the next wait.

    At the address are BARRIER_WORDS int64, all zero at first. ``arrivals`` is the count that ends
    this wait: ``threads`` at the first barrier of a call. The counter only grows, so that a fast
    thread can be at the next barrier while a slow one leaves. ``most_spins`` is SPINS_ALONE or
    SPINS_SHARED.
    """
    if threads > 1:
        counter = pointer(counter_address, types.int64)
        atomic_add(counter, 1)
        if arrivals < atomic_load(counter + _SHORT_UNTIL):
            most_spins = SPINS_SHARED
        spins = 0
        while atomic_load(counter) < arrivals:
            spins += 1
            if spins == SPINS_ALONE:
                counter[_SHORT_UNTIL] = arrivals + _SHORT_WAITS * threads
            if spins < most_spins:
                spin_hint()
            elif spins < most_spins + _YIELDS:
                _yield_core()
            else:
                _sleep(_SLEEP)
    return arrivals + threads


@kernel
def share(n, unit, threads, thread):
    """The range [first, last) of ``n`` rows that one thread takes, in multiples of ``unit``."""
    units = (n + unit - 1) // unit
    first = units * thread // threads * unit
    last = units * (thread + 1) // threads * unit
    return min(first, n), min(last, n)


@kernel
def take(counter_address, threads, taken, parts):
    """Take the next ``parts`` parts of some work; returns how many the team had taken before.

    So a thread that is late takes fewer. The count is in the barrier's memory. A thread alone
    counts itself: ``taken`` is what it has taken.
    """
    if threads == 1:
        return taken
    return atomic_add(pointer(counter_address, types.int64) + _TAKEN, parts)


@kernel
def is_stopped(flag):
    """Whether the int64 at the address ``flag``, if it is not 0, has been set.

    It stays set until the threads return, each of which must look once more before the barrier that
    all leave on the same decision.
    """
    return flag != 0 and atomic_load(pointer(flag, types.int64)) != 0
