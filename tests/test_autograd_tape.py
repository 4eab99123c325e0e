"""The tape: its conventions, what it refuses, and how tensors and arrays get on."""

import asyncio
import contextvars
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
    assert (node.links, node.saved) == ((), [])


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


def test_no_grad_decorates_without_parentheses():
    @ag.no_grad
    def double(x, factor=2):
        """Twice x."""
        return x * factor

    assert double.__doc__ == "Twice x."
    assert double(leaf(2.0), factor=3).item() == 6.0
    assert not double(leaf(1.0)).requires_grad
    assert (leaf(1.0) * 2).requires_grad


@pytest.mark.parametrize("thing", [3, Tensor, "f"])
def test_no_grad_decorates_nothing_but_functions(thing):
    with pytest.raises(TypeError, match="no_grad decorates functions"):
        ag.no_grad(thing)


def test_one_no_grad_serves_again_and_inside_itself():
    block, x = ag.no_grad(), leaf(1.0)
    for _ in range(2):
        with block:
            with block:
                assert not (x * 2).requires_grad
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad


def test_no_grad_decorates_generator_functions():
    x, log = leaf(2.0), []

    @ag.no_grad()
    def generator():
        try:
            log.append((yield x * 2))
            try:
                yield x * 3
            except KeyError as error:
                log.append(error.args)
            yield x * 4
            return 5
        finally:
            log.append((x * 2).requires_grad)

    def outer():
        return (yield from generator())

    steps = outer()
    assert not next(steps).requires_grad
    assert (x * 2).requires_grad  # on again between the steps
    assert not steps.send("sent").requires_grad
    assert not steps.throw(KeyError("thrown")).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 5
    assert log == ["sent", ("thrown",), False]
    steps = generator()
    next(steps)
    steps.close()
    assert log[3:] == [False]
    steps = generator()
    next(steps)
    with pytest.raises(ValueError, match="through"):
        steps.throw(ValueError("through"))
    assert (x * 2).requires_grad


def test_no_grad_decorates_coroutine_functions():
    x = leaf(1.0)

    @ag.no_grad
    async def inside():
        await asyncio.sleep(0)
        return (x * 2).requires_grad

    async def outside():
        await asyncio.sleep(0)
        return (x * 2).requires_grad

    async def both():
        return await asyncio.gather(inside(), outside(), inside())

    assert asyncio.run(both()) == [False, True, False]


def test_generators_that_take_turns_do_not_disturb_each_other():
    def generator():
        with ag.no_grad():
            yield 1

    x = leaf(1.0)
    a, b = generator(), generator()
    next(a)
    next(b)
    list(a)
    assert not (x * 2).requires_grad  # b is still inside its block
    list(b)
    assert (x * 2).requires_grad


def test_a_generator_that_ends_elsewhere_leaves_no_grad_there_as_it_was():
    block, x = ag.no_grad(), leaf(1.0)

    def generator():
        with ag.no_grad():
            yield 1

    a = generator()
    contextvars.copy_context().run(next, a)
    assert (x * 2).requires_grad
    with block:
        a.close()
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_a_no_grad_shared_by_threads_is_of_each_alone():
    block, x, found = ag.no_grad(), leaf(1.0), []
    inside, outside = threading.Event(), threading.Event()

    def other():
        found.append((x * 2).requires_grad)
        with block:
            inside.set()
            outside.wait(10)
            found.append((x * 2).requires_grad)

    with block:
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    outside.set()
    thread.join()
    assert (x * 2).requires_grad
    assert found == [True, False]


def test_threads_lose_no_gradient():
    p = leaf(np.zeros(3))
    other = threading.Thread(target=lambda: (p * 10.0).sum().backward())

    class Interrupted(np.ndarray):
        """A gradient to which another thread adds while this one does."""

        def __add__(self, g):
            other.start()
            other.join(0.1)  # in vain if it has to wait for this one
            return np.asarray(self) + g

    p.grad = np.ones(3).view(Interrupted)
    (p * 2.0).sum().backward()
    other.join()
    assert p.grad.tolist() == [13.0, 13.0, 13.0]


def test_a_graph_freed_in_the_middle_of_another_backward_serves_that_one_whole():
    x = leaf(3.0)
    y = x * x
    node = y._node
    output = y * 2

    class Freeing:
        """An object in the way of the walk, which frees what another thread would."""

        def __call__(self, g):
            node.free()
            return g * 2

    (link, _), *_ = output._node.links
    output._node.links = ((link, Freeing()),)
    output.backward()
    assert x.grad == 12.0


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
    assert int(x) == 2
    assert int(Tensor([3])) == 3
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


@pytest.mark.parametrize("other", [Tensor(2.0), leaf(2.0), np.array(2.0)])
def test_what_has_no_axes_does_not_upcast_what_has(other):
    x = leaf(np.ones(2, np.float32))
    for y in (x + other, other * x, x**other, ag.maximum(x, other), ag.where(x > 0, other, x)):
        assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert (leaf(np.float32(3)) * other).dtype == np.float64
    assert (Tensor(np.ones(2, np.int32)) * other).dtype == np.float64


