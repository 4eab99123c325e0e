"""The check of any function's gradient: its verdicts, its errors and its report."""

import itertools
import warnings

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop.gradcheck import METHODS, GradientEntry, Verdict, check
from fastbackprop.gradcheck.differences import (
    Crossing,
    Estimate,
    Line,
    Sample,
    difference,
    extrapolated,
    noise_of,
)
from fastbackprop.gradcheck.verdicts import judge, relative_error, significant_digits

THETA = np.array([0.3, -1.7, 2.5, 0.0])


def loss(theta):
    return np.sum(np.sin(theta) * np.exp(0.5 * theta)) + theta[0] * theta[2]


def gradient(theta):
    result = np.exp(0.5 * theta) * (np.cos(theta) + 0.5 * np.sin(theta))
    result[0] += theta[2]
    result[2] += theta[0]
    return result


def verdicts(report):
    return [entry.verdict.value for entry in report.entries]


class TestVerdicts:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_right_gradient_passes(self, method):
        report = check(loss, gradient, THETA, method=method)
        assert report.ok
        assert set(verdicts(report)) == {"pass"}
        assert report.worst(1)[0].relative_error < (1e-9 if method == "central" else 1e-11)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("factor", [1.01, 0.99, 1 + 1e-5, -1.0, 0.0, np.nan, np.inf])
    def test_a_wrong_one_fails(self, method, factor):
        report = check(loss, lambda theta: factor * gradient(theta), THETA, method=method)
        assert not report.ok
        assert set(verdicts(report)) == {"fail"}

    @pytest.mark.parametrize("entry", range(4))
    def test_one_wrong_entry_is_named(self, entry):
        wrong = gradient(THETA)
        wrong[entry] *= 1.001
        report = check(loss, wrong, THETA)
        assert verdicts(report).count("fail") == 1
        worst = report.worst(1)[0]
        assert (worst.name, worst.index) == (f"theta[{entry}]", (entry,))
        assert worst.analytic == wrong[entry]
        assert worst.numeric == pytest.approx(wrong[entry] / 1.001, rel=1e-8)
        assert 5e-4 < worst.relative_error < 1.01e-3
        assert not check(loss, wrong, THETA, method="directional").ok

    def test_entries_much_smaller_than_others(self):
        scale = np.array([1.0, 1e-5, 1e-12])
        report = check(lambda theta: np.sum(scale * np.exp(theta)), scale.copy(), np.zeros(3))
        assert verdicts(report) == ["pass"] * 3
        report = check(lambda theta: np.sum(scale * np.exp(theta)), 1.01 * scale, np.zeros(3))
        assert verdicts(report) == ["fail", "fail", "pass"]

    @pytest.mark.parametrize("factor", [1e-200, 1e-10, 1e10, 1e200])
    def test_units_do_not_matter(self, factor):
        def scaled(theta):
            return factor * loss(theta)

        assert check(scaled, factor * gradient(THETA), THETA).ok
        report = check(scaled, 1.01 * factor * gradient(THETA), THETA)
        assert set(verdicts(report)) == {"fail"}

    def test_curvature_beyond_the_step_is_met_by_shorter_ones(self):
        theta = np.array([0.1, 0.2])
        report = check(
            lambda t: np.sum(np.sin(1e4 * t)), lambda t: 1e4 * np.cos(1e4 * t), theta, rtol=1e-5
        )
        assert verdicts(report) == ["pass", "pass"]

    def test_a_constant(self):
        assert check(lambda theta: 7.0, np.zeros(3), np.ones(3)).ok
        report = check(lambda theta: 7.0, np.array([0.0, 1e-3, 0.0]), np.ones(3))
        assert verdicts(report) == ["pass", "fail", "pass"]

    def test_a_step_too_short_is_inconclusive(self):
        report = check(loss, gradient, THETA, step=1e-15)
        assert set(verdicts(report)) <= {"inconclusive", "pass"}
        assert "inconclusive" in verdicts(report)

    def test_a_rough_function_is_inconclusive(self):
        def rough(theta):
            return np.sum(theta**2) + 1e-3 * np.sum(np.sin(1e13 * theta))

        theta = np.array([0.7, 1.3])
        report = check(rough, lambda theta: 2 * theta, theta)
        assert verdicts(report) == ["inconclusive"] * 2
        assert not report.ok
        with pytest.raises(fb.GradientMismatch, match="theta: nothing is decided"):
            report.raise_for_failure()
        assert str(report).startswith("Gradients UNDECIDED: 2 entries, central, rtol 1e-06; 2 inc")

    def test_the_edge_of_the_domain(self):
        theta = np.array([1e-7, 1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = check(lambda t: np.sum(np.log(t)), lambda t: 1 / t, theta, rtol=1e-4)
        assert verdicts(report) == ["pass", "pass"]


class TestKinks:
    @pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("method", ["central", "richardson"])
    def test_a_slope_between_both_sides(self, slope, method):
        theta = np.array([0.0, 0.6])
        report = check(
            lambda t: np.maximum(t, 0).sum(), np.array([slope, 1.0]), theta, method=method
        )
        assert verdicts(report) == ["kink", "pass"]
        assert report.ok

    @pytest.mark.parametrize("slope", [-0.1, 1.1, np.nan])
    def test_a_slope_beyond_both_sides(self, slope):
        report = check(lambda t: np.maximum(t, 0).sum(), np.array([slope]), np.zeros(1))
        assert verdicts(report) == ["fail"]

    @pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-7])
    def test_a_kink_nearby(self, distance):
        def kinked(theta):
            return np.abs(theta[0] - 0.5) + theta[0] ** 2

        theta = np.array([0.5 + distance])
        right = 1 + 2 * theta
        assert verdicts(check(kinked, right, theta)) == ["pass"]
        assert verdicts(check(kinked, 1.01 * right, theta)) == ["fail"]

    def test_a_jump_is_inconclusive(self):
        report = check(lambda t: float(t[0] > 0), np.zeros(1), np.zeros(1))
        assert verdicts(report) == ["inconclusive"]


