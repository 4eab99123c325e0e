"""The reference itself: against finite differences, numbers by hand, and PyTorch in float64."""

import math

import numpy as np
import pytest
import reference
from reference import SGD, Adam, AdamW, ReferenceNetwork, RMSprop

ELEMENTWISE = [
    ("identity", None),
    ("relu", None),
    ("leaky_relu", None),
    ("leaky_relu", 0.3),
    ("sigmoid", None),
    ("tanh", None),
    ("softplus", None),
    ("elu", None),
    ("elu", 0.4),
    ("silu", None),
    ("gelu", None),
]
LOSSES = [
    *("quadratic", "mse", "mae", "huber", "quantile"),
    *("cross_entropy", "binary_cross_entropy", "poisson"),
]
DELTA = 0.7


STEP = 1e-6


def central_difference(f, array, step=STEP):
    """Return the gradient of f() with respect to an array it reads, which moves in place."""
    gradient = np.empty_like(array)
    for i in np.ndindex(array.shape):
        value = array[i]
        array[i] = value + step
        above = f()
        array[i] = value - step
        below = f()
        array[i] = value
        gradient[i] = (above - below) / (2 * step)
    return gradient


@pytest.mark.parametrize(("name", "alpha"), ELEMENTWISE)
def test_activation_derivative(name, alpha):
    z = np.linspace(-6, 6, 240)  # no 0
    f = reference.activation(name, z + 1e-6, alpha) - reference.activation(name, z - 1e-6, alpha)
    np.testing.assert_allclose(
        reference.activation_derivative(name, z, alpha), f / 2e-6, rtol=1e-6, atol=1e-9
    )


