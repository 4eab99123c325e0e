"""A copy of parameters to go back to, in memory and in a file."""

import os
import tempfile
import tracemalloc
from functools import partial

import numpy as np
import pytest
from comparison import bits

import fastbackprop as fb
from fastbackprop import spare
from fastbackprop.spare import Spare


@pytest.fixture(params=["memory", "file", "no file", "full disk"])
def place(request, monkeypatch):
    """Where copies go."""
    if request.param != "memory":
        monkeypatch.setattr(spare, "_IN_MEMORY_BYTES", 0)
    if request.param == "no file":

        def refuse(**options):
            raise PermissionError(13, "not to be written")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    if request.param == "full disk":
        if not os.path.exists("/dev/full"):
            pytest.skip("no full disk on this system")
        monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_is_put_back(place, dtype):
    array = np.random.default_rng(0).standard_normal(5000).astype(dtype)
    copy = Spare(array)
    for _ in range(2):
        expected = array.copy()
        copy.keep()
        array[:] = np.nan
        for _ in range(2):
            copy.put_back()
            np.testing.assert_array_equal(array, expected)
        array += 1


def test_a_training_that_diverges_goes_back(place):
    net = fb.Network([3, 4, 1], "relu", "mse", random_state=0)
    before = bits(net)
    X = np.ones((8, 3))
    with pytest.raises(fb.DivergenceError):
        net.fit(X, X[:, :1], 3, 2, fb.SGD(1e30), verbose=0)
    np.testing.assert_array_equal(bits(net), before)


def test_large_copies_take_no_memory(monkeypatch):
    monkeypatch.setattr(spare, "_IN_MEMORY_BYTES", 0)
    copy = Spare(np.zeros(10))
    copy.keep()
    assert copy._copy is None


def test_training_takes_memory_for_the_optimizer_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(spare, "_IN_MEMORY_BYTES", 10_000)
    net = fb.Network([1500, 1500, 2], "relu", "mse", random_state=0)
    size = net.n_parameters * 4
    X = np.ones((8, 1500), np.float32)

    def peak_of(call):
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1] / size
        finally:
            tracemalloc.stop()

    adam = fb.Adam(1e-6)
    train = partial(net.fit, X, X[:, :2], batch_size=8, optimizer=adam, threads=1, verbose=0)
    assert 2.0 < peak_of(partial(train, epochs=2)) < 2.5  # two slots
    assert peak_of(partial(train, epochs=2)) < 0.5
    assert peak_of(partial(net.train_step, X, X[:, :2], adam)) < 0.5
    assert peak_of(partial(net.save, tmp_path / "net")) < 0.5
    folder = tmp_path / "run"
    assert peak_of(partial(train, epochs=2, callbacks=fb.Checkpoint(folder, every=2))) < 0.8
    other = net.clone()
    resume = partial(other.fit, X, X[:, :2], 3, 8, adam, threads=1, verbose=0, resume_from=folder)
    assert peak_of(resume) < 4.5  # two slots; in the file two more, and the parameters until read


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_has_a_file_of_its_own(monkeypatch):
    monkeypatch.setattr(spare, "_IN_MEMORY_BYTES", 0)
    array = np.zeros(10)
    copy = Spare(array)
    copy.keep()
    child = os.fork()
    if child == 0:
        array[:] = 1.0
        copy.keep()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    array[:] = 2.0
    copy.put_back()
    assert not array.any()
