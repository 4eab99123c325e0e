"""Diagnostics by layer: the numbers against plain NumPy, what counts, and how it is told."""

import dataclasses
import math
import sys
import tracemalloc

import numpy as np
import pytest
import reference
from comparison import (
    ELEMENTWISE,
    LOSSES,
    OUTPUTS,
    bits,
    is_near_kink,
    make_targets,
    reference_of,
)

import fastbackprop as fb
from fastbackprop.inspection import measurement


def plain_diagnostics(net, X, y, weights=None):
    """Return what a report's layers should hold, as dicts, from the reference network."""
    weights = np.ones(len(X)) if weights is None else np.asarray(weights, np.float64)
    counted = weights > 0
    X, y, weights = np.asarray(X, np.float64)[counted], np.asarray(y)[counted], weights[counted]
    twin = reference_of(net)
    _, pairs, _ = twin.gradients(X, y, weights)
    _, preactivations = twin.trace(X)
    with_biases = reference_of(net)
    for layer in with_biases.dense:
        if layer["b"] is None:
            layer["b"] = np.zeros(layer["w"].shape[1])
    # The gradient of one row's bias is that of its pre-activation.
    rows = [with_biases.gradients(X[i : i + 1], y[i : i + 1])[1] for i in range(len(X))]
    layers = []
    for i, (layer, z, (dw, db)) in enumerate(zip(twin.dense, preactivations, pairs, strict=True)):
        a = reference.activation(layer["activation"], z, layer["alpha"])
        every = np.repeat(weights, a.shape[1])
        mean = np.average(a.ravel(), weights=every)
        dz_squares = [np.sum(row[i][1] ** 2) for row in rows]
        layers.append(
            {
                "name": f"layers.{i}",
                "n_in": layer["w"].shape[0],
                "n_out": layer["w"].shape[1],
                "activation": fb.Activation(layer["activation"], layer["alpha"]),
                "activation_mean": mean,
                "activation_std": math.sqrt(np.average((a.ravel() - mean) ** 2, weights=every)),
                "weight_gradient_norm": np.sqrt(np.sum(dw**2)),
                "bias_gradient_norm": None if db is None else np.sqrt(np.sum(db**2)),
                "preactivation_gradient_rms": math.sqrt(np.average(dz_squares, weights=weights)),
                "weight_norm": np.sqrt(np.sum(layer["w"] ** 2)),
            }
        )
    return twin.loss(X, y, weights), layers


def assert_agrees(report, expected_loss, expected_layers, tolerance):
    assert report.loss == pytest.approx(expected_loss, rel=tolerance)
    for layer, expected in zip(report.layers, expected_layers, strict=True):
        for name, value in expected.items():
            actual = getattr(layer, name)
            if isinstance(value, float):
                scale = expected["activation_std"] if name == "activation_mean" else 0.0
                assert actual == pytest.approx(value, rel=tolerance, abs=tolerance * scale), name
            else:
                assert actual == value, name


