"""How many cores this process may use: those it may run on, and what its control group grants."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from numba import config


def available_threads(system: Path = Path("/")) -> int:
    """Cores that this process may use, or fewer where NUMBA_NUM_THREADS says so.

    The user may say so, and joblib does in its processes, which share the cores among them. Of a
    container's share of the processors, such as 1.5, the next whole number counts: a thread more
    would wait, at every barrier, for the next period in which the group may run.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _granted(system), int(config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]


def current_core() -> int:
    """The core that this thread runs on at the moment; -1 where the system does not say."""
    ask = _asks_for_core()
    return -1 if ask is None else ask()


def spread(workers: Mapping[int, int | None], threads: int, place: int) -> set[int]:
    """Let the workers of a team, by their numbers, wake on cores that no two of its threads share.

    Thread 0 may be the caller's, which is never moved: it runs on core ``place``. Linux may wake a
    thread on the core of another. There they take turns, each while the other sleeps at a barrier,
    so that the core never looks busy enough to take one away: a step of 784-30-10 took 30 µs in
    place of 5, for 10 to 30 ms in every other call. Where there are more cores than threads each
    may choose among several.

    Returns the cores for `unbind`, which each worker calls once it is awake: two that stayed bound
    beside a process that keeps one of two cores busy took 760 to 1,350 µs for a step of 784-128-10
    that takes 170 there.
    """
    if not hasattr(os, "sched_setaffinity"):
        return set()
    allowed = os.sched_getaffinity(0)
    cores = sorted(allowed, key=lambda core: (core != place, core))
    if threads > len(cores):
        return set()
    for number, thread in workers.items():
        if thread is not None:
            _bind(thread, cores[number::threads])
    return allowed


def unbind(cores: set[int]) -> None:
    """Let this thread run on all of these cores, the one where it is now among them."""
    if cores:
        _bind(threading.get_native_id(), cores)


def _bind(thread: int, cores: Collection[int]) -> None:
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setaffinity(thread, cores)


@functools.cache
def _asks_for_core() -> Callable[[], int] | None:
    """The C library's function that tells the core, where it has it."""
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None


@functools.cache  # three files: 100 µs, many times what a prediction takes
def _granted(system: Path) -> int:
    """What Linux lets this process's control groups use of the processors, in whole ones."""
    # A group without a limit has a quota of "max", or of -1.
    granted = [-(-quota // period) for quota, period in _quotas(system) if quota > 0 < period]
    return min(granted, default=sys.maxsize)


def _quotas(system: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor in so many, of each group around this process, inner and outer.

    Of both versions of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, section
    5-1, and https://docs.kernel.org/scheduler/sched-bwc.html.
    """
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        places = [""]
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            # The folder may have them in another order: https://github.com/moby/moby/issues/9365
            places = [controllers, "cpu"]
        # In a container a group may have its name outside of it, where there is no such folder.
        group = PurePosixPath(name.lstrip("/"))
        for place, folder in itertools.product(places, (group, *group.parents)):
            path = system / "sys/fs/cgroup" / place / folder
            if controllers:
                words = [_text(path / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")]
            else:
                words = _text(path / "cpu.max").split()
            if len(words) == 2 and all(word.isdecimal() for word in words):
                yield int(words[0]), int(words[1])


def _text(path: Path) -> str:
    """The content of a file, or nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
