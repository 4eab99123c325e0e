"""The teaching kit on the tape, and how the folder is put together."""

import ast
import inspect
import io
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop import autograd as ag
from fastbackprop.autograd import Tensor

FOLDER = Path(ag.__file__).parent


def leaf(values):
    return Tensor(values, requires_grad=True)


def test_linear():
    layer = ag.Linear(400, 300, random_state=0)
    assert layer.weight.shape == (400, 300)
    for parameter in layer.parameters():
        assert 0.049 < abs(parameter.data).max() <= 0.05
        assert abs(parameter.data.mean()) < 0.01
    x = np.random.default_rng(0).normal(size=(7, 400))
    expected = x @ layer.weight.data + layer.bias.data
    np.testing.assert_array_equal(layer(x).data, expected)
    assert layer(x[0]).shape == (300,)
    again = ag.Linear(400, 300, random_state=0)
    np.testing.assert_array_equal(again.weight.data, layer.weight.data)
    assert ag.Linear(2, 3, bias=False).parameters()[0].shape == (2, 3)
    assert ag.Linear(2, 3, dtype="float32")(np.ones(2, np.float32)).dtype == np.float32
    assert repr(ag.Sequential(ag.Linear(2, 3, bias=False), ag.ReLU(), ag.LeakyReLU(0.2))) == (
        "Sequential(Linear(2, 3, bias=False), ReLU(), LeakyReLU(0.2))"
    )


def test_linear_refuses():
    with pytest.raises(ValueError, match="n_in must be at least 1, got 0"):
        ag.Linear(0, 3)
    with pytest.raises(ValueError, match=r"shape \(3, 2\); Linear\(4, 3\) expects \(..., 4\)"):
        ag.Linear(4, 3)(np.ones((3, 2)))
    with pytest.raises(ValueError, match="expects"):
        ag.Linear(4, 3)(1.0)


def test_sequential_is_a_sequence():
    model = ag.Sequential(ag.Linear(2, 3), ag.Tanh(), ag.Linear(3, 1), ag.Sigmoid())
    assert len(model) == 4
    assert model[2].bias.shape == (1,)
    assert len(model.parameters()) == 4
    assert model(np.ones((5, 2))).shape == (5, 1)


def test_losses():
    rng = np.random.default_rng(9)
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(rows[np.arange(6), labels]).mean()
    one_hot = np.eye(4)[labels]
    for targets in (one_hot, Tensor(one_hot), labels, Tensor(labels), one_hot.astype(int)):
        x = leaf(logits)
        loss = ag.cross_entropy_loss(x, targets)
        loss.backward()
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-14)
        np.testing.assert_allclose(x.grad, (rows - one_hot) / 6, rtol=1e-12, atol=1e-15)
    assert ag.mse_loss(logits, np.zeros((6, 4))).item() == pytest.approx((logits**2).mean())


def test_losses_refuse():
    with pytest.raises(ValueError, match=r"shape \(3, 1\), got \(3,\)"):
        ag.mse_loss(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match=r"\(n, classes\), got \(3,\)"):
        ag.cross_entropy_loss(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="one-hot rows"):
        ag.cross_entropy_loss(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 0 to 2"):
        ag.cross_entropy_loss(np.ones((3, 2)), [0, 1, 2])


OPTIMIZERS = {
    "sgd": lambda m, p: m.SGD(p, lr=0.1),
    "momentum": lambda m, p: m.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda m, p: m.Adam(p, lr=0.05),
    "adam, other betas": lambda m, p: m.Adam(p, lr=0.05, betas=(0.5, 0.8), eps=1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_steps_of_pytorch(name):
    torch = pytest.importorskip("torch")
    make = OPTIMIZERS[name]
    start = [np.array([1.0, -2.0, 3.0]), np.array(0.5)]
    ours = [leaf(values) for values in start]
    theirs = [torch.tensor(values, requires_grad=True) for values in start]
    for parameters, optimizer in (
        (ours, make(ag, ours)),
        (theirs, make(torch.optim, theirs)),
    ):
        for _ in range(20):
            optimizer.zero_grad()
            a, b = parameters
            ((a * a).sum() + (a * b).sum() + b * b * b * b).backward()
            optimizer.step()
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.data, their.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (lambda p: ag.SGD(p, lr=0.5), lambda t: 0.5),
        (lambda p: ag.SGD(p, lr=0.5, momentum=0.5), lambda t: 0.5 * (2 - 0.5**t)),
        (lambda p: ag.Adam(p, lr=0.5, eps=1e-30), lambda t: 0.5),
    ],
)
def test_steps_along_a_constant_gradient_of_1(make, step):
    x = leaf(10.0)
    optimizer, expected = make([x]), 10.0
    for t in range(5):
        optimizer.zero_grad()
        (x + 0).backward()
        optimizer.step()
        expected -= step(t)
        assert x.item() == pytest.approx(expected, rel=1e-12)


def test_optimizers_update_in_place_what_has_a_gradient():
    a, b = leaf([1.0]), leaf([2.0])
    data = a.data
    optimizer = ag.Adam(iter([a, b]), lr=0.1)
    (a * 3).sum().backward()
    optimizer.step()
    assert a.data is data
    assert data[0] == pytest.approx(0.9)
    assert b.data.tolist() == [2.0]
    optimizer.zero_grad()
    assert a.grad is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: ag.SGD([], lr=0.1), ValueError, "params is empty"),
        (lambda p: ag.SGD(p, lr=0.1), TypeError, r"write \[tensor\]"),
        (lambda p: ag.SGD([p.data], lr=0.1), TypeError, "params must be tensors"),
        (lambda p: ag.SGD([p.detach()], lr=0.1), ValueError, "requires no gradient"),
        (lambda p: ag.SGD([p], lr=-0.1), ValueError, "lr must be a positive number, got -0.1"),
        (lambda p: ag.SGD([p], lr=float("nan")), ValueError, "lr"),
        (lambda p: ag.SGD([p], lr=0.1, momentum=1.0), ValueError, "momentum"),
        (lambda p: ag.Adam([p], betas=(0.9, 1.0)), ValueError, "betas"),
        (lambda p: ag.Adam([p], eps=0), ValueError, "eps"),
    ],
)
def test_optimizers_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make(leaf([1.0]))


# -------------------------------------------------------------------------------- structure


def test_it_is_reached_from_the_package():
    assert fb.autograd is ag


@pytest.mark.parametrize("name", ag.__all__)
def test_public_names_are_documented_with_an_example(name):
    thing = getattr(ag, name)
    assert ">>>" in thing.__doc__
    if inspect.isclass(thing):
        for member, value in inspect.getmembers(thing):
            if not member.startswith("_") and not inspect.ismemberdescriptor(value):
                assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_needs_numpy_and_nothing_else(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            assert top in {*sys.stdlib_module_names, "numpy"} or name.startswith(
                "fastbackprop.autograd"
            )


def lines_of_code(path):
    """The lines that hold anything but comments and strings that stand alone."""
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines, fresh = set(), True
    for token in tokens:
        if token.type in skipped:
            fresh = True
        elif token.type == tokenize.STRING and fresh and token.string.startswith('"""'):
            continue
        elif token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
            fresh = False
    return len(lines)


def test_the_tape_is_small():
    files = [FOLDER / f"{name}.py" for name in ("operations", "tape", "tensor")]
    assert 300 < sum(lines_of_code(path) for path in files) < 500
