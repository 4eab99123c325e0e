"""The benchmark of load: its table, at a fiftieth of the work."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "load.py"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc"),
    pytest.mark.skipif(not SCRIPT.exists(), reason="not in a source tree"),
]


def test_table():
    command = [sys.executable, str(SCRIPT), "--quick", "--rows", "fits", "memmap", "deep"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    header, line, *rows = output.splitlines()
    assert header == "| load | time | memory |"
    assert line == "|---|---|---|"
    assert [row.count("|") for row in rows] == [4, 4, 4]
    assert "100,000 × 100 float32 rows" in rows[1]
    assert "100 layers of 64 units" in rows[2]
