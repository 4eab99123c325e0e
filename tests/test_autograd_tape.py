"""The tape: its conventions, what it refuses, and how tensors and arrays get on."""

import copy
import inspect
import pickle
import sys
import threading

import numpy as np
import pytest

from fastbackprop import autograd as ag
from fastbackprop.autograd import Tensor


def leaf(values):
    return Tensor(values, requires_grad=True)


# --------------------------------------------------------------------------------- the tape


def test_gradients_accumulate_until_zero_grad():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    (3 * x).sum().backward()
    assert first.tolist() == [2.0, 4.0]  # what was read stays
    assert x.grad.tolist() == [5.0, 7.0]
    x.zero_grad()
    assert x.grad is None


def test_every_path_to_a_leaf_counts():
    x = leaf(3.0)
    a = x * x
    b = a + x
    (a * b + b).backward()  # x⁴ + x³ + x² + x
    assert x.grad == 4 * 27 + 3 * 9 + 2 * 3 + 1


def test_grads_share_no_memory():
    a, b = leaf(np.ones(3)), leaf(np.ones(3))
    given_gradient = np.ones(3)
    (a + b).backward(given_gradient)
    a.grad += 1
    assert b.grad.tolist() == given_gradient.tolist() == [1, 1, 1]
    c = leaf(np.ones(3))
    c.sum().backward()
    c.grad *= 2  # writable, though it was broadcast
    c.backward(given_gradient)
    given_gradient[:] = 7
    assert c.grad.tolist() == [3, 3, 3]


def test_only_leaves_keep_a_gradient():
    x = leaf(2.0)
    y = x * 3
    y.backward()
    assert y.grad is None
    assert x.grad == 3.0


def test_zero_dimensional_results_stay_tensors():
    x = leaf([1.0, 2.0])
    for y in (x.sum(), x[0], x @ x, x.max(), x.mean() * 2, -x[1], leaf(2.0).exp()):
        assert type(y) is Tensor
        assert type(y.data) is np.ndarray
        assert y.shape == ()


def test_a_chain_of_100_000_operations():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 0.5
    y.backward()
    assert x.grad == 1.0
    del y
    y = x
    for _ in range(100_000):
        y = y * 1.0
    del y  # with all of its graph, which no backward has freed


def test_the_depth_of_recursion_does_not_matter():
    y = x = leaf(1.0)
    for _ in range(2000):
        y = -y
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        y.backward()
        del y
    finally:
        sys.setrecursionlimit(limit)
    assert x.grad == 1.0


def test_a_graph_serves_one_backward_unless_retained():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == 12.0
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        (y + 1).backward()
    assert x.grad == 12.0


def test_a_freed_graph_lets_go_of_its_arrays():
    x = leaf(np.ones(3))
    y = x.exp() * 2
    node = y._node
    y.sum().backward()
    assert (node.inputs, node.pullbacks, node.saved) == ((), (), [])


def test_backward_of_a_leaf():
    x = leaf(3.0)
    x.backward()
    assert x.grad == 1.0


def test_one_entry_is_scalar_enough():
    x = leaf([[2.0]])
    (x * x).backward()
    assert x.grad.tolist() == [[4.0]]


def test_gradient_may_be_a_tensor_or_of_another_dtype():
    x = leaf(np.ones(2, np.float32))
    (x * 2).backward(Tensor([1, 2]))
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2.0, 4.0]


# ---------------------------------------------------------------------------------- no_grad


def test_no_grad_records_nothing():
    x = leaf(2.0)
    with ag.no_grad():
        with ag.no_grad():
            pass
        y = x * 3  # still off, after the inner block
    assert not y.requires_grad
    assert (x * 3).requires_grad


def test_no_grad_ends_with_an_error_too():
    with pytest.raises(KeyError), ag.no_grad():
        raise KeyError
    assert (leaf(1.0) * 2).requires_grad


def test_no_grad_decorates():
    @ag.no_grad()
    def double(x):
        return x * 2

    for _ in range(2):
        assert not double(leaf(1.0)).requires_grad
    assert (leaf(1.0) * 2).requires_grad


