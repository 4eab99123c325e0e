"""Metrics against scikit-learn's, through evaluate and fit."""

import functools

import numpy as np
import pytest
from sklearn import metrics as peer

import fastbackprop as fb
from fastbackprop import metrics

N = 61


def network(loss, n_out, dtype="float64"):
    net = fb.Network([4, 6, n_out], "tanh", loss, random_state=0, dtype=dtype)
    net.set_parameters(np.random.default_rng(0).standard_normal(net.n_parameters) * 2)
    return net


def inputs():
    return np.random.default_rng(1).standard_normal((N, 4))


WEIGHTS = [None, np.random.default_rng(2).random(N), np.arange(N) % 3]
weighted = pytest.mark.parametrize("weights", WEIGHTS, ids=["none", "some", "zeros"])

MACRO = {"precision_macro": "precision", "recall_macro": "recall", "f1_macro": "f1"}


@weighted
@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("targets", ["labels", "one-hot"])
def test_classes(n_classes, targets, weights):
    net, X = network("cross_entropy", n_classes), inputs()
    # Labels that make the last of many classes occur nowhere, so that a mean has to leave it out.
    y = np.random.default_rng(3).integers(0, max(2, n_classes - 1), N)
    if n_classes == 8:
        net.biases[-1][-1] = -100
    given = y if targets == "labels" else np.eye(n_classes)[y]
    names = ["accuracy", *MACRO] + ["top_2_accuracy", "top_3_accuracy"] * (n_classes > 3)
    result = net.evaluate(X, given, weights, metrics=names)
    assert list(result) == ["loss", *names]
    predicted, outputs = net.predict_classes(X), net.predict(X)
    expected = {"accuracy": peer.accuracy_score(y, predicted, sample_weight=weights)}
    for name, kind in MACRO.items():
        function = getattr(peer, f"{kind}_score")
        expected[name] = function(
            y, predicted, average="macro", sample_weight=weights, zero_division=0
        )
    for k in (2, 3):
        if n_classes > 3:
            expected[f"top_{k}_accuracy"] = peer.top_k_accuracy_score(
                y, outputs, k=k, labels=range(n_classes), sample_weight=weights
            )
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-12), name


@weighted
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_two_classes(loss, weights):
    net, X = network(loss, 2 if loss == "cross_entropy" else 1), inputs()
    y = np.random.default_rng(3).integers(0, 2, N)
    names = ["precision", "recall", "f1", *MACRO]
    result = net.evaluate(X, y, weights, metrics=names)
    predicted = net.predict_classes(X)
    for name in names:
        kind, _, average = name.partition("_")
        expected = getattr(peer, f"{kind}_score")(
            y, predicted, average=average or "binary", sample_weight=weights
        )
        assert result[name] == pytest.approx(expected, rel=1e-12), name


@weighted
def test_independent_labels(weights):
    net, X = network("binary_cross_entropy", 5), inputs()
    y = np.random.default_rng(3).integers(0, 2, (N, 5))
    y[:, 4] = 0
    result = net.evaluate(X, y, weights, metrics=["accuracy", *MACRO])
    predicted = (net.predict(X) > 0.5).astype(int)
    for name, kind in MACRO.items():
        expected = getattr(peer, f"{kind}_score")(
            y, predicted, average="macro", sample_weight=weights, zero_division=0
        )
        assert result[name] == pytest.approx(expected, rel=1e-12), name
    right = (predicted == y).mean(axis=1)
    assert result["accuracy"] == pytest.approx(np.average(right, weights=weights))


@pytest.mark.parametrize("constant", [0, 1])
def test_a_class_that_never_occurs(constant):
    net, X = network("binary_cross_entropy", 1), inputs()
    net.biases[-1][...] = 100 if constant else -100
    y = np.full(N, 1 - constant)
    result = net.evaluate(X, y, metrics=["precision", "recall", "f1", *MACRO])
    for name in ("precision", "recall", "f1", *MACRO):
        assert result[name] == 0.0


