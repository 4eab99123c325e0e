"""No kernel touches a byte beyond its buffers, nor depends on one that it has not written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="protects pages as Linux does")
FULL = "FASTBACKPROP_FULL" in os.environ
SCRIPT = Path(__file__).parent / "guard_pages.py"


def run(side, what, width=None):
    environment = os.environ | ({} if width is None else {"FASTBACKPROP_SIMD": width})
    return subprocess.run(
        [sys.executable, str(SCRIPT), side, what],
        cwd=SCRIPT.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.mark.parametrize("side", ["after", "before"])
def test_an_overrun_ends_the_process(side):
    assert run(side, "overrun").returncode == -signal.SIGSEGV


WIDTHS = [None, "128", "256", "512"] if FULL else [None]


@pytest.mark.parametrize("width", WIDTHS)
def test_buffers_between_guard_pages(width):
    pytest.importorskip("scipy")
    n_cases = "40" if not FULL else "3000" if width is None else "300"
    digests = set()
    for side in ("nowhere", "after", "before", "heap"):
        result = run(side, n_cases, width)
        assert result.returncode == 0, f"{side}, in the last of the cases {result.stderr[-2000:]}"
        digests.add(result.stdout)
    assert len(digests) == 1