def test_no_grad_is_of_one_thread():
    found = []
    with ag.no_grad():
        thread = threading.Thread(target=lambda: found.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert found == [True]


def test_detach():
    x = leaf([1.0, 2.0])
    y = x.detach()
    assert not y.requires_grad
    assert y.data is x.data
    (x * y).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0]


# -------------------------------------------------------------------------- changes in place


def test_a_change_that_matters_is_refused_before_anything_happens():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    loss = (x * w).sum() + (x * 2).sum()
    w.data[1] = 5.0
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*changed in place"):
        loss.backward()
    assert x.grad is None
    assert w.grad is None
    w.data[1] = 4.0  # as it was
    loss.backward()
    assert x.grad.tolist() == [5.0, 6.0]


def test_the_plain_arrays_of_an_expression_are_watched_too():
    x, factors, mask = leaf([1.0, 2.0]), np.array([2.0, 3.0]), np.array([True, False])
    for y, array in ((x * factors, factors), (ag.where(mask, x, 0.0), mask)):
        array[0] = 0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()


def test_an_index_is_kept_as_it_was():
    x, rows = leaf([1.0, 2.0]), np.array([0, 0])
    y = x[rows] * 2
    z = x[[rows]]
    rows[:] = 1
    y.sum().backward()
    z.sum().backward()
    assert x.grad.tolist() == [6.0, 0.0]


def test_an_optimizer_step_before_backward_is_refused():
    w = leaf([1.0, 2.0])
    optimizer = ag.SGD([w], lr=0.1)
    (w * w).sum().backward()
    loss = (w * w).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_data_is_a_copy():
    array = np.ones(2)
    x = Tensor(array)
    array[:] = 5
    assert x.data.tolist() == [1, 1]


def test_data_can_be_updated_and_assigned():
    x = leaf(np.array([1.0, 2.0], np.float32))
    (x * x).sum().backward()
    kept = x.data
    x.data -= 0.5 * x.grad
    assert x.data is kept
    assert x.data.tolist() == [0.0, 0.0]
    x.data = [3.0, 4.0]
    assert x.dtype == np.float32
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        x.data = np.ones(3)
    with pytest.raises(TypeError, match="same_kind"):
        Tensor([1, 2]).data = [0.5, 0.5]
    assert x.data.tolist() == [3.0, 4.0]


def test_in_place_operators_off_the_tape():
    x = leaf([2.0, 4.0])
    kept, data = x, x.data
    with ag.no_grad():
        x += 2
        x -= 1
        x *= 2
        x /= [1.0, 2.0]
        x[0] = 7
    assert x is kept
    assert x.data is data
    assert x.requires_grad
    assert x.data.tolist() == [7.0, 5.0]


def test_in_place_operators_on_the_tape():
    x = leaf([2.0, 4.0])
    with pytest.raises(RuntimeError, match="no_grad"):
        x += 1
    with pytest.raises(RuntimeError, match="no_grad"):
        x[0] = 1.0
    total = Tensor(0.0)
    for value in x:
        total += value * value
    total.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(RuntimeError, match="where"):
        Tensor([1.0])[0] = leaf(2.0)
    assert x.data.tolist() == [2.0, 4.0]


def test_in_place_operators_keep_shape_and_dtype():
    x = Tensor(np.ones(2, np.float32))
    x += np.ones(2)
    assert x.dtype == np.float32
    with pytest.raises(ValueError, match="broadcast"):
        x += np.ones((3, 2))
    counts = Tensor([1, 2])
    with pytest.raises(TypeError, match="same_kind"):
        counts += 0.5


# ----------------------------------------------------------------------- tensors and arrays


@pytest.mark.parametrize("left", [np.array([1.0, 2.0]), np.float64(2.0), 2, 2.5, [1.0, 2.0]])
def test_arrays_and_numbers_on_the_left(left):
    x = leaf([4.0, 5.0])
    plain = np.asarray(left)
    for ours, theirs in [
        (left + x, plain + x.data),
        (left - x, plain - x.data),
        (left * x, plain * x.data),
        (left / x, plain / x.data),
        (left**x, plain**x.data),
    ]:
        assert type(ours) is Tensor
        np.testing.assert_allclose(ours.data, theirs, rtol=1e-15)
    product = np.eye(2) @ x
    assert type(product) is Tensor
    product.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_comparisons_are_plain_and_by_value():
    x = leaf([1.0, 2.0, 3.0])
    for found, expected in [
        (x < 2, [True, False, False]),
        (x <= x, [True, True, True]),
        (x > np.array([0.0, 2.0, 4.0]), [True, False, False]),
        (x >= Tensor([1, 3, 3]), [True, False, True]),
        (x == [1.0, 0.0, 3.0], [True, False, True]),
        (x != Tensor([1.0, 0.0, 3.0]), [False, True, False]),
        (np.array([1.0, 5.0, 3.0]) == x, [True, False, True]),
        (2 < x, [False, False, True]),  # noqa: SIM300
    ]:
        assert type(found) is np.ndarray
        assert found.tolist() == expected


