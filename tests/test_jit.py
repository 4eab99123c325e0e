"""The cache of compiled kernels, in processes of their own on a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest
from kernel_harness import jit
from numba.core import types

import fastbackprop
from fastbackprop._kernels.jit import VECTOR_BITS, kernel, kernel_by_type, source_digest

# An entry point like the package's own, but compiled in half a second. What it returns comes from
# two other files.
PROBE = '''
"""A small entry point."""

from fastbackprop._kernels.codes import GELU
from fastbackprop._kernels.jit import entry_point
from fastbackprop._kernels.team import share


@entry_point
def probe(x):
    """x + GELU"""
    first, last = share(10, 1, 1, 0)
    return x + GELU + (last - first - 10)
'''

CALL_PROBE = """
from fastbackprop._kernels.probe import probe as entry
value = entry(1.0)
"""

PREDICT = """
import numpy as np
import fastbackprop as fb
from fastbackprop._kernels.run import run as entry
value = fb.Network([3, 5, 2], random_state=0).predict(np.ones((4, 3))).tolist()
"""

REPORT = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
{script}
print(json.dumps([
    value,
    sum(entry.stats.cache_hits.values()),
    sum(entry.stats.cache_misses.values()),
    [f"{{w.category.__name__}}: {{w.message}}" for w in caught],
]))
"""


DTYPES = ("float32", "float64")


class Outcome(NamedTuple):
    value: object
    hits: int
    misses: int
    warnings: list


class Installation:
    """A copy of the package, and Python processes that import it."""

    def __init__(self, root):
        self.root = root
        self.kernels = root / "fastbackprop" / "_kernels"
        shutil.copytree(
            Path(fastbackprop.__file__).parent,
            root / "fastbackprop",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (self.kernels / "probe.py").write_text(PROBE)

    def start(self, script, **environment):
        indented = "\n".join("    " + line for line in script.strip().splitlines())
        unset = {"NUMBA_CACHE_DIR", "FASTBACKPROP_SIMD", "PYTHONWARNINGS"}
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        inherited["PYTHONPATH"] = str(self.root)
        return subprocess.Popen(
            [sys.executable, "-c", REPORT.format(script=indented)],
            cwd=self.root,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script=CALL_PROBE, **environment):
        return outcome(self.start(script, **environment))

    def cached(self, folder=None):
        """The files in which the probe's machine code is kept."""
        return sorted((folder or self.kernels / "__pycache__").rglob("probe.probe-*.nb*"))


def outcome(process):
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stderr == ""
    return Outcome(*json.loads(stdout))


COMPILED = Outcome(9.0, hits=0, misses=1, warnings=[])
LOADED = Outcome(9.0, hits=1, misses=0, warnings=[])


@pytest.fixture
def installation(tmp_path):
    return Installation(tmp_path / "site")


def test_cold_then_warm(installation):
    """The package's own entry point: compiled by the first process, loaded by the second."""
    cold, warm = installation.run(PREDICT), installation.run(PREDICT)
    assert (cold.hits, cold.misses, cold.warnings) == (0, 1, [])
    assert (warm.hits, warm.misses, warm.warnings) == (1, 0, [])
    assert warm.value == cold.value
    assert np.shape(warm.value) == (4, 2)


def test_an_edit_of_another_kernel_file_is_noticed(installation):
    assert installation.run() == COMPILED
    assert installation.run() == LOADED
    codes, simd = installation.kernels / "codes.py", installation.kernels / "simd" / "tiles.py"
    source = codes.read_text()
    assert "GELU = 8\n" in source
    codes.write_text(source.replace("GELU = 8\n", "GELU = 80\n"))
    assert installation.run() == COMPILED._replace(value=81.0)
    assert installation.run() == LOADED._replace(value=81.0)
    simd.write_text(simd.read_text() + "# A comment.\n")
    assert installation.run() == COMPILED._replace(value=81.0)


def test_a_new_and_a_touched_file(installation):
    """What a file says counts, not when it was written: installers set times as they like."""
    installation.run()
    for path in installation.kernels.glob("*.py"):
        os.utime(path, (1e9, 1e9))
    assert installation.run() == LOADED
    (installation.kernels / "more.py").write_text('"""More."""\n')
    assert installation.run() == COMPILED


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".nbi", "empty"),
        (".nbi", "half"),
        (".nbi", "noise"),
        (".nbc", "half"),
        (".nbc", "bit"),
        (".nbc", "removed"),
    ],
)
def test_a_damaged_cache_file_is_compiled_again(installation, suffix, damage):
    assert installation.run() == COMPILED
    (path,) = [file for file in installation.cached() if file.suffix == suffix]
    contents = path.read_bytes()
    middle = len(contents) // 2  # of the machine code, which would be run without a complaint
    flipped = contents[:middle] + bytes([contents[middle] ^ 4]) + contents[middle + 1 :]
    damaged = {
        "empty": b"",
        "half": contents[:middle],
        "noise": b"\x80\x05x" * 99,
        "bit": flipped,
    }
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    assert installation.run() == COMPILED
    assert installation.run() == LOADED


