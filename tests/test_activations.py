"""Names, codes and parameters of activations, and what their backward pass is told to need."""

import numpy as np
import pytest
import reference

from fastbackprop import activations
from fastbackprop._kernels import codes
from fastbackprop.activations import Activation

# f′ from the output alone, for each activation that claims it is enough.
DERIVATIVE_OF_OUTPUT = {
    "identity": lambda a, alpha: np.ones_like(a),
    "relu": lambda a, alpha: np.where(a > 0, 1.0, 0.0),
    "leaky_relu": lambda a, alpha: np.where(a > 0, 1.0, alpha),
    "sigmoid": lambda a, alpha: a * (1 - a),
    "tanh": lambda a, alpha: 1 - a**2,
    "elu": lambda a, alpha: np.where(a > 0, 1.0, a + alpha),
    "exp": lambda a, alpha: a,
}


@pytest.mark.parametrize("name", activations.NAMES)
def test_code(name):
    assert Activation(name).code == getattr(codes, name.upper())


def test_each_code_is_used_once():
    assert len({Activation(name).code for name in activations.NAMES}) == len(activations.NAMES)


@pytest.mark.parametrize("name", activations.NAMES)
def test_the_output_is_enough_unless_the_preactivation_is_needed(name):
    spec = Activation(name)
    if name == "softmax":
        assert not spec.needs_preactivation
        return
    assert spec.needs_preactivation == (name not in DERIVATIVE_OF_OUTPUT)
    if not spec.needs_preactivation:
        z = np.linspace(-4, 4, 81)  # 0 included
        a = reference.activation(name, z, spec.alpha)
        expected = reference.activation_derivative(name, z, spec.alpha)
        np.testing.assert_allclose(
            DERIVATIVE_OF_OUTPUT[name](a, spec.alpha), expected, rtol=1e-15, atol=1e-15
        )


def test_only_the_relus_have_a_kink():
    assert [n for n in activations.NAMES if Activation(n).piecewise_linear] == [
        "relu",
        "leaky_relu",
    ]


def test_get():
    spec = Activation("elu", alpha=2)
    assert activations.get(spec) is spec
    assert activations.get(None) == Activation("identity")
    assert activations.get("tanh") == Activation("tanh")
    with pytest.raises(TypeError, match="activation must be a name, got 3"):
        activations.get(3)
    with pytest.raises(ValueError, match=r"unknown activation 'ReLU'; did you mean 'relu'\? Known"):
        activations.get("ReLU")


@pytest.mark.parametrize(
    ("alias", "name"), [("linear", "identity"), ("swish", "silu"), ("logistic", "sigmoid")]
)
def test_aliases(alias, name):
    assert activations.get(alias) == Activation(name)


def test_alpha():
    assert Activation("leaky_relu").alpha == 0.01
    assert Activation("elu").alpha == 1.0
    assert Activation("elu", 0).alpha == 0.0
    assert Activation("relu").alpha is None
    with pytest.raises(ValueError, match=r"alpha must be a number >= 0, got -0\.1"):
        Activation("leaky_relu", -0.1)
    with pytest.raises(ValueError, match=r"'relu' takes no alpha.* leaky_relu and elu"):
        Activation("relu", alpha=0.1)
    with pytest.raises(TypeError, match="alpha must be a number >= 0, got True"):
        Activation("elu", alpha=True)
