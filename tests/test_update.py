"""Every optimizer's kernel, step after step, against the same formulas in plain NumPy."""

import numpy as np
import pytest
import reference
from kernel_harness import Memory, address, each_dtype, jit, lanes_of
from kernel_harness import padded as whole_vectors

from fastbackprop import optimizers
from fastbackprop._kernels import update as kernels
from fastbackprop._kernels.records import JOB, job_at
from fastbackprop._kernels.simd import pointer

OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "dampening": 0.4}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"betas": (0.0, 0.0)}),
    ("AdamW", {"weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "alpha": 0.9, "eps": 1e-3}),
]
each_optimizer = pytest.mark.parametrize(
    ("name", "arguments"), OPTIMIZERS, ids=lambda value: str(value).replace(" ", "")
)


@jit
def _update(job, step, norm, code, w, slots, slot_size, g, ld, rows, n, like):
    rule = kernels.rule_of(job_at(job), step, norm)
    w, g, slot = pointer(w, like), pointer(g, like), pointer(slots, like)
    second, third = slot + slot_size, slot + 2 * slot_size
    kernels.update_rows(code, rule, w, slot, second, third, g, ld, rows, n)


@jit
def _is_plain(job, norm, code):
    return kernels.is_plain(code, kernels.rule_of(job_at(job), 0, norm))


@jit
def _store(out, g, ld, rows, n, like):
    kernels.store_rows(pointer(out, like), pointer(g, like), ld, rows, n)


@jit
def _row_square(g, n, like):
    return kernels.row_square(pointer(g, like), n)


class Trained:
    """Parameters (rows, n) that a kernel trains, between guards, in rows longer than needed."""

    def __init__(self, memory, optimizer, w, rates):
        self.rows, self.n = w.shape
        self.dtype = memory.dtype.type
        self.ld = whole_vectors(self.n, self.dtype) + lanes_of(self.dtype)
        self.w = memory.copy(w, self.ld)
        self.slots = memory.empty(3, self.rows, self.ld)
        columns = whole_vectors(self.n, self.dtype)
        self.w[:, self.n : columns] = 0
        self.slots[:, :, :columns] = 0
        self.g = memory.empty(self.rows, self.ld)
        self.optimizer, self.rates = optimizer, np.array(rates)
        self.job = np.zeros(1, JOB)
        self.job["rates"] = address(self.rates)
        for field, value in optimizer.hyperparameters().items():
            self.job[field] = value

    def step(self, number, g, norm=0.0):
        self.g[:, : self.n] = g
        self.g[:, self.n : whole_vectors(self.n, self.dtype)] = 0
        _update(
            address(self.job),
            number,
            norm,
            self.optimizer.code,
            address(self.w),
            address(self.slots),
            self.slots[0].size,
            address(self.g),
            self.ld,
            self.rows,
            self.n,
            self.dtype(0),
        )

    def check_padding(self):
        columns = whole_vectors(self.n, self.dtype)
        for array in (self.w, *self.slots):
            padding = array[:, self.n : columns]
            assert np.all((padding == 0) | np.isnan(array[:, :1])), "the padding is no longer zero"
            assert np.isnan(array[:, columns:]).all(), "written beyond the last vector of a row"


@each_optimizer
@each_dtype
def test_steps(name, arguments, dtype):
    L, eps, n_steps = lanes_of(dtype), np.finfo(dtype).eps, 30
    rates = np.linspace(0.05, 0.01, n_steps)
    ours = getattr(optimizers, name)(0.01, **arguments)
    for rows, n in [(1, 1), (3, L - 1), (2, L), (9, L + 1), (5, 4 * L)]:
        rng = np.random.default_rng([rows, n])
        w = rng.normal(size=(rows, n)).astype(dtype)
        gradients = rng.normal(size=(n_steps, rows, n)).astype(dtype)
        gradients[:, 0] *= 1e-4
        theirs = getattr(reference, name)(lambda t: rates[t], **arguments)
        expected = w.astype(np.float64)
        with Memory(dtype) as memory:
            trained = Trained(memory, ours, w, rates)
            for number, g in enumerate(gradients):
                trained.step(number, g)
                theirs.step([expected], [g.astype(np.float64)])
                # Each step is rounded some ten times, and momentum carries that on.
                tolerance = 60 * eps * (number + 1) * max(1.0, np.abs(expected).max())
                np.testing.assert_allclose(trained.w[:, :n], expected, rtol=0, atol=tolerance)
            trained.check_padding()


@each_optimizer
@each_dtype
def test_a_later_call_goes_on(name, arguments, dtype):
    """The number of a step counts from the optimizer's first, over all epochs."""
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=(3, 5)), rng.normal(size=(6, 3, 5))
    ours = getattr(optimizers, name)(0.01, **arguments)
    with Memory(dtype) as memory:
        whole, parts = (Trained(memory, ours, w, [0.01] * 6) for _ in range(2))
        for number, g in enumerate(gradients):
            whole.step(number, g)
            parts.job["steps_before"] = number // 3 * 3
            parts.step(number % 3, g)
        np.testing.assert_array_equal(parts.w, whole.w)


