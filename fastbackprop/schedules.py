"""Learning-rate schedules: the rate of each optimizer step, as a function of the step's number.

Steps are counted from 0 over the whole life of an optimizer's state, as in Keras and optax, so
a schedule goes on where it was in a later `fit`. They are asked for ahead, those of an epoch or of
several at once, so a function of yours must follow from the step alone. An epoch of n rows in
batches of b has ``steps = -(-n // b)`` steps: for 10 epochs, give ``decay_steps=10 * steps``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from fastbackprop.specs import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    Spec,
    checked_number,
    checked_size,
    spec_from_config,
)

Array: TypeAlias = npt.NDArray[np.float64]
LearningRate: TypeAlias = float | Callable[[int], float]
"""A number, a `Schedule`, or any function from the step's number to a number."""

RATE = Range("a positive number or a schedule", POSITIVE.contains)
"""What a learning rate must be where a schedule may stand too."""


@dataclass(frozen=True, repr=False)
class Schedule(Spec, ABC):
    """A learning rate that depends on the step. Call it with a step, or with an array of steps.

    Examples
    --------
    >>> schedule = StepDecay(0.1, every=2, factor=0.5)
    >>> schedule(0)
    0.1
    >>> schedule(np.arange(5))
    array([0.1  , 0.1  , 0.05 , 0.05 , 0.025])
    """

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: npt.NDArray[Any]) -> Array: ...

    def __call__(self, step: int | npt.NDArray[Any]) -> float | Array:
        """Return the rate of one step, or of each of an array of steps, all at least 0."""
        steps = np.asarray(step, dtype=np.float64)
        if np.any(steps < 0):
            raise ValueError(f"step must be an integer >= 0, got {step!r}")
        rates = self._rates(steps)
        return float(rates) if steps.ndim == 0 else rates

    @abstractmethod
    def _rates(self, steps: Array) -> Array:
        """Return the rate of each of the steps, in their shape."""


