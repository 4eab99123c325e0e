"""Schedules against their formulas written step by step, numbers by hand, and PyTorch."""

import math

import numpy as np
import pytest

from fastbackprop import schedules
from fastbackprop.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    OneCycle,
    Schedule,
    StepDecay,
    Warmup,
    rates,
)

CASES = [
    (Constant(0.1), {0: 0.1, 7: 0.1}),
    (StepDecay(0.8, every=3, factor=0.5), {0: 0.8, 2: 0.8, 3: 0.4, 5: 0.4, 6: 0.2, 9: 0.1}),
    (ExponentialDecay(0.8, decay_steps=2, rate=0.25), {0: 0.8, 1: 0.4, 2: 0.2, 4: 0.05}),
    (InverseScaling(0.6), {0: 0.6, 3: 0.3, 8: 0.2}),
    (InverseScaling(0.6, power=1), {0: 0.6, 1: 0.3, 2: 0.2}),
    (
        CosineDecay(1.0, decay_steps=4, final=0.2),
        {0: 1.0, 1: 0.6 + 0.2 * math.sqrt(2), 2: 0.6, 3: 0.6 - 0.2 * math.sqrt(2), 4: 0.2, 9: 0.2},
    ),
    (Warmup(0.4, warmup_steps=3), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.4}),
    (Warmup(StepDecay(0.4, 1, 0.5), 3), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.2, 5: 0.1}),
    # From torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=10) of PyTorch 2.13.
    (
        OneCycle(0.5, total_steps=10),
        {
            0: 0.02,
            1: 0.26,
            2: 0.5,
            3: 0.47524231600673683,
            4: 0.40587282697488153,
            5: 0.30563101096814466,
            6: 0.19437098903185537,
            7: 0.09412917302511849,
            8: 0.024759683993263143,
            9: 2e-06,
            99: 2e-06,
        },
    ),
    (OneCycle(0.5, total_steps=1), {0: 0.5 / 25 / 1e4, 1: 0.5 / 25 / 1e4}),
    (OneCycle(0.5, total_steps=4, start_fraction=0.25), {0: 0.5, 3: 2e-06}),
    (OneCycle(0.5, total_steps=4, start_fraction=1.0), {0: 0.02, 3: 0.5}),
]
IDS = [repr(schedule) for schedule, _ in CASES]


@pytest.mark.parametrize(("schedule", "expected"), CASES, ids=IDS)
def test_values(schedule, expected):
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-13)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CASES], ids=IDS)
def test_an_array_of_steps_is_each_step(schedule):
    steps = np.arange(12).reshape(3, 4)
    together = schedule(steps)
    assert together.shape == steps.shape
    assert together.dtype == np.float64
    each = [schedule(int(step)) for step in steps.flat]
    assert all(type(rate) is float for rate in each)
    # NumPy's vector loops may round differently from its scalar ones.
    np.testing.assert_allclose(together.ravel(), each, rtol=1e-14)
    assert schedule(np.array([], dtype=int)).shape == (0,)


def test_every_schedule_is_tried_above():
    assert {type(schedule) for schedule, _ in CASES} == set(schedules.SCHEDULES)


@pytest.mark.parametrize("total_steps", [2, 3, 10, 97])
@pytest.mark.parametrize("start_fraction", [0.0, 0.3, 0.45, 1.0])
def test_one_cycle_is_that_of_pytorch(total_steps, start_fraction):
    torch = pytest.importorskip("torch")
    if start_fraction * total_steps == 1.0:
        pytest.skip("PyTorch divides by zero here")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        0.3,
        total_steps=total_steps,
        pct_start=start_fraction,
        div_factor=10.0,
        final_div_factor=50.0,
    )
    expected = [theirs.get_last_lr()[0]]
    for _ in range(total_steps - 1):
        optimizer.step()
        theirs.step()
        expected.append(theirs.get_last_lr()[0])
    ours = OneCycle(0.3, total_steps, start_fraction, div=10.0, final_div=50.0)
    np.testing.assert_allclose(rates(ours, 0, total_steps), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Constant(-1), ValueError, "rate must be a number >= 0, got -1"),
        (lambda: Constant(True), TypeError, "rate must be"),
        (lambda: StepDecay(0.0, 1, 0.5), ValueError, "initial must be a positive number, got 0"),
        (lambda: StepDecay(0.1, 0, 0.5), ValueError, "every must be a positive integer, got 0"),
        (lambda: StepDecay(0.1, 2.0, 0.5), TypeError, "every must be a positive integer, got 2"),
        (lambda: StepDecay(0.1, 2, -1), ValueError, "factor must be"),
        (lambda: ExponentialDecay(0.1, -1, 0.5), ValueError, "decay_steps must be"),
        (lambda: ExponentialDecay(0.1, 1, math.inf), ValueError, "rate must be"),
        (lambda: InverseScaling(0.1, -0.5), ValueError, "power must be"),
        (lambda: CosineDecay(0.1, 10, -0.1), ValueError, "final must be"),
        (lambda: OneCycle(0.1, 10, 1.5), ValueError, r"start_fraction must be a number in \[0, 1]"),
        (lambda: OneCycle(0.1, 10, div=0), ValueError, "div must be"),
        (lambda: OneCycle(0.1, 10, final_div="x"), TypeError, "final_div must be"),
        (lambda: Warmup(0, 10), ValueError, "schedule must be a positive number or a schedule"),
        (lambda: Warmup("x", 10), TypeError, "schedule must be a positive number or a schedule"),
        (lambda: Warmup(0.1, 0), ValueError, "warmup_steps must be"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("step", [-1, np.array([3, -1])])
def test_steps_are_not_negative(step):
    with pytest.raises(ValueError, match="step must be an integer >= 0"):
        Constant(0.1)(step)


@pytest.mark.parametrize(
    "spec", [0.25, np.float32(0.25), Constant(0.25), lambda step: 0.25, lambda step: np.array(0.25)]
)
def test_rates_takes_numbers_schedules_and_functions(spec):
    values = rates(spec, 3, 4)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [0.25] * 4)
    assert rates(spec, 3, 0).shape == (0,)


def test_rates_starts_at_the_first_step():
    np.testing.assert_array_equal(rates(lambda step: step, 5, 3), [5, 6, 7])
    np.testing.assert_array_equal(rates(StepDecay(1.0, 1, 0.5), 1, 3), [0.5, 0.25, 0.125])


def test_a_function_is_called_with_ints():
    seen = []
    rates(lambda step: seen.append(type(step)) or 0.1, 0, 2)
    assert seen == [int, int]


class Broken(Schedule):
    def _rates(self, steps):
        return np.where(steps == 6, np.nan, 0.1)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            lambda step: 5.5 - step,
            ValueError,
            r"learning rate of step 6 must be .* >= 0, got -0\.5",
        ),
        (lambda step: math.inf if step == 7 else 1, ValueError, "step 7 must be .* got inf"),
        (Broken(), ValueError, "step 6 must be a number >= 0, got nan from Broken"),
        (lambda step: None, TypeError, "step 5 must be a number, got None"),
        (lambda step: "fast", TypeError, "step 5 must be a number, got 'fast'"),
        (-0.1, ValueError, r"learning_rate must be a number >= 0, got -0\.1"),
        ("0.1", TypeError, "learning_rate must be a number >= 0, got '0.1'"),
    ],
)
def test_rates_names_the_step_that_is_wrong(spec, error, message):
    with pytest.raises(error, match=message):
        rates(spec, 5, 4)