class TestMeasurement:
    @staticmethod
    def line(f, at=0.0, rounding=0.0):
        values = np.array([at])

        def sample():
            return Sample(np.array([f(values[0])]), rounding=rounding)

        return Line(sample, [(values, 1.0)]), f(at)

    def test_the_uncertainty_of_an_extrapolation_is_a_bound(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            a, b, place = rng.uniform(0.1, 3, 3)

            def f(x, a=a, b=b):
                return np.sin(a * x) * np.exp(-b * x) + 1 / (1 + x * x)

            exact = (a * np.cos(a * place) - b * np.sin(a * place)) * np.exp(-b * place)
            exact -= 2 * place / (1 + place**2) ** 2
            line, home = self.line(f, place, rounding=1e-15)
            estimate = extrapolated(line, np.array([home]), 1.0)
            assert abs(estimate.value - exact) <= estimate.uncertainty < 1e-10

    @pytest.mark.parametrize("level", [1e-15, 1e-12, 1e-8])
    def test_noise(self, level):
        rng = np.random.default_rng(0)
        line, _ = self.line(lambda x: 3 + x + level * rng.standard_normal())
        assert level / 3 < noise_of(line) < 3 * level

    @pytest.mark.parametrize("spacing", [2.0**-52, 7e-13, 1e-9])
    def test_noise_of_values_that_are_rounded_much(self, spacing):
        line, _ = self.line(lambda x: spacing * np.round((1 + 1.7 * x + x * x) / spacing))
        assert spacing / 12 < noise_of(line) < spacing  # uniform errors: spacing / √12

    @pytest.mark.parametrize("steepness", [1.0, 1e3, 1e6])
    def test_steepness_is_no_noise(self, steepness):
        line, _ = self.line(lambda x: np.sin(steepness * x) + 1)
        assert noise_of(line) < 1e-15

    def test_a_kink_is_no_noise(self):
        line, _ = self.line(lambda x: abs(x - 2.0**-20 - 2.0**-24) + 1)
        assert noise_of(line) < 1e-15

    def test_a_line_puts_everything_back(self):
        values = np.array([0.1, 0.2, 0.3])

        def fail():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Line(fail, [(values, np.ones(3))]).at(1.0)
        assert values.tolist() == [0.1, 0.2, 0.3]

    def test_the_step_that_was_taken_is_the_one_that_counts(self):
        line, home = self.line(lambda x: 3 * x, 1000.0)
        assert difference(line, np.array([home]), 1e-10).value == 3.0

    @pytest.mark.parametrize("place", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
    def test_bends(self, place):
        values = np.array([place])

        def sample():
            x = values[0]
            crossing = (Crossing.OVER_BEND if place else Crossing.FROM_BEND) if x <= 0 else 0
            return Sample(np.array([x * abs(x) + np.sin(x)]), Crossing(crossing), 8e-17)

        line = Line(sample, [(values, 1.0)])
        estimate = extrapolated(line, sample().terms, 1.0)
        assert abs(estimate.value - np.cos(place) - 2 * place) <= estimate.uncertainty
        assert estimate.uncertainty < (1e-6 if place else 1e-10)


@pytest.mark.parametrize(
    ("loss", "grad", "theta", "error", "message"),
    [
        (loss, gradient, np.arange(4), TypeError, "theta has dtype int64; .*float64"),
        (loss, gradient, THETA.astype("float32"), TypeError, "float32"),
        (loss, gradient, ["a"], TypeError, "dtype"),
        (loss, gradient, THETA.reshape(2, 2), ValueError, r"\(2, 2\); .*theta.ravel"),
        (loss, gradient, np.zeros(0), ValueError, "empty"),
        (loss, gradient, [0.0, np.nan], ValueError, r"theta\[1\] is nan"),
        (lambda t: np.nan, gradient, THETA, ValueError, "loss returned nan"),
        (lambda t: -np.inf, gradient, THETA, ValueError, "loss returned -inf"),
        (lambda t: t, gradient, THETA, ValueError, r"shape \(4,\); .*sum or the mean"),
        (lambda t: t[:1], gradient, THETA, ValueError, r"shape \(1,\)"),
        (lambda t: 1j, gradient, THETA, TypeError, "real number"),
        (lambda t: None, gradient, THETA, TypeError, "None"),
        (3.0, gradient, THETA, TypeError, "loss must be a function"),
        (loss, lambda t: t[:3], THETA, ValueError, r"\(3,\), but theta \(4,\)"),
        (loss, np.ones((4, 1)), THETA, ValueError, r"\(4, 1\)"),
        (loss, lambda t: None, THETA, TypeError, "dtype object"),
    ],
)
def test_refusals(loss, grad, theta, error, message):
    with pytest.raises(error, match=message):
        check(loss, grad, theta)


def test_a_random_loss_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"for the same theta.*seed"):
        check(lambda t: loss(t) + rng.normal(), gradient, THETA)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "centrel"}, ValueError, "did you mean 'central'"),
        ({"method": 3}, TypeError, "method must be a name"),
        ({"step": 0}, ValueError, "step must be a positive number, got 0"),
        ({"rtol": -1e-6}, ValueError, "rtol must be a positive number"),
        ({"rtol": "small"}, TypeError, "rtol"),
        ({"max_entries": 0}, ValueError, "max_entries must be a positive integer"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)
