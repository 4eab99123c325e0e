"""What an optimizer tells the kernels, and which arguments it refuses."""

import math

import numpy as np
import pytest

from fastbackprop import optimizers
from fastbackprop._kernels import codes
from fastbackprop.optimizers import SGD, Adam, AdamW, RMSprop
from fastbackprop.schedules import CosineDecay


@pytest.mark.parametrize(
    ("optimizer", "code", "slots"),
    [
        (SGD(), codes.SGD, ()),
        (SGD(momentum=0.9), codes.MOMENTUM, ("momentum",)),
        (Adam(), codes.ADAM, ("first_moment", "second_moment")),
        (AdamW(), codes.ADAM, ("first_moment", "second_moment")),
        (RMSprop(), codes.RMSPROP, ("second_moment",)),
        (RMSprop(centered=True), codes.RMSPROP, ("second_moment", "first_moment")),
        (RMSprop(momentum=0.9), codes.RMSPROP, ("second_moment", "momentum")),
        (
            RMSprop(momentum=0.9, centered=True),
            codes.RMSPROP,
            ("second_moment", "first_moment", "momentum"),
        ),
    ],
)
def test_code_and_slots(optimizer, code, slots):
    assert optimizer.code == code
    assert optimizer.slot_names == slots
    assert optimizer.n_slots == len(slots)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(), {}),
        (
            SGD(0.1, momentum=0.9, dampening=0.5, weight_decay=0.01, clip_norm=2),
            {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01, "clip_norm": 2.0},
        ),
        (SGD(0.1, momentum=0.9, nesterov=True), {"momentum": 0.9, "nesterov": 1.0}),
        (Adam(), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
        (
            AdamW(),
            {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "decoupled": 1.0},
        ),
        (
            RMSprop(momentum=0.5, centered=True),
            {"alpha": 0.99, "eps": 1e-8, "momentum": 0.5, "centered": 1.0},
        ),
    ],
)
def test_hyperparameters(optimizer, expected):
    values = optimizer.hyperparameters()
    assert tuple(values) == optimizers.HYPERPARAMETERS
    assert all(type(value) is float for value in values.values())
    assert values == dict.fromkeys(optimizers.HYPERPARAMETERS, 0.0) | expected


def test_defaults_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    parameters = [torch.zeros(1)]
    for cls in optimizers.OPTIMIZERS:
        theirs = getattr(torch.optim, cls.__name__)(parameters).defaults
        ours = cls()
        assert ours.learning_rate == theirs["lr"]
        for name in ("momentum", "dampening", "nesterov", "betas", "eps", "alpha", "centered"):
            if name in theirs:
                assert getattr(ours, name) == theirs[name], (cls, name)
        assert ours.weight_decay == theirs["weight_decay"]


@pytest.mark.parametrize("cls", optimizers.OPTIMIZERS)
@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("learning_rate", -0.1, ValueError, "a positive number or a schedule, got -0.1"),
        ("learning_rate", 0, ValueError, "a positive number or a schedule, got 0"),
        ("learning_rate", math.nan, ValueError, "a positive number or a schedule, got nan"),
        ("learning_rate", math.inf, ValueError, "a positive number or a schedule, got inf"),
        ("learning_rate", True, TypeError, "a positive number or a schedule, got True"),
        ("learning_rate", "0.1", TypeError, "a positive number or a schedule, got '0.1'"),
        ("learning_rate", None, TypeError, "a positive number or a schedule, got None"),
        ("weight_decay", -1e-4, ValueError, "a number >= 0, got -0.0001"),
        ("weight_decay", None, TypeError, "a number >= 0, got None"),
        ("clip_norm", 0.0, ValueError, "a positive number, got 0.0"),
        ("clip_norm", False, TypeError, "a positive number, got False"),
    ],
)
def test_shared_arguments(cls, argument, value, error, message):
    with pytest.raises(error, match=f"^{argument} must be {message}"):
        cls(**{argument: value})


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "message"),
    [
        (SGD, {"momentum": 1.0}, ValueError, r"momentum must be a number in \[0, 1\), got 1.0"),
        (SGD, {"momentum": -0.1}, ValueError, "momentum must be"),
        (SGD, {"momentum": 0.9, "dampening": 1.5}, ValueError, "dampening must be"),
        (SGD, {"dampening": 0.5}, ValueError, "dampening needs momentum > 0"),
        (SGD, {"nesterov": True}, ValueError, "nesterov needs momentum > 0"),
        (SGD, {"nesterov": 1}, TypeError, "nesterov must be True or False, got 1"),
        (
            SGD,
            {"momentum": 0.9, "dampening": 0.1, "nesterov": True},
            ValueError,
            "nesterov needs dampening=0, got dampening=0.1",
        ),
        (Adam, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be .* got 1.0"),
        (Adam, {"betas": (-0.1, 0.9)}, ValueError, r"betas\[0\] must be .* got -0.1"),
        (Adam, {"betas": (0.9,)}, TypeError, "betas must be two numbers"),
        (Adam, {"betas": 0.9}, TypeError, "betas must be two numbers"),
        (AdamW, {"eps": 0}, ValueError, "eps must be a positive number, got 0"),
        (RMSprop, {"alpha": 1.0}, ValueError, "alpha must be"),
        (RMSprop, {"eps": -1.0}, ValueError, "eps must be"),
        (RMSprop, {"momentum": 1.0}, ValueError, "momentum must be"),
        (RMSprop, {"centered": 0.0}, TypeError, "centered must be True or False"),
    ],
)
def test_own_arguments(cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(**arguments)


def test_numbers_are_plain_floats():
    assert repr(SGD(np.float64(0.5), momentum=np.float32(0.5))) == (
        "SGD(learning_rate=0.5, momentum=0.5)"
    )
    assert Adam(betas=[0.8, 0.9]) == Adam(betas=(0.8, 0.9))


def test_learning_rate_may_be_a_schedule_or_a_function():
    schedule = CosineDecay(0.1, 10)
    assert SGD(schedule) == SGD(CosineDecay(0.1, 10))
    assert hash(SGD(schedule)) == hash(SGD(CosineDecay(0.1, 10)))

    def rate(step):
        return 0.1

    assert SGD(rate).learning_rate is rate
    assert SGD(rate) == SGD(rate)


def test_get():
    assert optimizers.get(None) == Adam()
    for name, cls in (("sgd", SGD), ("adam", Adam), ("adamw", AdamW), ("rmsprop", RMSprop)):
        assert optimizers.get(name) == cls()
    optimizer = SGD(0.3)
    assert optimizers.get(optimizer) is optimizer
    with pytest.raises(ValueError, match=r"unknown optimizer 'Adam'; did you mean 'adam'\?"):
        optimizers.get("Adam")
    with pytest.raises(TypeError, match=r"optimizer must be a name, got 0\.1"):
        optimizers.get(0.1)
