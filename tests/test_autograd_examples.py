"""Backpropagation by example: what the tape can show, from one product to a digit classifier."""

from itertools import pairwise

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop.autograd import (
    SGD,
    Adam,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Tensor,
    cross_entropy_loss,
    grad,
    mse_loss,
    no_grad,
    value_and_grad,
)


def test_a_sum_and_a_product():
    """f = (x + y)·z. The product hands z to the sum and x + y to z; the sum hands on what it gets.

    x = -2 ─┐
            + ── q = 3 ──┐
    y = 5 ──┘            × ── f = -12
    z = -4 ──────────────┘
    """
    x = Tensor(-2.0, requires_grad=True)
    y = Tensor(5.0, requires_grad=True)
    z = Tensor(-4.0, requires_grad=True)

    f = (x + y) * z
    f.backward()

    assert f.item() == -12.0
    assert x.grad == -4.0  # ∂f/∂x = z
    assert y.grad == -4.0  # ∂f/∂y = z
    assert z.grad == 3.0  # ∂f/∂z = x + y


def test_the_mean_of_a_polynomial():
    """y = mean(x² + 2x + 1): each of n entries has a share of 1/n in it."""
    x = Tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)

    y = (x**2 + 2 * x + 1).mean()
    y.backward()

    assert y.item() == 13.5
    np.testing.assert_array_equal(x.grad, (2 * x.data + 2) / 4)


def test_gradient_descent_on_a_parabola():
    """f(x) = x² has the slope 2x, so that a step of rate 0.1 makes x 0.8 times what it was."""
    x, path = 10.0, []
    for _ in range(20):
        value, slope = value_and_grad(lambda x: x**2)(x)
        assert value == pytest.approx(x**2)
        x = x - 0.1 * slope
        path.append(float(x))

    assert path[0] == 8.0
    assert round(path[9], 4) == 1.0737  # after 10 steps
    assert round(path[19], 4) == 0.1153  # after 20