@dataclass(frozen=True, repr=False)
class Constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    rate : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    Examples
    --------
    >>> Constant(0.1)(1000)
    0.1
    """

    rate: float

    def __post_init__(self) -> None:
        self._set(rate=checked_number("rate", self.rate, NON_NEGATIVE))

    def _rates(self, steps: Array) -> Array:
        return np.full(steps.shape, self.rate)


@dataclass(frozen=True, repr=False)
class StepDecay(Schedule):
    """Multiplied by a factor every so many steps: initial · factor^⌊step / every⌋.

    Parameters
    ----------
    initial : float
        The first rate; positive.
    every : int
        Steps between two changes.
    factor : float
        Positive; below 1 to decay.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    Examples
    --------
    A tenth after every 30 epochs of 100 steps:

    >>> StepDecay(0.1, every=30 * 100, factor=0.1)(3000)
    0.010000000000000002
    """

    initial: float
    every: int
    factor: float

    def __post_init__(self) -> None:
        self._set(
            initial=checked_number("initial", self.initial, POSITIVE),
            every=checked_size("every", self.every),
            factor=checked_number("factor", self.factor, POSITIVE),
        )

    def _rates(self, steps: Array) -> Array:
        return self.initial * self.factor ** np.floor(steps / self.every)


@dataclass(frozen=True, repr=False)
class ExponentialDecay(Schedule):
    """Smoothly multiplied by a rate every so many steps: initial · rate^(step / decay_steps).

    Parameters
    ----------
    initial : float
        The first rate; positive.
    decay_steps : int
        Steps in which the learning rate is multiplied by `rate` once.
    rate : float
        Positive; below 1 to decay.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    Examples
    --------
    Halved with every epoch of 100 steps:

    >>> ExponentialDecay(0.1, decay_steps=100, rate=0.5)(200)
    0.025
    """

    initial: float
    decay_steps: int
    rate: float

    def __post_init__(self) -> None:
        self._set(
            initial=checked_number("initial", self.initial, POSITIVE),
            decay_steps=checked_size("decay_steps", self.decay_steps),
            rate=checked_number("rate", self.rate, POSITIVE),
        )

    def _rates(self, steps: Array) -> Array:
        return self.initial * self.rate ** (steps / self.decay_steps)


@dataclass(frozen=True, repr=False)
class InverseScaling(Schedule):
    """Divided by a power of the step's number: initial / (step + 1)^power.

    The formula is "invscaling" of scikit-learn's MLPClassifier, which counts samples and changes
    the rate once an epoch; here t counts steps.

    Parameters
    ----------
    initial : float
        The first rate; positive.
    power : float, default 0.5
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    Examples
    --------
    >>> InverseScaling(0.1)(3)
    0.05
    """

    initial: float
    power: float = 0.5

    def __post_init__(self) -> None:
        self._set(
            initial=checked_number("initial", self.initial, POSITIVE),
            power=checked_number("power", self.power, NON_NEGATIVE),
        )

    def _rates(self, steps: Array) -> Array:
        return self.initial / (steps + 1.0) ** self.power


@dataclass(frozen=True, repr=False)
class CosineDecay(Schedule):
    """Half a cosine from `initial` at step 0 down to `final` at `decay_steps`, then `final`.

    final + ½ (initial − final)·(1 + cos(π · step / decay_steps))

    Parameters
    ----------
    initial : float
        The first rate; positive.
    decay_steps : int
        The step at which `final` is reached.
    final : float, default 0.0
        The last rate; at least 0.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    References
    ----------
    Loshchilov and Hutter (2017), arXiv:1608.03983, eq. 5, without restarts.

    Examples
    --------
    Over 10 epochs of 100 steps:

    >>> schedule = CosineDecay(0.1, decay_steps=10 * 100, final=0.02)
    >>> round(schedule(500), 12), schedule(2000)
    (0.06, 0.02)
    """

    initial: float
    decay_steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        self._set(
            initial=checked_number("initial", self.initial, POSITIVE),
            decay_steps=checked_size("decay_steps", self.decay_steps),
            final=checked_number("final", self.final, NON_NEGATIVE),
        )

    def _rates(self, steps: Array) -> Array:
        return _cosine(self.initial, self.final, steps / self.decay_steps)


@dataclass(frozen=True, repr=False)
class OneCycle(Schedule):
    """Half a cosine up from max / div to `max`, then half a cosine down to max / (div·final_div).

    The formulas are those of PyTorch's OneCycleLR with its default ``anneal_strategy="cos"``:
    `max` is reached at step ``start_fraction * total_steps - 1``, the end at ``total_steps - 1``.
    Later steps, which PyTorch refuses, keep the last rate.

    Parameters
    ----------
    max : float
        The highest rate; positive.
    total_steps : int
        Steps of the whole cycle.
    start_fraction : float, default 0.3
        The part of the cycle in which the rate rises, in [0, 1].
    div : float, default 25.0
        The first rate is max / div; positive.
    final_div : float, default 1e4
        The last rate is the first one / final_div; positive.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    References
    ----------
    Smith and Topin (2018), arXiv:1708.07120. torch.optim.lr_scheduler.OneCycleLR.

    Examples
    --------
    Over 10 epochs of 100 steps:

    >>> schedule = OneCycle(0.1, total_steps=10 * 100)
    >>> round(schedule(0), 6), schedule(299), round(schedule(999), 10)
    (0.004, 0.1, 4e-07)
    """

    max: float
    total_steps: int
    start_fraction: float = 0.3
    div: float = 25.0
    final_div: float = 1e4

    def __post_init__(self) -> None:
        self._set(
            max=checked_number("max", self.max, POSITIVE),
            total_steps=checked_size("total_steps", self.total_steps),
            start_fraction=checked_number("start_fraction", self.start_fraction, FRACTION),
            div=checked_number("div", self.div, POSITIVE),
            final_div=checked_number("final_div", self.final_div, POSITIVE),
        )

    def _rates(self, steps: Array) -> Array:
        first = self.max / self.div
        last = first / self.final_div
        peak = self.start_fraction * self.total_steps - 1.0
        end = self.total_steps - 1.0
        # Either phase may have no length, and must then not divide by 0.
        rising = _cosine(first, self.max, steps / peak) if peak > 0 else self.max
        falling = _cosine(self.max, last, (steps - peak) / (end - peak or 1.0))
        return np.where(steps <= peak, rising, falling)


@dataclass(frozen=True, repr=False)
class Warmup(Schedule):
    """Rises linearly in the first steps, then follows another schedule from its step 0.

    Step t < warmup_steps has the rate schedule(0)·(t + 1) / (warmup_steps + 1), so no step has
    rate 0; step t ≥ warmup_steps has the rate schedule(t − warmup_steps).

    Parameters
    ----------
    schedule : float or Schedule
        What comes after: a constant rate, or a schedule.
    warmup_steps : int
        Steps before it.

    Raises
    ------
    TypeError, ValueError
        If a number is not of the type or in the range described.

    References
    ----------
    Goyal et al. (2017), arXiv:1706.02677, section 2.2.

    Examples
    --------
    One epoch of 100 steps of warm-up, nine of decay:

    >>> schedule = Warmup(CosineDecay(0.1, decay_steps=9 * 100), warmup_steps=100)
    >>> round(schedule(0), 6), schedule(100), schedule(1000)
    (0.00099, 0.1, 0.0)
    """

    schedule: float | Schedule
    warmup_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            self._set(schedule=checked_number("schedule", self.schedule, RATE))
        self._set(warmup_steps=checked_size("warmup_steps", self.warmup_steps))

    def _rates(self, steps: Array) -> Array:
        follow = self.schedule if isinstance(self.schedule, Schedule) else Constant(self.schedule)
        ramp = follow(0) * (steps + 1.0) / (self.warmup_steps + 1.0)
        after = follow(np.maximum(steps - self.warmup_steps, 0.0))
        return np.where(steps < self.warmup_steps, ramp, after)


SCHEDULES: tuple[type[Schedule], ...] = (
    Constant,
    StepDecay,
    ExponentialDecay,
    InverseScaling,
    CosineDecay,
    OneCycle,
    Warmup,
)
"""All schedules."""


def rates(spec: LearningRate, first_step: int, n_steps: int) -> Array:
    """Return the learning rates of consecutive steps.

    Parameters
    ----------
    spec : float, Schedule or callable
        A number for all steps, a schedule, or a function from the step's number to its rate.
    first_step : int
        The first step's number, at least 0.
    n_steps : int
        How many steps, at least 0.

    Returns
    -------
    ndarray, shape (n_steps,)
        float64.

    Raises
    ------
    TypeError
        If `spec`, or what it returns for a step, is not a number.
    ValueError
        If a rate is negative or not finite; the error names its step.

    Examples
    --------
    >>> rates(lambda step: 0.1 / (step + 1), first_step=1, n_steps=3)
    array([0.05      , 0.03333333, 0.025     ])
    """
    first_step = checked_size("first_step", first_step, minimum=0)
    n_steps = checked_size("n_steps", n_steps, minimum=0)
    steps = range(first_step, first_step + n_steps)
    if isinstance(spec, Schedule):
        values = spec(np.array(steps, dtype=np.float64))
    elif callable(spec):
        values = np.array([_called(spec, step) for step in steps], dtype=np.float64)
    else:
        values = np.full(n_steps, checked_number("learning_rate", spec, NON_NEGATIVE))
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"the learning rate of step {steps[at]} must be a number >= 0, got {values[at]} "
            f"from {spec!r}"
        )
    return values


def from_config(config: Mapping[str, Any]) -> Schedule:
    """Make a schedule from what `Schedule.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "InverseScaling", "initial": 0.1, "power": 0.25})
    InverseScaling(0.1, power=0.25)
    """
    return spec_from_config("schedule", SCHEDULES, config, {"schedule": from_config})


def _cosine(start: float, end: float, fraction: Array) -> Array:
    """Go from start at fraction 0 to end at 1 along half a cosine, and stay there."""
    return end + (start - end) / 2.0 * (1.0 + np.cos(np.pi * np.clip(fraction, 0.0, 1.0)))


def _called(function: Callable[[int], float], step: int) -> float:
    rate = function(step)
    try:
        return float(rate)
    except (TypeError, ValueError):
        raise TypeError(
            f"the learning rate of step {step} must be a number, got {rate!r} from {function!r}"
        ) from None
