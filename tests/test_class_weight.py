"""class_weight is sample_weight by class."""

import numpy as np
import pytest
from comparison import bits
from sklearn.utils.class_weight import compute_sample_weight

import fastbackprop as fb

N = 30


def problem(n_out=3, loss="cross_entropy"):
    rng = np.random.default_rng(0)
    net = fb.Network([4, 5, n_out], "tanh", loss, random_state=0, dtype="float64")
    y = rng.choice(max(n_out, 2), N, p=[0.7, 0.3] if n_out < 3 else [0.6, 0.3, 0.1])
    return net, rng.standard_normal((N, 4)), y


def trained(net, *data, **options):
    net = net.clone()
    history = net.fit(*data, epochs=2, batch_size=8, verbose=0, **options)
    return bits(net), history["loss"]


def assert_same(first, second):
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, 2: 10}, {1: 0, 0: 2, 2: 1.5}, {}])
@pytest.mark.parametrize("sample_weight", [None, np.random.default_rng(1).random(N)])
@pytest.mark.parametrize("form", ["labels", "one-hot"])
def test_it_multiplies_sample_weight(class_weight, sample_weight, form):
    net, X, y = problem()
    weights = compute_sample_weight(class_weight or {0: 1, 1: 1, 2: 1}, y)
    if sample_weight is not None:
        weights = weights * sample_weight
    given = y if form == "labels" else np.eye(3)[y]
    result = trained(net, X, given, class_weight=class_weight, sample_weight=sample_weight)
    assert_same(result, trained(net, X, given, sample_weight=weights))


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, 1: 10}])
def test_one_output(class_weight):
    net, X, y = problem(1, "binary_cross_entropy")
    result = trained(net, X, y, class_weight=class_weight)
    weights = compute_sample_weight(class_weight, y)
    assert_same(result, trained(net, X, y, sample_weight=weights))


def test_classes_that_do_not_occur():
    net, X, y = problem()
    y = np.where(y == 1, 2, y)
    result = trained(net, X, y, class_weight="balanced")
    assert_same(result, trained(net, X, y, sample_weight=compute_sample_weight("balanced", y)))


def test_validation_rows_are_not_weighted_nor_counted():
    net, X, y = problem()
    kept, held = slice(0, 20), slice(20, None)
    weights = compute_sample_weight("balanced", y[kept])
    result = net.clone()
    history = result.fit(X, y, 2, validation_data=1 / 3, class_weight="balanced", verbose=0)
    net.fit(X[kept], y[kept], 2, sample_weight=weights, verbose=0)
    np.testing.assert_array_equal(bits(result), bits(net))
    assert history["val_loss"][-1] == net.loss(X[held], y[held])


def test_batches():
    net, X, y = problem()
    weights = np.random.default_rng(1).random(N)
    plain = [(X[i : i + 8], y[i : i + 8], weights[i : i + 8]) for i in range(0, N, 8)]
    factors = {0: 0.0, 1: 3.0}
    by_hand = [(x, t, w * np.array([0.0, 3.0, 1.0])[t]) for x, t, w in plain]
    assert_same(trained(net, plain, class_weight=factors), trained(net, by_hand))


@pytest.mark.parametrize(
    ("class_weight", "error", "message"),
    [
        ("balance", ValueError, "unknown class_weight 'balance'; did you mean 'balanced'"),
        ([1, 2, 3], TypeError, r"must be a dict from class labels.* got \[1, 2, 3\]"),
        ({3: 1}, ValueError, "has the label 3; the network has 3 classes.*from 0 to 2"),
        ({-1: 1}, ValueError, "a label in class_weight must be an integer >= 0, got -1"),
        ({"0": 1}, TypeError, "a label in class_weight must be an integer >= 0, got '0'"),
        ({0: -1}, ValueError, r"class_weight\[0\] must be a number >= 0, got -1"),
        ({0: "1"}, TypeError, r"class_weight\[0\] must be a number >= 0, got '1'"),
        ({0: 0, 1: 0, 2: 0}, ValueError, "leaves every row with the weight 0"),
    ],
)
def test_refused(class_weight, error, message):
    net, X, y = problem()
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(X, y, class_weight=class_weight, verbose=0)
    np.testing.assert_array_equal(bits(net), before)


@pytest.mark.parametrize(
    ("y", "loss", "message"),
    [
        ([[0.25, 0.75], [1, 0]], "cross_entropy", r"y is 0\.25 at \[0, 0\]; with class_weight"),
        ([[0.5, 8], [1, 0]], "mse", r"y is 0\.5 at \[0, 0\]; with class_weight"),
        ([[0, 1], [1, 1]], "binary_cross_entropy", "row 1 of y names 2 classes"),
    ],
)
def test_rows_of_no_one_class_are_refused(y, loss, message):
    net = fb.Network([1, 2], "identity", loss)
    with pytest.raises(ValueError, match=message):
        net.fit([[1], [2]], y, class_weight={0: 2}, verbose=0)
