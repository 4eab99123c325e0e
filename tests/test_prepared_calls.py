"""Calls that are prepared once and used again give what a new network's first call gives."""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from comparison import bits, flat

import fastbackprop as fb
from fastbackprop.state import Idle

SIZES = (5, 7, 3)


def network(dropout=0.0):
    return fb.Network(
        [fb.Dense(5, 7, "gelu"), fb.Dropout(dropout), fb.Dense(7, 3)],
        loss="cross_entropy",
        random_state=0,
    )


def batch(n, dtype="float32"):
    rng = np.random.default_rng(n)
    return (rng.random((n, 5)) * 10).astype(dtype), rng.integers(0, 3, n)


def answers(net, X, y):
    """All that leaves the network as it is."""
    loss, gradients = net.loss_and_gradients(X, y)
    return [
        loss,
        flat(gradients),
        net.predict(X),
        net.evaluate(X, y, metrics=["f1_macro"]),
        net.input_gradient(X, y),
        net.jacobian(X[0]),
    ]


def assert_equal(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_rows_types_and_layouts_by_turns():
    net = network()
    kinds = itertools.product((3, 200, 1, 64, 65, 1500), ("float32", "uint8", "float64"))
    for n, dtype in [*kinds, (3, "float32")]:
        X, y = batch(n, dtype)
        for view in (X, X[::-1], np.asfortranarray(X)):
            assert_equal(answers(net, view, y), answers(net.clone(), view, y))


def test_weights_and_targets_of_one_call_are_not_those_of_the_next():
    net = network()
    X, y = batch(100)
    weights = np.linspace(0, 1, 100)
    expected = net.clone().loss(X, y)
    for _ in range(2):
        assert net.loss(X, y, weights) != expected
        assert net.loss(X, np.eye(3)[y]) == pytest.approx(expected, rel=1e-6)
        assert net.loss(X, y) == expected
        assert net.loss_and_gradients(X, y, weights)[0] != net.loss_and_gradients(X, y)[0]


def test_parameters_that_the_caller_changes():
    net = network()
    X, y = batch(90)
    answers(net, X, y)
    net.weights[0][...] *= 2
    assert_equal(answers(net, X, y), answers(net.clone(), X, y))
    net.set_parameters(net.get_parameters() / 3)
    assert_equal(answers(net, X, y), answers(net.clone(), X, y))
    net.fit(X, y, epochs=1, verbose=0)
    assert_equal(answers(net, X, y), answers(net.clone(), X, y))


def test_results_are_the_callers_own():
    net = network()
    (X, y), other = batch(70), batch(71)
    (_, pairs) = net.loss_and_gradients(X, y)
    kept = [*itertools.chain(*pairs), net.predict(X), net.input_gradient(X, y), net.jacobian(X[0])]
    copies = [value.copy() for value in kept]
    answers(net, *other)
    assert_equal(kept, copies)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_steps(dropout):
    """Whatever came before, a step is that of a copy that has prepared nothing."""
    net = network(dropout)
    adam, clipped = fb.Adam(0.01), fb.SGD(0.1, momentum=0.9, clip_norm=0.01)
    turns = [
        (adam, 8), (adam, 8), (adam, 5), (adam, 9), (clipped, 8), (clipped, 3), (adam, 8),
        (adam, 1024), (adam, 1000), (adam, 2000), (fb.Adam(0.01), 8), (fb.SGD(0.1), 8),
    ]  # fmt: skip
    for optimizer, n in turns:
        X, y = batch(n)
        twin = net.clone(keep_optimizer=True)
        assert net.train_step(X, y, optimizer) == twin.train_step(X, y, optimizer)
        np.testing.assert_array_equal(bits(net), bits(twin))


def test_steps_after_freezing_and_another_fit():
    net = network()
    X, y = batch(8)
    net.train_step(X, y)
    net.freeze(0)
    before = net.weights[0].copy()
    net.train_step(X, y)
    np.testing.assert_array_equal(net.weights[0], before)
    net.unfreeze()
    for change in (
        lambda: net.fit(X, y, epochs=1, verbose=0),
        lambda: setattr(net, "learning_rate_factor", 0.5),
        lambda: net.set_parameters(net.get_parameters() + 0.1),
        lambda: None,
    ):
        change()
        twin = net.clone(keep_optimizer=True)
        net.train_step(X, y)
        twin.train_step(X, y)
        assert (net.weights[0] != before).any()
        np.testing.assert_array_equal(bits(net), bits(twin))


def test_after_an_error():
    net = network()
    X, y = batch(80)
    bad = X.copy()
    bad[79, 4] = np.nan
    net.train_step(X, y)
    expected, steps = answers(net, X, y), net._state.steps
    for function in (net.train_step, net.loss, net.loss_and_gradients, net.input_gradient):
        with pytest.raises(ValueError, match=r"X contains nan at \[79, 4\]"):
            function(bad, y)
    for rows in (bad, bad[70:]):
        with pytest.raises(ValueError, match="X contains nan"):
            net.predict(rows)
    assert_equal(answers(net, X, y), expected)
    assert net._state.steps == steps
    twin = net.clone(keep_optimizer=True)
    assert net.train_step(X, y) == twin.train_step(X, y)


def test_nothing_of_the_caller_is_kept():
    net = network()
    X, y = batch(100)
    gone = weakref.ref(X)
    answers(net, X, y)
    net.train_step(X, y)
    del X
    gc.collect()
    assert gone() is None


def test_a_network_is_gone_with_its_last_name():
    """Not only when the garbage collector finds a cycle."""
    net = network()
    X, y = batch(100)
    gone = weakref.ref(net._state)
    gc.disable()
    try:
        answers(net, X, y)
        answers(net, X[:5], y[:5])
        net.train_step(X, y)
        net.fit(X, y, epochs=1, verbose=0)
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_large_buffers_are_not_kept():
    idle = Idle()
    idle.keep("small", 1, 1000)
    idle.keep("large", 2, 10**9)
    assert idle.take("large") is None
    assert idle.take("small") == 1
    assert idle.take("small") is None


def test_threads_at_once():
    net = network()
    batches = [batch(n, dtype) for n in (1, 40, 130) for dtype in ("float32", "float64")]
    expected = [answers(net, *data) for data in batches]
    failures = []

    def work(first):
        try:
            for i in range(30):
                at = (first + i) % len(batches)
                assert_equal(answers(net, *batches[at]), expected[at])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
