"""Frozen layers keep their bits, the others train as if they were the whole network; clones."""

import copy
import pickle
import tracemalloc
from functools import partial

import numpy as np
import pytest
from comparison import assert_close, bits, reference_of, reference_optimizer

import fastbackprop as fb

OPTIMIZERS = [
    fb.SGD(0.1),
    fb.SGD(0.1, weight_decay=0.1),
    fb.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    fb.SGD(0.1, clip_norm=0.02, weight_decay=0.1),
    fb.Adam(0.01, weight_decay=0.1),
    fb.Adam(0.01, clip_norm=0.02),
    fb.AdamW(0.01, weight_decay=0.5),
    fb.AdamW(0.01, weight_decay=0.5, clip_norm=0.02),
    fb.RMSprop(0.01, centered=True, momentum=0.5, weight_decay=0.1),
    fb.RMSprop(0.01, clip_norm=0.02, weight_decay=0.1),
]
SIZES = [300, 33, 17, 3]
FROZEN = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


def problem(dtype="float64", sizes=SIZES, n=23):
    rng = np.random.default_rng(0)
    net = fb.Network(sizes, "tanh", "cross_entropy", random_state=rng, dtype=dtype)
    return net, rng.standard_normal((n, sizes[0])), rng.integers(0, sizes[-1], n)


def layer_bits(net):
    """The bytes of each layer's weights and bias."""
    return [
        w.tobytes() + (b"" if b is None else b.tobytes())
        for w, b in zip(net.weights, net.biases, strict=True)
    ]


class Partly:
    """A reference optimizer that sees no gradients but those of the layers that learn."""

    def __init__(self, optimizer, frozen):
        self.optimizer, self.frozen = optimizer, frozen

    def step(self, parameters, gradients):
        chosen = [i for i in range(len(parameters)) if i // 2 not in self.frozen]
        self.optimizer.step([parameters[i] for i in chosen], [gradients[i] for i in chosen])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_the_rest_trains_as_in_the_reference(optimizer, frozen):
    net, X, y = problem()
    before = layer_bits(net)
    twin = reference_of(net)
    net.freeze(*frozen)
    history = net.fit(X, y, 3, 5, optimizer, shuffle=False, verbose=0)
    batches = [(X[i : i + 5], y[i : i + 5]) for i in range(0, len(X), 5)]
    losses = twin.train([batches] * 3, Partly(reference_optimizer(optimizer), frozen))
    assert_close(history["loss"], losses, 1e-9)
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        assert_close(w, twin.dense[i]["w"], 1e-9)
        assert_close(b, twin.dense[i]["b"], 1e-9)
    after = layer_bits(net)
    assert [i for i in range(3) if after[i] == before[i]] == list(frozen)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_matter(optimizer, frozen, dtype):
    results = []
    for threads in (1, 2, 3):
        net, X, y = problem(dtype)
        net.freeze(*frozen)
        net.fit(X, y, 2, 8, optimizer, threads=threads, verbose=0)
        results.append(net.get_parameters().tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1)], ids=str)
def test_large_batches_of_small_networks(optimizer, frozen):
    # They are cut into chunks, whose gradients are added.
    net, X, y = problem(sizes=[5, 7, 6, 3], n=2500)
    before = layer_bits(net)
    twin = reference_of(net)
    net.freeze(*frozen)
    net.fit(X, y, 2, 1250, optimizer, shuffle=False, threads=2, verbose=0)
    batches = [(X[:1250], y[:1250]), (X[1250:], y[1250:])]
    twin.train([batches] * 2, Partly(reference_optimizer(optimizer), frozen))
    for i, w in enumerate(net.weights):
        assert_close(w, twin.dense[i]["w"], 1e-9)
    after = layer_bits(net)
    assert [i for i in range(3) if after[i] == before[i]] == list(frozen)


def test_train_step_and_dropout():
    layers = [fb.Dropout(0.5), fb.Dense(9, 8, "relu"), fb.Dropout(0.5), fb.Dense(8, 3)]
    net = fb.Network(layers, loss="cross_entropy", random_state=0)
    free = net.clone()
    net.freeze(0)
    X, y = np.random.default_rng(0).random((4, 9)), [0, 1, 2, 0]
    before = layer_bits(net)
    for network in (net, free):
        network.train_step(X, y, fb.AdamW(0.1))
    assert layer_bits(net)[0] == before[0]
    assert layer_bits(net)[1] == layer_bits(free)[1]  # with the same masks as ever
    assert layer_bits(net)[1] != before[1]


def test_gradients_can_be_asked_for():
    net, X, y = problem()
    expected = net.loss_and_gradients(X, y)
    net.freeze(0, 1)
    loss, gradients = net.loss_and_gradients(X, y)
    assert loss == expected[0]
    for (dw, db), (other_dw, other_db) in zip(gradients, expected[1], strict=True):
        np.testing.assert_array_equal(dw, other_dw)
        np.testing.assert_array_equal(db, other_db)
    assert net.input_gradient(X, y).any()


