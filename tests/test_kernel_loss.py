"""Every loss, its gradient and its score against plain NumPy, for any number of outputs."""

from typing import NamedTuple

import numpy as np
import pytest
import reference
from kernel_harness import Memory, address, assert_same_bits, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop._kernels import codes
from fastbackprop._kernels.loss import losses_and_deltas
from fastbackprop._kernels.records import (
    JOB,
    LAYER,
    LINEAR,
    SCORE_LARGEST,
    SCORE_NONE,
    SCORE_THRESHOLD,
    job_at,
    layer_at,
)
from fastbackprop._kernels.simd import pointer

POINTWISE = ["quadratic", "mse", "mae", "huber", "quantile"]
FUSED = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "exp"}
# With each loss one activation whose derivative is told from a, and one that needs z.
PAIRS = [
    *[(loss, name) for loss in POINTWISE for name in ("identity", "sigmoid", "gelu")],
    *[("quadratic", name) for name in ("relu", "leaky_relu", "tanh", "softplus", "elu", "silu")],
    *FUSED.items(),
]
ALPHA = {"leaky_relu": 0.2, "elu": 0.7}
DELTA = 0.6  # of huber; q of quantile


@jit
def _rows(job, layer, dz, z, a, t, first, last, begin, total_weight, losses, scores, like):
    double = np.float64(0)
    losses_and_deltas(
        pointer(losses, double),
        pointer(scores, double),
        pointer(dz, like),
        pointer(z, like),
        pointer(a, like),
        pointer(t, like),
        job_at(job),
        layer_at(layer),
        first,
        last,
        begin,
        total_weight,
    )


class Result(NamedTuple):
    losses: np.ndarray  # (n,), weighted
    scores: np.ndarray  # (n,), weighted
    dz: np.ndarray  # (n, n_out)