def problem(activation, loss, dtype="float64", n=23, seed=0):
    """Return a network with Dropout and a layer without bias, and data away from kinks."""
    rng = np.random.default_rng([ELEMENTWISE.index(activation), LOSSES.index(loss), seed])
    while True:
        layers = [
            fb.Rescaling(0.5, 0.1),
            fb.Dense(6, 17, activation, bias_init="normal"),
            fb.Dropout(0.4),
            fb.Dense(17, 9, activation, bias=False),
            fb.Dense(9, 3, OUTPUTS.get(loss, activation)),
        ]
        net = fb.Network(layers, loss=loss, random_state=rng, dtype=dtype)
        X = rng.standard_normal((n, 6))
        y = make_targets(rng, loss, n, 3)
        if not is_near_kink(net, X, y):
            return net, X, y


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_every_activation_and_loss(activation, loss):
    net, X, y = problem(activation, loss)
    assert_agrees(fb.diagnostics(net, X, y), *plain_diagnostics(net, X, y), 1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_single_precision(loss):
    net, X, y = problem("tanh", loss, "float32")
    assert_agrees(fb.diagnostics(net, X, y), *plain_diagnostics(net, X, y), 2e-6)


WEIGHTS = np.array([2.0, 1, 0, 0, 0, 3, 0.5, 1, 1, 1, 0.25, 2])


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("rows", [1, 3, 5, 12])
def test_blocks_of_rows_are_merged(monkeypatch, rows, weights):
    monkeypatch.setattr(measurement, "_BLOCK_ROWS", rows)  # 3: one block has weight 0
    net, X, y = problem("sigmoid", "cross_entropy", n=12)
    report = fb.diagnostics(net, X, y, sample_weight=weights)
    assert_agrees(report, *plain_diagnostics(net, X, y, weights), 1e-12)


def test_a_block_of_weight_0_adds_nothing(monkeypatch):
    monkeypatch.setattr(measurement, "_BLOCK_ROWS", 3)
    net, X, y = problem("relu", "mse", n=9)
    report = fb.diagnostics(net, X, y, sample_weight=[0, 0, 0, 1, 1, 1, 0, 0, 0])
    alone = fb.diagnostics(net, X[3:6], y[3:6])
    assert report == dataclasses.replace(alone, rows=9)


def test_weights_count_rows():
    net, X, y = problem("relu", "mse")
    weights = np.arange(23) % 3
    report = fb.diagnostics(net, X, y, sample_weight=weights)
    repeated = fb.diagnostics(net, np.repeat(X, weights, axis=0), np.repeat(y, weights, axis=0))
    for layer, same in zip(report.layers, repeated.layers, strict=True):
        for name in ("activation_mean", "activation_std", "preactivation_gradient_rms"):
            assert getattr(layer, name) == pytest.approx(getattr(same, name), rel=1e-12)
        assert layer.dead_units == same.dead_units


def test_labels_integers_and_lists():
    net, X, _ = problem("tanh", "cross_entropy")
    pixels = np.round(X * 10).astype(np.int8)
    labels = np.arange(23) % 3
    report = fb.diagnostics(net, pixels.tolist(), labels)
    assert_agrees(report, *plain_diagnostics(net, pixels, np.eye(3)[labels]), 1e-12)


def test_the_network_stays_as_it_is():
    net, X, y = problem("relu", "mse")
    before = bits(net)
    assert fb.diagnostics(net, X, y) == fb.diagnostics(net, X, y)
    np.testing.assert_array_equal(bits(net), before)


def test_memory_does_not_grow_with_the_rows():
    net = fb.Network([4, 128, 1], "relu", "mse", random_state=0)
    X = np.zeros((100_000, 4), np.float32)
    y = np.zeros(len(X), np.float32)
    fb.diagnostics(net, X[:1], y[:1])  # what the first call compiles is not its own
    tracemalloc.start()
    fb.diagnostics(net, X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    activations = len(X) * 128 * 4
    assert peak < activations / 4


# ------------------------------------------------------------------------------ dead, saturated


def with_units_off(activation, off):
    """Return a network of one hidden layer of 5 whose units ``off`` have a very negative bias."""
    layers = [fb.Dense(3, 5, activation, init="normal"), fb.Dense(5, 2)]
    net = fb.Network(layers, loss="mse", random_state=0, dtype="float64")
    net.biases[0][:] = 100.0
    net.biases[0][off] = -100.0
    return net


DATA = np.random.default_rng(0).uniform(-1, 1, (40, 3)), np.zeros((40, 2))


@pytest.mark.parametrize(
    "activation", ["relu", fb.Activation("leaky_relu", 0.0), fb.Activation("elu", 0.0)], ids=str
)
def test_dead_units(activation):
    hidden, output = fb.diagnostics(with_units_off(activation, [1, 4]), *DATA).layers
    assert hidden.dead_units == (1, 4)
    assert hidden.fraction_dead == 0.4
    assert output.dead_units is output.fraction_dead is None


@pytest.mark.parametrize("activation", sorted({*ELEMENTWISE} - {"relu"}))
def test_other_units_are_never_dead(activation):
    hidden = fb.diagnostics(with_units_off(activation, [1, 4]), *DATA).layers[0]
    assert hidden.dead_units is hidden.fraction_dead is None


def test_one_row_keeps_a_unit_alive(monkeypatch):
    monkeypatch.setattr(measurement, "_BLOCK_ROWS", 16)
    X, y = DATA[0].copy(), DATA[1]
    net = with_units_off("relu", [1, 4])
    X[20] = net.weights[0][:, 1] * 1e3
    assert fb.diagnostics(net, X, y).layers[0].dead_units == (4,)
    weights = np.arange(40) != 20
    assert fb.diagnostics(net, X, y, sample_weight=weights).layers[0].dead_units == (1, 4)


@pytest.mark.parametrize(
    ("activation", "limit"),
    [("sigmoid", math.log(99)), ("tanh", math.atanh(0.99))],
)
def test_fraction_saturated(activation, limit):
    net = fb.Network([1, 1], loss="mse", output_activation=activation, dtype="float64")
    net.set_parameters([1.0, 0.0])
    X = limit * np.array([[-1.001], [-0.999], [0.0], [0.999], [1.001], [2.0], [50.0]])
    saturated = [1, 0, 0, 0, 1, 1, 1]
    (layer,) = fb.diagnostics(net, X, np.zeros(7)).layers
    assert layer.fraction_saturated == pytest.approx(4 / 7)
    weights = np.arange(7)
    (layer,) = fb.diagnostics(net, X, np.zeros(7), sample_weight=weights).layers
    assert layer.fraction_saturated == pytest.approx(np.average(saturated, weights=weights))


@pytest.mark.parametrize("loss", sorted(OUTPUTS))
def test_the_output_of_a_cross_entropy_is_not_saturated(loss):
    net = fb.Network([4, 5, 2], "sigmoid", loss, random_state=0)
    hidden, output = fb.diagnostics(net, np.full((3, 4), 99.0), np.eye(2)[[0, 1, 0]]).layers
    assert hidden.fraction_saturated > 0
    assert output.fraction_saturated is None


def test_gradient_ratio():
    net, X, y = problem("tanh", "mse")
    layer = fb.diagnostics(net, X, y).layers[0]
    assert layer.gradient_ratio == layer.weight_gradient_norm / layer.weight_norm
    assert dataclasses.replace(layer, weight_norm=0.0).gradient_ratio == math.inf
    nothing = dataclasses.replace(layer, weight_norm=0.0, weight_gradient_norm=0.0)
    assert math.isnan(nothing.gradient_ratio)


# ------------------------------------------------------------------------------------- findings


def test_nothing_stands_out():
    net, X, y = problem("tanh", "mse")
    assert fb.diagnostics(net, X, y).findings == ()


def test_dead_units_are_told():
    assert fb.diagnostics(with_units_off("relu", [1, 4]), *DATA).findings == (
        "layers.0: 2 of 5 units are dead; try leaky_relu or a smaller learning rate",
    )
    (finding,) = fb.diagnostics(with_units_off("relu", [3]), *DATA).findings
    assert finding.startswith("layers.0: 1 of 5 units is dead;")


def test_saturation_is_told():
    net = fb.Network([3, 4, 4, 1], "sigmoid", "mse", random_state=0)
    for bias in net.biases[:2]:
        bias[...] = 20.0
    finding = fb.diagnostics(net, DATA[0], np.zeros(40)).findings[0]
    assert finding.startswith("layers.0, layers.1: more than half of the outputs are saturated;")


def deep(activation):
    net = fb.Network([10] * 13, activation, "mse", random_state=0)
    X = np.random.default_rng(0).standard_normal((50, 10))
    return fb.diagnostics(net, X, X)


def test_the_gradient_vanishes_in_sigmoid_layers_and_not_in_relu_layers():
    sigmoid, relu = deep("sigmoid"), deep("relu")
    norms = [layer.preactivation_gradient_rms for layer in sigmoid.layers]
    assert norms == sorted(norms)
    assert norms[0] < 1e-6 * norms[-1]
    (finding,) = sigmoid.findings
    shrunk = f"{norms[0] / norms[-1]:.0e}"
    assert f"shrink by {shrunk} from the last layer to the first: vanishing" in finding
    assert not any("vanishing" in finding for finding in relu.findings)


def test_the_gradient_explodes():
    net = fb.Network([4, 4, 4, 4, 4], "identity", "mse", random_state=0)
    for w in net.weights:
        w[...] *= 30
    (finding,) = fb.diagnostics(net, np.ones((3, 4)), np.ones((3, 4))).findings
    assert "from the last layer to the first: exploding" in finding


def test_no_gradient():
    net = with_units_off("relu", slice(None))
    X, y = DATA
    assert fb.diagnostics(net, X, y).findings[1:] == (
        "Every gradient is 0: these rows teach the network nothing",
    )
    assert fb.diagnostics(net, X, y + 1).findings[1:] == (
        "layers.0: no gradient reaches the parameters",
    )


def test_numbers_that_overflow():
    net = fb.Network([3, 4, 2], "identity", "mse", random_state=0)
    for w in net.weights:
        w[...] = 1e30
    report = fb.diagnostics(net, *DATA)
    assert report.findings[0].startswith("layers.0, layers.1: numbers are not finite;")
    assert "nan" in str(report) or "inf" in str(report)


# --------------------------------------------------------------------------- what one can look at


def test_text():
    report = fb.diagnostics(with_units_off("relu", [1, 4]), *DATA)
    layer = report.layers[1]
    lines = str(report).splitlines()
    assert lines[0].split() == ["Layer", "Units", "Activation", "Mean", "Std", "Dead", "Saturated"]
    assert lines[1].split()[:3] == ["layers.0", "3-5", "relu"]
    assert lines[1].split()[-3:] == ["40.0", "%", "-"]
    assert lines[6].split() == [
        "layers.1",
        f"{layer.weight_gradient_norm:.2e}",
        f"{layer.bias_gradient_norm:.2e}",
        f"{layer.preactivation_gradient_rms:.2e}",
        f"{layer.weight_norm:.3f}",
        f"{layer.gradient_ratio:.2e}",
    ]
    assert lines[8] == f"Loss {report.loss:.2e} over 40 rows."
    assert lines[9:] == list(report.findings)


def test_text_is_at_most_80_columns_wide():
    net = fb.Network([1000] + [1200] * 11, "leaky_relu", "mse", random_state=0)
    for w in net.weights:
        w *= -30
    report = fb.diagnostics(net, np.ones((2, 1000)), np.ones((2, 1200)))
    assert report.findings
    assert max(map(len, str(report).splitlines())) <= 80


def test_html():
    report = fb.diagnostics(with_units_off("relu", [1, 4]), *DATA)
    html = report._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 2
    assert html.count("<tr>") == html.count("</tr>") == 6
    assert "<td>3-5</td>" in html
    assert f"<p>{report.findings[0]}</p>" in html


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_plot(pyplot):
    net, X, y = problem("relu", "mse")
    report = fb.diagnostics(net, X, y)
    ax = report.plot()
    dw, db, dz = (line.get_ydata() for line in ax.get_lines())
    assert list(dw) == [layer.weight_gradient_norm for layer in report.layers]
    assert list(dz) == [layer.preactivation_gradient_rms for layer in report.layers]
    assert math.isnan(db[1])  # that layer has no bias
    assert ax.get_yscale() == "log"
    assert labels(ax) == ["‖dw‖", "‖db‖", "rms ‖dz‖", "dead"]
    ax.figure.canvas.draw()


def test_plot_of_fractions(pyplot):
    net = fb.Network([3, 4, 2], "sigmoid", random_state=0)
    net.biases[0][...] = 20.0
    _, ax = pyplot.subplots()
    assert fb.diagnostics(net, *DATA).plot(ax) is ax
    assert labels(ax)[3:] == ["saturated"]
    (behind,) = (other for other in ax.figure.axes if other is not ax)
    assert [bar.get_height() for bar in behind.patches] == [100.0]
    assert behind.get_zorder() < ax.get_zorder()
    ax.figure.canvas.draw()


def test_plot_without_fractions(pyplot):
    ax = fb.diagnostics(with_units_off("elu", []), *DATA).plot()
    assert ax.figure.axes == [ax]
    ax.figure.canvas.draw()


def test_plot_of_no_gradient(pyplot):
    ax = fb.diagnostics(with_units_off("relu", slice(None)), *DATA).plot()
    ax.figure.canvas.draw()


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = fb.diagnostics(with_units_off("relu", []), *DATA)
    with pytest.raises(ImportError, match=r'pip install "fastbackprop\[plots\]"'):
        report.plot()


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, *DATA), TypeError, r"net must be a fastbackprop.Network, got None"),
        (("X transposed", DATA[0].T, DATA[1]), ValueError, r"layer 0 expects \(n, 3\)"),
        (("y too short", DATA[0], DATA[1][1:]), ValueError, r"y has shape \(39, 2\), but X has 40"),
        (("no rows", DATA[0][:0], DATA[1][:0]), ValueError, r"there is no row in it"),
    ],
    ids=["net", "X", "y", "rows"],
)
def test_bad_input(arguments, error, message):
    net, X, y = arguments
    with pytest.raises(error, match=message):
        fb.diagnostics(with_units_off("relu", []) if net else net, X, y)


def test_a_value_that_is_not_finite_is_named_by_its_row(monkeypatch):
    monkeypatch.setattr(measurement, "_BLOCK_ROWS", 16)
    X = DATA[0].copy()
    X[33, 1] = np.nan
    with pytest.raises(ValueError, match=r"X contains nan at \[33, 1\]"):
        fb.diagnostics(with_units_off("relu", []), X, DATA[1])


def test_bad_weights():
    with pytest.raises(ValueError, match="sample_weight is 0 for every row"):
        fb.diagnostics(with_units_off("relu", []), *DATA, sample_weight=np.zeros(40))