def test_refused_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        check(loss, gradient, THETA, **arguments)


def test_a_gradient_that_is_not_the_same_twice():
    calls = []

    def unsteady(theta):
        calls.append(theta)
        return gradient(theta) * (1 + 1e-15 * len(calls))

    report = check(loss, unsteady, THETA)
    assert set(verdicts(report)) == {"pass"}
    assert not report.reproducible
    assert not report.ok
    with pytest.raises(fb.GradientMismatch, match=r"second backward pass gave \d other numbers"):
        report.raise_for_failure()


def test_a_loss_that_writes_into_its_argument():
    def greedy(theta):
        value = loss(theta)
        theta[:] = 0
        return value

    assert check(greedy, gradient, THETA).ok
    assert THETA.tolist() == [0.3, -1.7, 2.5, 0.0]


def test_a_sample_of_entries():
    theta = np.linspace(-1, 1, 100)
    report = check(lambda t: np.exp(t).sum(), np.exp, theta, max_entries=10)
    places = [entry.index[0] for entry in report.entries]
    assert len(set(places)) == 10
    assert places == sorted(places)
    other = check(lambda t: np.exp(t).sum(), np.exp, theta, max_entries=10, seed=1)
    assert [entry.index[0] for entry in other.entries] != places
    assert "10/100" in str(report)


