"""What holds for every network and any data: Hypothesis looks for one that breaks it."""

import copy
import os

import numpy as np
from comparison import (
    ELEMENTWISE,
    LOSSES,
    OUTPUTS,
    assert_close,
    bits,
    dropout_masks,
    epoch_order,
    flat,
    is_near_kink,
    make_targets,
    pickled,
    reference_of,
    reference_optimizer,
)
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

import fastbackprop as fb

examples = settings(
    max_examples=60,
    deadline=None,  # the first may compile
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

# Those that compare with the reference, on as many architectures.
against_the_reference = settings(
    examples, max_examples=10_000 if "FASTBACKPROP_FULL" in os.environ else 60
)

EPS = {"float32": np.finfo(np.float32).eps, "float64": np.finfo(np.float64).eps}
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def activations(draw):
    name = draw(st.sampled_from(ELEMENTWISE))
    takes_alpha = name in ("leaky_relu", "elu")
    return fb.Activation(name, draw(st.floats(0, 2)) if takes_alpha else None)


@st.composite
def networks(draw, dropout=False, dtypes=("float32", "float64")):
    sizes = draw(st.lists(st.integers(1, 40), min_size=2, max_size=5))
    loss = draw(st.sampled_from(LOSSES))
    layers = []
    if draw(st.booleans()):
        scale = draw(st.sampled_from([0.5, 1 / 255, -1.0]))
        layers.append(fb.Rescaling(scale, draw(st.sampled_from([0.0, -0.5]))))
    for i in range(len(sizes) - 1):
        is_last = i == len(sizes) - 2
        if dropout and draw(st.booleans()):
            layers.append(fb.Dropout(draw(st.sampled_from([0.1, 0.5, 0.9]))))
        activation = draw(activations())
        if is_last and loss in OUTPUTS:
            activation = fb.Activation(OUTPUTS[loss])
        bias = draw(st.booleans())
        layers.append(fb.Dense(*sizes[i : i + 2], activation, bias, bias_init="normal"))
    spec = fb.Loss(loss, draw(st.floats(0.1, 2))) if loss == "huber" else loss
    dtype = draw(st.sampled_from(dtypes))
    return fb.Network(layers, loss=spec, random_state=draw(SEEDS), dtype=dtype)


@st.composite
def batches(draw, net, max_rows=80):
    """X (n, n_in), y (n, n_out), and weights (n,) or None."""
    rng = np.random.default_rng(draw(SEEDS))
    n = draw(st.integers(1, max_rows))
    X = rng.standard_normal((n, net.sizes[0])).astype(net.dtype)
    y = make_targets(rng, net.loss_function.name, n, net.sizes[-1]).astype(net.dtype)
    assume(not is_near_kink(net, X, y))
    if draw(st.booleans()):
        return X, y, None
    weights = rng.random(n) * (rng.random(n) < 0.7)
    assume(weights.any())
    return X, y, weights


@st.composite
def optimizers(draw):
    rate = draw(st.floats(1e-4, 1e-2))
    shared = {
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "clip_norm": draw(st.sampled_from([None, 0.1])),
    }
    momentum = draw(st.sampled_from([0.0, 0.9]))
    kind = draw(st.sampled_from([fb.SGD, fb.Adam, fb.AdamW, fb.RMSprop]))
    if kind is fb.SGD:
        nesterov = momentum > 0 and draw(st.booleans())
        return fb.SGD(rate, momentum, nesterov=nesterov, **shared)
    if kind is fb.RMSprop:
        centered = draw(st.booleans())
        return fb.RMSprop(rate, eps=1e-3, momentum=momentum, centered=centered, **shared)
    return kind(rate, eps=1e-3, **shared)


def results_of_reference(net, X, y, weights):
    """Outputs, loss, gradients and gradient of the batch, each as one array."""
    twin = reference_of(net)
    loss, gradients, dx = twin.gradients(X, y, weights)
    return [twin.forward(X), np.array(loss), flat(gradients), dx]


def moved_by_rounding(net, X, y, weights, results):
    """How far the reference's results move where parameters, X and y are off by a few roundings.

    The kernels round otherwise than the reference, so that their results may be off by as much:
    a sum whose terms nearly cancel each other, or a probability close to its target, loses digits.
    """
    rng, far = np.random.default_rng(0), [0.0] * len(results)
    for _ in range(3):
        other = copy.deepcopy(net)
        theta = net.get_parameters()
        few = 4 * EPS[net.dtype.name]
        other.set_parameters(theta * (1 + few * rng.uniform(-1, 1, theta.shape)))
        X_other = X * (1 + few * rng.uniform(-1, 1, X.shape))
        y_other = y * (1 - few * rng.random(y.shape))  # which stay probabilities
        moved = results_of_reference(other, X_other, y_other, weights)
        far = [
            max(most, float(np.abs(a - b).max()))
            for most, a, b in zip(far, moved, results, strict=True)
        ]
    return far


@against_the_reference
@given(st.data())
def test_outputs_loss_and_gradients(data):
    net = data.draw(networks())
    X, y, weights = data.draw(batches(net))
    expected = results_of_reference(net, X, y, weights)
    value, gradients = net.loss_and_gradients(X, y, weights)
    actual = [net.predict(X), value, flat(gradients), net.input_gradient(X, y, weights)]
    far = moved_by_rounding(net, X, y, weights, expected)
    # Each layer sums up to 40 products, forward and back; each sum may lose some digits. And the
    # slope of a saturated unit, a (1 - a), has the rounding of a, of which 1 - a may be 1e-4.
    tolerance = (1000 if net.dtype == np.float32 else 100) * len(net.weights) * EPS[net.dtype.name]
    for ours, theirs, rounding in zip(actual, expected, far, strict=True):
        limit = tolerance * np.abs(theirs).max() + 10 * rounding + np.finfo(net.dtype).tiny
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


@examples
@given(st.data())
def test_rows_are_independent(data):
    net = data.draw(networks(dtypes=("float64",)))
    X, y, _ = data.draw(batches(net))
    together = net.predict(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(net.predict(X[order]), together[order])
    np.testing.assert_array_equal(net.predict(X[-1:]), together[-1:])
    each = [net.loss(X[i : i + 1], y[i : i + 1]) for i in range(len(X))]
    assert_close(net.loss(X, y), np.mean(each), 1e-12)


def trained(twin, net, X, y, weights, epochs, batch_size, optimizer):
    """Train the reference with the order and the masks of the network; its loss in each epoch."""
    same, n = reference_optimizer(optimizer), len(X)
    losses = []
    for epoch in range(epochs):
        order = epoch_order(net, epoch, n, batch_size)
        total = share = 0.0
        for step, start in enumerate(range(0, n, batch_size)):
            rows = order[start : start + batch_size]
            masks = dropout_masks(net, epoch, step, len(rows))
            w = np.ones(len(rows)) if weights is None else weights[rows]
            total += w.sum() * twin.train_step(X[rows], y[rows], same, w, masks)
            share += w.sum()
        losses.append(total / share)
    return losses


@against_the_reference
@given(st.data())
def test_fit_follows_the_reference(data):
    net = data.draw(networks(dropout=True, dtypes=("float64",)))
    X, y, weights = data.draw(batches(net, max_rows=30))
    optimizer = data.draw(optimizers())
    batch_size = data.draw(st.integers(1, 35))
    epochs = data.draw(st.integers(1, 3))
    threads = data.draw(st.integers(1, 3))
    twin = reference_of(net)
    try:
        with np.errstate(over="raise", invalid="raise"):
            losses = trained(twin, net, X, y, weights, epochs, batch_size, optimizer)
    except FloatingPointError:
        reject()  # a few linear layers may diverge within a few steps
    history = net.fit(
        X,
        y,
        epochs,
        batch_size,
        optimizer,
        sample_weight=weights,
        threads=threads,
        verbose=0,
    )
    # Rounding may decide the side of a kink in one step of many, which the next ones amplify.
    smooth = all(layer["activation"] not in ("relu", "leaky_relu") for layer in twin.dense)
    tolerance = 1e-9 if smooth and net.loss_function.name != "mae" else 1e-6
    assert_close(history["loss"], losses, tolerance)
    assert_close(
        net.get_parameters(), np.concatenate([p.ravel() for p in twin.parameters]), tolerance
    )


@examples
@given(st.data())
def test_threads_copies_and_files_keep_every_bit(tmp_path_factory, data):
    net = data.draw(networks(dropout=True))
    X, y, weights = data.draw(batches(net))
    optimizer = data.draw(optimizers())
    batch_size = data.draw(st.integers(1, 90))
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    net.save(path)
    others = [copy.deepcopy(net), pickled(net), fb.load(path)]
    ends = set()
    for threads, each in enumerate([net, *others], start=1):
        options = {"sample_weight": weights, "threads": threads, "verbose": 0}
        try:
            each.fit(X, y, 2, batch_size, optimizer, **options)
            ends.add("trained")
        except fb.DivergenceError as error:  # of exp, where numbers are drawn so freely
            ends.add(str(error))
    assert len(ends) == 1
    for other in others:
        np.testing.assert_array_equal(bits(other), bits(net))


@examples
@given(st.data())
def test_parameters_round_trip(data):
    net = data.draw(networks())
    theta = np.random.default_rng(0).standard_normal(net.n_parameters).astype(net.dtype)
    net.set_parameters(theta)
    np.testing.assert_array_equal(net.get_parameters(), theta)
    rows = zip(net.weights, net.biases, strict=True)
    parts = [part.ravel() for pair in rows for part in pair if part is not None]
    np.testing.assert_array_equal(np.concatenate(parts), theta)
