"""Networks whose gradients are right pass, whatever they are made of; wrong ones do not."""

import copy
import itertools

import numpy as np
import pytest
from comparison import ELEMENTWISE, KINKED, LOSSES, bits, make_targets

import fastbackprop as fb
from fastbackprop import single_step
from fastbackprop.epochs import Epochs
from fastbackprop.gradcheck import Verdict, comparisons, worst_errors
from fastbackprop.probe import Probe

# Around a vector, two vectors and a tile, of either type, on any machine.
SIZES = (1, 4, 7, 8, 9, 15, 16, 17, 31, 33)


def data_for(net, rows, seed=0):
    rng = np.random.default_rng(seed)
    y = make_targets(rng, net.loss_function.name, rows, net.sizes[-1])
    return rng.normal(size=(rows, net.sizes[0])), y


def count(report, verdict):
    return sum(entry.verdict == verdict for entry in report.entries)


def chain(number, activation, loss, n_layers, bias, dropout):
    """Layers whose sizes and places differ from one number to the next."""
    sizes = [SIZES[(3 * number + 7 * i) % len(SIZES)] for i in range(n_layers + 1)]
    layers = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        if dropout and i % 2 == number % 2:
            layers.append(fb.Dropout(0.3))
        last = i == n_layers - 1
        function = None if last and fb.Loss(loss).fused else activation
        layers.append(fb.Dense(n_in, n_out, function, bias=bias or (last and number % 3 == 0)))
    return layers


CASES = list(itertools.product(ELEMENTWISE, LOSSES, ("float32", "float64")))


@pytest.mark.parametrize(("activation", "loss", "dtype"), CASES)
def test_every_kind_of_network_passes(activation, loss, dtype):
    number = CASES.index((activation, loss, dtype))
    for variant in range(2):
        k = 2 * number + variant
        n_layers = 1 + k % 6
        layers = chain(k, activation, loss, n_layers, bias=variant == 0, dropout=k % 4 > 1)
        net = fb.Network(layers, loss=loss, random_state=k, dtype=dtype)
        X, y = data_for(net, rows=(1, 5, 8, 17)[k % 4], seed=k)
        weights = np.random.default_rng(k).uniform(0, 2, len(X)) if k % 3 == 0 else None
        report = fb.check_gradients(
            net, X, y, sample_weight=weights, max_per_tensor=25, seed=k, method=METHOD_OF[k % 7]
        )
        report.raise_for_failure()
        assert count(report, "inconclusive") == 0
        if activation not in KINKED and loss not in ("mae", "quantile"):
            assert count(report, "pass") == len(report.entries)
            assert report.worst(1)[0].relative_error < 1e-7
        names = [comparison.what for comparison in report.comparisons]
        assert "training step (SGD, weight_decay)" in names
        assert ("gradients in float32" in names) == (dtype == "float32")


METHOD_OF = ("central", "central", "central", "central", "central", "richardson", "directional")


@pytest.mark.parametrize("n_layers", range(1, 7))
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_depths(n_layers, activation):
    layers = chain(n_layers, activation, "mse", n_layers, bias=True, dropout=False)
    net = fb.Network(layers, loss="mse", random_state=0, dtype="float64")
    report = fb.check_gradients(net, *data_for(net, 9), max_per_tensor=40)
    report.raise_for_failure()
    tensors = {f"layers.{i}.{name}" for i in range(n_layers) for name in ("weight", "bias")}
    assert {summary.name for summary in report.by_tensor()} == tensors | {"X"}


def test_a_product_in_several_blocks():
    # More units than KC, and weights and rows for which both matrices of dx are packed.
    net = fb.Network([3, 600, 530, 5], "tanh", "cross_entropy", random_state=0, dtype="float64")
    X, y = data_for(net, 200)
    report = fb.check_gradients(net, X, y, max_per_tensor=15)
    report.raise_for_failure()
    assert report.worst(1)[0].relative_error < 1e-7


@pytest.mark.parametrize("by_inputs", [0, 1, 2])
def test_both_ways_to_divide_a_step_of_training(by_inputs, monkeypatch):
    monkeypatch.setattr("fastbackprop.epochs.layers_by_inputs", lambda *_: by_inputs)
    net = fb.Network([300, 270, 33, 5], "gelu", "cross_entropy", random_state=0)
    report = fb.check_gradients(net, *data_for(net, 17), max_per_tensor=20)
    report.raise_for_failure()
    (epoch,) = (c for c in report.comparisons if c.what == "training epoch (two steps)")
    assert 0 < epoch.error < 1e-8


