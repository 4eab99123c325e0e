"""The gradient of any function of a flat vector, compared with finite differences."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastbackprop.gradcheck.differences import EPS, Crossing, Line, Sample, noise_of
from fastbackprop.gradcheck.examination import CheckedTensor, Point, checked_rules, examine
from fastbackprop.gradcheck.report import GradientCheckReport
from fastbackprop.plan import Array
from fastbackprop.specs import checked_size

Loss = Callable[[Array], Any]

# Up to which distance from theta, relative to max(1, |θ|), the noise measured there or nearer is
# that of the loss. The last one is the longest step.
_NOISE_DISTANCES = (2.0**-18, 2.0**-12, 2.0**-7)

# Bound on an error by rounding, in standard deviations of that noise.
_DEVIATIONS = 8.0


def check(
    loss: Loss,
    grad: Callable[[Array], Any] | Any,
    theta: Any,
    *,
    method: str = "central",
    step: float | None = None,
    rtol: float = 1e-6,
    max_entries: int | None = None,
    seed: int = 0,
) -> GradientCheckReport:
    """Compare the gradient of a function with finite differences of it.

    Parameters
    ----------
    loss : callable
        Takes a float64 array (n,) and returns a number, always the same for the same array.
    grad : callable, or array_like of shape (n,)
        The gradient: a function of the array, or its value at `theta`.
    theta : array_like, (n,)
        Where to check; float64.
    method, step, rtol, seed
        As in `check_gradients`.
    max_entries : int, optional
        Check that many entries, chosen at random. All unless given.

    Returns
    -------
    GradientCheckReport
        Its entries belong to the tensor "theta".

    Raises
    ------
    TypeError
        If `theta` is not float64, or an argument is not of the type named.
    ValueError
        If `theta` is not one-dimensional or not finite; if `loss` returns something else than a
        finite number, or not the same twice; if the gradient has another shape than `theta`.

    Notes
    -----
    Nothing is known about the inside of `loss`, so that a kink has to be guessed: where the slopes
    on the left and on the right, over a distance of 4e-9·max(1, abs(θ)), differ by more than a
    thousandth. There the verdict is *kink* if the gradient is between them, and *fail* if it is
    not. If one of the slopes does not converge (a jump, noise), what does not pass is
    *inconclusive*. A kink that is farther away is no obstacle: steps are shortened.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbackprop import gradcheck
    >>> def loss(theta):
    ...     return np.sum(np.exp(theta))
    >>> gradcheck.check(loss, np.exp, [0.0, 0.5, 1.0]).ok
    True
    >>> report = gradcheck.check(loss, lambda theta: 1.01 * np.exp(theta), [0.0, 0.5, 1.0])
    >>> [entry.verdict.value for entry in report.entries]
    ['fail', 'fail', 'fail']
    """
    rules = checked_rules(method, step, rtol, max_entries, "max_entries")
    rng = np.random.default_rng(checked_size("seed", seed, minimum=0))
    if not callable(loss):
        raise TypeError(f"loss must be a function of theta, got {loss!r}")
    values = _checked_theta(theta)
    gradient = _gradient_at(grad, values)
    different = 0
    if callable(grad):
        again = _gradient_at(grad, values)
        different = int((gradient.view(np.uint64) != again.view(np.uint64)).sum())
    point = FunctionPoint(loss, values, gradient, rng)
    entries = examine(point, rules, rng)
    return GradientCheckReport(
        entries, [], different, totals={"theta": values.size}, method=rules.method, rtol=rules.rtol
    )


class FunctionPoint(Point):
    """A flat vector, a function of it and its gradient."""

    def __init__(self, loss: Loss, theta: Array, gradient: Array, rng: np.random.Generator) -> None:
        self._loss, self._theta = loss, theta
        first, second = (_number(loss(theta.copy())) for _ in range(2))
        if not np.isfinite(first):
            raise ValueError(
                f"loss returned {first} at theta; it must be finite where its gradient is checked"
            )
        if first != second:
            raise ValueError(
                f"loss returned {first!r} and then {second!r} for the same theta; differences mean "
                "nothing then. Fix the seed of whatever is random in it."
            )
        self._home, self._noise = theta.copy(), [0.0] * len(_NOISE_DISTANCES)
        summands = np.abs(gradient)  # which is all that is known of them
        super().__init__([CheckedTensor(None, "theta", theta, gradient, summands)])
        signs = 1.0 - 2.0 * rng.integers(0, 2, theta.shape)
        line = Line(self.loss, [(theta, signs * self._unit)])
        self._noise = [noise_of(line, distance) for distance in (None, *_NOISE_DISTANCES[1:])]

    @property
    def _unit(self) -> Array:
        return np.maximum(1.0, np.abs(self._home))

    def loss(self) -> Sample:
        """The value; where it is not finite, that is as beyond a kink."""
        with np.errstate(all="ignore"):
            value = _number(self._loss(self._theta.copy()))
        if not np.isfinite(value):
            return Sample(np.array([value]), Crossing.KINK)
        distance = float((np.abs(self._theta - self._home) / self._unit).max())
        near = bisect.bisect_left(_NOISE_DISTANCES[:-1], distance)
        rounding = _DEVIATIONS * max(self._noise[: near + 1]) + EPS * abs(value)
        return Sample(np.array([value]), Crossing.NONE, rounding)


def _checked_theta(theta: Any) -> Array:
    array = np.asarray(theta)
    if array.dtype != np.float64:
        raise TypeError(
            f"theta has dtype {array.dtype}; finite differences need float64: "
            "theta.astype('float64')"
        )
    if array.ndim != 1:
        raise ValueError(f"theta has shape {array.shape}; expected a flat vector: theta.ravel()")
    if array.size == 0:
        raise ValueError("theta is empty, so there is nothing to check")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"theta[{bad[0]}] is {array[bad[0]]}; every value must be finite")
    return array.copy()


def _number(value: Any) -> float:
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(
            f"loss returned an array of shape {array.shape}; it must return one number: take the "
            "sum or the mean"
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"loss returned {value!r}; it must return a real number (of a tensor, its item())"
        )
    return float(array)


def _gradient_at(grad: Any, theta: Array) -> Array:
    gradient = np.asarray(grad(theta.copy()) if callable(grad) else grad)
    if gradient.dtype.kind not in "biuf":
        raise TypeError(f"the gradient has dtype {gradient.dtype}; it must hold real numbers")
    if gradient.shape != theta.shape:
        raise ValueError(
            f"the gradient has shape {gradient.shape}, but theta {theta.shape}; they must be equal"
        )
    return np.array(gradient, dtype=np.float64)
