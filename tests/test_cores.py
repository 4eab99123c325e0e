"""Cores that a process may use: affinity, control groups, and what the user says."""

import os

import pytest
from numba import config

from fastbackprop.cores import available_threads


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