def test_integers_keep_the_dtype_of_what_has_axes():
    x = Tensor(np.array([1, 2], np.int32))
    for other in (3, np.int64(3), Tensor(3), True):
        assert (x * other).dtype == np.int32
    assert (x * np.array([1, 2])).dtype == np.int64
    assert (Tensor([True, False]) * 2).data.tolist() == [2, 0]
    assert (x * 0.5).dtype == np.float64
    assert (Tensor(np.array([10, 20], np.uint8)) / 255).dtype == np.float64


PROMOTED = [np.ones(2), np.array(2.0), 2.0, np.ones(2, int), np.array(2), 2, np.array(True), True]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (2,)])
@pytest.mark.parametrize("other", PROMOTED, ids=repr)
def test_dtypes_of_products_are_those_of_pytorch(other, shape, dtype):
    torch = pytest.importorskip("torch")
    array = np.ones(shape, dtype)
    theirs = torch.tensor(other) if isinstance(other, np.ndarray) else other
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        expected = torch.tensor(array) * theirs
    finally:
        torch.set_default_dtype(default)
    assert str((Tensor(array) * other).dtype) == str(expected.dtype).removeprefix("torch.")


def test_overflows_in_casts_are_inf_without_a_warning():
    x = leaf(np.array([1.0, 2.0], np.float32))
    assert (x * 1e300).data.tolist() == [np.inf, np.inf]
    (x * 2).backward([1e300, 1.0])
    assert x.grad.tolist() == [np.inf, 2.0]
    with ag.no_grad():
        x += np.array([1e300, 1.0])
        x[1] = 1e300
    assert x.data.tolist() == [np.inf, np.inf]
    x.data = [1e300, 1.0]
    assert x.data.tolist() == [np.inf, 1.0]


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


def test_bools_are_not_negated_or_subtracted():
    mask = Tensor([True, False])
    for f in (lambda: -mask, lambda: mask - mask, lambda: True - mask):
        with pytest.raises(TypeError, match=r"bools.*x \* 1"):
            f()
    assert (-(mask * 1)).data.tolist() == [-1, 0]
    assert (1 - mask).data.tolist() == [0, 1]


def test_integers_have_no_negative_powers():
    for f in (lambda: Tensor([1, 2]) ** -1, lambda: 2 ** Tensor([1, -1])):
        with pytest.raises(ValueError, match=r"negative powers.*-1\.0 for -1"):
            f()
    assert (Tensor([1, 2]) ** -1.0).data.tolist() == [1.0, 0.5]
    assert (2 ** Tensor([1, 2])).data.tolist() == [2, 4]


def test_transpose_takes_each_axis_once():
    x = leaf(np.ones((2, 3)))
    for axes in ((0, 3), (0, 0), (0,), (0, 1, 2), (-3, 0), ((1, 2, 0),)):
        with pytest.raises(ValueError, match=r"each axis of shape \(2, 3\) once"):
            x.transpose(*axes)
    with pytest.raises(TypeError, match="integer"):
        x.transpose("a", 0)
    y = leaf(np.ones((2, 3, 4))).transpose((1, -1, 0))
    assert y.shape == (3, 4, 2)
    assert Tensor(1.0).transpose().shape == ()


@pytest.mark.parametrize("join", [ag.concatenate, ag.stack])
def test_nothing_to_join(join):
    with pytest.raises(ValueError, match="at least one tensor"):
        join([])


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
    for argnums in (1, -1, (0, 1)):
        with pytest.raises(ValueError, match="from 0 to 0, as there are 1 positional arguments"):
            ag.grad(lambda x: x * x, argnums=argnums)(1.0)


@pytest.mark.parametrize(
    ("argnums", "error", "message"),
    [
        ((0, 0), ValueError, r"each argument once, got \(0, 0\)"),
        ("a", TypeError, "integer or a tuple of integers, got 'a'"),
        (1.5, TypeError, "integer"),
        ((0, None), TypeError, "integer"),
    ],
)
@pytest.mark.parametrize("transform", [ag.grad, ag.value_and_grad])
def test_argnums_are_checked_at_once(transform, argnums, error, message):
    with pytest.raises(error, match=message):
        transform(lambda x: x * x, argnums=argnums)


def test_second_derivatives_are_refused_by_name():
    for f in (ag.grad(lambda x: x**3), lambda x: ag.grad(lambda x: x**3)(x).sum()):
        with pytest.raises(TypeError, match="second derivatives"):
            ag.grad(f)(2.0)


def test_leaves():
    x = leaf(1.0)
    assert x.is_leaf
    assert (x.detach() * 2).is_leaf
    assert not (x * 2).is_leaf