@weighted
@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_numbers(n_out, weights, dtype):
    net, X = network("mse", n_out, dtype), inputs()
    rng = np.random.default_rng(3)
    y = rng.standard_normal((N, n_out)) * [1, 10, 0.1][:n_out]
    names = {
        "r2": peer.r2_score,
        "mae": peer.mean_absolute_error,
        "rmse": peer.root_mean_squared_error,
    }
    result = net.evaluate(X, y, weights, metrics=list(names))
    outputs = net.predict(X)
    for name, function in names.items():
        expected = function(y.astype(dtype), outputs, sample_weight=weights)
        assert result[name] == pytest.approx(expected, rel=1e-12 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_r2_of_a_constant(off):
    net = fb.Network([1, 2], "identity", "mse")
    net.set_parameters([0, 0, 1, 2])
    y = np.tile([1.0 + off, 2.0], (4, 1))
    result = net.evaluate(np.zeros((4, 1)), y, metrics="r2")
    assert result["r2"] == peer.r2_score(y, np.tile([1.0, 2.0], (4, 1)))


def test_ties_of_top_k_are_those_of_the_peer():
    outputs = np.round(np.random.default_rng(0).random((200, 6)) * 3)
    y = np.arange(200) % 6
    targets = fb.data.Targets(y, None, 1)
    for k in range(1, 6):
        expected = peer.top_k_accuracy_score(y, outputs, k=k)
        assert metrics.TopK(k).measure(targets, outputs, None) == expected


# ------------------------------------------------------------------------------------ functions


def largest_error(y, outputs):
    return np.abs(y - outputs).max()


def test_functions():
    net, X = network("mse", 2), inputs()
    y = np.zeros((N, 2))
    outputs = net.predict(X)
    result = net.evaluate(X, y, metrics=[largest_error, "mae"])
    assert result["largest_error"] == np.abs(outputs).max()
    assert list(result) == ["loss", "largest_error", "mae"]
    result = net.evaluate(X, y, metrics={"most": lambda y, a: a.max(), "rows": lambda y, a: len(a)})
    assert result["most"] == outputs.max()
    assert result["rows"] == N
    assert net.evaluate(X, y, metrics=largest_error)["largest_error"] == np.abs(outputs).max()


def test_functions_see_labels_and_weights():
    seen = []

    def note(y, outputs, sample_weight=None):
        seen.append((y, outputs, sample_weight))
        return 1

    net, X = network("cross_entropy", 3), inputs()
    y = np.arange(N) % 3
    for weights in WEIGHTS[:2]:
        net.evaluate(X, y, weights, metrics=[note])
        labels, outputs, given = seen.pop()
        np.testing.assert_array_equal(labels, y)
        np.testing.assert_array_equal(outputs, net.predict(X))
        np.testing.assert_array_equal(given, weights)


# ------------------------------------------------------------------------------------------ fit


def test_fit_measures_validation_data():
    net, X = network("cross_entropy", 3), inputs()
    y = np.arange(N) % 3
    names = ["f1_macro", metrics.TopK(2), "accuracy"]
    history = net.fit(X, y, 3, validation_data=(X, y), metrics=names, verbose=0)
    assert list(history)[-4:] == ["val_loss", "val_accuracy", "val_f1_macro", "val_top_2_accuracy"]
    result = net.evaluate(X, y, metrics=names)
    for name in ("f1_macro", "top_2_accuracy", "accuracy"):
        assert history[f"val_{name}"][-1] == result[name]
    history = net.fit(X, y, 2, validation_data=0.5, metrics="recall_macro", verbose=0)
    half = round(N * 0.5)
    expected = net.evaluate(X[-half:], y[-half:], metrics="recall_macro")
    assert history["val_recall_macro"][-1] == expected["recall_macro"]


def test_metrics_do_not_change_training():
    net, X = network("mse", 1), inputs()
    y = X[:, 0]
    plain = net.clone()
    net.fit(X, y, 3, validation_data=(X, y), metrics=["r2"], verbose=0)
    plain.fit(X, y, 3, verbose=0)
    np.testing.assert_array_equal(net.get_parameters(), plain.get_parameters())


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("acuracy", ValueError, "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("top_0_accuracy", ValueError, "unknown metric 'top_0_accuracy'"),
        (["accuracy", "accuracy"], ValueError, "'accuracy' is named twice"),
        ([metrics.TopK(2), "top_2_accuracy"], ValueError, "'top_2_accuracy' is named twice"),
        (5, TypeError, "metrics must be a list of names.* got 5"),
        ([5], TypeError, "a metric must be a name, a Metric or a function, got 5"),
        ([lambda y, a: 0], TypeError, "has no name; pass metrics={'its name': function}"),
        ([functools.partial(largest_error)], TypeError, "has no name"),
        ({"loss": largest_error}, ValueError, "the name 'loss' is taken"),
        ({"accuracy": largest_error}, ValueError, "the name 'accuracy' is taken"),
        ({"mine": 3}, TypeError, "the metric 'mine' must be a function, got 3"),
        ({3: largest_error}, TypeError, "name of a metric must be a string, got 3"),
        ({"mine": lambda y, a: a}, TypeError, "the metric 'mine' must be a number, got array"),
        ("r2", ValueError, "'r2' is about numbers, but y holds class labels"),
        ("f1", ValueError, "'f1' is about two classes; the network has 3 outputs.*'f1_macro'"),
        ("top_3_accuracy", ValueError, "needs more than 3 classes.*tells 3 apart"),
    ],
)
def test_refused(given, error, message):
    net, X = network("cross_entropy", 3), inputs()
    y = np.arange(N) % 3
    before = net.get_parameters()
    with pytest.raises(error, match=message):
        net.evaluate(X, y, metrics=given)
    if "must be a number" not in message:  # which only its first value shows
        with pytest.raises(error, match=message):
            net.fit(X, y, validation_data=(X, y), metrics=given, verbose=0)
        np.testing.assert_array_equal(net.get_parameters(), before)


def test_refused_for_other_targets():
    net, X = network("mse", 1), inputs()
    for name in ("accuracy", "f1", "top_2_accuracy", "recall_macro"):
        with pytest.raises(ValueError, match=f"'{name}' is about classes, but y holds other"):
            net.evaluate(X, X[:, 0], metrics=name)
    net = network("binary_cross_entropy", 4)
    y = np.ones((N, 4))
    for name in ("top_2_accuracy", "precision"):
        with pytest.raises(ValueError, match=name):
            net.evaluate(X, y, metrics=name)


def test_metrics_without_validation_data_are_refused():
    net, X = network("mse", 1), inputs()
    with pytest.raises(ValueError, match="metrics are measured on validation data"):
        net.fit(X, X[:, 0], metrics="r2", verbose=0)


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_is_checked(k):
    with pytest.raises((TypeError, ValueError), match="k must be a positive integer"):
        metrics.TopK(k)


def test_averages_are_checked():
    with pytest.raises(ValueError, match="unknown average 'micro'"):
        metrics.F1("micro")