def test_a_read_only_installation_works_with_one_warning(installation, tmp_path):
    """Permissions do not stop root, so what stands where folders would be made is a file."""
    (installation.kernels / "__pycache__").write_text("")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"), str(blocked))
    # Three entry points are imported here, of which each would have kept its code.
    for _ in range(2):
        result = installation.run("import fastbackprop\n" + CALL_PROBE, **nowhere)
        assert (result.value, result.hits) == (9.0, 0)
        (warning,) = result.warnings
        assert warning.startswith("RuntimeWarning: fastbackprop cannot keep its compiled kernels")
        assert "NUMBA_CACHE_DIR" in warning
    assert blocked.read_text() == ""


UNWRITABLE = """
import tempfile
def refuse(**options):
    raise PermissionError(13, "not to be written")
tempfile.TemporaryFile = refuse  # by which Numba tries whether a folder can be written
"""


def test_a_cache_in_a_read_only_installation_is_used(installation, tmp_path):
    assert installation.run() == COMPILED
    for path in installation.cached():
        if path.suffix == ".nbi":  # let the other entry point that is imported be there, too
            path.with_name(path.name.replace("probe.probe", "run.run")).touch()
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    assert installation.run(UNWRITABLE + CALL_PROBE, XDG_CACHE_HOME=str(blocked)) == LOADED


def test_a_full_disk_is_warned_of_once(installation):
    """A limit on the size of files stands for the end of the disk."""
    pytest.importorskip("resource")
    script = """
import resource
from fastbackprop._kernels.probe import probe as entry
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
value = entry(1.0)
entry(1)
"""
    result = installation.run(script)
    assert (result.value, result.hits, result.misses) == (9.0, 0, 2)
    (warning,) = result.warnings
    assert warning.startswith("RuntimeWarning: fastbackprop cannot keep its compiled kernels")
    assert "File too large" in warning
    assert not [path for path in installation.cached() if path.suffix != ".nbi"]
    assert installation.run() == COMPILED


