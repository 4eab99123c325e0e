"""The teaching kit on the tape, and how the folder is put together."""

import ast
import inspect
import io
import pydoc
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
    for sizes in (("2", 2), (2, 2.5), (True, 2), (None, 2)):
        with pytest.raises(TypeError, match=r"n_(in|out) must be an integer, got"):
            ag.Linear(*sizes)
    assert ag.Linear(np.int64(2), 3).weight.shape == (2, 3)


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="must be modules, got <function"):
        ag.Sequential(ag.Linear(2, 2), ag.relu)


def test_sequential_is_a_sequence():
    model = ag.Sequential(ag.Linear(2, 3), ag.Tanh(), ag.Linear(3, 1), ag.Sigmoid())
    assert len(model) == 4
    assert model[2].bias.shape == (1,)
    assert len(model.parameters()) == 4
    assert model(np.ones((5, 2))).shape == (5, 1)


class Block(ag.Module):
    """As written for PyTorch: parameters in attributes, lists, tuples and dicts."""

    def __init__(self, width=3):
        rng = np.random.default_rng(1)
        self.scale = leaf(2.0)
        self.layers = [
            ag.Linear(2, width, random_state=rng),
            ag.Linear(width, width, random_state=rng),
        ]
        self.heads = {
            "a": ag.Linear(width, 1, random_state=rng),
            "b": [ag.Linear(width, 1, bias=False, random_state=rng)],
        }
        self.again = self.layers[0]
        self.tied = self.scale
        self.constant = Tensor([1.0])
        self.cache = None
        self.name = "block"

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        self.cache = x * self.scale  # the result of an operation is no parameter
        return self.heads["a"](self.cache) + self.heads["b"][0](self.cache)


def test_a_module_finds_its_parameters_in_order_and_once():
    block = Block()
    block(np.ones((4, 2))).sum().backward()
    first, second = block.layers
    a, (b,) = block.heads["a"], block.heads["b"]
    expected = [block.scale, first.weight, first.bias, second.weight, second.bias]
    expected += [a.weight, a.bias, b.weight]
    assert list(map(id, block.parameters())) == list(map(id, expected))
    model = ag.Sequential(block, ag.Linear(1, 1), block)
    assert list(map(id, model.parameters()[:8])) == list(map(id, expected))
    assert len(model.parameters()) == 10
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_parameter_is_none():
    layer = ag.Linear(2, 3)
    layer.bias.requires_grad = False
    assert [parameter.shape for parameter in layer.parameters()] == [(2, 3)]
    ag.SGD(layer.parameters(), lr=0.1)


def test_modules_may_refer_to_each_other_and_list_their_own_parameters():
    class Own(ag.Module):
        __slots__ = ("w",)

        def __init__(self):
            self.w = leaf(1.0)

        def forward(self, x):
            return x * self.w

        def parameters(self):
            return [self.w]

    block = Block()
    block.layers[0].parent = block
    block.own = Own()
    assert block.parameters()[-1] is block.own.w
    assert len(block.parameters()) == 9
    assert len(block.layers[0].parameters()) == 9


def test_a_model_in_pytorch_style_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 2))
    y = X[:, :1] * X[:, 1:]
    block = Block(width=16)
    optimizer = ag.Adam(block.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        loss = ag.mse_loss(block(X), y)
        block.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


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
        (
            lambda p: ag.SGD([p], lr=float("inf")),
            ValueError,
            "lr must be a positive number, got inf",
        ),
        (lambda p: ag.Adam([p], lr="a"), TypeError, "lr must be a positive number, got 'a'"),
        (lambda p: ag.SGD([p], lr=None), TypeError, "lr must be a positive number, got None"),
        (lambda p: ag.SGD([p], lr=True), TypeError, "lr must be a positive number, got True"),
        (lambda p: ag.SGD([p * 2], lr=0.1), ValueError, "result of an operation.*detach"),
        (lambda p: ag.SGD([p, leaf(1.0), p], lr=0.1), ValueError, r"shape \(1,\) is listed twice"),
        (lambda p: ag.SGD(3, lr=0.1), TypeError, "params must be a list of tensors, got 3"),
        (lambda p: ag.SGD([p], lr=0.1, momentum="a"), TypeError, "momentum must be .*got 'a'"),
        (lambda p: ag.Adam([p], betas=0.9), TypeError, "betas must be two numbers, got 0.9"),
        (lambda p: ag.Adam([p], betas=(0.9,)), TypeError, r"betas must be two numbers, got \(0.9,"),
        (lambda p: ag.Adam([p], betas=("a", 0.9)), TypeError, "betas"),
        (lambda p: ag.Adam([p], eps=float("inf")), ValueError, "eps"),
        (lambda p: ag.Adam([p], eps="a"), TypeError, "eps"),
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


OPERATORS = "add radd sub rsub mul rmul truediv rtruediv pow rpow matmul rmatmul iadd isub imul"
OPERATORS += " itruediv neg abs lt le gt ge eq ne getitem setitem"


def test_operators_and_methods_of_tensors_have_an_example():
    for name in OPERATORS.split():
        method = vars(Tensor)[f"__{name}__"]
        assert method.__qualname__ == f"Tensor.__{name}__"
        assert ">>>" in method.__doc__, name
    for name, value in vars(Tensor).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            assert ">>>" in value.__doc__, name
    assert "lambda" not in pydoc.render_doc(Tensor, renderer=pydoc.plaintext)


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
    size = {path.stem: lines_of_code(path) for path in FOLDER.glob("*.py")}
    tape = ["operations", "tape", "tensor", "functions", "transforms"]
    around = ["promotion", "recording"]  # which dtype, and whether at all
    assert {*size} == {*tape, *around, "__init__", "layers", "optimizers"}
    assert 300 < sum(size[name] for name in tape) < 500
    assert sum(size[name] for name in around) < 80
