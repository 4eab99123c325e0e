"""The classic experiment: epoch by epoch against a plain NumPy loop, and its published results."""

import json

import numpy as np
import pytest
import reference

import fastbackprop as fb
from fastbackprop.cli import main
from fastbackprop.cli.textbook import textbook_network
from fastbackprop.datasets import load_mnist, load_mnist_small

BATCH = 10


def numpy_epochs(weights, biases, X, y, orders, learning_rate):
    """Losses of the epochs of the textbook's algorithm in float64, each a mean over its batches."""
    (w1, w2), (b1, b2) = ([p.astype(np.float64) for p in group] for group in (weights, biases))
    x_all, target = X / 255, np.eye(10)[y]
    losses = []
    for order in orders:
        total = 0.0
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            x, t = x_all[rows], target[rows]
            a1 = reference.sigmoid(x @ w1 + b1)
            a2 = reference.sigmoid(a1 @ w2 + b2)
            total += 0.5 * ((a2 - t) ** 2).sum()
            dz2 = (a2 - t) * a2 * (1 - a2)
            dz1 = (dz2 @ w2.T) * a1 * (1 - a1)
            step = learning_rate / len(rows)
            w2 -= step * a1.T @ dz2
            b2 -= step * dz2.sum(axis=0)
            w1 -= step * x.T @ dz1
            b1 -= step * dz1.sum(axis=0)
        losses.append(total / len(order))
    return losses


@pytest.mark.parametrize("learning_rate", [0.01, 3.0])
def test_loss_of_each_epoch_equals_numpy(learning_rate):
    (X, y), _ = load_mnist_small()
    X, y = X[:1003], y[:1003]  # the last batch has 3 rows
    net = textbook_network(30, seed=0)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(len(X)) for _ in range(4)]
    expected = numpy_epochs(net.weights, net.biases, X, y, orders, learning_rate)
    measured = [
        net.fit(
            X,
            y,
            epochs=1,
            batch_size=BATCH,
            optimizer=fb.SGD(learning_rate),
            shuffle=order,
            verbose=0,
        )["loss"][0]
        for order in orders
    ]
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


def test_the_network_is_the_published_one():
    net = textbook_network(30, seed=0)
    assert net.sizes == [784, 30, 10]
    assert net.loss_function.name == "quadratic"
    assert [layer.activation.name for layer in net.layers[1:]] == ["sigmoid", "sigmoid"]
    first = net.weights[0]
    assert first.mean() == pytest.approx(0.0, abs=4 / np.sqrt(first.size))
    assert first.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * first.size))
    biases = np.concatenate([textbook_network(30, seed).biases[0] for seed in range(50)])
    assert biases.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * biases.size))


def run(capsys, *arguments):
    """Numbers of recognised images after each epoch, and the number of test images."""
    assert main(["textbook", "--threads", "1", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert [word[:2] for word in words] == [["Epoch", f"{i}:"] for i in range(len(words))]
    assert {word[3] for word in words} == {"/"}
    return [int(word[2]) for word in words], int(words[0][4])


@pytest.fixture
def only_embedded_data(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTBACKPROP_DATA", raising=False)
    monkeypatch.setenv("FASTBACKPROP_CACHE", str(tmp_path))


@pytest.mark.usefixtures("only_embedded_data")
def test_learns_the_embedded_images(capsys):
    right, n = run(capsys, "--epochs", "10", "--seed", "1")
    assert n == 2000
    assert len(right) == 10
    assert max(right) > 1500


@pytest.mark.usefixtures("only_embedded_data")
def test_says_that_it_uses_the_embedded_images(capsys):
    assert main(["textbook", "--epochs", "2"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "12,000 images" in err
    assert main(["textbook", "--epochs", "2", "--quiet"]) == 0
    assert capsys.readouterr() == (out.splitlines()[-1] + "\n", "")


@pytest.mark.usefixtures("only_embedded_data")
def test_json(capsys):
    assert main(["textbook", "--epochs", "2", "--json", "--hidden", "16"]) == 0
    start, first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert start["event"] == "start"
    assert start["layers"] == [784, 16, 10]
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert first["correct"] == round(first["test_accuracy"] * first["n_test"])


class TestFullSet:
    """All of MNIST, from the folder in FASTBACKPROP_DATA or the cache."""

    @pytest.fixture(autouse=True)
    def _needs_mnist(self):
        try:
            load_mnist(download=False)
        except FileNotFoundError as error:
            pytest.skip(str(error))

    # At the small rate a median: with some first weights an output stays saturated for long, in the
    # NumPy loop as well.

    def test_usual_learning_rate(self, capsys):
        runs = [run(capsys, "--seed", str(seed)) for seed in range(3)]
        assert {(len(right), n) for right, n in runs} == {(30, 10_000)}
        assert min(right[-1] for right, _ in runs) > 9_430

    def test_small_learning_rate(self, capsys):
        last = [run(capsys, "--lr", "0.01", "--seed", str(seed))[0][-1] for seed in range(3)]
        assert 7_000 < np.median(last) < 8_200
