"""The compiled backward pass of a network, compared with differences of its forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastbackprop.data import TrainingData, checked_inputs, checked_targets, checked_weights
from fastbackprop.gradcheck.comparisons import WAYS, own_type, training_step, two_steps
from fastbackprop.gradcheck.examination import checked_rules, examine
from fastbackprop.gradcheck.points import NetworkPoint, state_of
from fastbackprop.gradcheck.report import GradientCheckReport
from fastbackprop.plan import Plan
from fastbackprop.specs import checked_flag, checked_size
from fastbackprop.state import State

if TYPE_CHECKING:
    from fastbackprop.network import Network

_FLOAT64 = np.dtype(np.float64)


def check_gradients(
    net: Network,
    X: Any,
    y: Any,
    *,
    method: str = "central",
    step: float | None = None,
    rtol: float = 1e-6,
    max_per_tensor: int | None = None,
    sample_weight: Any = None,
    inputs: bool = True,
    seed: int = 0,
) -> GradientCheckReport:
    """Compare the gradients of a network with finite differences of its loss.

    Both are computed by the compiled kernels in float64, on a copy: the network does not change.
    `Dropout` is active, with one mask that `seed` decides. These are checked, too:

    - the steps of training, which take their gradients another way than
      ``net.loss_and_gradients``: one of SGD, one with weight decay, one with clipping by norm, and,
      without dropout, two in a row;
    - for a float32 network, its own gradients, within what rounding to float32 explains;
    - that a second backward pass, and one of two threads, give the same bits.

    Parameters
    ----------
    net : Network
        The network, with the parameters at which to check.
    X : array_like, (n, n_in)
        Inputs; a few dozen rows are enough. Integers are taken as float64 values.
    y : array_like, (n,) or (n, n_out)
        Targets, as in `Network.fit`.
    method : {"central", "richardson", "directional"}, default "central"
        ``central`` differences of each entry, with an extrapolation where one is not precise
        enough; ``richardson`` extrapolates each, in about five times the time; ``directional``
        measures along three random directions in each tensor and three over all, whose cost does
        not depend on the number of parameters.
    step : float, optional
        The step of a central difference, or the first of an extrapolation. By default
        ε^(1/3)·max(1, abs(θ)) = 6e-6·max(1, abs(θ)), and 2⁻⁷·max(1, abs(θ)).
    rtol : float, default 1e-6
        The error that passes, relative to the larger of both values of each entry.
    max_per_tensor : int, optional
        Check that many entries of each tensor, chosen at random. All unless given: a network of
        100,000 parameters takes about a minute for a batch of 32.
    sample_weight : array_like, (n,), optional
        As in `Network.fit`.
    inputs : bool, default True
        Whether to check the gradient with respect to X, too.
    seed : int, default 0
        Of all that is random.

    Returns
    -------
    GradientCheckReport

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The relative error of an entry is the difference of both values over the larger of the two.
    Finite differences with many steps are made where the first one is not within a twentieth of
    `rtol`; each has a bound on its error: by rounding, from the sizes of the terms of the loss, and
    by truncation, from the differences between steps. An estimate that finer steps contradict is
    not used. Each entry is

    - *pass*: the error is within `rtol`; or it is within the bound, and that is small, compared
      with the entry (1e-3) or with the terms that it is a sum of (`rtol`);
    - *fail*: it is more than the bound and `rtol` explain;
    - *kink*: a unit is at a kink (of relu, leaky_relu, elu with α ≠ 1, mae or quantile) or closer
      to it than differences resolve, seen by the sides its units are on. There the gradient is
      compared with differences at a point nearby without kinks, and agrees;
    - *inconclusive*: no estimate is good enough to tell. A report is not `ok` if that is all that
      is known of a tensor.

    References
    ----------
    Griewank and Walther, *Evaluating Derivatives* (2008), section 3.1, for the cost and the
    precision of differences.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> net = fb.Network([4, 6, 3], "tanh", "cross_entropy", random_state=0)
    >>> X = np.random.default_rng(0).normal(size=(8, 4))
    >>> report = fb.check_gradients(net, X, [0, 1, 2, 0, 1, 2, 0, 1])
    >>> report.ok
    True
    >>> report.worst(1)[0].relative_error < 1e-7
    True
    """
    rules = checked_rules(method, step, rtol, max_per_tensor, "max_per_tensor")
    with_inputs = checked_flag("inputs", inputs)
    rng = np.random.default_rng(checked_size("seed", seed, minimum=0))
    state = getattr(net, "_state", None)
    if not isinstance(state, State):
        raise TypeError(f"net must be a Network, got {net!r}; for a function use gradcheck.check")
    plan = state.plan
    given = checked_inputs(X, plan.n_in, values_in=plan.dtype)
    weights = checked_weights(sample_weight, len(given))
    output = plan.stages[-1].activation
    twin_plan = Plan(net.layers, plan.loss, output, _FLOAT64)
    theta = plan.pack(state.params).astype(np.float64)
    mask_seed = int(rng.integers(2**62))
    twin = state_of(twin_plan, theta, mask_seed)
    targets = checked_targets(y, len(given), plan.n_out, plan.loss, _FLOAT64)
    data = TrainingData(np.array(given, dtype=np.float64, order="C"), targets, weights)
    point = NetworkPoint(twin, data, inputs=with_inputs)
    entries = examine(point, rules, rng)
    comparisons = [training_step(point, way, rules.rtol) for way in WAYS]
    if all(stage.dropout == 0.0 for stage in twin_plan.stages):  # else each step has its own mask
        comparisons.append(two_steps(point, rules.rtol))
    if plan.dtype != _FLOAT64:
        own_targets = checked_targets(y, len(given), plan.n_out, plan.loss, plan.dtype)
        own = state_of(Plan(net.layers, plan.loss, output, plan.dtype), theta, mask_seed)
        comparisons.append(own_type(point, own, TrainingData(given, own_targets, weights), rng))
    return GradientCheckReport(
        entries,
        comparisons,
        point.different_bits(),
        totals={tensor.full_name: tensor.values.size for tensor in point.tensors},
        method=rules.method,
        rtol=rules.rtol,
    )