def test_activation_values():
    z = np.array([[-1.0, 0.0, 1.0]])
    e = math.e
    expected = {
        "identity": [-1, 0, 1],
        "relu": [0, 0, 1],
        "leaky_relu": [-0.01, 0, 1],
        "sigmoid": [1 / (1 + e), 0.5, e / (1 + e)],
        "tanh": [(1 - e**2) / (1 + e**2), 0, (e**2 - 1) / (e**2 + 1)],
        "softplus": [math.log(1 + 1 / e), math.log(2), math.log(1 + e)],
        "elu": [1 / e - 1, 0, 1],
        "silu": [-1 / (1 + e), 0, e / (1 + e)],
        "gelu": [-0.15865525393145707, 0, 0.8413447460685429],  # Φ(1) of a table
        "softmax": [s / (1 + e + e**2) for s in (1, e, e**2)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(reference.activation(name, z), [values], rtol=1e-14)


@pytest.mark.parametrize(("name", "alpha"), [*ELEMENTWISE, ("softmax", None)])
def test_activations_do_not_overflow(name, alpha):
    z = np.array([[-1e4, -800.0, 0.0, 800.0, 1e4]])
    assert np.isfinite(reference.activation(name, z, alpha)).all()
    if name != "softmax":
        assert np.isfinite(reference.activation_derivative(name, z, alpha)).all()


@pytest.mark.parametrize(("name", "alpha"), ELEMENTWISE)
def test_activations_are_those_of_pytorch(name, alpha):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = {
        "identity": nn.Identity(),
        "leaky_relu": nn.LeakyReLU(0.01 if alpha is None else alpha),
        "elu": nn.ELU(1.0 if alpha is None else alpha),
        "softplus": nn.Softplus(threshold=50),
        **{n: getattr(nn, c)() for n, c in (("relu", "ReLU"), ("silu", "SiLU"), ("gelu", "GELU"))},
        **{n: getattr(nn, c)() for n, c in (("sigmoid", "Sigmoid"), ("tanh", "Tanh"))},
    }[name]
    z = torch.linspace(-9, 9, 181, dtype=torch.float64, requires_grad=True)  # 0 included
    a = theirs(z)
    a.sum().backward()
    ours = z.detach().numpy()
    np.testing.assert_allclose(
        reference.activation(name, ours, alpha), a.detach().numpy(), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(
        reference.activation_derivative(name, ours, alpha), z.grad.numpy(), rtol=1e-12, atol=1e-14
    )


def batch(loss, n=5, m=3, seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(n, m))
    if loss == "cross_entropy":
        return outputs, rng.dirichlet(np.ones(m), size=n)
    if loss == "binary_cross_entropy":
        return outputs, rng.uniform(size=(n, m))
    if loss == "poisson":
        return outputs, rng.uniform(0, 3, size=(n, m))
    return outputs, rng.normal(size=(n, m))


def test_loss_values():
    outputs, target = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [0.0, 0.5]])
    expected = {
        "quadratic": (2.5 + 0.125) / 2,
        "mse": (5 + 0.25) / 4,
        "mae": (3 + 0.5) / 4,
        "huber": (0.5 + 1.5 + 0.125) / 4,
    }
    for loss, value in expected.items():
        assert reference.loss_value(loss, outputs, target) == pytest.approx(value, rel=1e-14)
    logits = np.array([[0.0, math.log(3)]])
    assert reference.loss_value("cross_entropy", logits, [1]) == pytest.approx(math.log(4 / 3))
    assert reference.loss_value("binary_cross_entropy", logits, [[1, 0]]) == pytest.approx(
        (math.log(2) + math.log(4)) / 2
    )


@pytest.mark.parametrize("weights", [None, np.array([0.5, 0, 2, 1, 3])])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_gradient(loss, weights):
    outputs, target = batch(loss)
    numeric = central_difference(
        lambda: reference.loss_value(loss, outputs, target, weights, DELTA), outputs
    )
    exact = reference.loss_gradient(loss, outputs, target, weights, DELTA)
    np.testing.assert_allclose(exact, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_counts_rows(loss):
    outputs, target = batch(loss)
    weights = np.array([1, 0, 2, 1, 3])
    rows = np.repeat(np.arange(5), weights)
    assert reference.loss_value(loss, outputs, target, weights, DELTA) == pytest.approx(
        reference.loss_value(loss, outputs[rows], target[rows], delta=DELTA), rel=1e-14
    )
    nothing = np.zeros(5)
    assert reference.loss_value(loss, outputs, target, nothing) == 0
    np.testing.assert_array_equal(reference.loss_gradient(loss, outputs, target, nothing), 0)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_cross_entropies_do_not_overflow(loss):
    logits, target = np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([[1, 0], [1, 0]])
    expected = 1e4  # the first row is right, the second as wrong as can be
    if loss == "binary_cross_entropy":
        assert reference.loss_value(loss, logits, target) == expected / 2
    else:
        assert reference.loss_value(loss, logits, target) == expected
    assert np.isfinite(reference.loss_gradient(loss, logits, target)).all()


def test_labels_are_one_hot_rows_or_one_column():
    np.testing.assert_array_equal(reference.as_targets([2, 0], 3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(reference.as_targets([2, 0], 1), [[2], [0]])
    np.testing.assert_array_equal(reference.as_targets([[2, 0]], 2), [[2, 0]])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_pytorch(loss):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    theirs = {
        "quadratic": lambda a, y: 0.5 * functional.mse_loss(a, y, reduction="sum") / len(a),
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": lambda a, y: functional.huber_loss(a, y, delta=DELTA),
        "cross_entropy": functional.cross_entropy,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "poisson": lambda z, y: (
            functional.poisson_nll_loss(z, y) + (torch.special.xlogy(y, y) - y).mean()
        ),
        "quantile": lambda a, y: torch.where(
            a == y, 0 * a, torch.maximum((1 - DELTA) * (a - y), DELTA * (y - a))
        ).mean(),
    }[loss]
    outputs, target = batch(loss)
    outputs[0] = target[0]  # where the absolute value has its kink
    a = torch.tensor(outputs, requires_grad=True)
    value = theirs(a, torch.tensor(target))
    value.backward()
    assert reference.loss_value(loss, outputs, target, delta=DELTA) == pytest.approx(
        value.item(), rel=1e-13
    )
    ours = reference.loss_gradient(loss, outputs, target, delta=DELTA)
    np.testing.assert_allclose(ours, a.grad.numpy(), rtol=1e-12, atol=1e-16)


OUTPUT = {**reference.ReferenceNetwork.FUSED, "quadratic": "sigmoid"}


def network(loss, seed=0, hidden=("silu", "elu")):
    rng = np.random.default_rng(seed)
    sizes = [(4, 6), (6, 5), (5, 3)]
    dense = [
        {
            "w": rng.normal(size=size),
            "b": None if i == 1 else rng.normal(size=size[1]),
            "activation": name,
            "alpha": 0.5 if name == "elu" else None,
        }
        for i, (size, name) in enumerate(
            zip(sizes, [*hidden, OUTPUT.get(loss, "identity")], strict=True)
        )
    ]
    return ReferenceNetwork(dense, loss, delta=DELTA, scale=0.5, offset=-0.25)


@pytest.mark.parametrize("loss", LOSSES)
def test_network_gradients(loss):
    rng = np.random.default_rng(1)
    net, x, y = network(loss), rng.normal(size=(7, 4)), rng.integers(0, 3, 7)
    weights = rng.uniform(0, 2, 7)
    masks = [rng.integers(0, 2, (7, 4)) * 2.0, None, rng.integers(0, 2, (7, 5)) * 2.0]
    value, gradients, dx = net.gradients(x, y, weights, masks)

    def of_network():
        return net.loss(x, y, weights, masks)

    assert value == of_network()
    exact = [g for pair in gradients for g in pair if g is not None]
    assert [db is None for _, db in gradients] == [False, True, False]
    # What rounding takes from a difference grows with the loss: that of poisson is 1,257 here.
    atol = max(1e-8, 4 * np.finfo(float).eps * value / STEP)
    for parameter, gradient in zip(net.parameters, exact, strict=True):
        numeric = central_difference(of_network, parameter)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(dx, central_difference(of_network, x), rtol=1e-6, atol=atol)


def test_network_forward_by_hand():
    net = ReferenceNetwork(
        [
            {"w": [[1, -1], [2, 0]], "b": [0, 1], "activation": "relu"},
            {"w": [[3], [1]], "b": None, "activation": "identity"},
        ],
        "mse",
        scale=2,
        offset=1,
    )
    # [1, -1] -> [3, -1] -> z = [1, -2] -> [1, 0] -> 3
    np.testing.assert_array_equal(net.forward([[1, -1]]), [[3]])
    np.testing.assert_array_equal(net.forward([[1, -1]], [None, np.array([[2, 2]])]), [[6]])
    assert net.loss([[1, -1]], [1]) == 4


def test_network_does_not_share_the_given_weights():
    w = np.ones((2, 1))
    net = ReferenceNetwork([{"w": w, "b": None, "activation": "identity"}], "mse")
    net.train_step(np.ones((1, 2)), [0], SGD(0.1))
    np.testing.assert_array_equal(w, 1)


GRADIENTS = [np.array([3.0, -4.0]), np.array([1.0, 2.0])]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(0.1), [[-0.3, 0.4], [-0.4, 0.2]]),
        (SGD(lambda step: 0.1 * step), [[0, 0], [-0.1, -0.2]]),
        (SGD(0.1, clip_norm=2.5), [[-0.15, 0.2], [-0.25, 0.0]]),  # norms 5 and √5
        # v = g₁, then 0.5·g₁ + 0.75·g₂
        (SGD(0.1, momentum=0.5, dampening=0.25), [[-0.3, 0.4], [-0.525, 0.45]]),
        # g₁ + 0.5·g₁, then g₂ + 0.5·(0.5·g₁ + g₂)
        (SGD(0.1, momentum=0.5, nesterov=True), [[-0.45, 0.6], [-0.675, 0.4]]),
        (Adam(0.1, eps=1e-300), [[-0.1, 0.1], None]),
        (RMSprop(0.1, alpha=0.75, eps=1e-300), [[-0.2, 0.2], None]),
    ],
)
def test_optimizer_steps_by_hand(optimizer, expected):
    p = np.zeros(2)
    for gradient, value in zip(GRADIENTS, expected, strict=True):
        optimizer.step([p], [gradient])
        if value is not None:
            np.testing.assert_allclose(p, value, rtol=1e-6, atol=1e-7)


def test_weight_decay_by_hand():
    for optimizer, expected in (
        (SGD(0.1, weight_decay=0.5), 2 - 0.1 * (3 + 0.5 * 2)),
        (AdamW(0.1, weight_decay=0.5, eps=1e-300), 2 * (1 - 0.1 * 0.5) - 0.1),
        (Adam(0.1, weight_decay=0.5, eps=1e-300), 2 - 0.1),
    ):
        p = np.array([2.0])
        optimizer.step([p], [np.array([3.0])])
        assert p[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("clip_norm", [None, 0.5, 100.0])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SGD, "SGD", {}),
        (SGD, "SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
        (SGD, "SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (Adam, "Adam", {}),
        (Adam, "Adam", {"betas": (0.7, 0.8), "eps": 1e-3, "weight_decay": 0.1}),
        (AdamW, "AdamW", {"weight_decay": 0.1}),
        (RMSprop, "RMSprop", {}),
        (RMSprop, "RMSprop", {"alpha": 0.8, "momentum": 0.9, "weight_decay": 0.1, "eps": 1e-3}),
        (RMSprop, "RMSprop", {"alpha": 0.8, "centered": True, "momentum": 0.9}),
    ],
)
def test_optimizers_are_those_of_pytorch(ours, theirs, options, clip_norm):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    start = [rng.normal(size=(3, 2)), rng.normal(size=2)]
    mine = [p.copy() for p in start]
    tensors = [torch.tensor(p, requires_grad=True) for p in start]
    optimizer = ours(0.05, clip_norm=clip_norm, **options)
    other = getattr(torch.optim, theirs)(tensors, lr=0.05, **options)
    for _ in range(6):
        gradients = [rng.normal(size=p.shape) for p in start]
        optimizer.step(mine, gradients)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = torch.tensor(gradient)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(tensors, clip_norm)
        other.step()
        for p, tensor in zip(mine, tensors, strict=True):
            np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_train_returns_the_mean_loss_of_the_rows_of_each_epoch():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]
    history = network("cross_entropy").train([batches] * 3, SGD(0.1, momentum=0.9))
    weighted = [(x, y, np.ones(len(x))) for x, y in batches]
    again = network("cross_entropy").train([weighted] * 3, SGD(0.1, momentum=0.9))
    np.testing.assert_allclose(again, history, rtol=1e-13)

    net, optimizer = network("cross_entropy"), SGD(0.1, momentum=0.9)
    losses = [net.train_step(*batches[i % 3], optimizer) for i in range(9)]
    expected = np.reshape(losses, (3, 3)) @ [0.4, 0.4, 0.2]
    np.testing.assert_allclose(history, expected, rtol=1e-14)
    assert history[-1] < history[0]
