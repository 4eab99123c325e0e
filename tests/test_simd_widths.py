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
    "test_kernel_activation.py",
    "test_kernel_loss.py",
    "test_update.py",
    "test_dropout.py",
    "test_team.py",
    "test_network.py",
    "test_gradcheck_networks.py",
]


# The width of AVX2 is tested as on a processor that has no more: with 16 registers, so with lower
# tiles, and without AVX-512's estimates of inverses.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}


def run(*arguments, width):
    environment = os.environ | {"FASTBACKPROP_SIMD": width}
    if width == "256" and VECTOR_BITS == 512:
        environment |= AVX2
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.skipif("FASTBACKPROP_SIMD" in os.environ, reason="one width was asked for")
@pytest.mark.parametrize("width", [bits for bits in (128, 256, 512) if bits != VECTOR_BITS])
def test_everything_with_vectors_of(width):
    files = [str(TESTS / name) for name in FILES]
    # One test of that name trains: its question has no width, and the compiling takes long.
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not test_training"]
    result = run("-m", "pytest", *options, *files, width=str(width))
    assert result.returncode == 0, "\n".join([result.stdout[-5000:], result.stderr[-2000:]])


@pytest.mark.parametrize("width", ["100", "0", "1024", "wide"])
def test_a_width_that_is_none(width):
    result = run("-c", "import fastbackprop", width=width)
    assert result.returncode != 0
    message = f"ValueError: FASTBACKPROP_SIMD is '{width}'; it must be 512, 256 or 128 (bits)"
    assert message in result.stderr
