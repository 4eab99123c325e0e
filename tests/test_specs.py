"""Arguments are checked, names found or guessed, and every spec survives a trip through JSON."""

import copy
import json
import math
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest

from fastbackprop import activations, initializers, layers, losses, optimizers, schedules, specs
from fastbackprop.activations import Activation
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Dropout, Rescaling
from fastbackprop.losses import Loss
from fastbackprop.optimizers import SGD, Adam, AdamW, RMSprop
from fastbackprop.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    OneCycle,
    StepDecay,
    Warmup,
)

SPECS = [
    (activations, Activation("leaky_relu", alpha=0.2)),
    (activations, Activation("gelu")),
    (losses, Loss("huber", delta=2.5)),
    (losses, Loss("cross_entropy")),
    (schedules, Constant(0.3)),
    (schedules, StepDecay(0.1, 10, 0.5)),
    (schedules, ExponentialDecay(0.1, 10, 0.5)),
    (schedules, InverseScaling(0.1, power=0.25)),
    (schedules, CosineDecay(0.1, 100, final=0.01)),
    (schedules, Warmup(0.1, 7)),
    (schedules, Warmup(CosineDecay(0.1, 100), 7)),
    (schedules, OneCycle(0.1, 100, div=10)),
    (optimizers, SGD(0.5, momentum=0.9, nesterov=True, clip_norm=1.0)),
    (optimizers, Adam(Warmup(CosineDecay(1e-3, 90), 10), betas=(0.8, 0.9))),
    (optimizers, AdamW()),
    (optimizers, RMSprop(centered=True, weight_decay=1e-4)),
    (initializers, Initializer("uniform", low=-1, high=2)),
    (initializers, Initializer("constant", value=0.5)),
    (layers, Dense(3, 2, Activation("elu", alpha=0.5), bias=False, init="orthogonal")),
    (layers, Dense(3, 2)),
    (layers, Dropout(0.5)),
    (layers, Rescaling(1 / 255, offset=-0.5)),
]
IDS = [repr(spec) for _, spec in SPECS]


@pytest.mark.parametrize(("module", "spec"), SPECS, ids=IDS)
def test_a_spec_survives_json(module, spec):
    config = spec.to_config()
    text = json.dumps(config, allow_nan=False)
    assert json.loads(text) == config
    assert module.from_config(json.loads(text)) == spec


@pytest.mark.parametrize("spec", [spec for _, spec in SPECS], ids=IDS)
def test_a_spec_is_a_value(spec):
    twin = pickle.loads(pickle.dumps(spec))
    assert twin == spec
    assert hash(twin) == hash(spec)
    assert copy.deepcopy(spec) == spec
    assert eval(repr(spec)) == spec
    with pytest.raises(AttributeError):
        spec.name = "other"


def test_every_class_is_tried_above():
    tried = {type(spec) for _, spec in SPECS}
    registered = {*layers.LAYERS, *optimizers.OPTIMIZERS, *schedules.SCHEDULES}
    assert registered | {Activation, Loss, Initializer} == tried


def test_different_specs_differ():
    assert len({spec for _, spec in SPECS}) == len(SPECS)
    assert Adam(weight_decay=1e-2) != AdamW(weight_decay=1e-2)


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        (layers, {"rate": 0.5}, "needs the key 'type'"),
        (layers, {"type": "Dropuot", "rate": 0.5}, "unknown layer type .* mean 'Dropout'"),
        (layers, {"type": "Dropout", "rate": 0.5, "seed": 1}, "unknown key .*Dropout 'seed'"),
        (layers, {"type": "Dropout"}, "Dropout needs the key 'rate'"),
        (layers, {"type": "SGD"}, "unknown layer type 'SGD'"),
        (activations, {"type": "Activation", "name": "rleu"}, "mean 'relu'"),
        (activations, {"type": "Loss", "name": "mse"}, "unknown activation type 'Loss'"),
        (
            layers,
            {"type": "Dense", "n_in": 1, "n_out": 1, "activation": {"type": "Loss"}},
            "unknown activation type 'Loss'",
        ),
        (
            optimizers,
            {"type": "SGD", "learning_rate": {"type": "Cosine"}},
            "unknown schedule type 'Cosine'; did you mean 'CosineDecay'",
        ),
    ],
)
def test_from_config_refuses_what_to_config_does_not_write(module, config, message):
    before = copy.deepcopy(config)
    with pytest.raises(ValueError, match=message):
        module.from_config(config)
    assert config == before


@pytest.mark.parametrize("module", [activations, losses, schedules, optimizers, layers])
@pytest.mark.parametrize("config", [None, "relu", [["type", "SGD"]]])
def test_from_config_needs_a_dict(module, config):
    with pytest.raises(TypeError, match="must be a dict"):
        module.from_config(config)


def test_a_plain_function_cannot_be_written():
    with pytest.raises(TypeError, match=r"learning_rate of SGD.* cannot be written to a file"):
        SGD(lambda step: 0.1).to_config()


def test_unknown_names_are_listed_and_guessed():
    assert specs.unknown("loss", "MSE", ["mse", "mae"]) == (
        "unknown loss 'MSE'; did you mean 'mse'? Known: mse, mae"
    )
    assert specs.unknown("loss", "???", ["mse", "mae"]) == "unknown loss '???'. Known: mse, mae"
    with pytest.raises(TypeError, match="loss must be a name, got 3"):
        specs.known_name("loss", 3, ["mse"])


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int8(1), Fraction(1, 2)])
def test_numbers_become_floats(value):
    assert type(specs.checked_number("eps", value, specs.POSITIVE)) is float


@pytest.mark.parametrize("value", [True, np.True_, "1", None, 1j, [1.0], np.ones(1)])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="eps must be a positive number, got "):
        specs.checked_number("eps", value, specs.POSITIVE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="x must be a finite number, got "):
        specs.checked_number("x", value, specs.FINITE)


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (specs.POSITIVE, [1e-300, 1e300], [0.0, -1.0]),
        (specs.NON_NEGATIVE, [0.0, 1e300], [-1e-300]),
        (specs.BELOW_ONE, [0.0, 0.999], [-0.001, 1.0]),
        (specs.FRACTION, [0.0, 1.0], [-0.001, 1.001]),
    ],
)
def test_ranges(allowed, inside, outside):
    for value in inside:
        assert specs.checked_number("x", value, allowed) == value
    for value in outside:
        with pytest.raises(ValueError, match=f"x must be {re.escape(allowed.expected)}, got"):
            specs.checked_number("x", value, allowed)


def test_sizes():
    assert type(specs.checked_size("n", np.int64(3))) is int
    assert specs.checked_size("n", 0, minimum=0) == 0
    for value in (0, -1, np.int64(0)):
        with pytest.raises(ValueError, match="n must be a positive integer, got"):
            specs.checked_size("n", value)
    for value in (True, 3.0, "3", None):
        with pytest.raises(TypeError, match="n must be a positive integer, got"):
            specs.checked_size("n", value)


def test_flags():
    assert specs.checked_flag("bias", np.False_) is False
    for value in (0, 1, "yes", None):
        with pytest.raises(TypeError, match="bias must be True or False, got"):
            specs.checked_flag("bias", value)