def test_integer_inputs_and_rescaling():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (12, 9), dtype=np.uint8)
    for layers in (
        [fb.Rescaling(1 / 255, -0.5), fb.Dense(9, 6, "tanh"), fb.Dense(6, 3)],
        [fb.Dense(9, 6, "sigmoid"), fb.Dense(6, 3)],
    ):
        net = fb.Network(layers, loss="cross_entropy", random_state=0)
        report = fb.check_gradients(net, X, rng.integers(0, 3, 12))
        report.raise_for_failure()
        assert count(report, "pass") == len(report.entries)


def test_the_table_of_activations_and_losses():
    seen = set()
    for activation, loss, report in worst_errors():
        seen.add((activation, loss))
        report.raise_for_failure()
        assert report.worst(1)[0].relative_error < 1e-7
    assert seen == set(itertools.product(ELEMENTWISE, LOSSES))


class TestKinks:
    def relu_net(self, **options):
        net = fb.Network([4, 6, 5, 3], "relu", "mse", random_state=0, dtype="float64")
        X, y = data_for(net, 6)
        return net, X, y

    @pytest.mark.parametrize("method", ["central", "richardson", "directional"])
    def test_units_exactly_on_a_kink(self, method):
        net, X, y = self.relu_net()
        X[1] = X[4] = 0  # biases are 0, too
        report = fb.check_gradients(net, X, y, method=method)
        report.raise_for_failure()
        kinks = [entry for entry in report.entries if entry.verdict is Verdict.KINK]
        tensors = {entry.tensor_name for entry in kinks}
        assert {"layers.0.bias", "X"} <= tensors
        if method != "directional":
            assert {entry.index[0] for entry in kinks if entry.tensor == "X"} == {1, 4}
            assert "layers.0.weight" not in tensors  # 0 · w does not move anything

    def test_conventions_that_are_no_slope(self):
        # The loss is x² + x + 1 here, but with relu'(0) = 0 the gradient is that of x² + 1.
        layers = [fb.Dense(1, 2, "relu", bias=False), fb.Dense(2, 1, bias=False)]
        net = fb.Network(layers, loss="quadratic", dtype="float64", random_state=0)
        net.weights[0][...] = [[1.0, -1.0]]
        net.weights[1][...] = [[1.0], [-1.0]]
        X = np.zeros((1, 1))
        assert net.input_gradient(X, [-1.0])[0, 0] == 0.0
        report = fb.check_gradients(net, X, [-1.0])
        report.raise_for_failure()
        (entry,) = (entry for entry in report.entries if entry.tensor == "X")
        assert entry.verdict is Verdict.KINK

    @pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    @pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
    def test_units_close_to_a_kink(self, activation, distance, monkeypatch):
        net = fb.Network([4, 6, 3], activation, "mse", random_state=0, dtype="float64")
        X, y = data_for(net, 6)
        X[2] = 0
        net.biases[0][...] = distance
        report = fb.check_gradients(net, X, y)
        report.raise_for_failure()
        assert count(report, "inconclusive") == 0
        wrong_by(monkeypatch, 1.01, "bias", 0)
        report = fb.check_gradients(net, X, y)
        assert {entry.verdict for entry in report.entries if entry.tensor_name == "layers.0.bias"
                } == {"fail"}  # fmt: skip

    def test_an_error_on_a_kink_is_found_beside_it(self, monkeypatch):
        net, X, y = self.relu_net()
        X[1] = 0
        wrong_by(monkeypatch, 1.01, "bias", 0)
        report = fb.check_gradients(net, X, y)
        failed = {entry.tensor_name for entry in report.entries if entry.verdict == "fail"}
        assert failed == {"layers.0.bias"}
        with pytest.raises(fb.GradientMismatch, match=r"layers\.0\.bias\[\d\]: backward gives"):
            report.raise_for_failure()

    def test_a_target_that_is_met(self):
        net = fb.Network([3, 4, 2], "tanh", "mae", random_state=0, dtype="float64")
        X, _ = data_for(net, 4)
        report = fb.check_gradients(net, X, net.predict(X))
        report.raise_for_failure()
        assert count(report, "kink") > 0

    @pytest.mark.parametrize("alpha", [0.3, 1.0])
    def test_elu(self, alpha):
        layers = [fb.Dense(3, 5, fb.Activation("elu", alpha)), fb.Dense(5, 2)]
        net = fb.Network(layers, loss="mse", random_state=0, dtype="float64")
        X, y = data_for(net, 4)
        X[0] = 0
        report = fb.check_gradients(net, X, y)
        report.raise_for_failure()
        assert count(report, "kink") == (0 if alpha == 1.0 else 5 + 3)

    def test_huber_at_delta(self):
        net = fb.Network([3, 2], "identity", "huber", random_state=0, dtype="float64")
        X, _ = data_for(net, 4)
        report = fb.check_gradients(net, X, net.predict(X) - 1.0)
        report.raise_for_failure()
        assert count(report, "pass") == len(report.entries)

    def test_a_dead_network(self):
        net, X, y = self.relu_net()
        net.biases[0][...] = -100
        report = fb.check_gradients(net, X, y)
        report.raise_for_failure()
        dead = [entry for entry in report.entries if entry.layer == 0]
        assert {(entry.analytic, entry.numeric, entry.verdict) for entry in dead} == {
            (0.0, 0.0, "pass")
        }

    def test_a_network_of_zeros(self):
        net = fb.Network([3, 4, 2], "relu", "mse", init="zeros", dtype="float64")
        report = fb.check_gradients(net, *data_for(net, 5))
        report.raise_for_failure()
        assert count(report, "kink") > 0


