"""Initializers have the mean, variance and bounds they state, and one seed gives one draw."""

import math

import numpy as np
import pytest

from fastbackprop import activations, initializers
from fastbackprop.activations import Activation
from fastbackprop.initializers import Initializer

N_IN, N_OUT = 400, 300

NORMAL = {  # standard deviations
    "he_normal": math.sqrt(2 / N_IN),
    "glorot_normal": math.sqrt(2 / (N_IN + N_OUT)),
    "lecun_normal": math.sqrt(1 / N_IN),
    "normal": 1.0,
}
UNIFORM = {  # bounds
    "he_uniform": math.sqrt(6 / N_IN),
    "glorot_uniform": math.sqrt(6 / (N_IN + N_OUT)),
    "lecun_uniform": math.sqrt(3 / N_IN),
    "uniform": 0.05,
}
CONSTANT = {"zeros": 0.0, "ones": 1.0, "constant": 0.25}


def make(name):
    return Initializer(name, value=0.25) if name == "constant" else Initializer(name)


def rng():
    return np.random.default_rng(12)


def test_every_name_is_tried_here():
    assert {*NORMAL, *UNIFORM, *CONSTANT, "orthogonal"} == set(initializers.NAMES)


@pytest.mark.parametrize("name", NORMAL)
def test_normal(name):
    w = make(name).draw(rng(), (N_IN, N_OUT)) / NORMAL[name]
    n = w.size
    # Each within five of its own standard deviations.
    assert abs(w.mean()) < 5 / math.sqrt(n)
    assert abs(w.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((w**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs(w).max() > 4  # not truncated


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform(name):
    w = make(name).draw(rng(), (N_IN, N_OUT)) / UNIFORM[name]
    assert abs(w).max() <= 1
    assert w.max() > 0.999
    assert w.min() < -0.999
    assert abs(w.mean()) < 5 / math.sqrt(3 * w.size)
    assert abs(w.var() - 1 / 3) < 5 * math.sqrt(4 / 45 / w.size)


@pytest.mark.parametrize("name", CONSTANT)
def test_constant(name):
    np.testing.assert_array_equal(make(name).draw(rng(), (3, 2)), np.full((3, 2), CONSTANT[name]))


def test_parameters_scale_the_distribution():
    w = Initializer("normal").draw(rng(), (5, 4))
    np.testing.assert_array_equal(Initializer("normal", std=0.1).draw(rng(), (5, 4)), 0.1 * w)
    w = Initializer("uniform", low=2, high=5).draw(rng(), (N_IN, N_OUT))
    assert 2 <= w.min() < 2.01
    assert 4.99 < w.max() < 5


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (1, 1)])
def test_orthogonal(shape):
    w = Initializer("orthogonal").draw(rng(), shape)
    assert w.shape == shape
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_has_no_preferred_sign():
    generator = rng()
    corners = [Initializer("orthogonal").draw(generator, (2, 2))[0, 0] for _ in range(200)]
    assert 60 < np.sum(np.array(corners) > 0) < 140


@pytest.mark.parametrize("shape", [(6, 5), (5, 6)])
@pytest.mark.parametrize("name", initializers.NAMES)
def test_one_seed_gives_one_draw(name, shape):
    first, again = (make(name).draw(rng(), shape) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float64
    assert first.flags.c_contiguous


@pytest.mark.parametrize("name", initializers.NAMES)
def test_biases(name):
    spec = make(name)
    if name in ("normal", "uniform", *CONSTANT):
        assert spec.draw(rng(), (5,)).shape == (5,)
        return
    if name == "orthogonal":
        with pytest.raises(ValueError, match=r"draws matrices, got the shape \(5,\)"):
            spec.draw(rng(), (5,), fans=(3, 5))
        return
    with pytest.raises(ValueError, match="give fans"):
        spec.draw(rng(), (5,))
    w = spec.draw(rng(), (3, 5))
    np.testing.assert_array_equal(spec.draw(rng(), (5,), fans=(3, 5)), w[0])


@pytest.mark.parametrize(
    ("shape", "error"),
    [((), ValueError), ((2, 3, 4), ValueError), ((0, 3), ValueError), ((2.0, 3), TypeError)],
)
def test_bad_shapes(shape, error):
    with pytest.raises(error, match="shape"):
        Initializer("zeros").draw(rng(), shape)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "hee"}, ValueError, "unknown initializer 'hee'"),
        ({"name": None}, TypeError, "initializer must be a name, got None"),
        ({"name": "normal", "std": 0}, ValueError, "std must be a positive number, got 0"),
        ({"name": "normal", "std": True}, TypeError, "std must be a positive number, got True"),
        ({"name": "he_normal", "std": 1.0}, ValueError, r"'he_normal' takes no std, got 1\.0"),
        ({"name": "uniform", "low": 1}, ValueError, r"low must be below high, got low=1\.0"),
        ({"name": "uniform", "low": math.nan}, ValueError, "low must be a finite number"),
        ({"name": "constant"}, ValueError, "'constant' needs a value"),
        ({"name": "zeros", "value": 0.0}, ValueError, "'zeros' takes no value"),
    ],
)
def test_bad_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        Initializer(**arguments)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("he", "he_normal"),
        ("glorot", "glorot_uniform"),
        ("xavier", "glorot_uniform"),
        ("lecun", "lecun_normal"),
    ],
)
def test_aliases(alias, name):
    assert initializers.get(alias) == Initializer(name)


def test_get_returns_an_initializer_as_it_is():
    spec = Initializer("normal", std=0.5)
    assert initializers.get(spec) is spec


@pytest.mark.parametrize("name", activations.NAMES)
def test_default_for(name):
    halving = name in ("relu", "leaky_relu", "elu", "silu", "gelu", "softplus")
    expected = "he_normal" if halving else "glorot_uniform"
    assert initializers.default_for(Activation(name)) == Initializer(expected)