def test_tensors_are_keys_by_identity():
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert len({a, b, a}) == 2


def test_conversions():
    x = leaf(2.5)
    assert x.item() == float(x) == 2.5
    assert f"{x:.2f}" == "2.50"
    assert f"{leaf([1.0])}" == "Tensor([1.], requires_grad=True)"
    assert bool(Tensor([0.0])) is False
    with pytest.raises(ValueError, match="ambiguous"):
        bool(Tensor([1.0, 2.0]))
    assert len(leaf([1.0, 2.0])) == 2
    assert [float(entry) for entry in Tensor([1.0, 2.0])] == [1.0, 2.0]
    with pytest.raises(TypeError):
        iter(x)
    np.testing.assert_array_equal(Tensor([1.0, 2.0]), [1.0, 2.0])
    assert np.asarray(Tensor([1.0]), dtype="float32").dtype == np.float32
    assert leaf(np.ones((2, 3))).T.shape == (3, 2)
    assert (x.ndim, x.size, x.dtype) == (0, 1, np.float64)


def test_repr():
    assert repr(Tensor([1, 2])) == "Tensor([1, 2])"
    assert repr(Tensor(np.float32(1.5))) == "Tensor(1.5, dtype=float32)"
    assert repr(leaf([[1.0], [2.0]])) == "Tensor([[1.],\n        [2.]], requires_grad=True)"


def test_leaves_can_be_copied_and_pickled():
    x = leaf([1.0, 2.0])
    x.sum().backward()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.requires_grad
        assert other.data.tolist() == [1.0, 2.0]
        assert other.grad.tolist() == [1.0, 1.0]
        assert not np.shares_memory(other.data, x.data)


@pytest.mark.parametrize("other", [2, 2.0, np.float64(2), np.int64(2), np.arange(2), True])
def test_numbers_and_integers_do_not_upcast(other):
    x = leaf(np.ones(2, np.float32))
    for y in (x + other, other * x, x / other if np.all(other) else x, ag.maximum(x, other), x**2):
        assert y.dtype == np.float32
    assert (leaf(np.float32(3)) * other).dtype == np.float32


def test_dtypes_are_numpys():
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor([1.0]).dtype == np.float64
    assert (Tensor([1, 2]) * 2).dtype == np.int64
    assert (Tensor([1, 2]) * 0.5).dtype == np.float64
    assert (Tensor([1, 2]) / 2).dtype == np.float64
    assert Tensor([1, 2]).mean().dtype == np.float64
    assert Tensor(np.array([3, 200], np.uint8)).softmax().data.tolist() == [np.exp(-197.0), 1.0]
    assert (leaf(np.ones(2, np.float32)) * np.ones(2)).dtype == np.float64


def test_mixed_precision_gradients_have_the_dtype_of_their_tensor():
    a, b = leaf(np.ones(2, np.float32)), leaf(np.ones(2))
    (a * b).sum().backward()
    assert a.grad.dtype == np.float32
    assert b.grad.dtype == np.float64


def test_a_tensor_as_index():
    x = leaf([1.0, 2.0, 3.0])
    y = x[Tensor([2, 2])]
    y.sum().backward()
    assert y.data.tolist() == [3.0, 3.0]
    assert x.grad.tolist() == [0.0, 0.0, 2.0]


