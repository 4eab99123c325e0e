"""Pictures: what is drawn where, and with which values."""

import subprocess
import sys

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop.plots import canvas

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def history():
    history = fb.History()
    for epoch, loss in enumerate([0.9, 0.5, 0.4]):
        history.append(epoch, {"loss": loss, "val_loss": loss / 2, "accuracy": 1 - loss})
    return history


def classifier(n_in=4, n_out=3, **options):
    options.setdefault("loss", "cross_entropy")
    return fb.Network([n_in, 5, n_out], "tanh", random_state=0, **options)


def drawn(display):
    """A display after its figure was drawn, in which warnings are errors."""
    display.figure_.canvas.draw()
    assert display.ax_ in display.figure_.axes
    return display


def texts(ax):
    return [text.get_text() for text in ax.texts]


def fits(display):
    """Whether axes with labels and legends lie in the figure."""
    figure = drawn(display).figure_
    inner = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return min(inner.x0, inner.y0) >= 0 and inner.x1 <= width and inner.y1 <= height


class TestLossCurve:
    def test_lines(self, history):
        loss = fb.Loss("cross_entropy")
        display = drawn(fb.plots.LossCurveDisplay.from_history(history, loss=loss))
        training, validation = display.ax_.lines
        np.testing.assert_array_equal(training.get_xydata(), [[1, 0.9], [2, 0.5], [3, 0.4]])
        np.testing.assert_array_equal(validation.get_ydata(), [0.45, 0.25, 0.2])
        assert training.get_color() != validation.get_color()
        assert training.get_marker() != validation.get_marker()
        assert training.get_linestyle() != validation.get_linestyle()
        assert display.ax_.get_ylabel() == "cross entropy loss (nats)"
        assert display.ax_.get_xlabel() == "epoch"
        labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert labels == ["training, mean over the epoch", "validation, after the epoch"]

    def test_accuracy_is_in_percent_and_may_lack_a_column(self, history):
        display = drawn(fb.plots.LossCurveDisplay.from_history(history, "accuracy"))
        (line,) = display.ax_.lines
        np.testing.assert_allclose(line.get_ydata(), [10, 50, 60])
        assert display.ax_.get_ylabel() == "accuracy (%)"
        history.append(3, {"val_f1_score": 0.5})
        display = drawn(fb.plots.LossCurveDisplay.from_history(history, "f1_score"))
        assert [line.get_label() for line in display.ax_.lines] == ["validation, after the epoch"]
        assert display.ax_.get_ylabel() == "f1 score"

    def test_refusals(self, history):
        with pytest.raises(KeyError, match="'mae' was not measured"):
            fb.plots.LossCurveDisplay.from_history(history, "mae")
        with pytest.raises(KeyError, match="no epoch"):
            fb.plots.LossCurveDisplay.from_history(fb.History())