class TestReport:
    @pytest.fixture
    def failed(self):
        wrong = gradient(THETA) * np.array([1.0, 1.01, 1.0, 0.5])
        return check(loss, wrong, THETA)

    def test_raises(self, failed):
        message = (
            r"^theta\[3\]: the gradient is 0.5, finite differences give 1 "
            r"\(relative error 5e-01 > 1e-06\)$"
        )
        with pytest.raises(fb.GradientMismatch, match=message):
            failed.raise_for_failure()
        assert issubclass(fb.GradientMismatch, AssertionError)
        check(loss, gradient, THETA).raise_for_failure()

    def test_worst(self, failed):
        assert [entry.index[0] for entry in failed.worst(2)] == [3, 1]
        assert len(failed.worst()) == 4

    def test_an_inconclusive_entry_comes_after_failures_only(self):
        def entry(verdict, error):
            return GradientEntry(None, "theta", (0,), 0.0, 0.0, error, verdict)

        entries = [
            entry(Verdict.PASS, 1e-9),
            entry(Verdict.INCONCLUSIVE, float("nan")),
            entry(Verdict.FAIL, 1e-3),
            entry(Verdict.KINK, 1e-8),
        ]
        report = fb.GradientCheckReport(
            entries, [], 0, totals={"theta": 4}, method="central", rtol=1e-6
        )
        assert [e.verdict.value for e in report.worst()] == ["fail", "inconclusive", "kink", "pass"]

    def test_text(self, failed):
        text = str(failed)
        assert text.startswith("Gradients FAILED: 2 of 4 entries, central, rtol 1e-06\n")
        assert max(map(len, text.splitlines())) <= 80
        assert "theta[1]: the gradient is" in text
        (row,) = (line for line in text.splitlines() if line.startswith("theta  "))
        assert row.split() == ["theta", "4", "2", "0", "0", "2", "5.0e-01"]
        assert repr(failed) == (
            "<GradientCheckReport: FAILED: 2 of 4 entries, central, rtol 1e-06>"
        )

    def test_many_failures_are_counted(self):
        report = check(lambda t: np.exp(t).sum(), np.zeros(100), np.ones(100))
        assert "95 more entries fail" in str(report)

    def test_html(self, failed):
        html = failed._repr_html_()
        assert html.count("<tr>") == html.count("</tr>") == 2
        assert "FAILED" in html
        assert "5e-01 &gt; 1e-06" in html

    def test_plot(self, failed, tmp_path):
        pytest.importorskip("matplotlib").use("agg")
        from matplotlib import pyplot

        axes = failed.plot()
        assert axes is pyplot.gca()  # so that pyplot.show() shows it
        assert axes.get_yscale() == "log"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["theta"]
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["pass (2)", "fail (2)"]
        (tolerance,) = axes.get_lines()
        assert set(tolerance.get_ydata()) == {1e-6}
        low, high = axes.get_ylim()
        assert low < 1e-16
        assert high > 0.5
        assert failed.plot(axes) is axes
        axes.figure.savefig(tmp_path / "check.png")
        pyplot.close("all")

    def test_plot_of_many_tensors(self):
        pytest.importorskip("matplotlib").use("agg")
        from matplotlib import pyplot

        net = fb.Network([3] * 16, "tanh", random_state=0, dtype="float64")
        report = fb.check_gradients(net, np.ones((2, 3)), np.zeros((2, 3)), max_per_tensor=1)
        axes = report.plot()
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels[:3] == ["w0", "w1", "w2"]  # every second one, so that none overlap
        axes.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        pyplot.close("all")

    @pytest.mark.parametrize("count", [-1, 0, True, 2.5])
    def test_worst_of_no_number(self, failed, count):
        with pytest.raises((TypeError, ValueError), match="count"):
            failed.worst(count)

    def test_an_infinite_gradient_is_a_failure_without_a_warning(self):
        report = check(loss, np.array([np.inf, 0.0, 0.0, 0.0]), THETA)
        assert verdicts(report)[0] == "fail"
        assert "inf" in str(report)

    def test_plot_without_matplotlib(self, failed, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"fastbackprop\[plots\]"):
            failed.plot()


@pytest.mark.parametrize(
    ("a", "b", "digits"),
    [(1.0, 2.0, 3), (0.0123, 0.0124, 4), (1.0, 1.00001, 7), (1, 1 + 2**-52, 17), (0, 0, 3)],
)
def test_significant_digits_tell_numbers_apart(a, b, digits):
    assert significant_digits(a, b) <= digits
    assert a == b or f"{a:.{significant_digits(a, b)}g}" != f"{b:.{significant_digits(a, b)}g}"


def test_errors_are_relative_to_the_larger_value():
    assert relative_error(1.0, 1.1) == pytest.approx(0.1 / 1.1)
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(1e-8, 0.0) == 1.0
    assert relative_error(1e-8, 0.0, floor=0.1) == pytest.approx(1e-7)
    assert relative_error([np.nan, np.inf, np.inf], [1.0, 1.0, np.inf]).tolist() == [np.inf] * 3


def test_rounding_excuses_a_difference_only_while_it_is_small():
    def verdict(difference, uncertainty, scale=1.0):
        estimate = Estimate(1.0, uncertainty, 0.0, False)
        return judge(1.0 + difference, estimate, scale, 1e-6)[1]

    assert verdict(5e-7, 0.0) is Verdict.PASS
    assert verdict(1e-5, 0.0) is Verdict.FAIL
    assert verdict(1e-5, 2e-5) is Verdict.PASS
    assert verdict(1e-5, 2e-3) is Verdict.INCONCLUSIVE
    assert verdict(1e-5, 2e-3, scale=2e3) is Verdict.PASS
    assert verdict(1e-2, 2e-3) is Verdict.FAIL
    assert verdict(1e-2, np.inf) is Verdict.INCONCLUSIVE
    assert verdict(np.nan, np.inf) is Verdict.FAIL