def test_requires_grad_can_be_set_on_leaves():
    x = Tensor([1.0])
    x.requires_grad = True
    y = x * 2
    with pytest.raises(ValueError, match="detach"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("values", [3, [1, 2], np.ones(2, np.uint8), True])
def test_integers_have_no_gradients(values):
    with pytest.raises(TypeError, match=r"floating-point.*3\.0 for 3"):
        Tensor(values, requires_grad=True)


@pytest.mark.parametrize("values", ["abc", None, 1j, [object()]])
def test_only_real_numbers(values):
    with pytest.raises(TypeError, match="real numbers"):
        Tensor(values)
    with pytest.raises(TypeError, match="real numbers"):
        leaf(1.0) + values


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"scalar, got shape \(2,\).*sum\(\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(\)"):
        (x * 2).backward(1.0)
    with pytest.raises(TypeError, match="real numbers"):
        (x * 2).backward("ones")
    assert x.grad is None


def test_backward_needs_something_that_requires_a_gradient():
    with pytest.raises(ValueError, match="requires_grad=True"):
        (Tensor(1.0) * 2).backward()
    with ag.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(ValueError, match="no_grad"):
        y.backward()


def test_item_needs_one_entry():
    with pytest.raises(ValueError, match=r"one entry, got shape \(2,\)"):
        Tensor([1.0, 2.0]).item()
    with pytest.raises(ValueError, match="one entry"):
        float(Tensor([1.0, 2.0]))


def test_numpy_does_not_take_tensors_off_the_tape_in_silence():
    x = leaf([1.0, 2.0])
    for f in (np.exp, np.sum, np.asarray, np.stack, lambda x: np.where([True, False], x, x)):
        with pytest.raises(TypeError):
            f(x)
    with pytest.raises(TypeError, match=r"\.data.*stack"):
        Tensor([x[0], x[1]])


def test_conditions_are_bools():
    with pytest.raises(TypeError, match=r"bools, got dtype float64.*x > 0"):
        ag.where([1.0, 0.0], 1.0, 2.0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + np.ones(3),
        lambda x: x @ np.ones(3),
        lambda x: x.reshape(3),
        lambda x: x.sum(axis=1),
        lambda x: x.transpose(0, 1),
        lambda x: x[5],
        lambda x: ag.stack([x, np.ones(3)]),
        lambda x: ag.concatenate([x, np.ones((2, 1))]),
        lambda x: ag.concatenate([x[0], x[1]]),
    ],
)
def test_shapes_that_do_not_fit(f):
    with pytest.raises((ValueError, IndexError)):
        f(leaf([1.0, 2.0]))


# ------------------------------------------------------------------------ grad of a function


def test_grad_of_several_arguments():
    def f(a, b, *, power=1):
        return (a * b**power).sum()

    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert ag.grad(f)(a, b).tolist() == [3.0, 4.0]
    assert ag.grad(f, argnums=1)(a, b, power=2).tolist() == [6.0, 16.0]
    value, (da, db) = ag.value_and_grad(f, argnums=(0, 1))(a, b)
    assert value == 11.0
    assert (da.tolist(), db.tolist()) == ([3.0, 4.0], [1.0, 2.0])


def test_grad_leaves_every_tensor_as_it_was():
    x, w = leaf(2.0), leaf(5.0)
    h = w * 3
    assert ag.grad(lambda x: x * h)(x) == 15.0
    assert x.grad is None
    assert w.grad is None
    h.backward()  # not freed
    assert w.grad == 3.0


def test_grad_under_no_grad_and_of_constants():
    with ag.no_grad():
        assert ag.grad(lambda x: x**3)(2.0) == 12.0
    assert ag.grad(lambda x: Tensor(1.0))([1.0, 2.0]).tolist() == [0.0, 0.0]
    assert ag.grad(lambda x, y: y * y, argnums=(0, 1))(1.0, 2.0) == (0.0, 4.0)


def test_grad_refuses():
    with pytest.raises(TypeError, match="floating-point"):
        ag.grad(lambda x: x * x)(3)
    with pytest.raises(ValueError, match=r"scalar, got shape \(2,\)"):
        ag.grad(lambda x: x * x)([1.0, 2.0])
    with pytest.raises(TypeError, match="must return a Tensor, got float"):
        ag.grad(lambda x: x.item() ** 2)(1.0)
    with pytest.raises(ValueError, match="argument number 1, got 1"):
        ag.grad(lambda x: x * x, argnums=1)(1.0)