class TestConfusionMatrix:
    def test_counts(self):
        sklearn = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        true, predicted = rng.integers(0, 4, (2, 100))
        display = drawn(fb.plots.ConfusionMatrixDisplay.from_predictions(true, predicted))
        expected = sklearn.confusion_matrix(true, predicted)
        np.testing.assert_array_equal(display.confusion_matrix, expected)
        assert texts(display.ax_) == [str(count) for count in expected.ravel() if count]
        (image,) = display.ax_.images
        np.testing.assert_allclose(image.get_array().sum(axis=1), 100)
        assert display.ax_.get_xlabel() == "predicted class"
        assert display.ax_.get_ylabel() == "true class"

    @pytest.mark.parametrize("n_out", [1, 2, 3])
    def test_network(self, n_out):
        net = classifier(
            n_out=n_out, loss="binary_cross_entropy" if n_out == 1 else "cross_entropy"
        )
        X = np.random.default_rng(0).standard_normal((30, 4))
        predicted = net.predict_classes(X)
        names = ["$a", "b", "long name"][: max(n_out, 2)]
        y = predicted if n_out == 1 else np.eye(n_out)[predicted]
        display = fb.plots.ConfusionMatrixDisplay.from_network(net, X, y, class_names=names)
        assert fits(display)
        counts = np.bincount(predicted, minlength=max(n_out, 2))
        np.testing.assert_array_equal(display.confusion_matrix, np.diag(counts))
        assert display.class_names[0] == r"\$a"

    @pytest.mark.parametrize("n_classes", [2, 10, 20, 21])
    def test_numbers_only_where_they_fit(self, n_classes):
        display = fb.plots.ConfusionMatrixDisplay(np.eye(n_classes, dtype=int)).plot()
        assert fits(display)
        assert len(display.ax_.texts) == (n_classes if n_classes <= 20 else 0)

    def test_refusals(self):
        make = fb.plots.ConfusionMatrixDisplay.from_predictions
        with pytest.raises(ValueError, match=r"y_pred \(3,\); expected \(n,\)"):
            make([0, 1], [0, 1, 2])
        with pytest.raises(ValueError, match="from 0 to 1, got int64 from 0 to 2"):
            make([0, 1], [0, 2], n_classes=2)
        with pytest.raises(ValueError, match="from -1 to 0"):
            make([0, -1], [0, 0])
        with pytest.raises(ValueError, match="class_names has 1 entries, but there are 2"):
            make([0, 1], [0, 1], class_names=["a"])
        with pytest.raises(ValueError, match="expected integer labels"):
            fb.plots.ConfusionMatrixDisplay.from_network(classifier(), np.eye(4), [0.5, 1, 2, 0])


class TestImages:
    def test_mosaic(self):
        images = np.arange(1.0, 7).reshape(3, 1, 2)
        nan = np.nan
        np.testing.assert_array_equal(
            canvas.mosaic(images, 2, (1, 1)),
            [[nan] * 5, [1, 2, nan, 3, 4], [nan] * 5, [5, 6, nan, nan, nan]],
        )

    def test_weights_of_the_largest_units(self):
        net = classifier(n_in=6)
        net.weights[0][...] = np.arange(30).reshape(6, 5) % 7 - 3.0
        net.weights[0][:, [1, 3]] *= 10
        make = fb.plots.WeightsDisplay.from_network
        display = make(net, n_units=2, image_shape=(2, 3))
        assert fits(display)
        np.testing.assert_array_equal(display.images[0], net.weights[0][:, 1].reshape(2, 3))
        np.testing.assert_array_equal(display.images[1], net.weights[0][:, 3].reshape(2, 3))
        (image,) = display.ax_.images
        assert image.norm.vmin == -image.norm.vmax
        np.testing.assert_array_equal(image.get_array()[:, :3], display.images[0])
        assert display.ax_.get_title() == "first layer: 2 of 5 units"
        with pytest.raises(ValueError, match=r"6 inputs are not a square.*image_shape"):
            make(net)
        with pytest.raises(ValueError, match="9 pixels, but there are 6"):
            make(net, image_shape=(3, 3))

    def test_misclassified(self):
        net = classifier(n_in=9)
        X = np.random.default_rng(0).integers(0, 256, (40, 9), dtype=np.uint8)
        y = net.predict_classes(X)
        wrong = [3, 8, 20]
        y[wrong] = (y[wrong] + 1) % 3
        make = fb.plots.MisclassifiedDisplay.from_network
        display = make(net, X, y, n_images=2, class_names=["a", "b", "c"])
        assert fits(display)
        sure = net.predict(X).max(axis=1)
        first, second, _ = sorted(wrong, key=lambda i: -sure[i])
        np.testing.assert_array_equal(display.images, X[[first, second]].reshape(-1, 3, 3))
        np.testing.assert_array_equal(display.probabilities, sure[[first, second]])
        assert (display.n_wrong, display.n_rows) == (3, 40)
        pair = [["a", "b", "c"][k] for k in (y[first], net.predict_classes(X)[first])]
        assert texts(display.ax_)[0].startswith(" → ".join(pair))
        assert drawn(make(net, X, net.predict_classes(X))).images.shape == (0, 3, 3)
        with pytest.raises(ValueError, match="X has 40 rows and y 39"):
            make(net, X, y[1:])


