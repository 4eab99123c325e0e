"""The benchmark beside scikit-learn: its table, at a hundredth of the work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", "1.7")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "sklearn_times.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in a source tree")


def test_table(tmp_path):
    out = tmp_path / "results" / "table.md"
    options = [
        "--one-thread",
        "--turns",
        "1",
        "--epochs",
        "2",
        "--data",
        "iris,diabetes",
        "--out",
        str(out),
    ]
    printed = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True
    ).stdout
    text = out.read_text(encoding="utf-8")
    assert printed == text
    assert re.search(r"\d{4}-\d\d-\d\d; .* core\(s\), .*\n.*scikit-learn \d.*; .*load", text)
    head, line, *rows = [row for row in text.splitlines() if row.startswith("|")]
    assert head.count("|") == line.count("|") == 9
    names = [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]
    assert names == [[data, sizes] for data in ("iris", "diabetes") for sizes in ("100", "256-256")]
    for row in rows:
        ratios = re.findall(r"\((\d+\.\d)\*?\)", row)
        assert len(ratios) == 2
        *_, mine, theirs, _ = row.split("|")
        assert float(mine) == pytest.approx(float(theirs), abs=1e-3)  # the same training