def test_a_cache_of_another_processor(installation):
    """Its entries stay beside this processor's own."""
    names = ("generic", llvm.get_host_cpu_name())
    processors = [{"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""} for name in names]
    for processor in processors:
        assert installation.run(**processor) == COMPILED
    for processor in processors:
        assert installation.run(**processor) == LOADED
    assert len(installation.cached()) == 3  # with one index


def test_an_entry_under_the_name_of_another(installation):
    """What two processes may leave that compile for two types at once: one file for both."""
    call_integer = CALL_PROBE.replace("entry(1.0)", "entry(1)")
    assert installation.run() == COMPILED
    (index,) = [path for path in installation.cached() if path.suffix == ".nbi"]
    of_floats = index.read_bytes()
    index.unlink()
    assert installation.run(call_integer) == COMPILED
    index.write_bytes(of_floats)  # which names the file that has the code for integers now
    assert installation.run() == COMPILED
    assert installation.run() == LOADED


def test_a_folder_that_goes_away_is_warned_of_once(installation):
    script = """
import shutil
from fastbackprop._kernels.probe import probe as entry
folder = entry.stats.cache_path
shutil.rmtree(folder)
open(folder, "w").close()
value = entry(1.0)
entry(1)
"""
    result = installation.run(script)
    assert (result.value, result.hits, result.misses) == (9.0, 0, 2)
    (warning,) = result.warnings
    assert warning.startswith("RuntimeWarning: fastbackprop cannot keep its compiled kernels")


def test_a_cache_folder_can_be_chosen(installation, tmp_path):
    folder = tmp_path / "chosen"
    assert installation.run(NUMBA_CACHE_DIR=str(folder)) == COMPILED
    assert installation.run(NUMBA_CACHE_DIR=str(folder)) == LOADED
    assert len(installation.cached(folder)) == 2
    assert not installation.cached()


def test_widths_do_not_evict_each_other(installation):
    other = "128" if VECTOR_BITS != 128 else "256"
    assert installation.run() == COMPILED
    assert installation.run(FASTBACKPROP_SIMD=other) == COMPILED
    assert installation.run() == LOADED
    assert installation.run(FASTBACKPROP_SIMD=other) == LOADED


@pytest.mark.skipif("FASTBACKPROP_FULL" not in os.environ, reason="compiles all kernels twice")
def test_processes_that_compile_for_two_types_at_once(installation):
    scripts = [PREDICT.replace("random_state=0", f"dtype='{name}'") for name in DTYPES]
    for _ in range(3):  # compiled by both, of which one may be lost; then by one; then by none
        processes = [installation.start(script) for script in scripts]
        results = [outcome(process) for process in processes]
        assert [np.shape(result.value) for result in results] == [(4, 2)] * 2
        assert not any(result.warnings for result in results)
    assert [result.hits for result in results] == [1, 1]


def test_processes_that_compile_at_once_do_not_disturb_each_other(installation):
    processes = [installation.start(CALL_PROBE) for _ in range(3)]
    assert [outcome(process).value for process in processes] == [9.0] * 3
    assert installation.run() == LOADED


def test_digest_follows_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    digests = {source_digest(tmp_path)}
    (tmp_path / "a.py").write_text("x = 2\n")
    digests.add(source_digest(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    digests.add(source_digest(tmp_path))
    (tmp_path / "c.py").write_text("")
    digests.add(source_digest(tmp_path))
    assert len(digests) == 4
    (tmp_path / "notes.txt").write_text("not a source")
    assert source_digest(tmp_path) in digests


def test_a_kernel_is_compiled_once_for_all_constants():
    @kernel
    def add(a, b):
        return a + b

    @jit
    def call(x):
        return add(x, 1) + add(x, 2) + add(3, x)

    assert call(10) == 11 + 12 + 13
    assert len(add.overloads) == 1


def test_a_kernel_by_type_compiles_the_chosen_one_alone():
    @kernel
    def half(a):
        return a // 2

    @kernel
    def double(a):
        return a * 2

    @kernel_by_type
    def change(a):
        return half if isinstance(a, types.Integer) else double

    @jit
    def call(x):
        return change(x)

    assert call(9) == 4
    assert not double.overloads
    assert call(4.5) == 9.0
    assert len(half.overloads) == len(double.overloads) == 1


def test_division_by_zero_follows_numpy():
    """A kernel raises nothing: there is no Python to raise it in."""

    @kernel
    def divide(a, b):
        return a / b

    @jit
    def call(a, b):
        return divide(a, b)

    assert call(1.0, 0.0) == np.inf
    assert np.isnan(call(0.0, 0.0))


def test_without_a_compiler():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", "import fastbackprop"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "ImportError: fastbackprop needs Numba's compiler" in ended.stderr.splitlines()[-1]
    assert "unset NUMBA_DISABLE_JIT" in ended.stderr
