"""Gradients that are hard to judge: steep, flat, saturated, fitted, tiny, or beside a kink."""

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop.gradcheck import GradientEntry, Verdict, check
from fastbackprop.probe import Probe


def verdicts(report):
    return {entry.verdict.value for entry in report.entries}


class TestPlateausAndSteepness:
    @staticmethod
    def bump(theta):
        return float(np.exp(-((1e4 * theta[0]) ** 2)))

    @staticmethod
    def slope(theta):
        return -2e8 * theta * np.exp(-((1e4 * theta) ** 2))

    @pytest.mark.parametrize("method", ["central", "richardson", "directional"])
    def test_two_slopes_on_a_plateau_are_no_estimate(self, method):
        theta = np.array([5e-5])
        assert check(self.bump, self.slope, theta, method=method).ok
        assert verdicts(check(self.bump, lambda t: 0 * t, theta, method=method)) == {"fail"}
        wrong = check(self.bump, lambda t: 1.001 * self.slope(t), theta, method=method)
        assert verdicts(wrong) == {"fail"}

    @pytest.mark.parametrize("place", [0.1, 0.37, 1.3])
    @pytest.mark.parametrize("steepness", [1e3, 1e5, 1e7, 2 * np.pi * 2**9])
    def test_many_periods_within_a_step(self, steepness, place):
        theta = np.array([place])

        def loss(t):
            return float(np.sin(steepness * t[0]))

        def gradient(t):
            return steepness * np.cos(steepness * t)

        assert "fail" not in verdicts(check(loss, gradient, theta, rtol=1e-4))
        assert not check(loss, lambda t: 0 * t, theta, rtol=1e-4).ok
        assert not check(loss, lambda t: 1.01 * gradient(t), theta, rtol=1e-4).ok

    def test_a_steep_network(self):
        layers = [fb.Dense(1, 2, "tanh"), fb.Dense(2, 1)]
        net = fb.Network(layers, loss="mse", dtype="float64", random_state=0)
        net.weights[0][...] = [[1e4, 1e4]]
        net.biases[0][...] = [1, -1]
        net.weights[1][...] = [[1], [-1]]
        report = fb.check_gradients(net, [[5e-5]], [[0.3]])
        report.raise_for_failure()
        assert "inconclusive" not in verdicts(report)


class TestLossesNextToNothing:
    @pytest.mark.parametrize("loss", ["mse", "quadratic", "huber"])
    @pytest.mark.parametrize("residual", [0.0, 1e-14, 1e-12, 1e-10, 1e-6])
    def test_targets_that_are_met(self, residual, loss, monkeypatch):
        net = fb.Network([3, 5, 2], "tanh", loss, random_state=0, dtype="float64")
        X = np.random.default_rng(0).normal(size=(6, 3))
        y = net.predict(X) + residual
        report = fb.check_gradients(net, X, y)
        report.raise_for_failure()
        assert "inconclusive" not in verdicts(report)
        if residual == 1e-6:
            spoil(monkeypatch, lambda g: g * 1.01)
            assert not fb.check_gradients(net, X, y).ok

    def test_a_function_at_its_minimum(self):
        def loss(t):
            return float(((np.sin(t) - np.sin(0.3)) ** 2).sum())

        def gradient(t):
            return 2 * (np.sin(t) - np.sin(0.3)) * np.cos(t)

        for place in (0.3, 0.3 + 1e-12, 0.3 + 1e-8):
            assert check(loss, gradient, np.full(3, place)).ok
            assert not check(loss, lambda t: gradient(t) + 1e-6, np.full(3, place)).ok

    def test_huber_of_large_outputs(self):
        net = fb.Network([3, 2], "identity", "huber", random_state=0, dtype="float64")
        net.biases[0][...] = 1e11
        X = np.random.default_rng(0).normal(size=(4, 3))
        report = fb.check_gradients(net, X, net.predict(X) - 1.0)
        assert "fail" not in verdicts(report)

    @pytest.mark.parametrize("gap", [10, 30, 36, 40, 100, 300, 700, 800])
    def test_saturated_cross_entropy(self, gap):
        net = fb.Network([fb.Dense(1, 2)], loss="cross_entropy", dtype="float64", random_state=0)
        net.weights[0][...] = [[1.0, -1.0]]
        net.biases[0][...] = [gap, 0.0]
        for X in ([[0.0]], [[0.7]]):
            fb.check_gradients(net, X, [0]).raise_for_failure()
            fb.check_gradients(net, X, [1]).raise_for_failure()

    @pytest.mark.parametrize("logit", [-30.0, 20.0, 30.0, 40.0, 700.0])
    def test_saturated_binary_cross_entropy(self, logit):
        layers = [fb.Dense(1, 1)]
        net = fb.Network(layers, loss="binary_cross_entropy", dtype="float64", random_state=0)
        net.weights[0][...] = 1.0
        net.biases[0][...] = logit
        for target in (0.0, 1.0):
            fb.check_gradients(net, [[0.3]], [[target]]).raise_for_failure()

    def test_a_classifier_that_has_learned_everything(self):
        rng = np.random.default_rng(5)
        X, y = rng.normal(size=(40, 2)) * 0.3, np.arange(40) % 2
        X[:, 0] += np.where(y == 1, 3, -3)
        net = fb.Network([2, 16, 2], "relu", "cross_entropy", random_state=5)
        net.fit(X, y, epochs=500, batch_size=8, optimizer=fb.Adam(0.05), verbose=0)
        fb.check_gradients(net, X, y).raise_for_failure()


