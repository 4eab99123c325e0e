"""Names and codes of losses, and which output activation each goes with."""

import pytest

from fastbackprop import activations, losses
from fastbackprop._kernels import codes
from fastbackprop.activations import Activation
from fastbackprop.losses import Loss


@pytest.mark.parametrize("name", losses.NAMES)
def test_code(name):
    assert Loss(name).code == getattr(codes, name.upper())


@pytest.mark.parametrize("hidden", [None, Activation("sigmoid"), Activation("relu")])
@pytest.mark.parametrize("name", losses.NAMES)
def test_default_output(name, hidden):
    expected = {
        "cross_entropy": "softmax",
        "binary_cross_entropy": "sigmoid",
        "poisson": "exp",
    }.get(name, "identity")
    if name == "quadratic" and hidden is not None:
        expected = hidden.name
    output = Loss(name).default_output(hidden)
    assert output == Activation(expected)
    Loss(name).check_output(output)


@pytest.mark.parametrize("output", activations.NAMES)
@pytest.mark.parametrize("name", losses.NAMES)
def test_check_output(name, output):
    fits = {
        "cross_entropy": output == "softmax",
        "binary_cross_entropy": output == "sigmoid",
        "poisson": output == "exp",
    }.get(name, output != "softmax")
    if fits:
        Loss(name).check_output(Activation(output))
        return
    with pytest.raises(ValueError, match=f"'{output}'.*'{name}'|'{name}'.*'{output}'"):
        Loss(name).check_output(Activation(output))


def test_the_cross_entropies_are_fused_classifications():
    cross_entropies = ["cross_entropy", "binary_cross_entropy"]
    assert [n for n in losses.NAMES if Loss(n).fused] == [*cross_entropies, "poisson"]
    assert [n for n in losses.NAMES if Loss(n).is_classification] == cross_entropies


def test_delta():
    assert Loss("huber").delta == 1.0
    assert Loss("huber", 2).delta == 2.0
    with pytest.raises(ValueError, match="delta must be a positive number, got 0"):
        Loss("huber", delta=0)
    with pytest.raises(TypeError, match="delta must be a positive number, got '1'"):
        Loss("huber", delta="1")
    with pytest.raises(ValueError, match=r"'mse' takes no delta, got 2\.0; use 'huber'"):
        Loss("mse", delta=2.0)


def test_quantile():
    assert Loss("quantile").parameter == 0.5
    assert Loss("quantile", quantile=0.9).parameter == 0.9
    assert Loss("huber", 2).parameter == 2
    for wrong in (0, 1, -0.1):
        with pytest.raises(
            ValueError, match=f"quantile must be a number between 0 and 1, got {wrong}"
        ):
            Loss("quantile", quantile=wrong)
    with pytest.raises(ValueError, match=r"'mse' takes no quantile, got 0\.9; use 'quantile'"):
        Loss("mse", quantile=0.9)


def test_get():
    spec = Loss("huber", 0.5)
    assert losses.get(spec) is spec
    assert losses.get("mse") == Loss("mse")
    with pytest.raises(ValueError, match=r"'crossentropy'; did you mean 'cross_entropy'\?"):
        losses.get("crossentropy")
    with pytest.raises(TypeError, match="loss must be a name, got None"):
        losses.get(None)
