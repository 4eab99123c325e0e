"""Tests of kernels and networks once more, with each SIMD width that is not this machine's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastbackprop._kernels.jit import VECTOR_BITS

TESTS = Path(__file__).parent
FILES = [
    "test_simd.py",
    "test_simd_memory.py",
    "test_vmath.py",
    "test_gemm.py",
    "test_gather.py",
    "test_columns.py",
    "test_kernel_activation.py",
    "test_kernel_loss.py",
    "test_update.py",
    "test_dropout.py",
    "test_team.py",
    "test_network.py",
    "test_gradcheck_networks.py",
    "test_determinism.py::test_matrix",
]


# The width of AVX2 is tested as on a processor that has no more: with 16 registers, so with lower
# tiles, and without AVX-512's estimates of inverses.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}


def started(*arguments, width):
    environment = os.environ | {"FASTBACKPROP_SIMD": width}
    if width == "256" and VECTOR_BITS == 512:
        environment |= AVX2
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


OTHER_WIDTHS = [bits for bits in (128, 256, 512) if bits != VECTOR_BITS]


@pytest.fixture(scope="module")
def runs():
    """The tests with vectors of each other width, all at once: they take a minute each."""
    files = [str(TESTS / name) for name in FILES]
    # One test of that name trains: its question has no width, and the compiling takes long.
    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "-k", "not test_training"]
    processes = {
        width: started("-m", "pytest", *options, *files, width=str(width)) for width in OTHER_WIDTHS
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.skipif("FASTBACKPROP_SIMD" in os.environ, reason="one width was asked for")
@pytest.mark.parametrize("width", OTHER_WIDTHS)
def test_everything_with_vectors_of(width, runs):
    output, _ = runs[width].communicate(timeout=900)
    assert runs[width].returncode == 0, output[-7000:]


@pytest.mark.parametrize("width", ["100", "0", "1024", "wide"])
def test_a_width_that_is_none(width):
    process = started("-c", "import fastbackprop", width=width)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    message = f"ValueError: FASTBACKPROP_SIMD is '{width}'; it must be 512, 256 or 128 (bits)"
    assert message in output