def run(loss, activation, z, a, t, weights=None, score=SCORE_NONE):
    """The kernel on two parts of a batch, of whose weighted mean dz is the gradient.

    Weights are those of a data set that has two rows before the batch, and is in random order.
    """
    (n, n_out), dtype = z.shape, z.dtype.type
    job, layer = np.zeros(1, JOB), np.zeros(1, LAYER)
    begin, order, weights_of_data = 0, None, None
    if weights is not None:
        begin, order = 2, np.random.default_rng(5).permutation(n + 2)
        weights_of_data = np.empty(n + 2)
        weights_of_data[order] = [np.nan, np.nan, *weights]
        job["order"], job["weights"] = address(order), address(weights_of_data)
    job["loss"] = LINEAR if loss == "linear" else getattr(codes, loss.upper())
    job["loss_parameter"], job["score"] = DELTA, score
    layer["n_out"], layer["activation"] = n_out, getattr(codes, activation.upper())
    layer["alpha"] = ALPHA.get(activation, 0.0)
    ld = whole_vectors(n_out + 1, dtype)
    with Memory(dtype) as memory:
        dz, rows_z, rows_a = memory.empty(n, ld), memory.copy(z, ld), memory.copy(a, ld)
        # As the forward pass leaves them: the column of ones, and finite numbers beyond it.
        rows_z[:, n_out:], rows_a[:, n_out:] = 0.5, 0.25
        rows_a[:, n_out] = 1
        targets = memory.copy(t, ld)
        targets[:, n_out:] = 0
        losses = memory.empty(n, dtype=np.float64)
        scores = memory.empty(n, dtype=np.float64)
        layer["ld_a"] = layer["ld_dz"] = ld
        for first, last in ((0, n // 2), (n // 2, n)):
            _rows(
                address(job),
                address(layer),
                address(dz),
                address(rows_z),
                address(rows_a),
                address(targets),
                first,
                last,
                begin,
                float(n if weights is None else weights.sum()),
                address(losses),
                address(scores),
                dtype(0),
            )
        columns = whole_vectors(n_out, dtype)
        finite = np.isfinite(dz[:, :n_out]).all(axis=1)
        np.testing.assert_array_equal(dz[finite, n_out:columns], 0, "the padding of dz")
        assert np.isnan(dz[:, columns:]).all(), "written beyond the last vector of a row"
        return Result(losses, scores, dz[:, :n_out].copy())


def example(loss, activation, n, n_out, dtype, seed=0):
    """Preactivations, outputs and targets of a batch."""
    rng = np.random.default_rng([seed, n_out])
    z = rng.normal(scale=2, size=(n, n_out)).astype(dtype)
    a = reference.activation(activation, z.astype(np.float64), ALPHA.get(activation)).astype(dtype)
    if loss == "cross_entropy":
        t = rng.dirichlet(np.ones(n_out), n) if n_out > 1 else np.ones((n, 1))
        t[0] = np.eye(n_out)[n_out - 1]
        t[1] *= 0.5  # as a weight of the row would
    elif loss == "binary_cross_entropy":
        t = rng.uniform(size=(n, n_out))
        t[0] = np.arange(n_out) % 2
    elif loss == "poisson":
        t = rng.uniform(0, 3, (n, n_out))
        t[0] = np.arange(n_out) % 2
    else:
        t = rng.normal(size=(n, n_out))
        t[0] = a[0]  # the kink of mae, the middle of huber
    return z, a, t.astype(dtype)


def expected_of(loss, activation, z, a, t, weights):
    """Each row's loss, and the gradient of the weighted mean with respect to z."""
    outputs = z if loss in FUSED else a
    losses = reference.row_losses(loss, outputs, t.astype(np.float64), DELTA)
    dz = reference.loss_gradient(loss, outputs, t.astype(np.float64), weights, DELTA)
    if loss not in FUSED:
        dz *= reference.activation_derivative(activation, z, ALPHA.get(activation))
    return losses, dz


@each_dtype
@pytest.mark.parametrize(("loss", "activation"), PAIRS)
def test_value_and_gradient(loss, activation, dtype):
    L, eps, n = lanes_of(dtype), np.finfo(dtype).eps, 12
    for n_out in (*range(1, L + 2), 2 * L, 3 * L + 2):
        z, a, t = example(loss, activation, n, n_out, dtype)
        for weights in (None, np.random.default_rng(n_out).uniform(0, 3, n)):
            result = run(loss, activation, z, a, t, weights)
            losses, dz = expected_of(loss, activation, z, a, t, weights)
            # The terms of a sum and the logits before their difference are rounded to eps.
            reach = np.abs(losses) + np.abs(z).max() + 1
            if loss == "poisson":
                reach = reach + 3 * np.abs(z).max() + np.abs(a).max()
            w = np.ones(n) if weights is None else weights
            assert np.all(np.abs(result.losses - w * losses) <= (n_out + 8) * eps * reach * w)
            shares = (w / w.sum())[:, None] * (
                1 if loss in {"quadratic", "cross_entropy"} else 1 / n_out
            )
            residual = np.maximum(np.abs(a - t), 1)
            if loss == "poisson":
                residual = np.maximum(a, t) + 1
            assert np.all(np.abs(result.dz - dz) <= 16 * eps * shares * residual)


@each_dtype
def test_huber_at_the_ends_of_its_middle(dtype):
    d = np.array([[DELTA, -DELTA, np.nextafter(dtype(DELTA), dtype(9)), 1e9, -1e9]]).astype(dtype)
    zeros = np.zeros_like(d)
    result = run("huber", "identity", d, d, zeros)
    np.testing.assert_allclose(result.losses, reference.row_losses("huber", d, zeros, DELTA), 1e-6)
    np.testing.assert_array_equal(result.dz * 5, np.clip(d, -dtype(DELTA), dtype(DELTA)))


@each_dtype
def test_poisson_of_no_counts(dtype):
    """0 · ln 0 is 0, and a rate of 0 is right for a count of 0."""
    z = np.array([[-np.inf, 0.0, 1.0]], dtype)
    result = run("poisson", "exp", z, np.exp(z), np.zeros_like(z))
    np.testing.assert_allclose(result.losses, [(1 + np.e) / 3], rtol=1e-6)
    np.testing.assert_allclose(result.dz * 3, [[0, 1, np.e]], rtol=1e-6)


@each_dtype
def test_quantile_has_no_slope_at_zero(dtype):
    a, t = np.array([[1.0, -2.0, 3.0]], dtype), np.array([[1.0, -1.0, 1.0]], dtype)
    result = run("quantile", "identity", a, a, t)
    np.testing.assert_allclose(result.dz * 3, [[0, -0.6, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(result.losses, [(0.6 + 0.8) / 3], rtol=1e-6)


@each_dtype
def test_mae_has_no_slope_at_zero(dtype):
    a = np.array([[1.0, -2.0, 3.0]], dtype)
    t = np.array([[1.0, -1.0, 1.0]], dtype)
    result = run("mae", "identity", a, a, t)
    np.testing.assert_allclose(result.dz, [[0, -1 / 3, 1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(result.losses, [1])


@each_dtype
def test_extreme_logits(dtype):
    """Huge and infinite logits: the loss of a certain and right answer is 0, not NaN."""
    huge = 1e30
    z = np.array([[huge, 0, -huge], [-np.inf, 0, -np.inf], [huge, 0, -huge]], dtype)
    t = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype)
    result = run("cross_entropy", "softmax", z, z, t)
    np.testing.assert_allclose(result.losses, [0, 0, huge], rtol=1e-6)
    expected = np.array([[0, 0, 0], [0, 0, 0], [1, -1, 0]]) / 3
    np.testing.assert_allclose(result.dz, expected, rtol=1e-6)

    z = np.array([[huge, -huge, 0, -huge]], dtype)
    t = np.array([[1, 0, 0.5, 1]], dtype)
    result = run("binary_cross_entropy", "sigmoid", z, z, t)
    np.testing.assert_allclose(result.losses, [(np.log(2) + huge) / 4], rtol=1e-6)
    np.testing.assert_array_equal(result.dz, [[0, 0, 0, -0.25]])


@each_dtype
@pytest.mark.parametrize(("loss", "activation"), PAIRS)
def test_nan_shows_in_the_loss(loss, activation, dtype):
    z, a, t = example(loss, activation, 3, 5, dtype)
    z[1, 2] = a[1, 2] = np.nan
    losses = run(loss, activation, z, a, t).losses
    assert np.isnan(losses).tolist() == [False, True, False]


@each_dtype
@pytest.mark.parametrize(("loss", "activation"), PAIRS)
def test_weights(loss, activation, dtype):
    """A weight of 0 leaves a row out; where all are 0 there is no gradient, and no NaN."""
    z, a, t = example(loss, activation, 4, 5, dtype)
    weights = np.array([0.0, 1.0, 3.0, 0.0])
    result = run(loss, activation, z, a, t, weights)
    alone = run(loss, activation, z[1:3], a[1:3], t[1:3], weights[1:3])
    np.testing.assert_array_equal(result.losses, [0, *alone.losses, 0])
    np.testing.assert_array_equal(result.dz[[0, 3]], 0)
    assert_same_bits(result.dz[1:3], alone.dz)
    # One over their sum is subnormal, which kernels take for 0.
    huge = run(loss, activation, z, a, t, np.full(4, 4e307))
    assert_same_bits(huge.dz, run(loss, activation, z, a, t).dz)
    nothing = run(loss, activation, z, a, t, np.zeros(4))
    np.testing.assert_array_equal(nothing.losses, 0)
    np.testing.assert_array_equal(nothing.dz, 0)


@each_dtype
def test_score_of_the_largest_output(dtype):
    """1 where the first of the largest outputs is the first of the largest targets."""
    L = lanes_of(dtype)
    for n_out in (1, 2, L, L + 1, 2 * L + 1):
        z, _, t = example("cross_entropy", "softmax", 50, n_out, dtype)
        z[:3] = 0  # ties: the first, as argmax has it
        z[3:6] = -np.inf
        z[6:9, -1] = np.inf
        weights = np.random.default_rng(0).uniform(size=50)
        expected = weights * (z.argmax(axis=1) == t.argmax(axis=1))
        for loss, activation in (("cross_entropy", "softmax"), ("quadratic", "identity")):
            scores = run(loss, activation, z, z, t, weights, SCORE_LARGEST).scores
            np.testing.assert_array_equal(scores, expected)


@each_dtype
@pytest.mark.parametrize("wide", [False, True])
def test_scores_pass_over_nan(dtype, wide):
    L = lanes_of(dtype)
    n_out = 2 * L if wide else max(3, L - 1)
    z, t = np.zeros((4, n_out), dtype), np.zeros((4, n_out), dtype)
    t[:, 0] = 1
    z[0] = np.nan
    z[1, 1:] = np.nan
    z[2, 0], z[2, 1:] = np.nan, -1
    z[3, -1] = np.nan
    scores = run("quadratic", "identity", z, z, t, score=SCORE_LARGEST).scores
    np.testing.assert_array_equal(scores, [0, 1, 0, 1])
    t[2] = np.roll(t[2], 1)
    assert run("quadratic", "identity", z, z, t, score=SCORE_LARGEST).scores[2] == 1


@each_dtype
def test_score_of_each_output_on_its_side(dtype):
    """The share of outputs on their target's side: of 0 for logits, of ½ for probabilities."""
    for n_out in (1, 2, lanes_of(dtype) + 1):
        z, a, t = example("binary_cross_entropy", "sigmoid", 50, n_out, dtype)
        expected = ((z > 0) == (t > 0.5)).mean(axis=1)
        for loss in ("binary_cross_entropy", "quadratic"):
            scores = run(loss, "sigmoid", z, a, t, score=SCORE_THRESHOLD).scores
            np.testing.assert_allclose(scores, expected, rtol=1e-14)


@each_dtype
def test_where_there_is_no_score_none_is_written(dtype):
    z, a, t = example("quadratic", "sigmoid", 5, 3, dtype)
    assert np.isnan(run("quadratic", "sigmoid", z, a, t).scores).all()


@each_dtype
@pytest.mark.parametrize("activation", ["identity", "tanh", "gelu", "softmax"])
def test_linear_loss_gives_the_jacobian(activation, dtype):
    """Σ t · a, by which `Network.jacobian` takes one row of ∂a / ∂z after the other."""
    L, eps = lanes_of(dtype), np.finfo(dtype).eps
    for n_out in (1, 2, L, L + 1):
        z, a, _ = example("linear", activation, n_out, n_out, dtype)
        if activation == "softmax":
            wide = a.astype(np.float64)
            jacobian = np.array([np.diag(row) - np.outer(row, row) for row in wide])
        else:
            slopes = reference.activation_derivative(activation, z)
            jacobian = np.array([np.diag(row) for row in slopes])
        for output in range(n_out):
            t = np.tile(np.eye(n_out)[output], (n_out, 1)).astype(dtype)
            result = run("linear", activation, z, a, t)
            np.testing.assert_allclose(
                result.dz * n_out, jacobian[:, output], rtol=0, atol=16 * eps
            )
            np.testing.assert_allclose(result.losses, a[:, output], rtol=4 * eps)
