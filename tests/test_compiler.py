"""What the compiler of kernels leaves out, and that Numba has it under the names used there."""

import gc
import operator

import numba
import numpy as np
import pytest
from kernel_harness import jit
from numba.core import errors, types
from numba.core.compiler import DefaultPassBuilder, Flags, StateDict

from fastbackprop._kernels import compiler
from fastbackprop._kernels.jit import kernel, kernel_by_type


@kernel
def is_small(n):
    return n in (1, 2, 3)  # for which Numba compiles a function of its own


@kernel
def clipped(n, most):
    if is_small(n):
        return 2 * n
    return min(n, most)


@kernel
def sum_of_many(n):
    total = 0
    for i in range(n):
        if is_small(i):
            continue
        if i == 5:
            continue
        total += clipped(i, 7)
    while True:
        total -= 3
        if total < 2 * n:
            break
    return total


def test_kernels_that_share_callees():
    """Callees are linked once, behind all that call them; loops may be left in several places."""

    @jit
    def call(n):
        return sum_of_many(n), clipped(n, 4), clipped(2, n)

    kept = [i for i in range(20) if i > 3 and i != 5]
    total = sum(min(i, 7) for i in [0, *kept])
    while total >= 40:
        total -= 3
    assert call(20) == (total, 4, 4)


def test_a_kernel_is_compiled_once_for_constants_and_variables():
    @kernel
    def scaled(n, factor):
        return n * factor

    @jit
    def call(n):
        return scaled(n, 2) + scaled(n, 3) + scaled(4, n)

    assert call(5) == 45
    assert list(scaled.overloads) == [(types.int64, types.int64)]


def test_an_operator_is_resolved_once(monkeypatch):
    compiler._remembering.cache_clear()
    resolved = []
    resolve = types.Function.get_call_type

    def count(self, context, args, kws):
        resolved.append((self.typing_key, args))
        return resolve(self, context, args, kws)

    monkeypatch.setattr(types.Function, "get_call_type", count)

    @kernel
    def added(n):
        return (n + n) + (n + n) + (n + n)

    @jit
    def call(n):
        return added(n)

    assert call(5) == 30
    assert resolved.count((operator.add, (types.int64, types.int64))) == 1


def test_sizes_are_remembered():
    answered = compiler._size.cache_info().hits

    @kernel
    def factorial(n):
        product = 1
        while n > 1:
            product *= n
            n -= 1
        return product

    @jit
    def call(n):
        return factorial(n)

    assert call(5) == 120
    assert compiler._size.cache_info().hits > answered


def test_passes_have_the_names_by_which_they_are_left_out():
    state = StateDict(func_ir=None, flags=Flags())
    known = {kind.__name__ for kind, _ in DefaultPassBuilder.define_nopython_pipeline(state).passes}
    assert known >= compiler._UNUSED_PASSES


@kernel
def with_closure(n):
    def successor(m):
        return m + 1

    return successor(n)


@kernel
def with_exception(n):
    if n > 3:
        raise ValueError("too many")
    return n


@kernel
def with_list(n):
    numbers = [n]
    numbers.append(n)
    return numbers[0]


@kernel
def with_array(n):
    return np.zeros(n)[0]


@kernel
def with_python(n):
    with numba.objmode(m="int64"):
        m = n + 1
    return m + n


@kernel
def with_unrolled_loop(n):
    for number in numba.literal_unroll((1, 2.0)):
        n += number
    return n


@pytest.mark.parametrize(
    "function",
    [with_closure, with_exception, with_list, with_array, with_python, with_unrolled_loop],
)
def test_what_needs_a_pass_that_is_left_out_is_an_error(function):
    @jit
    def call(n):
        return function(n)

    with pytest.raises(errors.NumbaError):
        call(5)


@pytest.mark.parametrize("thresholds", [(700, 10, 10), (0, 5, 5)])
def test_garbage_is_collected_as_before_after_a_compilation(thresholds):
    seen = []

    @kernel_by_type
    def watched(kind):
        seen.append(gc.get_threshold())
        return doubled

    @kernel
    def doubled(n):
        return 2 * n

    def call(n):
        return watched(n)

    def fail(n):
        return watched(n) + "what a kernel cannot add"

    entry = numba.njit(pipeline_class=compiler.EntryCompiler)
    before = gc.get_threshold()
    gc.set_threshold(*thresholds)
    try:
        assert entry(call)(21) == 42
        assert gc.get_threshold() == thresholds
        with pytest.raises(errors.TypingError):
            entry(fail)(21)
        assert gc.get_threshold() == thresholds
    finally:
        gc.set_threshold(*before)
    expected = thresholds if thresholds[0] == 0 else compiler._COLLECTIONS
    assert set(seen) == {expected}