def test_unfrozen_again():
    net, X, y = problem()
    plain = net.clone()
    net.freeze()
    assert net.frozen == (0, 1, 2)
    net.unfreeze(-1, 0)
    assert net.frozen == (1,)
    net.unfreeze()
    assert net.frozen == ()
    for network in (net, plain):
        network.fit(X, y, 2, 5, fb.AdamW(0.01), verbose=0)
    np.testing.assert_array_equal(bits(net), bits(plain))


def test_optimizer_state_of_frozen_layers_waits():
    net, X, y = problem()
    adam = fb.Adam(0.01)
    net.fit(X, y, 1, 5, adam, verbose=0)
    slots = {
        name: net._state.plan.weights(slot)[0].copy() for name, slot in net._state.slots.items()
    }
    net.freeze(0)
    net.fit(X, y, 1, 5, adam, verbose=0)
    for name, slot in net._state.slots.items():
        np.testing.assert_array_equal(net._state.plan.weights(slot)[0], slots[name])


def test_nothing_to_learn_is_refused():
    net, X, y = problem()
    net.freeze()
    with pytest.raises(ValueError, match="every layer is frozen"):
        net.fit(X, y, verbose=0)
    with pytest.raises(ValueError, match="every layer is frozen"):
        net.train_step(X, y)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (3, IndexError, r"no layer 3; the network has 3 Dense layers, from 0 to 2"),
        (-4, IndexError, r"no layer -4"),
        (1.0, TypeError, r"must be an integer, got 1\.0"),
        (True, TypeError, r"must be an integer, got True"),
        ([0, 1], TypeError, r"must be an integer, got \[0, 1\]"),
    ],
)
def test_layer_numbers_are_checked(number, error, message):
    net, _, _ = problem()
    for call in (net.freeze, net.unfreeze):
        with pytest.raises(error, match=message):
            call(0, number)
    assert net.frozen == ()


def test_summary_tells():
    net = fb.Network([4, 8, 3])
    assert "frozen" not in net.summary()
    net.freeze(0)
    assert net.summary().endswith("67 parameters (268 B), 40 of them frozen")
    assert "40 of them frozen" in net._repr_html_()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_it(duplicate):
    net, _, _ = problem()
    net.freeze(1)
    assert duplicate(net).frozen == (1,)


def test_not_while_training():
    net, X, y = problem()

    class Freeze(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            net.freeze(0)

    with pytest.raises(RuntimeError, match="being trained"):
        net.fit(X, y, callbacks=Freeze(), verbose=0)
    assert net.frozen == ()


# ---------------------------------------------------------------------------------------- clone


@pytest.mark.parametrize("keep_optimizer", [False, True])
def test_clone(keep_optimizer):
    net, X, y = problem()
    adam = fb.Adam(0.01)
    net.freeze(0)
    net.fit(X, y, 2, 5, adam, verbose=0)
    twin = net.clone(keep_optimizer)
    np.testing.assert_array_equal(bits(twin), bits(net))
    assert twin.layers == net.layers
    assert twin.frozen == (0,)
    assert repr(twin) == repr(net)
    assert twin.history.epoch == []
    other = net.clone()
    if not keep_optimizer:
        net = other  # whose optimizer begins afresh, too
    for network in (net, twin):
        network.fit(X, y, 2, 5, adam, verbose=0)
    np.testing.assert_array_equal(bits(twin), bits(net))
    assert twin.history.epoch == [2, 3]


def test_a_clone_is_independent():
    net, X, y = problem()
    twin = net.clone()
    before = bits(twin)
    net.fit(X, y, verbose=0)
    net.freeze(0)
    np.testing.assert_array_equal(bits(twin), before)
    assert twin.frozen == ()
    with pytest.raises(TypeError, match="keep_optimizer must be True or False, got 'yes'"):
        net.clone("yes")


class Halving:
    """A schedule of the user's own, which is equal to itself alone."""

    def __call__(self, step):
        return 0.1 / (1 + step)


def test_a_clone_goes_on_with_the_same_optimizer():
    net, X, y = problem()
    sgd = fb.SGD(Halving(), momentum=0.9)
    net.fit(X, y, 2, 5, sgd, verbose=0)
    net.learning_rate_factor = 0.5
    twin = net.clone(keep_optimizer=True)
    for network in (net, twin):
        network.fit(X, y, 2, 5, sgd, verbose=0)
        assert network.learning_rate_factor == 0.5
    np.testing.assert_array_equal(bits(twin), bits(net))


def test_a_clone_takes_the_memory_of_its_arrays():
    """A copy in one piece: no arrays in between, and none of the optimizer unless they stay."""
    net = fb.Network([700, 700, 2], "relu", "mse", random_state=0)
    size = net._state.params.nbytes
    net.train_step(np.ones((2, 700)), np.ones((2, 2)), fb.Adam())
    whole = partial(copy.deepcopy, net)
    for duplicate, arrays in ((net.clone, 1), (partial(net.clone, True), 3), (whole, 3)):
        tracemalloc.start()
        try:
            twin = duplicate()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert arrays <= peak / size < arrays + 0.1
        np.testing.assert_array_equal(bits(twin), bits(net))