def wrong_by(monkeypatch, factor, tensor, layer):
    """Make every backward pass give a multiple of one layer's gradient."""
    differentiate = Probe.differentiate

    def wrong(probe):
        loss = differentiate(probe)
        plan = probe._plan
        parts = plan.weights if tensor == "weight" else plan.biases
        parts(probe.parameter_gradients)[layer][...] *= factor
        return loss

    monkeypatch.setattr(Probe, "differentiate", wrong)


class TestWrongGradients:
    @pytest.mark.parametrize("method", ["central", "richardson", "directional"])
    @pytest.mark.parametrize("tensor", ["weight", "bias"])
    @pytest.mark.parametrize("layer", range(3))
    @pytest.mark.parametrize("factor", [1.01, 0.99, 0.0, -1.0, np.nan])
    def test_are_named(self, factor, layer, tensor, method, monkeypatch):
        net = fb.Network([4, 6, 5, 3], "gelu", "cross_entropy", random_state=0, dtype="float64")
        X, y = data_for(net, 6)
        wrong_by(monkeypatch, factor, tensor, layer)
        report = fb.check_gradients(net, X, y, method=method)
        name = f"layers.{layer}.{tensor}"
        failed = {s.name for s in report.by_tensor() if s.counts[Verdict.FAIL]}
        assert failed == ({name} if method != "directional" else {name, "all"})
        (own,) = (summary for summary in report.by_tensor() if summary.name == name)
        assert own.counts[Verdict.FAIL] == own.checked
        assert not any(comparison.ok for comparison in report.comparisons)

    def test_of_the_inputs(self, monkeypatch):
        net = fb.Network([4, 3], "tanh", random_state=0)
        X, y = data_for(net, 6)
        gradients = Probe.input_gradients.fget
        monkeypatch.setattr(
            Probe, "input_gradients", property(lambda probe: gradients(probe) * 0.99)
        )
        report = fb.check_gradients(net, X, y)
        assert {e.tensor_name for e in report.entries if e.verdict == "fail"} == {"X"}
        assert fb.check_gradients(net, X, y, inputs=False).ok

    def test_of_training_only(self, monkeypatch):
        net = fb.Network([4, 5, 3], "tanh", random_state=0, dtype="float64")
        step = single_step.step

        def wrong(state, data, optimizer):
            before = state.params.copy()
            loss = step(state, data, optimizer)
            own, old = state.plan.weights(state.params)[1], state.plan.weights(before)[1]
            own[2, 1] += 1e-5 * (own[2, 1] - old[2, 1])
            return loss

        monkeypatch.setattr(comparisons, "step", wrong)
        report = fb.check_gradients(net, *data_for(net, 6))
        assert not report.ok
        assert count(report, "pass") == len(report.entries)
        message = r"training step \(SGD\): layers\.1\.weight\[2, 1\] is .* instead of"
        with pytest.raises(fb.GradientMismatch, match=message):
            report.raise_for_failure()

    def test_of_a_second_step_only(self, monkeypatch):
        net = fb.Network([4, 5, 3], "tanh", random_state=0, dtype="float64")
        run = Epochs.run

        def wrong(epochs):
            before = epochs._state.params.copy()
            logs = run(epochs)
            epochs._state.params[...] += 1e-4 * (epochs._state.params - before)
            return logs

        monkeypatch.setattr(Epochs, "run", wrong)
        report = fb.check_gradients(net, *data_for(net, 6))
        wrong = [comparison.what for comparison in report.comparisons if not comparison.ok]
        assert wrong == ["training epoch (two steps)"]

    def test_in_float32_only(self, monkeypatch):
        net = fb.Network([4, 5, 3], "tanh", random_state=0)
        differentiate = Probe.differentiate

        def wrong(probe):
            loss = differentiate(probe)
            if probe.parameter_gradients.dtype == np.float32:
                probe._plan.biases(probe.parameter_gradients)[0][...] *= 1.01
            return loss

        monkeypatch.setattr(Probe, "differentiate", wrong)
        report = fb.check_gradients(net, *data_for(net, 6))
        assert count(report, "pass") == len(report.entries)
        with pytest.raises(fb.GradientMismatch, match=r"gradients in float32: layers\.0\.bias"):
            report.raise_for_failure()

    def test_that_change_from_one_pass_to_the_next(self, monkeypatch):
        net = fb.Network([4, 5, 3], "tanh", random_state=0, dtype="float64")
        calls = []
        differentiate = Probe.differentiate

        def unsteady(probe):
            calls.append(probe)
            loss = differentiate(probe)
            probe.parameter_gradients[0] *= 1 + 1e-15 * len(calls)
            return loss

        monkeypatch.setattr(Probe, "differentiate", unsteady)
        report = fb.check_gradients(net, *data_for(net, 6))
        assert not report.ok
        assert report.different_bits == 2
        assert "gave 2 other numbers" in str(report)


