"""How many cores this process may use: those it may run on, and what its control group grants."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from numba import config


def available_threads(system: Path = Path("/")) -> int:
    """Cores that this process may use, or fewer where NUMBA_NUM_THREADS says so.

    The user may say so, and joblib does in its processes, which share the cores among them. Of a
    container's share of the processors, such as 1.5, the next whole number counts: a thread more
    would wait, at every barrier, for the next period in which the group may run.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, _granted(system), int(config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]


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