@each_dtype
def test_clipping_scales_by_the_norm_that_it_is_told(dtype):
    rng = np.random.default_rng(0)
    w, g = (rng.normal(size=(3, 5)).astype(dtype) for _ in range(2))
    ours = optimizers.SGD(0.1, clip_norm=2.0)
    for norm, factor in [(1.0, 1.0), (2.0, 2 / (2 + 1e-6)), (8.0, 2 / (8 + 1e-6)), (0.0, 1.0)]:
        with Memory(dtype) as memory:
            trained = Trained(memory, ours, w, [0.1])
            trained.step(0, g, norm)
            expected = w - 0.1 * factor * g.astype(np.float64)
            np.testing.assert_allclose(
                trained.w[:, :5], expected, rtol=0, atol=4 * np.finfo(dtype).eps
            )


@jit
def _penalize(g, w, ld, rows, n, penalty, squares, portion, like):
    squares = pointer(squares, np.float64(0))
    kernels.penalize_rows(
        pointer(g, like), pointer(w, like), ld, rows, n, penalty, squares, portion
    )


@each_dtype
def test_the_penalty_adds_its_gradient_and_its_squares(dtype):
    rng, L = np.random.default_rng(0), lanes_of(dtype)
    for rows, n in [(0, 3), (1, 1), (3, L), (4, 2 * L + 1)]:
        w, g = (rng.normal(size=(rows, n)).astype(dtype) for _ in range(2))
        ld = whole_vectors(n, dtype) + 2
        with Memory(dtype) as memory:
            own_w, own_g = memory.copy(w, ld), memory.copy(g, ld)
            own_w[:, n:] = 0
            squares = memory.empty(rows, dtype=np.float64)
            squares[:] = 2
            places = address(own_g), address(own_w), ld, rows, n
            _penalize(*places, 0.25, address(squares), 3.0, dtype(0))
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(own_g[:, :n], g + 0.25 * w, rtol=0, atol=4 * eps)
            np.testing.assert_allclose(squares, 2 + 3 * (w**2).sum(axis=1), rtol=8 * eps * n)


@each_dtype
def test_adam_may_add_epsilon_before_the_correction(dtype):
    """As at the end of section 2 of Kingma and Ba (2015): ε is divided by √(1 - β₂ᵗ) then."""
    w, g = np.zeros((1, 3), dtype), np.array([[1e-3, 1.0, 0.0]], dtype)
    ours = optimizers.Adam(0.1, eps=1e-3)
    with Memory(dtype) as memory:
        trained = Trained(memory, ours, w, [0.1])
        trained.job["eps_uncorrected"] = 1
        trained.step(0, g)
        eps = 1e-3 / np.sqrt(1 - 0.999)
        expected = -0.1 * g / (np.abs(g) + eps)
        np.testing.assert_allclose(trained.w[:, :3], expected, rtol=1e-5)


def test_only_a_bare_gradient_step_is_plain():
    def is_plain(optimizer, norm=0.0):
        with Memory(np.float64) as memory:
            trained = Trained(memory, optimizer, np.zeros((1, 1)), [0.1])
            return _is_plain(address(trained.job), norm, optimizer.code)

    assert is_plain(optimizers.SGD(0.1))
    assert is_plain(optimizers.SGD(0.1, clip_norm=2.0), norm=1.0)
    assert not is_plain(optimizers.SGD(0.1, clip_norm=2.0), norm=3.0)
    assert not is_plain(optimizers.SGD(0.1, weight_decay=0.1))
    assert not is_plain(optimizers.SGD(0.1, momentum=0.9))
    for other in (optimizers.Adam(), optimizers.AdamW(), optimizers.RMSprop()):
        assert not is_plain(other)


