"""The tape's operations: values and gradients against NumPy, finite differences and PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastbackprop import autograd as ag
from fastbackprop.autograd import Tensor, operations

examples = settings(max_examples=60, deadline=None, derandomize=True)


def leaf(values):
    return Tensor(values, requires_grad=True)


# ------------------------------------------------------------------------------- operations
#
# Each case is a function of a namespace `m` and of arrays. It runs three times: on tensors, on
# NumPy's arrays (whose values, and central differences, are the reference) and on PyTorch's.


def numpy_softmax(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


NUMPY = SimpleNamespace(
    exp=np.exp,
    log=np.log,
    sqrt=np.sqrt,
    tanh=np.tanh,
    sigmoid=lambda x: 1 / (1 + np.exp(-x)),
    relu=lambda x: x * (x > 0),
    leaky_relu=lambda x, slope=0.01: x * np.where(x > 0, 1, slope),
    softmax=numpy_softmax,
    log_softmax=lambda x, axis=-1: np.log(numpy_softmax(x, axis)),
    maximum=np.maximum,
    where=np.where,
    concatenate=np.concatenate,
    stack=np.stack,
    max=np.max,
    transpose=np.transpose,
)
TAPE = SimpleNamespace(
    **{name: vars(ag)[name] for name in vars(NUMPY) if name in ag.__all__},
    max=Tensor.max,
    transpose=lambda x, axes: x.transpose(*axes),
)


def torch_namespace(torch):
    functional = torch.nn.functional
    return SimpleNamespace(
        exp=torch.exp,
        log=torch.log,
        sqrt=torch.sqrt,
        tanh=torch.tanh,
        sigmoid=torch.sigmoid,
        relu=torch.relu,
        leaky_relu=functional.leaky_relu,
        softmax=lambda x, axis=-1: torch.softmax(x, axis),
        log_softmax=lambda x, axis=-1: torch.log_softmax(x, axis),
        maximum=lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
        where=lambda condition, a, b: torch.where(torch.as_tensor(condition), a, b),
        concatenate=lambda xs, axis=0: torch.cat(xs, dim=axis),
        stack=lambda xs, axis=0: torch.stack(xs, dim=axis),
        max=lambda x, axis=None, keepdims=False: torch.amax(
            x, dim=() if axis is None else axis, keepdim=keepdims
        ),
        transpose=torch.permute,
    )


ROWS, BITS = [2, 0, 0, -1], np.array([True, False, True])
CASES = {
    "add": (lambda m, a, b: a + b, (2, 3), (2, 3)),
    "add to a number": (lambda m, a: 3 + a + 1.5, (2, 3)),
    "subtract": (lambda m, a, b: a - b, (2, 3), (3,)),
    "subtract from a number": (lambda m, a: 3 - a, (2, 3)),
    "multiply": (lambda m, a, b: a * b, (4, 1, 3), (2, 1)),
    "multiply by 2": (lambda m, a: a * 2, (2, 3)),
    "multiply by a scalar": (lambda m, a, b: a * b, (), (2, 1, 3)),
    "multiply by itself": (lambda m, a: a * a * 2, (3,)),
    "divide": (lambda m, a, b: a / b, (2, 3), (2, 1)),
    "divide a number": (lambda m, a: 2 / a, (2, 3)),
    "negative": (lambda m, a: -a, (2, 3)),
    "power": (lambda m, a, b: abs(a) ** b, (2, 3), (3,)),
    "square and cube": (lambda m, a: a**2 + a**3, (2, 3)),
    "inverse square": (lambda m, a: a**-2.0, (2, 3)),
    "number to a power": (lambda m, a: 2.0**a, (2, 3)),
    "matrix @ matrix": (lambda m, a, b: a @ b, (2, 3), (3, 4)),
    "vector @ vector": (lambda m, a, b: a @ b, (3,), (3,)),
    "vector @ matrix": (lambda m, a, b: a @ b, (3,), (3, 4)),
    "matrix @ vector": (lambda m, a, b: a @ b, (2, 3), (3,)),
    "batch @ batch": (lambda m, a, b: a @ b, (5, 1, 2, 3), (4, 3, 2)),
    "batch @ vector": (lambda m, a, b: a @ b, (5, 2, 3), (3,)),
    "vector @ batch": (lambda m, a, b: a @ b, (2,), (5, 2, 3)),
    "exp": (lambda m, a: m.exp(a), (2, 3)),
    "log": (lambda m, a: m.log(abs(a)), (2, 3)),
    "sqrt": (lambda m, a: m.sqrt(abs(a)), (2, 3)),
    "abs": (lambda m, a: abs(a), (2, 3)),
    "tanh": (lambda m, a: m.tanh(a), (2, 3)),
    "sigmoid": (lambda m, a: m.sigmoid(a), (2, 3)),
    "relu": (lambda m, a: m.relu(a), (2, 3)),
    "leaky_relu": (lambda m, a: m.leaky_relu(a), (2, 3)),
    "leaky_relu of a slope": (lambda m, a: m.leaky_relu(a, 0.3), (2, 3)),
    "softmax": (lambda m, a: m.softmax(a), (2, 3)),
    "softmax over columns": (lambda m, a: m.softmax(a, axis=0), (2, 3)),
    "log_softmax": (lambda m, a: m.log_softmax(a), (2, 3)),
    "log_softmax over an axis": (lambda m, a: m.log_softmax(a, axis=1), (2, 3, 2)),
    "maximum": (lambda m, a, b: m.maximum(a, b), (2, 3), (2, 1)),
    "maximum with a number": (lambda m, a: m.maximum(a, 0.5), (2, 3)),
    "where": (lambda m, a, b: m.where(BITS, a, b), (2, 3), (2, 1)),
    "where of a number": (lambda m, a: m.where(BITS, a, 2.0), (2, 1)),
    "sum": (lambda m, a: a.sum(), (2, 3)),
    "sum over rows": (lambda m, a: a.sum(axis=0), (2, 3)),
    "sum, keepdims": (lambda m, a: a.sum(axis=-1, keepdims=True), (2, 3)),
    "sum over two axes": (lambda m, a: a.sum(axis=(0, -1)), (2, 3, 4)),
    "mean": (lambda m, a: a.mean(), (2, 3)),
    "mean over two axes": (lambda m, a: a.mean(axis=(-3, 2), keepdims=True), (2, 3, 4)),
    "mean of a scalar": (lambda m, a: a.mean(), ()),
    "max": (lambda m, a: m.max(a), (2, 3)),
    "max over columns": (lambda m, a: m.max(a, axis=-1), (2, 3)),
    "max over two axes": (lambda m, a: m.max(a, axis=(0, 2), keepdims=True), (2, 3, 4)),
    "reshape": (lambda m, a: a.reshape((3, -1)), (2, 3)),
    "reshape by numbers": (lambda m, a: a.reshape(6), (2, 3)),
    "reshape of a scalar": (lambda m, a: a.reshape(1, 1), ()),
    "T": (lambda m, a: a.T, (2, 3)),
    "transpose": (lambda m, a: m.transpose(a, (2, 0, 1)), (2, 3, 4)),
    "transpose, negative": (lambda m, a: m.transpose(a, (-1, 0, -2)), (2, 3, 4)),
    "index": (lambda m, a: a[1], (2, 3)),
    "index of an entry": (lambda m, a: a[1, -1], (2, 3)),
    "slice": (lambda m, a: a[:, 0:3:2], (2, 4)),
    "ellipsis and new axis": (lambda m, a: a[..., None, 1:], (2, 3)),
    "rows, repeated": (lambda m, a: a[ROWS], (3, 2)),
    "entries, repeated": (lambda m, a: a[[0, 1, 0], [1, 1, 1]], (2, 3)),
    "index of two axes": (lambda m, a: a[np.array([[0, 0], [1, 0]]), 1:], (2, 3)),
    "columns by bools": (lambda m, a: a[:, BITS], (2, 3)),
    "entries by bools": (lambda m, a: a[np.array([[True, False, True]] * 2)], (2, 3)),
    "concatenate": (lambda m, a, b: m.concatenate([a, b]), (2, 3), (1, 3)),
    "concatenate columns": (lambda m, a, b: m.concatenate([a, b, a], axis=-1), (2, 3), (2, 1)),
    "stack": (lambda m, a, b: m.stack([a, b]), (2, 3), (2, 3)),
    "stack, last axis": (lambda m, a, b: m.stack([a, b, a], axis=-1), (2, 3), (2, 3)),
}


def arrays_for(shapes):
    """Arrays without kinks: no entry within 0.1 of 0, or of another one."""
    rng = np.random.default_rng(5)
    sizes = [int(np.prod(shape)) for shape in shapes]
    values = rng.permutation(np.arange(1, sum(sizes) + 1)) / sum(sizes) + 0.15
    values *= rng.choice([-1, 1], len(values))
    parts = np.split(2 * values, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def central_differences(f, arrays, step=1e-5):
    results = []
    for array in arrays:
        result = np.zeros(array.shape)
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + step
            above = f()
            array[i] = kept - step
            result[i] = (above - f()) / (2 * step)
            array[i] = kept
        results.append(result)
    return results


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_numpy_and_differences(name):
    f, *shapes = CASES[name]
    arrays = arrays_for(shapes)
    expected = f(NUMPY, *arrays)
    g = np.random.default_rng(6).normal(size=np.shape(expected))

    tensors = [leaf(array) for array in arrays]
    result = f(TAPE, *tensors)
    np.testing.assert_allclose(result.data, expected, rtol=1e-14)
    assert result.shape == np.shape(expected)
    result.backward(g)
    differences = central_differences(lambda: np.sum(g * f(NUMPY, *arrays)), arrays)
    for tensor, difference in zip(tensors, differences, strict=True):
        assert type(tensor.grad) is np.ndarray
        assert tensor.grad.dtype == np.float64
        assert tensor.grad.shape == tensor.shape
        np.testing.assert_allclose(tensor.grad, difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_dtypes_are_those_of_pytorch(name, dtype):
    torch = pytest.importorskip("torch")
    f, *shapes = CASES[name]
    arrays = [array.astype(dtype) for array in arrays_for(shapes)]
    assert_same_as_torch(torch, f, arrays, rtol=100 * np.finfo(dtype).eps)


def assert_same_as_torch(torch, f, arrays, rtol=1e-14):
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = f(torch_namespace(torch), *theirs)
    g = np.random.default_rng(6).normal(size=tuple(expected.shape)).astype(arrays[0].dtype)
    expected.backward(torch.tensor(g))
    ours = [leaf(array) for array in arrays]
    result = f(TAPE, *ours)
    result.backward(g)
    np.testing.assert_allclose(result.data, expected.detach().numpy(), rtol=rtol, atol=rtol)
    assert str(result.dtype) == str(expected.dtype).removeprefix("torch.")
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.grad, their.grad.numpy(), rtol=rtol, atol=rtol)
        assert our.grad.dtype == our.dtype


# Where a derivative is a matter of convention, or infinite: [inputs], then [gradients].
KINKS = {
    "relu at 0": (lambda m, a: m.relu(a), [[-0.0, 0.0, 1.0]], [[0, 0, 1]]),
    "leaky_relu at 0": (lambda m, a: m.leaky_relu(a, 0.5), [[0.0, -1.0]], [[0.5, 0.5]]),
    "abs at 0": (lambda m, a: abs(a), [[-2.0, 0.0, 2.0]], [[-1, 0, 1]]),
    "sqrt at 0": (lambda m, a: m.sqrt(a), [[0.0, 4.0]], [[np.inf, 0.25]]),
    "log at 0": (lambda m, a: m.log(a), [[0.0, 4.0]], [[np.inf, 0.25]]),
    "maximum of equals": (
        lambda m, a, b: m.maximum(a, b),
        [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]],
        [[0, 0.5, 1], [1, 0.5, 0]],
    ),
    "max of equals": (lambda m, a: m.max(a), [[3.0, 1.0, 3.0]], [[0.5, 0, 0.5]]),
    "max of equals in a row": (
        lambda m, a: m.max(a, axis=1),
        [[[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 0.0, 2.0]]],
        [[[0.25, 0.25, 0.25, 0.25], [0, 0.5, 0, 0.5]]],
    ),
    "powers of 0": (
        lambda m, a, b: a**b,
        [[0.0, 0.0, 0.0, 2.0], [0.0, 1.0, 2.0, 0.0]],
        [[0, 1, 0, 0], [0, 0, 0, np.log(2)]],
    ),
    "square at 0": (lambda m, a: a**2, [[0.0, -3.0]], [[0, -6]]),
    "max beside NaN": (
        lambda m, a: m.max(a, axis=1),
        [[[1.0, np.nan, 3.0], [1.0, 2.0, 2.0]]],
        [[[np.nan, np.nan, np.nan], [0, 0.5, 0.5]]],
    ),
    "relu of NaN": (lambda m, a: m.relu(a), [[1.0, np.nan, -1.0]], [[1, 1, 0]]),
    "maximum of NaN": (
        lambda m, a, b: m.maximum(a, b),
        [[1.0, np.nan, 3.0], [np.nan, 1.0, 3.0]],
        [[1, 1, 0.5], [1, 1, 0.5]],
    ),
    "quotient by 0": (lambda m, a, b: a / b, [[1.0], [0.0]], [[np.inf], [-np.inf]]),
    "where, the infinite one unused": (
        lambda m, a, b: m.where(np.array([True, False]), a, b),
        [[np.inf, np.nan], [np.nan, 1.0]],
        [[1, 0], [0, 1]],
    ),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_and_ties(name):
    f, inputs, expected = KINKS[name]
    tensors = [leaf(values) for values in inputs]
    f(TAPE, *tensors).sum().backward()
    for tensor, gradient in zip(tensors, expected, strict=True):
        np.testing.assert_allclose(tensor.grad, gradient, rtol=1e-15)


@pytest.mark.parametrize("name", KINKS)
def test_kinks_and_ties_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    f, inputs, _ = KINKS[name]
    assert_same_as_torch(torch, f, [np.array(values) for values in inputs])


LARGE = [[-1e4, 0.0, 1e4], [3e38, -3e38, 3e38]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", [ag.sigmoid, ag.softmax, ag.tanh, lambda x: ag.log_softmax(x / 1e30)])
def test_nothing_overflows_for_large_inputs(f, dtype):
    x = leaf(np.array(LARGE, dtype))
    y = f(x)
    y.sum().backward()
    assert np.isfinite(y.data).all()
    assert np.isfinite(x.grad).all()


def test_sigmoid_and_softmax_do_not_rely_on_silenced_overflows():
    with np.errstate(all="raise", under="ignore"):
        operations.sigmoid(np.array(LARGE))
        operations.softmax(np.array(LARGE), axis=-1)
        operations.log_softmax(np.array(LARGE) / 1e30, axis=-1)


def test_log_softmax_of_a_probability_that_rounds_to_0():
    x = leaf([0.0, 5000.0])
    x.log_softmax()[0].backward()
    assert x.log_softmax().data.tolist() == [-5000.0, 0.0]
    assert x.grad.tolist() == [1.0, -1.0]


def adjoint(f, arrays):
    """Whether ⟨g, f(…, h, …)⟩ = ⟨gradient, h⟩ for f linear in each of its arrays."""
    rng = np.random.default_rng(7)
    tensors = [leaf(array) for array in arrays]
    y = f(*tensors)
    g = rng.normal(size=y.shape)
    y.backward(g)
    for i, tensor in enumerate(tensors):
        assert tensor.grad.shape == tensor.shape
        for _ in range(3):
            h = rng.normal(size=tensor.shape)
            result = f(*arrays[:i], h, *arrays[i + 1 :])
            values = result.data if isinstance(result, Tensor) else result
            np.testing.assert_allclose(np.sum(g * values), np.sum(tensor.grad * h), atol=1e-9)


@examples
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=4))
def test_any_shapes_that_broadcast(shapes):
    rng = np.random.default_rng(8)
    adjoint(lambda a, b: a * b, [rng.normal(size=shape) for shape in shapes.input_shapes])


@examples
@given(hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, min_side=0, max_dims=2))
def test_any_shapes_that_matmul_takes(shapes):
    rng = np.random.default_rng(8)
    adjoint(lambda a, b: a @ b, [rng.normal(size=shape) for shape in shapes.input_shapes])


@examples
@given(st.data())
def test_any_index(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    fancy = hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2))
    basic = hnp.basic_indices(shape, allow_newaxis=True)
    bools = hnp.arrays(bool, shape)
    index = data.draw(st.one_of(basic, fancy, bools))
    adjoint(lambda a: a[index], [np.random.default_rng(8).normal(size=shape)])


@examples
@given(st.data())
def test_any_axes_of_sum_and_mean(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))
    axis = data.draw(st.one_of(st.none(), hnp.valid_tuple_axes(len(shape))))
    keepdims = data.draw(st.booleans())
    for name in ("sum", "mean"):

        def f(a, name=name):
            return getattr(a, name)(axis=axis, keepdims=keepdims)

        adjoint(f, [np.random.default_rng(8).normal(size=shape)])


def test_empty_arrays():
    x = leaf(np.zeros((0, 3)))
    x.sum().backward()
    assert x.grad.shape == (0, 3)
    assert np.isnan(x.mean().item())
    assert x.mean(axis=1).shape == (0,)
    assert np.isnan(x.mean(axis=0).data).all()


@pytest.mark.parametrize("f", [Tensor.sum, Tensor.mean, Tensor.max])
@pytest.mark.parametrize("axis", [0, -1, None])
def test_a_scalar_has_an_axis_to_reduce_as_in_numpy(f, axis):
    x = leaf(3.0)
    y = f(x, axis=axis)
    y.backward()
    assert (y.item(), x.grad.item()) == (3.0, 1.0)


@pytest.mark.parametrize("f", [ag.softmax, ag.log_softmax])
def test_softmax_of_nothing(f):
    x = leaf(np.zeros((2, 0)))
    f(x).sum().backward()
    assert f(leaf([])).shape == (0,)
    assert f(x, axis=0).shape == x.grad.shape == (2, 0)


def test_concatenate_of_many_does_not_copy_the_whole_gradient_for_each():
    x = leaf(np.zeros((3, 4)))
    g = np.arange(24.0).reshape(3, 8)
    _, pullbacks = operations.concatenate(x.data, x.data, axis=-1)
    for part, pullback in zip((g[:, :4], g[:, 4:]), pullbacks, strict=True):
        np.testing.assert_array_equal(pullback(g), part)
        assert np.shares_memory(pullback(g), g)
    many = [leaf([float(i)]) for i in range(3000)]
    calls = []

    class Counted(np.ndarray):
        def __getitem__(self, index):
            calls.append(index)
            return super().__getitem__(index)

    _, pullbacks = operations.concatenate(*(x.data for x in many), axis=0)
    g = np.arange(3000.0).view(Counted)
    assert [pullback(g)[0] for pullback in pullbacks[:5]] == [0, 1, 2, 3, 4]
    assert len(calls) == 5 + 5  # one slice each, and the [0] of this test


def test_mean_of_float16_adds_up_in_float32():
    x = leaf(np.full(70_000, 2.0, np.float16))
    mean = x.mean()
    mean.backward()
    assert mean.item() == 2.0
    assert mean.dtype == x.grad.dtype == np.float16
    np.testing.assert_allclose(x.grad[0], 1 / 70_000, rtol=1e-2)


def spoil_by_assignment(tensor):
    tensor.data[...] = 17.25


def spoil_by_arithmetic(tensor):
    tensor.data += 1.5


def spoil_through_a_view(tensor):
    tensor.data.reshape(-1)[-1:] -= 0.75


def spoil_off_the_tape(tensor):
    with ag.no_grad():
        tensor *= 3.0


SPOILERS = [spoil_by_assignment, spoil_by_arithmetic, spoil_through_a_view, spoil_off_the_tape]


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("name", CASES)
def test_no_change_in_place_makes_a_wrong_gradient(name, spoil):
    f, *shapes = CASES[name]
    arrays = arrays_for(shapes)

    def after(changed):
        """The gradients when one of the inputs, or the result, is changed before backward."""
        tensors = [leaf(array) for array in arrays]
        result = f(TAPE, *tensors)
        if changed is not None:
            spoil([*tensors, result][changed])
        result.backward(np.ones(result.shape))
        return [tensor.grad for tensor in tensors]

    expected = after(None)
    for changed in range(len(arrays) + 1):
        try:
            grads = after(changed)
        except RuntimeError as error:
            assert "changed in place" in str(error)  # noqa: PT017
        else:
            for gradient, right in zip(grads, expected, strict=True):
                np.testing.assert_array_equal(gradient, right)


NEED_NO_DATA = ["add", "subtract", "negative", "multiply by 2", "sum", "mean over two axes"]
NEED_NO_DATA += ["reshape", "T", "transpose", "slice", "rows, repeated", "columns by bools"]
NEED_NO_DATA += ["where", "concatenate", "stack"]


@pytest.mark.parametrize("name", NEED_NO_DATA)
def test_a_change_that_does_not_matter_is_allowed(name):
    f, *shapes = CASES[name]
    tensors = [leaf(array) for array in arrays_for(shapes)]
    result = f(TAPE, *tensors)
    for tensor in (*tensors, result):
        tensor.data[...] = 0
    result.backward(np.ones(result.shape))
    assert all(tensor.grad is not None for tensor in tensors)
