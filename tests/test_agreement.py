"""Computations of one gradient agree: kernels, NumPy, differences, the tape, PyTorch."""

import functools
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from comparison import (
    ELEMENTWISE,
    LOSSES,
    OUTPUTS,
    SIZES,
    is_near_kink,
    make_targets,
    reference_of,
    torch_optimizer,
)
from test_reference import central_difference

import fastbackprop as fb
from fastbackprop import autograd


def relative_error(actual, expected):
    """Return the largest difference in a tensor over the largest value in it.

    An element is a sum of products, and rounding leaves an error on the scale of its terms, also
    where they cancel. So an error is compared with the tensor's largest element and not with its
    own, of which a cancellation may leave no digit.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max()
    return difference / np.abs(expected).max() if difference else 0.0


def dense_layers(sizes, activations, loss, bias):
    """Return the layers of a network; `activations` and `bias` have an entry for each."""
    activations = [*activations[:-1], OUTPUTS.get(loss, activations[-1])]
    return [
        fb.Dense(n_in, n_out, activation, has_bias, bias_init="normal")
        for (n_in, n_out), activation, has_bias in zip(
            pairwise(sizes), activations, bias, strict=True
        )
    ]


def one_list(pairs):
    """Return [w, b, w, b, ...] from [(w, b), ...], without the b that are None."""
    return [part for pair in pairs for part in pair if part is not None]


def parameters_of(net):
    """Return the parameters as `one_list` of writable views."""
    return one_list(zip(net.weights, net.biases, strict=True))


# ------------------------------------------------------ every activation and loss, in four ways
#
# Each function returns the loss and its gradients, in the order of `parameters_of`.


def by_kernels(net, X, y):
    loss, pairs = net.loss_and_gradients(X, y)
    return loss, one_list(pairs)


def by_numpy(net, X, y):
    loss, pairs, _ = reference_of(net).gradients(X, y)
    return loss, one_list(pairs)


def by_differences(net, X, y):
    loss = functools.partial(net.loss, X, y)
    step = np.cbrt(np.finfo(np.float64).eps)
    return loss(), [central_difference(loss, part, step) for part in parameters_of(net)]


def by_tape(net, X, y):
    parameters = [autograd.Tensor(part.copy(), requires_grad=True) for part in parameters_of(net)]
    unused, x = iter(parameters), autograd.Tensor(X)
    for layer in net.layers:
        z = x @ next(unused)
        if layer.bias:
            z = z + next(unused)
        fused = layer is net.layers[-1] and net.loss_function.fused
        x = z if fused else activation_on_tape(layer.activation, z)
    loss = loss_on_tape(net.loss_function, x, autograd.Tensor(y))
    loss.backward()
    return loss.item(), [parameter.grad.data for parameter in parameters]


def activation_on_tape(activation, z):
    name, alpha = activation.name, activation.alpha
    if name == "identity":
        return z
    if name in ("relu", "sigmoid", "tanh"):
        return getattr(autograd, name)(z)
    if name == "leaky_relu":
        return autograd.leaky_relu(z, alpha)
    if name == "elu":
        below = -autograd.relu(-z)  # exp must not overflow where it is not taken
        return autograd.where(z > 0, z, (autograd.exp(below) - 1) * alpha)
    if name == "softplus":
        return softplus_on_tape(z)
    if name == "silu":
        return z * autograd.sigmoid(z)
    if name == "gelu":
        # Φ(z) = ½ + z ∫₀¹ φ(z t) dt, by a quadrature that is exact to rounding for |z| < 8.
        nodes, weights = np.polynomial.legendre.leggauss(40)
        integral = 0.0
        for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            integral = integral + autograd.exp(z * z * (-0.5 * t * t)) * weight
        return z * (0.5 + z * integral / math.sqrt(2 * math.pi))
    raise ValueError(name)


def softplus_on_tape(z):
    return autograd.relu(z) + autograd.log(autograd.exp(-abs(z)) + 1)


def loss_on_tape(loss, outputs, y):
    """Return a loss as a Tensor; `outputs` are the logits for the two cross-entropies."""
    residual, n = outputs - y, outputs.shape[0]
    if loss.name == "quadratic":
        return (residual**2).sum() / (2 * n)
    if loss.name == "mse":
        return (residual**2).mean()
    if loss.name == "mae":
        return abs(residual).mean()
    if loss.name == "quantile":
        return (abs(residual) / 2 + residual * (0.5 - loss.quantile)).mean()
    if loss.name == "huber":
        line = (abs(residual) - 0.5 * loss.delta) * loss.delta
        return autograd.where(abs(residual) <= loss.delta, residual**2 / 2, line).mean()
    if loss.name == "cross_entropy":
        return -(autograd.log_softmax(outputs, axis=1) * y).sum() / n
    if loss.name == "binary_cross_entropy":
        return (softplus_on_tape(outputs) - outputs * y).mean()
    if loss.name == "poisson":
        entropy = y.data * np.log(np.where(y.data > 0, y.data, 1)) - y.data
        return (autograd.exp(outputs) - outputs * y + autograd.Tensor(entropy)).mean()
    raise ValueError(loss.name)


# Differences have the error of the step, h² ≈ 4e-11, and that of rounding the losses, ε / h; both
# are over the size of the gradient, which sigmoid layers make small.
WAYS = [(by_kernels, 1e-13), (by_differences, 1e-7), (by_tape, 1e-13)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize(("way", "tolerance"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_every_activation_and_loss(way, tolerance, activation, loss):
    rng = np.random.default_rng([ELEMENTWISE.index(activation), LOSSES.index(loss)])
    while True:
        layers = dense_layers([5, 9, 8, 3], [activation] * 3, loss, [True, False, True])
        net = fb.Network(layers, loss=loss, random_state=rng, dtype="float64")
        X = rng.standard_normal((6, 5))
        y = make_targets(rng, loss, 6, 3)
        if not is_near_kink(net, X, y, margin=1e-4):  # which no step may cross
            break
    loss_value, gradients = way(net, X, y)
    expected_loss, expected = by_numpy(net, X, y)
    assert loss_value == pytest.approx(expected_loss, rel=1e-13)
    errors = [relative_error(*pair) for pair in zip(gradients, expected, strict=True)]
    assert max(errors) <= tolerance


# --------------------------------------------------------------------- PyTorch, 300 random networks

# At rates that keep the trajectory well conditioned. At ten times these, one rounding of the
# initial parameters moves what PyTorch itself reaches by up to 2e-5: the first steps of RMSprop and
# Adam are nearly rate · sign(g), and some g are nearly 0.
OPTIMIZERS = {
    "sgd": lambda shared: fb.SGD(0.01, **shared),
    "momentum": lambda shared: fb.SGD(0.003, momentum=0.9, **shared),
    "dampened": lambda shared: fb.SGD(0.005, momentum=0.8, dampening=0.3, **shared),
    "nesterov": lambda shared: fb.SGD(0.003, momentum=0.9, nesterov=True, **shared),
    "adam": lambda shared: fb.Adam(0.001, **shared),
    "adamw": lambda shared: fb.AdamW(0.001, **shared),
    "rmsprop": lambda shared: fb.RMSprop(0.001, **shared),
    "centered": lambda shared: fb.RMSprop(0.001, alpha=0.9, centered=True, **shared),
    "rmsprop_momentum": lambda shared: fb.RMSprop(0.0005, momentum=0.9, **shared),
    "centered_momentum": lambda shared: fb.RMSprop(0.0005, centered=True, momentum=0.5, **shared),
}
SEEDS = range(300)
STEPS = 20


@dataclass(frozen=True)
class Case:
    """A network, its data, and how it is to be trained."""

    net: fb.Network
    X: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray | None
    optimizer: fb.optimizers.Optimizer
    optimizer_name: str
    batch_size: int


def draw_case(seed):
    """Return the case of a seed, redrawn until rounding decides the side of no kink."""
    rng = np.random.default_rng(seed)
    optimizer_name = list(OPTIMIZERS)[seed % len(OPTIMIZERS)]
    shared = {}
    if rng.random() < 0.4:
        shared["weight_decay"] = rng.choice([0.01, 0.1])
    if rng.random() < 0.4:
        shared["clip_norm"] = rng.choice([0.05, 0.5])
    while True:
        loss = rng.choice(LOSSES)
        sizes = [int(rng.choice([rng.integers(1, 41), rng.choice(SIZES[:-1])])) for _ in range(6)]
        sizes = sizes[: rng.integers(2, 7)]
        if loss == "cross_entropy":
            sizes[-1] = max(sizes[-1], 2)  # of one class the probability is 1
        depth = len(sizes) - 1
        net = fb.Network(
            dense_layers(sizes, draw_activations(rng, depth), loss, rng.random(depth) < 0.7),
            loss=fb.Loss(loss, delta=rng.choice([0.3, 1.0])) if loss == "huber" else loss,
            random_state=rng,
            dtype="float64",
        )
        batches = int(rng.choice([1, 2, 4]))
        batch_size = int(rng.integers(1, 25))
        n = batch_size * (batches - 1) + int(rng.integers(1, batch_size + 1))
        X = rng.standard_normal((n, sizes[0]))
        y = make_targets(rng, loss, n, sizes[-1])
        if net.loss_function.is_classification and sizes[-1] > 1 and rng.random() < 0.5:
            y = rng.integers(0, sizes[-1], n)
        sample_weight = rng.uniform(0.1, 2.0, n) if rng.random() < 0.5 else None
        if loss == "poisson" and net.predict(X).max() > 100:  # soon beyond all numbers
            continue
        if not is_near_kink(net, X, y):
            optimizer = OPTIMIZERS[optimizer_name](shared)
            return Case(net, X, y, sample_weight, optimizer, optimizer_name, batch_size)


def draw_activations(rng, depth):
    chosen = []
    for name in rng.choice(ELEMENTWISE, depth):
        alpha = float(rng.uniform(0.01, 1.0)) if name in ("leaky_relu", "elu") else None
        chosen.append(fb.Activation(str(name), alpha))
    return chosen


def torch_activation(functional, activation, z):
    if activation.name == "identity":
        return z
    options = {
        "leaky_relu": {"negative_slope": activation.alpha},
        "elu": {"alpha": activation.alpha},
        "softplus": {"threshold": 50},  # beyond it PyTorch takes z itself, by default from 20
    }
    return getattr(functional, activation.name)(z, **options.get(activation.name, {}))


def torch_loss(torch, loss, outputs, y, weights):
    """Return the mean loss of a batch; `outputs` are the logits for the two cross-entropies."""
    functional = torch.nn.functional
    if loss.name == "binary_cross_entropy" and y.ndim == 1:
        y = functional.one_hot(y, outputs.shape[1]).to(outputs.dtype)
    if loss.name == "quadratic":
        rows = 0.5 * ((outputs - y) ** 2).sum(dim=1)
    elif loss.name == "cross_entropy":
        rows = functional.cross_entropy(outputs, y, reduction="none")
    elif loss.name == "poisson":
        constant = torch.special.xlogy(y, y) - y
        rows = (functional.poisson_nll_loss(outputs, y, reduction="none") + constant).mean(dim=1)
    elif loss.name == "quantile":
        r = outputs - y
        rows = (abs(r) / 2 + r * (0.5 - loss.quantile)).mean(dim=1)
    else:
        options = {"delta": loss.delta} if loss.name == "huber" else {}
        name = {
            "mse": "mse_loss",
            "mae": "l1_loss",
            "huber": "huber_loss",
            "binary_cross_entropy": "binary_cross_entropy_with_logits",
        }[loss.name]
        rows = getattr(functional, name)(outputs, y, reduction="none", **options).mean(dim=1)
    return rows.mean() if weights is None else (weights * rows).sum() / weights.sum()


class TorchTwin:
    """The same network in PyTorch, from the same parameters."""

    def __init__(self, torch, net):
        self.torch, self.loss_function, self.layers = torch, net.loss_function, net.layers
        self.parameters = [torch.tensor(part, requires_grad=True) for part in parameters_of(net)]

    def loss(self, x, y, weights):
        unused = iter(self.parameters)
        for layer in self.layers:
            z = x @ next(unused)
            if layer.bias:
                z = z + next(unused)
            fused = layer is self.layers[-1] and self.loss_function.fused
            x = z if fused else torch_activation(self.torch.nn.functional, layer.activation, z)
        return torch_loss(self.torch, self.loss_function, x, y, weights)

    def train(self, optimizer, X, y, weights, batch_size):
        peer = torch_optimizer(optimizer, self.parameters)
        starts = range(0, len(X), batch_size)
        for step in range(STEPS):
            start = starts[step % len(starts)]
            rows = slice(start, start + batch_size)
            peer.zero_grad()
            self.loss(X[rows], y[rows], None if weights is None else weights[rows]).backward()
            if optimizer.clip_norm is not None:
                self.torch.nn.utils.clip_grad_norm_(self.parameters, optimizer.clip_norm)
            peer.step()


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small for more
    yield torch
    torch.set_num_threads(threads)


def test_the_cases_cover_what_there_is():
    cases = [draw_case(seed) for seed in SEEDS]
    optimizers = Counter(case.optimizer_name for case in cases)
    losses = Counter(case.net.loss_function.name for case in cases)
    activations = Counter(layer.activation.name for case in cases for layer in case.net.layers)
    depths = Counter(len(case.net.layers) for case in cases)
    assert set(optimizers) == set(OPTIMIZERS)
    assert set(losses) == set(LOSSES)
    assert set(activations) == {*ELEMENTWISE, "exp", "softmax"}
    assert set(depths) == {1, 2, 3, 4, 5}
    assert min(*optimizers.values(), *losses.values(), *activations.values()) >= 12


@pytest.mark.parametrize("seed", SEEDS)
def test_pytorch(torch, seed):
    case = draw_case(seed)
    net = case.net
    twin = TorchTwin(torch, net)
    X = torch.tensor(case.X, requires_grad=True)
    y = torch.from_numpy(case.y)
    weights = None if case.sample_weight is None else torch.from_numpy(case.sample_weight)

    expected = twin.loss(X, y, weights)
    expected.backward()
    loss, pairs = net.loss_and_gradients(case.X, case.y, case.sample_weight)
    errors = {"loss": relative_error(loss, expected.item())}
    for i, (actual, parameter) in enumerate(zip(one_list(pairs), twin.parameters, strict=True)):
        errors[f"gradient {i}"] = relative_error(actual, parameter.grad.numpy())
    inputs = net.input_gradient(case.X, case.y, case.sample_weight)
    errors["input gradient"] = relative_error(inputs, X.grad.numpy())

    twin.train(case.optimizer, X.detach(), y, weights, case.batch_size)
    net.fit(
        case.X,
        case.y,
        epochs=STEPS // -(-len(case.X) // case.batch_size),
        batch_size=case.batch_size,
        optimizer=case.optimizer,
        sample_weight=case.sample_weight,
        shuffle=False,
        verbose=0,
    )
    for i, (actual, parameter) in enumerate(zip(parameters_of(net), twin.parameters, strict=True)):
        errors[f"parameter {i}"] = relative_error(actual, parameter.detach().numpy())
    assert max(errors.values()) <= 1e-10, errors