@each_optimizer
@each_dtype
def test_without_a_gradient_only_decay_moves(name, arguments, dtype):
    """0 / (√0 + ε) is 0, also by way of an estimate of 1/√0."""
    w = np.random.default_rng(0).normal(size=(2, 9)).astype(dtype)
    ours = getattr(optimizers, name)(0.01, **(arguments | {"weight_decay": 0.0}))
    with Memory(dtype) as memory:
        trained = Trained(memory, ours, w, [0.01] * 3)
        for number in range(3):
            trained.step(number, np.zeros_like(w))
        np.testing.assert_array_equal(trained.w[:, :9], w)


@each_dtype
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_the_step_does_not_depend_on_the_size_of_the_gradient(name, dtype):
    """Down to where g² is subnormal, and up to where it is nearly infinite."""
    exponent = np.finfo(dtype).maxexp // 2 - 8
    sizes = np.ldexp(1.0, np.arange(-exponent + 10, exponent))
    w = np.zeros((1, sizes.size))
    arguments = {"betas": (0.9, 0.9)} if name == "Adam" else {"alpha": 0.9}
    ours = getattr(optimizers, name)(
        0.01, eps=1e-300 if dtype == np.float64 else 1e-37, **arguments
    )
    theirs = getattr(reference, name)(0.01, eps=0.0, **arguments)
    with Memory(dtype) as memory:
        trained = Trained(memory, ours, w, [0.01] * 5)
        for number in range(5):
            trained.step(number, sizes)
            theirs.step([w], [sizes[None]])
        np.testing.assert_allclose(trained.w[:, : sizes.size], w, rtol=1e-5)


@each_dtype
def test_centered_rmsprop_of_a_constant_gradient_stays_finite(dtype):
    """There the variance is a difference of two equal numbers, which rounding may leave below 0."""
    g = np.random.default_rng(0).normal(size=(4, 50))
    ours = optimizers.RMSprop(0.01, centered=True, alpha=0.9)
    with Memory(dtype) as memory:
        trained = Trained(memory, ours, np.zeros_like(g), [1e-9] * 600)
        for number in range(600):
            trained.step(number, g)
        assert np.isfinite(trained.w[:, :50]).all()


@each_dtype
def test_nan_in_a_gradient_shows_in_its_parameter_alone(dtype):
    for name, arguments in OPTIMIZERS:
        ours = getattr(optimizers, name)(0.01, **arguments)
        g = np.ones((2, 7))
        g[1, 3] = np.nan
        with Memory(dtype) as memory:
            trained = Trained(memory, ours, np.ones((2, 7)), [0.01])
            trained.step(0, g)
            np.testing.assert_array_equal(np.isnan(trained.w[:, :7]), np.isnan(g))


@each_dtype
def test_store_rows(dtype):
    L = lanes_of(dtype)
    for rows, n in [(0, 3), (1, 1), (4, L), (3, L + 1)]:
        columns, ld = whole_vectors(n, dtype), whole_vectors(n, dtype) + 2
        g = np.random.default_rng(0).normal(size=(rows, columns)).astype(dtype)
        with Memory(dtype) as memory:
            source, out = memory.copy(g, ld), memory.empty(rows, ld)
            _store(address(out), address(source), ld, rows, n, dtype(0))
            np.testing.assert_array_equal(out[:, :columns], g)
            assert np.isnan(out[:, columns:]).all()


@each_dtype
def test_row_square_is_summed_in_float64(dtype):
    g = np.random.default_rng(0).normal(size=1001).astype(dtype)
    g[0] = 1e25  # its square is no float32
    expected = (g.astype(np.float64) ** 2).sum()
    assert _row_square(address(g), 1001, dtype(0)) == pytest.approx(expected, rel=1e-14)
    assert _row_square(address(g), 0, dtype(0)) == 0