class TestTheCheckItself:
    def test_does_not_change_the_network(self):
        net = fb.Network(
            [fb.Dropout(0.2), fb.Dense(4, 5, "relu"), fb.Dense(5, 3)], loss="mse", random_state=0
        )
        X, y = data_for(net, 20)
        net.fit(X, y, epochs=2, optimizer=fb.Adam(0.01), verbose=0)
        twin = copy.deepcopy(net)
        X_before = X.copy()
        assert fb.check_gradients(net, X, y).ok
        assert np.array_equal(bits(net), bits(twin))
        assert np.array_equal(X, X_before)
        assert net.history.epoch == twin.history.epoch
        for one in (net, twin):  # optimizer state, order and masks go on as they would have
            one.fit(X, y, epochs=2, optimizer=fb.Adam(0.01), verbose=0)
        assert np.array_equal(bits(net), bits(twin))

    def test_one_seed_gives_one_report(self):
        net = fb.Network(
            [fb.Dense(4, 50, "relu"), fb.Dropout(0.5), fb.Dense(50, 3)], loss="mse", random_state=0
        )
        X, y = data_for(net, 5)
        first, again, other = (
            fb.check_gradients(net, X, y, max_per_tensor=5, seed=seed) for seed in (1, 1, 2)
        )
        assert first.entries == again.entries
        assert [e.index for e in first.entries] != [e.index for e in other.entries]

    def test_dropout_is_active_with_a_mask_of_the_seed(self):
        net = fb.Network([fb.Dropout(0.5), fb.Dense(40, 1)], loss="mse", random_state=0)
        X, y = np.ones((1, 40)), np.ones((1, 1)) * 100
        dead = []
        for seed in range(2):
            report = fb.check_gradients(net, X, y, seed=seed)
            assert report.ok
            weights = [entry for entry in report.entries if entry.tensor == "weight"]
            dead.append([entry.index for entry in weights if entry.analytic == 0.0])
            assert 5 < len(dead[-1]) < 35
            assert all(entry.numeric == 0.0 for entry in weights if entry.index in dead[-1])
        assert dead[0] != dead[1]
        names = [comparison.what for comparison in report.comparisons]
        assert "training epoch (two steps)" not in names

    def test_rows_of_weight_0_count_for_nothing(self):
        net = fb.Network([4, 5, 3], "relu", "cross_entropy", random_state=0)
        X, _ = data_for(net, 6)
        report = fb.check_gradients(net, X, [0, 1, 2, 0, 1, 2], sample_weight=[1, 0, 2, 0, 1, 0])
        report.raise_for_failure()
        zero = [e for e in report.entries if e.tensor == "X" and e.index[0] in (1, 3, 5)]
        assert {(entry.analytic, entry.numeric) for entry in zero} == {(0.0, 0.0)}

    def test_units_that_float32_puts_on_another_side(self):
        net = fb.Network([1, 4, 1], "relu", "mse", random_state=0)
        net.weights[0][...] = 1.0
        net.biases[0][...] = -0.1  # of float32, so that 0.1 of float64 is beside it
        X = np.array([[0.1 + 2e-9], [2.0], [0.5]])
        theirs, ours = (
            comparisons._row_sides(state, data)
            for state, data in ((net._state, net._data(X, [0.0, 1.0, 2.0], None)),
                                twin_of(net, X))
        )  # fmt: skip
        assert (theirs != ours).any(axis=1).tolist() == [True, False, False]
        fb.check_gradients(net, X, [0.0, 1.0, 2.0]).raise_for_failure()
        fb.check_gradients(net, X[:1], [0.0]).raise_for_failure()

    def test_directions_cost_the_same_for_any_number_of_parameters(self, monkeypatch):
        calls = []
        measure = Probe.measure
        monkeypatch.setattr(Probe, "measure", lambda probe: calls.append(1) or measure(probe))
        counts = []
        for width in (10, 300):
            net = fb.Network([20, width, 5], "tanh", "mse", random_state=0, dtype="float64")
            calls.clear()
            report = fb.check_gradients(net, *data_for(net, 10), method="directional")
            assert report.ok
            assert [s.checked for s in report.by_tensor()] == [3] * 6
            assert report.entries[-1].name == "all along direction 2"
            counts.append(len(calls))
        assert max(counts) < 1000
        assert max(counts) < 2 * min(counts)

    def test_a_network_in_32_bits_is_measured_in_64(self):
        net = fb.Network([4, 5, 3], "tanh", "mse", random_state=0)
        report = fb.check_gradients(net, *data_for(net, 6))
        assert report.worst(1)[0].relative_error < 1e-8
        assert report.comparisons[-1].what == "gradients in float32"
        assert 1e-9 < report.comparisons[-1].error < 1e-5

    def test_large_values(self):
        net = fb.Network([4, 5, 3], "softplus", "mse", random_state=0)
        X, y = data_for(net, 6)
        fb.check_gradients(net, 1000 * X, 1000 * y).raise_for_failure()
        report = fb.check_gradients(net, 1e-6 * X, y + 1e6)
        assert count(report, "fail") == 0
        # The rounding of a loss of 1e12 is more than a difference of it can see through.
        assert count(report, "inconclusive") > 0

    def test_a_network_that_has_learned_everything(self):
        net = fb.Network([2, 8, 2], "tanh", "cross_entropy", random_state=0)
        X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        net.fit(X, [0, 1, 1, 0], epochs=3000, optimizer=fb.Adam(0.05), verbose=0)
        report = fb.check_gradients(net, X, [0, 1, 1, 0])
        report.raise_for_failure()
        assert count(report, "inconclusive") == 0