class TestDecisionBoundary:
    X = np.array([[0.0, 0.0], [1.0, 4.0], [2.0, 1.0]])

    @pytest.mark.parametrize("n_out", [1, 2, 4])
    def test_classes(self, n_out):
        loss = "binary_cross_entropy" if n_out == 1 else "cross_entropy"
        net = classifier(2, n_out, loss=loss)
        names = ["north", "south", "east", "west"][: max(n_out, 2)]
        display = fb.plots.DecisionBoundaryDisplay.from_network(
            net, self.X, [0, 1, 1], grid_resolution=20, class_names=names
        )
        assert fits(display)
        assert display.kind == ("class" if n_out == 4 else "probability")
        grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
        outputs = net.predict(grid)
        expected = outputs.argmax(axis=1) if n_out == 4 else outputs[:, -1]
        np.testing.assert_array_equal(display.response.ravel(), expected)
        np.testing.assert_allclose(grid.min(axis=0), [-0.2, -0.4])
        np.testing.assert_allclose(grid.max(axis=0), [2.2, 4.4])
        (image,) = display.ax_.images
        np.testing.assert_array_equal(image.get_array(), display.response)
        assert image.origin == "lower"
        left, right, bottom, top = image.get_extent()
        assert left < -0.2 < 2.2 < right
        assert bottom < -0.4 < 4.4 < top
        points = display.ax_.collections[-len(names) :]
        np.testing.assert_array_equal(points[1].get_offsets(), self.X[1:])
        assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == names

    def test_regression(self):
        net = classifier(2, 1, loss="mse")
        display = fb.plots.DecisionBoundaryDisplay.from_network(
            net, self.X, [0.1, 0.2, 0.3], grid_resolution=5, feature_names=["a", "b"]
        )
        assert fits(display)
        assert display.kind == "value"
        assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("a", "b")

    def test_refusals(self):
        make = fb.plots.DecisionBoundaryDisplay.from_network
        with pytest.raises(ValueError, match="has 4 inputs; the plane has 2"):
            make(classifier(), np.eye(4))
        with pytest.raises(ValueError, match="there is no row in it"):
            make(classifier(2), np.empty((0, 2)))