def spoil(monkeypatch, change):
    """Make each backward pass give another gradient of the parameters."""
    differentiate = Probe.differentiate

    def wrong(probe):
        loss = differentiate(probe)
        weights = probe._plan.weights(probe.parameter_gradients)[0]
        weights[...] = change(weights)
        return loss

    monkeypatch.setattr(Probe, "differentiate", wrong)


class TestSmallEntries:
    def test_beside_a_large_one(self):
        def loss(t):
            return float(t[0] + 1e-7 * np.sin(t[1]))

        theta = np.array([0.5, 0.3])
        right = np.array([1.0, 1e-7 * np.cos(0.3)])
        assert check(loss, right, theta).ok
        report = check(loss, np.array([1.0, 0.0]), theta)
        assert [entry.verdict.value for entry in report.entries] == ["pass", "fail"]
        assert not check(loss, right * [1.0, 1.01], theta).ok

    def test_of_a_feature_of_another_unit(self, monkeypatch):
        net = fb.Network([2, 4, 1], "tanh", "mse", random_state=0, dtype="float64")
        net.weights[0][0] *= 1e-4
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(10, 2)) * [1e4, 1e-3], rng.normal(size=(10, 1))
        fb.check_gradients(net, X, y).raise_for_failure()
        spoil(monkeypatch, lambda g: g * [[1.0], [0.0]])
        report = fb.check_gradients(net, X, y)
        failed = {e.index for e in report.entries if e.verdict == "fail" and e.layer == 0}
        assert failed == {(1, j) for j in range(4)}

    def test_of_a_row_that_weighs_little(self, monkeypatch):
        net = fb.Network([3, 4, 2], "tanh", "mse", random_state=0, dtype="float64")
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
        weights = np.array([1.0, 1e-7, 1.0, 1.0])
        fb.check_gradients(net, X, y, sample_weight=weights).raise_for_failure()
        own = Probe.input_gradients.fget

        def wrong(probe):
            return own(probe) * [[1.0], [0.0], [1.0], [1.0]]

        monkeypatch.setattr(Probe, "input_gradients", property(wrong))
        report = fb.check_gradients(net, X, y, sample_weight=weights)
        failed = {e.index[0] for e in report.entries if e.verdict == "fail"}
        assert failed == {1}


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-10, 3e-10, 1e-9, 3e-9, 1e-8, 1e-7, 1e-5])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("method", ["central", "richardson"])
def test_a_kink_of_a_function_is_no_failure(method, side, distance):
    def loss(t):
        return float(np.exp(t[0]) + max(t[0] - 0.3, 0.0))

    def gradient(t):
        return np.exp(t) + (t > 0.3)

    theta = np.array([0.3 + side * distance])
    assert "fail" not in verdicts(check(loss, gradient, theta, method=method))
    assert not check(loss, lambda t: gradient(t) + 2.0, theta, method=method).ok


class TestWhatIsUndecided:
    def test_a_tensor_of_which_nothing_is_known(self):
        entries = [
            GradientEntry(0, "weight", (0, 0), 1.0, 1.0, 1e-9, Verdict.PASS),
            GradientEntry(0, "weight", (0, 1), 1.0, 2.0, 0.5, Verdict.INCONCLUSIVE),
            GradientEntry(0, "bias", (0,), 1.0, 2.0, 0.5, Verdict.INCONCLUSIVE),
        ]
        totals = {"layers.0.weight": 2, "layers.0.bias": 1}
        report = fb.GradientCheckReport(entries, [], 0, totals=totals, method="central", rtol=1e-6)
        assert not report.ok
        text = str(report)
        assert text.startswith("Gradients UNDECIDED: 3 entries, central, rtol 1e-06; 2 inconclus")
        row = next(line for line in text.splitlines() if line.startswith("layers.0.bias"))
        assert row.split() == ["layers.0.bias", "1", "0", "0", "1", "0", "-"]
        with pytest.raises(fb.GradientMismatch, match=r"layers\.0\.bias: nothing is decided"):
            report.raise_for_failure()
        rest = fb.GradientCheckReport(
            entries[:2], [], 0, totals=totals, method="central", rtol=1e-6
        )
        assert rest.ok
        assert str(rest).startswith("Gradients passed: 2 entries, central, rtol 1e-06; 1 inconcl")

    @pytest.mark.parametrize("method", ["central", "directional"])
    def test_a_huge_weight_hides_nothing_else(self, method):
        net = fb.Network([2, 3, 1], "tanh", "mse", random_state=0, dtype="float64")
        net.weights[0][0, 0] = 1e30
        X, y = np.random.default_rng(0).normal(size=(5, 2)), np.zeros((5, 1))
        fb.check_gradients(net, X, y, method=method).raise_for_failure()

    def test_a_gradient_below_all_rounding(self):
        net = fb.Network([2, 3, 2], "tanh", "mse", random_state=0)
        net.weights[1][...] *= 1e-40
        X = np.random.default_rng(0).normal(size=(4, 2))
        report = fb.check_gradients(net, X, np.ones((4, 2)))
        assert "fail" not in verdicts(report)
        assert not report.ok  # nothing is known of layer 0
        assert all(comparison.ok for comparison in report.comparisons)  # float32 underflows

    def test_no_row_left_to_compare_in_float32(self):
        net = fb.Network([1, 4, 1], "relu", "mse", random_state=0)
        net.weights[0][...] = 1.0
        net.biases[0][...] = -0.1  # of float32, so that 0.1 of float64 is beside it
        report = fb.check_gradients(net, np.array([[0.1 + 2e-9]]), [0.0])
        assert "gradients in float32: not compared" in str(report)
