"""Cores that a process may use: affinity, control groups, and what the user says."""

import itertools
import os
import sys
import threading

import pytest
from numba import config

from fastbackprop import cores, team
from fastbackprop.cores import available_threads, current_core, spread, unbind


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 16)


def make(system, files):
    for path, text in files.items():
        (system / path).parent.mkdir(parents=True, exist_ok=True)
        (system / path).write_text(text)


QUOTA = "sys/fs/cgroup/cpu,cpuacct/{}cpu.cfs_quota_us"
PERIOD = "sys/fs/cgroup/cpu,cpuacct/{}cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        # Version 2: of this group, of one around it, and in a container, which sees neither's name.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "9900000 100000\n"}, 16),
        # The smallest of all counts.
        (
            {
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/cpu.max": "500000 100000\n",
            },
            5,
        ),
        # Version 1.
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n",
                QUOTA.format("a/"): "300000\n",
                PERIOD.format("a/"): "100000\n",
                QUOTA.format(""): "-1\n",
                PERIOD.format(""): "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/1\n",
                QUOTA.format(""): "150000\n",
                PERIOD.format(""): "100000\n",
            },
            2,
        ),
        # Its name and that of the folder differ in CentOS 7, where "cpu" is a link to the folder.
        (
            {
                "proc/self/cgroup": "3:cpuacct,cpu:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        # What cannot be understood sets no limit.
        ({"proc/self/cgroup": "nonsense\n\n:::\n0::/a\n", "sys/fs/cgroup/a/cpu.max": "two"}, 16),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 0\n"}, 16),
    ],
)
def test_control_groups(tmp_path, files, expected):
    make(tmp_path, files)
    assert available_threads(tmp_path) == expected


def test_fewer_by_affinity_or_by_the_user(tmp_path, monkeypatch):
    make(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert available_threads(tmp_path) == 8
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 5)
    assert available_threads(tmp_path) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 7})
    assert available_threads(tmp_path) == 2


def test_a_system_without_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_threads(tmp_path) == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(tmp_path) == 1


@pytest.fixture
def placed(monkeypatch):
    """What each thread was allowed to run on."""
    cores = {}
    monkeypatch.setattr(os, "sched_setaffinity", cores.__setitem__, raising=False)
    return cores


def test_threads_are_spread_over_the_cores(placed):
    assert spread({0: 100, 1: 101, 2: 102}, 3, -1) == set(range(16))
    assert placed == {
        100: [0, 3, 6, 9, 12, 15],
        101: [1, 4, 7, 10, 13],
        102: [2, 5, 8, 11, 14],
    }


def test_workers_keep_away_from_the_callers_core(placed):
    spread({1: 101}, 2, 5)
    assert placed == {101: [0, 2, 4, 7, 9, 11, 13, 15]}
    spread({1: 101}, 2, 0)
    assert placed == {101: [1, 3, 5, 7, 9, 11, 13, 15]}


def test_more_threads_than_cores_are_left_to_the_system(placed):
    assert spread(dict(enumerate(range(100, 117))), 17, -1) == set()
    unbind(set())
    assert placed == {}


@pytest.mark.parametrize(
    "error", [PermissionError(1, ""), ProcessLookupError(3, ""), OSError(22, "")]
)
def test_a_system_that_refuses(monkeypatch, error):
    def refuse(thread, cores):
        assert thread is not None
        raise error

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    unbind(spread({1: 101, 2: None}, 3, 0))
    monkeypatch.delattr(os, "sched_setaffinity")
    assert spread({1: 101}, 2, 0) == set()


def test_a_library_that_does_not_tell_the_core(monkeypatch):
    def fails(error):
        def load(name):
            raise error

        return load

    libraries = [lambda name: object(), fails(OSError()), fails(TypeError())]
    for library in libraries:
        monkeypatch.setattr(cores.ctypes, "CDLL", library)
        cores._asks_for_core.cache_clear()
        assert current_core() == -1
    cores._asks_for_core.cache_clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it")
def test_the_core_of_this_thread(monkeypatch):
    monkeypatch.undo()
    allowed = os.sched_getaffinity(0)
    try:
        for core in allowed:
            os.sched_setaffinity(0, {core})
            assert current_core() == core
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("background", [False, True])
def test_a_team_leaves_the_callers_thread_where_it_is(monkeypatch, background):
    """Its workers wake apart, from the caller's core, too, and are free once they are awake."""
    place = itertools.cycle([3, 3, 7])
    monkeypatch.setattr(team, "current_core", lambda: next(place))
    monkeypatch.setattr(team, "compile_kernels", lambda dtype: None)
    caller, bound = threading.get_native_id(), []

    def bind(thread, own):
        threads = {each.native_id: each.name for each in threading.enumerate()}
        bound.append((threads[thread], threading.get_native_id() == caller, set(own)))

    monkeypatch.setattr(os, "sched_setaffinity", bind, raising=False)
    job = IdleJob()
    with team.Team(3, background=background) as workers:
        workers.run(job, 1)
        assert job.taken == [0]
        names_now = [thread.name for thread in threading.enumerate()]
        assert ("fastbackprop-1" in names_now) == background  # else nobody was needed
        bound.clear()
        for _ in range(3):
            workers.run(job)
        assert sorted(job.taken) == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    names = [f"fastbackprop-{i}" for i in range(0 if background else 1, 3)]
    assert [name for name, by_caller, _ in bound if by_caller] == 3 * names
    assert sorted(name for name, by_caller, _ in bound if not by_caller) == sorted(3 * names)
    assert all(own == set(range(16)) for _, by_caller, own in bound if not by_caller)
    first = {name: own for name, by_caller, own in bound[::-1] if by_caller}
    assert sum(map(len, first.values())) == (16 if background else 10)
    assert len(set.union(*first.values())) == (16 if background else 10)
    assert (3 in set.union(*first.values())) == background


def test_a_team_of_one_goes_where_it_likes(monkeypatch, placed):
    monkeypatch.setattr(team, "compile_kernels", lambda dtype: None)
    with team.Team(1) as workers:
        workers.run(IdleJob())
    assert placed == {}


class IdleJob:
    """What a team needs of a job."""

    dtype = None

    def __init__(self):
        self.taken = []

    def begin(self):
        pass

    def run(self, number):
        self.taken.append(number)