class TestLayers:
    @pytest.fixture
    def measured(self):
        net = classifier()
        X = np.random.default_rng(0).standard_normal((20, 4))
        return net, X, np.arange(20) % 3

    def test_gradient_flow(self, measured):
        report = fb.diagnostics(*measured)
        display = fb.plots.GradientFlowDisplay.from_network(*measured)
        assert fits(display)
        lines = {line.get_label(): line.get_ydata() for line in display.ax_.lines}
        np.testing.assert_allclose(
            lines["‖dw‖"], [layer.weight_gradient_norm for layer in report.layers]
        )
        labels = [label.get_text() for label in display.ax_.get_xticklabels()]
        assert labels == ["0\ntanh", "1\nsoftmax"]
        (saturated,) = display.ax_.get_legend().get_patches()
        assert saturated.get_hatch() == "//"  # also where no bar is drawn

    def test_labels_of_many_layers_stand_upright(self):
        net = fb.Network([4, *[6] * 9, 3], "relu", "cross_entropy", random_state=0)
        report = fb.diagnostics(net, np.eye(4), [0, 1, 2, 0])
        for cls in (fb.plots.GradientFlowDisplay, fb.plots.ActivationDisplay):
            display = cls.from_diagnostics(report)
            assert fits(display)
            labels = display.ax_.get_xticklabels()
            assert [label.get_rotation() for label in labels] == [90] * 10
            assert [labels[0].get_text(), labels[9].get_text()] == ["0 relu", "9 softmax"]

    def test_activations(self, measured):
        report = fb.diagnostics(*measured)
        display = fb.plots.ActivationDisplay.from_diagnostics(report)
        assert fits(display)
        (bars,) = display.ax_.containers
        means = [layer.activation_mean for layer in report.layers]
        np.testing.assert_allclose(bars[0].get_ydata().astype(float), means)
        segments = np.array(bars[2][0].get_segments())
        deviations = [layer.activation_std for layer in report.layers]
        np.testing.assert_allclose(np.ptp(segments[:, :, 1], axis=1), 2 * np.array(deviations))
        other = fb.plots.ActivationDisplay.from_network(*measured)
        assert other.report == report

    def test_network(self):
        net = fb.Network(
            [fb.Dense(3, 20, "relu"), fb.Dropout(0.25), fb.Dense(20, 2)], loss="cross_entropy"
        )
        display = fb.plots.NetworkDisplay.from_network(net)
        assert fits(display)
        assert texts(display.ax_) == ["3\ninputs", "20\nrelu\ndropout 0.25", "2\nsoftmax"]
        lines, *circles = display.ax_.collections
        assert len(lines.get_segments()) == 3 * 8 + 8 * 2
        assert [len(some.get_offsets()) for some in circles] == [3, 8, 3, 2]
        assert display.ax_.get_title() == "122 parameters, cross entropy loss"

    def test_a_deep_network(self):
        net = fb.Network([2, *[3] * 30, 1], "relu", "mse", random_state=0)
        display = fb.plots.NetworkDisplay.from_network(net)
        assert fits(display)
        assert display.figure_.get_figwidth() < 11
        shown = texts(display.ax_)
        assert len(shown) == 9
        assert shown[4] == "24\nmore layers"
        assert [shown[0], shown[3], shown[5], shown[8]] == [
            *("2\ninputs", "3\nrelu", "3\nrelu", "1\nidentity")
        ]
        lines = display.ax_.collections[0]
        assert len(lines.get_segments()) == 2 * 3 + 4 * 9 + 3  # none to the columns left out


class TestEveryDisplay:
    def make(self, name, history, **options):
        net, X, y = classifier(2 if "Boundary" in name else 4), np.eye(4), [0, 1, 2, 0]
        display = getattr(fb.plots, name)
        if name == "LossCurveDisplay":
            return display.from_history(history, **options)
        if name in ("WeightsDisplay", "NetworkDisplay"):
            return display.from_network(net, **options)
        return display.from_network(net, X[:, : net.sizes[0]], y, **options)

    @pytest.mark.parametrize("name", fb.plots.__all__)
    def test_draws_on_the_axes_given_and_again(self, name, history):
        _, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4), layout="constrained")
        display = self.make(name, history, ax=left)
        assert display.ax_ is left
        assert display.figure_ is left.figure
        assert not right.has_data()
        assert len(pyplot.get_fignums()) == 1
        assert display.plot(right) is display
        assert display.ax_ is right
        assert right.has_data()
        drawn(display)
        display.plot()
        assert len(pyplot.get_fignums()) == 2

    def test_without_matplotlib(self):
        code = (
            "import sys; sys.modules['matplotlib'] = None\n"
            "import fastbackprop as fb\n"
            "try: fb.plots.NetworkDisplay.from_network(fb.Network([2, 1]))\n"
            "except ImportError as error: print(error)"
        )
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert process.stdout == (
            "NetworkDisplay needs matplotlib, which is not installed: "
            'pip install "fastbackprop[plots]"\n'
        )


def test_pictures_call_classes_as_the_network_does():
    net = fb.Network([2, 3], loss="cross_entropy", random_state=0)
    X, y = np.eye(2), [0, 1]
    net.classes = ["$a", "b", 3]
    for display in (
        fb.plots.ConfusionMatrixDisplay.from_network(net, X, y),
        fb.plots.DecisionBoundaryDisplay.from_network(net, X, y, grid_resolution=5),
    ):
        assert display.class_names == [r"\$a", "b", "3"]
