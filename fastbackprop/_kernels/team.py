"""A team of threads in one kernel: the barrier between them, and the split of rows among them."""

from __future__ import annotations

import os

from numba.core import types

from fastbackprop._kernels.jit import kernel
from fastbackprop._kernels.simd import atomic_add, atomic_load, pointer, spin_hint

# Waits of a few microseconds are spun through; after that the core is offered to others, which is
# what keeps more threads than cores, or a second process, from stalling the team.
_SPINS = 400

if os.name == "nt":
    _yield_core = types.ExternalFunction("SwitchToThread", types.int32())
else:
    _yield_core = types.ExternalFunction("sched_yield", types.int32())


@kernel
def barrier(counter_address, threads, arrivals):
    """Wait until all ``threads`` have arrived; returns the count that ends the next wait.

    ``arrivals`` is the count that ends this one: ``threads`` at the first barrier of a call. The
    counter only grows, so that a fast thread can be at the next barrier while a slow one leaves.
    """
    if threads > 1:
        counter = pointer(counter_address, types.int64)
        atomic_add(counter, 1)
        spins = 0
        while atomic_load(counter) < arrivals:
            spins += 1
            if spins < _SPINS:
                spin_hint()
            else:
                _yield_core()
    return arrivals + threads


@kernel
def share(n, unit, threads, thread):
    """The range [first, last) of ``n`` rows that one thread takes, in multiples of ``unit``."""
    units = (n + unit - 1) // unit
    first = units * thread // threads * unit
    last = units * (thread + 1) // threads * unit
    return min(first, n), min(last, n)