def test_the_same_descent_by_an_optimizer_and_by_hand():
    by_optimizer = Tensor(10.0, requires_grad=True)
    by_hand = Tensor(10.0, requires_grad=True)
    off_the_tape = Tensor(10.0, requires_grad=True)

    optimizer = SGD([by_optimizer], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (by_optimizer**2).backward()
        optimizer.step()

        by_hand.zero_grad()
        (by_hand**2).backward()
        by_hand.data -= 0.1 * by_hand.grad

        off_the_tape.zero_grad()
        (off_the_tape**2).backward()
        with no_grad():
            off_the_tape -= 0.1 * off_the_tape.grad

    assert f"{by_optimizer:.4f}" == f"{by_hand:.4f}" == f"{off_the_tape:.4f}" == "0.1153"


def test_backpropagation_by_hand_gives_what_the_tape_gives():
    """One hidden layer and the chain rule, a line for each step back."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    w1 = Tensor(rng.normal(size=(3, 4)), requires_grad=True)
    w2 = Tensor(rng.normal(size=(4, 2)), requires_grad=True)

    a = (x @ w1).sigmoid()
    mse_loss(a @ w2, y).backward()

    a = a.data
    dout = 2 * (a @ w2.data - y) / y.size
    dw2 = a.T @ dout
    da = dout @ w2.data.T
    dz = da * a * (1 - a)
    dw1 = x.T @ dz
    np.testing.assert_allclose(w2.grad, dw2, rtol=1e-13)
    np.testing.assert_allclose(w1.grad, dw1, rtol=1e-13)


def test_one_hidden_layer_interpolates_points_of_a_curve():
    """Eight points of a sine, eight tanh units: the curve ends up going through the points."""
    rng = np.random.default_rng(0)
    x = Tensor(np.linspace(-1, 1, 8)[:, np.newaxis])
    y = Tensor(np.sin(3 * x.data))
    model = Sequential(Linear(1, 8, random_state=rng), Tanh(), Linear(8, 1, random_state=rng))
    optimizer = Adam(model.parameters(), lr=0.02)

    first = mse_loss(model(x), y).item()
    for _ in range(1500):
        optimizer.zero_grad()
        loss = mse_loss(model(x), y)
        loss.backward()
        optimizer.step()

    assert first > 0.1
    assert loss.item() < 1e-5
    assert abs(model(x).data - y.data).max() < 0.01


def weight_gradients(activation, depth=12, width=32):
    """The norm of each layer's weight gradient in a deep network, the first layer first.

    The weights are He's, N(0, 2 / n_in), which keep the size of what goes through relu.
    """
    rng = np.random.default_rng(0)
    layers = [Linear(width, width, random_state=rng) for _ in range(depth)]
    for layer in layers:
        layer.weight.data = rng.normal(0, np.sqrt(2 / width), (width, width))
    model = Sequential(*(module for layer in layers for module in (layer, activation)))
    x, y = rng.normal(size=(64, width)), rng.uniform(size=(64, width))
    mse_loss(model(x), y).backward()
    return [np.linalg.norm(layer.weight.grad) for layer in layers]


def test_the_gradient_vanishes_in_a_deep_sigmoid_network():
    """σ′ is at most 1/4, and is a factor of the gradient at each layer on the way back."""
    norms = weight_gradients(Sigmoid())
    assert norms[0] < 1e-3 * norms[-1]
    assert all(earlier < later for earlier, later in pairwise(norms))


def test_the_gradient_does_not_vanish_with_relu():
    """relu′ is 1 for every unit that is on, however deep."""
    norms = weight_gradients(ReLU())
    assert norms[0] > 0.1 * norms[-1]


def test_a_dead_relu_unit_is_found_and_leaky_relu_revives_it():
    """A unit below 0 for every input has no gradient by which it could ever come back."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    y = abs(x).sum(axis=1, keepdims=True)

    def train(activation):
        start = np.random.default_rng(1)
        hidden = Linear(4, 8, random_state=start)
        model = Sequential(hidden, activation, Linear(8, 1, random_state=start))
        hidden.bias.data[3] = -5.0  # unit 3 never fires,
        model[2].weight.data[3] = 1.0  # though the output is too low and would gain by it
        optimizer = Adam(model.parameters(), lr=0.05)
        mse_loss(model(x), y).backward()
        silent = (hidden.weight.grad == 0).all(axis=0) & (hidden.bias.grad == 0)
        for _ in range(400):
            optimizer.zero_grad()
            mse_loss(model(x), y).backward()
            optimizer.step()
        firing = (hidden(x) > 0).any(axis=0)
        return silent, firing, hidden.bias.data[3]

    silent, firing, bias = train(ReLU())
    assert silent.tolist() == [unit == 3 for unit in range(8)]  # found: no gradient at all
    assert not firing[3]
    assert bias == -5.0  # and so it stays

    silent, firing, bias = train(LeakyReLU(0.1))
    assert not silent.any()
    assert firing[3]
    assert bias > -5.0


def test_a_gradient_agrees_with_a_finite_difference():
    """What ∂f/∂x means: how fast f changes when x does."""

    def f(x):
        return (x.tanh() * x.exp() / (1 + x**2)).sum()

    x, h = np.array([0.3, -1.2]), 1e-5
    for i, slope in enumerate(grad(f)(x)):
        e = h * np.eye(2)[i]
        difference = (f(Tensor(x + e)).item() - f(Tensor(x - e)).item()) / (2 * h)
        assert slope == pytest.approx(difference, rel=1e-8)


def test_train_a_digit_classifier():
    """784-128-10 on 1,000 real images, ten epochs, 200 images to test it on."""
    (X_train, y_train), (X_test, y_test) = fb.datasets.load_mnist_small()
    X_train, y_train = X_train[:1000] / 255, np.eye(10)[y_train[:1000]]
    X_test, y_test = X_test[:200] / 255, y_test[:200]

    rng = np.random.default_rng(0)
    model = Sequential(
        Linear(784, 128, random_state=rng),
        ReLU(),
        Linear(128, 10, random_state=rng),
    )
    optimizer = Adam(model.parameters(), lr=0.001)

    losses = []
    for _ in range(10):
        order = rng.permutation(1000)
        total = 0.0
        for start in range(0, 1000, 32):
            batch = order[start : start + 32]
            x, y = Tensor(X_train[batch]), Tensor(y_train[batch])

            optimizer.zero_grad()
            loss = cross_entropy_loss(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / 1000)

    accuracy = (model(Tensor(X_test)).data.argmax(axis=1) == y_test).mean()
    assert accuracy >= 0.85
    assert losses[-1] < 0.2 * losses[0]