def twin_of(net, X):
    """The network and the data in float64."""
    twin = fb.Network(net.layers, loss=net.loss_function, dtype="float64")
    twin.set_parameters(net.get_parameters())
    return twin._state, twin._data(X, [0.0, 1.0, 2.0], None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": np.zeros((2, 5))}, ValueError, r"X has shape \(2, 5\)"),
        ({"X": np.full((2, 4), np.nan)}, ValueError, "X contains nan"),
        ({"y": [0, 3]}, ValueError, r"y\[1\] is 3"),
        ({"sample_weight": [0, 0]}, ValueError, "0 for every row"),
        ({"method": "centrl"}, ValueError, "did you mean 'central'"),
        ({"step": -1.0}, ValueError, "step must be a positive number, got -1.0"),
        ({"rtol": 0}, ValueError, "rtol"),
        ({"max_per_tensor": 0}, ValueError, "max_per_tensor must be a positive integer"),
        ({"max_per_tensor": 2.5}, TypeError, "max_per_tensor"),
        ({"inputs": "yes"}, TypeError, "inputs must be True or False"),
        ({"seed": -1}, ValueError, "seed"),
        ({"net": "net"}, TypeError, "net must be a Network, got 'net'"),
    ],
)
def test_refused_arguments(arguments, error, message):
    net = fb.Network([4, 3], loss="cross_entropy", random_state=0)
    with pytest.raises(error, match=message):
        fb.check_gradients(**{"net": net, "X": np.zeros((2, 4)), "y": [0, 1]} | arguments)


def test_a_loss_that_is_not_finite():
    net = fb.Network([2, 1], "identity", "mse", random_state=0, dtype="float64")
    net.weights[0][...] = 1e200
    with pytest.raises(ValueError, match="the loss is not finite"):
        fb.check_gradients(net, np.ones((1, 2)), [0.0])
