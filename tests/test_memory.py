"""No kernel reads or writes beyond its buffers: guard bands of NaN on both sides of each."""

import itertools

import numpy as np
import pytest
from comparison import LOSSES, SIZES, bits, flat, make_targets

import fastbackprop as fb
from fastbackprop import job, plan, probe

_BAND = 4096  # bytes on either side
_NAN = 0xFF  # every byte of a NaN of either type


@pytest.fixture
def guard(monkeypatch):
    """Let all buffers be guarded from now on; afterwards, check that the bands are whole."""
    buffers = []

    def guarded_zeros(size, dtype):
        memory = np.full(size * dtype.itemsize + 2 * _BAND + 64, _NAN, np.uint8)
        start = -memory.ctypes.data % 64 + _BAND
        end = start + size * dtype.itemsize
        memory[start:end] = 0
        buffers.append((memory, start, end))
        return memory[start:end].view(dtype)

    def begin():
        for module in (plan, job, probe):
            monkeypatch.setattr(module, "aligned_zeros", guarded_zeros)

    yield begin
    assert buffers
    for memory, start, end in buffers:
        assert (memory[:start] == _NAN).all()
        assert (memory[end:] == _NAN).all()


def everything(sizes, loss, dtype, optimizer, threads):
    """All that a network can be asked for, after some training."""
    rng = np.random.default_rng(0)
    layers = [fb.Dropout(0.2)]
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        activation = "gelu" if i < len(sizes) - 2 else None
        layers.append(fb.Dense(n_in, n_out, activation, bias=i % 2 == 0))
    net = fb.Network(layers, loss=loss, random_state=rng, dtype=dtype)
    n = 19
    X = rng.standard_normal((n, sizes[0])).astype(dtype)
    y = make_targets(rng, loss, n, sizes[-1])
    net.fit(X, y, 2, 8, optimizer, validation_data=0.2, threads=threads, verbose=0)
    net.train_step(X, y, optimizer)
    value, gradients = net.loss_and_gradients(X, y)
    return [
        bits(net),
        value,
        flat(gradients),
        net.predict(X),
        net.loss(X, y),
        net.input_gradient(X, y),
        net.jacobian(X[0]),
    ]


WIDE_TO_NARROW = [[size, 1, 1] for size in SIZES]
NARROW_TO_WIDE = [[1, 1, size] for size in SIZES if size > 1]
OTHERS = [[7, 33, 2, 16], [16, 8, 31], [300, 5], [2, 600, 3], [530, 40], [300, 270, 5]]
OPTIMIZERS = itertools.cycle(
    [
        fb.SGD(0.0001),
        fb.SGD(0.0001, momentum=0.9),
        fb.Adam(0.0001),
        fb.RMSprop(0.0001, centered=True, momentum=0.9),
        fb.SGD(0.0001, clip_norm=0.1),
    ]
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", WIDE_TO_NARROW + NARROW_TO_WIDE + OTHERS, ids=str)
def test_guard_bands(guard, sizes, dtype):
    cases = list(itertools.product(zip(LOSSES, OPTIMIZERS, strict=False), (1, 2)))
    expected = [
        everything(sizes, loss, dtype, optimizer, threads) for (loss, optimizer), threads in cases
    ]
    guard()
    for ((loss, optimizer), threads), wanted in zip(cases, expected, strict=True):
        result = everything(sizes, loss, dtype, optimizer, threads)
        for actual, other in zip(result, wanted, strict=True):
            np.testing.assert_array_equal(actual, other)
