"""The quick look at small arrays: never yes where a value is not finite."""

import numpy as np
import pytest

from fastbackprop.finite import is_surely_finite


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("shape", [(1,), (32, 2), (8192,), (4, 3, 5)])
def test_one_bad_value_anywhere(dtype, shape):
    rng = np.random.default_rng(0)
    array = rng.standard_normal(shape).astype(dtype)
    assert is_surely_finite(array)
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, array.size // 2, array.size - 1):
            spoiled = array.copy()
            spoiled.flat[place] = bad
            assert not is_surely_finite(spoiled)
            assert not is_surely_finite(spoiled[::-1])


def test_infinities_do_not_cancel():
    assert not is_surely_finite(np.array([np.inf, -np.inf]))


def test_what_it_leaves_to_a_closer_look():
    assert not is_surely_finite(np.array([1e200]))  # whose square overflows, without a warning
    assert not is_surely_finite(np.zeros(8193))


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.arange(6.0).reshape(2, 3).T])
def test_empty_and_strided(array):
    assert is_surely_finite(array)
