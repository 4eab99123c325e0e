"""What layers accept, and which chains of them make a network."""

import numpy as np
import pytest

from fastbackprop.activations import Activation
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Dropout, Rescaling, check_chain


def test_dense_names_become_specifications():
    layer = Dense(np.int64(3), np.uint8(2), "relu", init="he", bias_init="ones")
    assert layer == Dense(
        3, 2, Activation("relu"), init=Initializer("he_normal"), bias_init=Initializer("ones")
    )
    assert type(layer.n_in) is type(layer.n_out) is int


def test_dense_leaves_open_what_is_not_given():
    layer = Dense(3, 2)
    assert layer.activation is None
    assert layer.init is None
    assert layer.bias is True
    assert layer.bias_init == Initializer("zeros")
    assert Dense(3, 2, "identity") != layer


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), ValueError, "n_in must be a positive integer, got 0"),
        ((3, -2), ValueError, "n_out must be a positive integer, got -2"),
        ((True, 2), TypeError, "n_in must be a positive integer, got True"),
        ((3, 2.0), TypeError, "n_out must be a positive integer, got 2.0"),
        ((3, 2, "rleu"), ValueError, "did you mean 'relu'"),
        ((3, 2, 5), TypeError, "activation must be a name, got 5"),
        ((3, 2, "relu", 1), TypeError, "bias must be True or False, got 1"),
        ((3, 2, "relu", True, "hee"), ValueError, "unknown initializer 'hee'"),
        ((3, 2, "relu", True, None, None), TypeError, "initializer must be a name, got None"),
    ],
)
def test_dense_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        Dense(*arguments)


def test_dropout():
    assert Dropout(0).rate == 0.0
    for rate in (-0.1, 1.0, 1, np.nan):
        with pytest.raises(ValueError, match=r"rate must be a number in \[0, 1\), got"):
            Dropout(rate)
    with pytest.raises(TypeError, match="rate must be"):
        Dropout("0.5")


def test_rescaling():
    assert Rescaling(2, 1) == Rescaling(2.0, offset=1.0)
    with pytest.raises(ValueError, match="scale must not be 0"):
        Rescaling(0)
    for arguments in ((np.inf,), (1.0, np.nan)):
        with pytest.raises(ValueError, match="must be a finite number"):
            Rescaling(*arguments)


A, B, C = Dense(4, 3, "relu"), Dense(3, 2), Dense(2, 2, "softmax")


@pytest.mark.parametrize(
    "layers",
    [
        [A],
        [C],
        (A, B, C),
        [Rescaling(0.5), A, Dropout(0.1), B, Dropout(0.1), C],
        [Dropout(0.1), A],
        [Rescaling(0.5), Dropout(0.1), A],
    ],
)
def test_chains(layers):
    check_chain(layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one Dense"),
        ([Rescaling(0.5)], "at least one Dense"),
        ([A, C], r"layer 1, Dense\(2, 2, .*\), takes 2 inputs, but layer 0, .* has 3 outputs"),
        ([A, Dropout(0.1), A], r"layer 2, .* takes 4 inputs, but layer 0, .* has 3 outputs"),
        ([A, Rescaling(0.5), B], r"layer 1, Rescaling\(0.5\): .* first"),
        ([Rescaling(0.5), Rescaling(0.5), A], r"layer 1, Rescaling\(0.5\): .* first"),
        ([A, B, Dropout(0.1)], r"layer 2, Dropout\(0.1\): .* last"),
        ([A, Dropout(0.1), Dropout(0.2), B], "layers 1 and 2, .* two Dropout in a row"),
        ([C, C], "layer 0, .*: softmax is for the last layer only"),
    ],
)
def test_broken_chains(layers, message):
    with pytest.raises(ValueError, match=message):
        check_chain(layers)


@pytest.mark.parametrize("stranger", [10, "relu", None, Activation("relu"), Dense])
def test_strangers(stranger):
    with pytest.raises(TypeError, match="layer 1 must be one of Dense, Dropout, Rescaling, got"):
        check_chain([A, stranger])
