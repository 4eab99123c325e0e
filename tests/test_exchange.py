"""Models of other libraries: the same outputs there and back, and a name for what does not fit."""

import os
import pickle

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop.exchange.formula import Formula, Z

ACTIVATIONS = [
    "identity",
    "relu",
    fb.Activation("leaky_relu", 0.3),
    "sigmoid",
    "tanh",
    "softplus",
    fb.Activation("elu", 0.7),
    "silu",
    "gelu",
]


def named(activation):
    return activation if isinstance(activation, str) else activation.name


def make_net(activation="tanh", loss="cross_entropy", sizes=(5, 9, 8, 3), dtype="float32"):
    """A network with biases that are not 0."""
    net = fb.Network(list(sizes), activation, loss, random_state=1, dtype=dtype)
    rng = np.random.default_rng(2)
    net.set_parameters(rng.normal(0, 0.5, net.n_parameters))
    return net


def inputs(n=20, n_in=5):
    return 3 * np.random.default_rng(3).standard_normal((n, n_in))


class TestFormula:
    z = Formula({Z: 1.0})

    @pytest.mark.parametrize("order", ["torch", "outer half", "inner half"])
    def test_gelu_in_any_order(self, order):
        z, erf = self.z, (self.z * np.float32(0.5**0.5).item()).apply("Erf")
        made = {
            "torch": z * (erf + 1.0) * 0.5,
            "outer half": (erf + 1.0) * 0.5 * z,
            "inner half": z * 0.5 * (erf + 1.0),
        }[order]
        assert made.as_activation() == fb.Activation("gelu")

    def test_alpha_is_the_number_that_was_written(self):
        assert self.z.elu(np.float32(0.3).item()).as_activation() == fb.Activation("elu", 0.3)
        made = self.z.leaky_relu(np.float32(0.01).item()).as_activation()
        assert made == fb.Activation("leaky_relu", 0.01)

    def test_what_is_no_activation(self):
        assert (self.z * 2.0).as_activation() is None
        assert (self.z.apply("Relu") * self.z).as_activation() is None
        assert (self.z * 1.703 * 0.5).as_activation() is None
        assert self.z.leaky_relu(-0.5).as_activation() is None

    def test_size_is_bounded(self):
        z = self.z
        with pytest.raises(ValueError, match="longer"):
            z * z * z
        with pytest.raises(ValueError, match="longer"):
            z.apply("Exp").apply("Exp").apply("Exp").apply("Exp")


class TestPyTorch:
    @pytest.fixture(autouse=True)
    def library(self):
        TestPyTorch.torch = pytest.importorskip("torch")

    def module(self, activation):
        nn = self.torch.nn
        return {
            "identity": nn.Identity,
            "relu": nn.ReLU,
            "leaky_relu": lambda: nn.LeakyReLU(0.3),
            "sigmoid": nn.Sigmoid,
            "tanh": nn.Tanh,
            "softplus": nn.Softplus,
            "elu": lambda: nn.ELU(0.7),
            "silu": nn.SiLU,
            "gelu": nn.GELU,
        }[named(activation)]()

    def outputs(self, module, X):
        with self.torch.no_grad():
            return module.eval()(self.torch.as_tensor(X)).numpy()

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=named)
    def test_module_with_every_activation(self, activation):
        nn = self.torch.nn
        module = nn.Sequential(
            nn.Flatten(),
            nn.Sequential(nn.Linear(5, 9), self.module(activation)),
            nn.Dropout(0.3),
            nn.Linear(9, 8, bias=False),
            self.module(activation),
            nn.Identity(),
            nn.Linear(8, 3),
            nn.Softmax(dim=1),
        ).double()
        net = fb.from_torch(module)
        assert net.dtype == np.float64
        assert net.loss_function == fb.Loss("cross_entropy")
        assert net.layers[1] == fb.Dropout(0.3)
        assert net.biases[1] is None
        X = inputs()
        np.testing.assert_allclose(net.predict(X), self.outputs(module, X), rtol=0, atol=1e-12)

    def test_logits_and_the_loss_they_were_trained_with(self):
        module = self.torch.nn.Linear(5, 3)
        net = fb.from_torch(module, loss="cross_entropy")
        logits = module(self.torch.as_tensor(inputs(), dtype=self.torch.float32))
        expected = self.torch.softmax(logits, 1).detach().numpy()
        np.testing.assert_allclose(net.predict(inputs()), expected, atol=1e-6)
        assert fb.from_torch(module).loss_function == fb.Loss("mse")
        with pytest.raises(ValueError, match="needs the output activation 'sigmoid'"):
            fb.from_torch(
                self.torch.nn.Sequential(module, self.torch.nn.Tanh()), loss="binary_cross_entropy"
            )

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=named)
    def test_state_dict_both_ways(self, activation):
        nn = self.torch.nn
        net = make_net(activation, "mse")
        module = nn.Sequential(
            nn.Linear(5, 9),
            self.module(activation),
            nn.Linear(9, 8),
            self.module(activation),
            nn.Linear(8, 3),
        )
        module.load_state_dict(net.to_torch_state_dict(["0", "2", "4"]))
        X = inputs().astype(np.float32)
        np.testing.assert_allclose(self.outputs(module, X), net.predict(X), atol=3e-6)
        back = fb.from_torch(module.state_dict(), activation=activation)
        np.testing.assert_array_equal(back.get_parameters(), net.get_parameters())
        assert [name for name in net.to_torch_state_dict() if "weight" in name] == [
            "layers.0.weight",
            "layers.1.weight",
            "layers.2.weight",
        ]

    def test_tensors_are_copies_both_ways(self):
        net = make_net()
        state = net.to_torch_state_dict()
        before = net.get_parameters()
        for tensor in state.values():
            tensor.zero_()
        np.testing.assert_array_equal(net.get_parameters(), before)
        module = self.torch.nn.Linear(5, 3)
        copy = fb.from_torch(module)
        copy.weights[0][...] = 0
        assert module.weight.abs().sum() > 0

    @pytest.mark.parametrize("offset", [0.0, -0.5])
    def test_rescaling_goes_into_the_first_layer(self, offset):
        net = fb.Network(
            [fb.Rescaling(1 / 255, offset), fb.Dense(5, 3, bias=False)],
            loss="mse",
            random_state=0,
        )
        state = net.to_torch_state_dict()
        assert set(state) == {"layers.0.weight"} | ({"layers.0.bias"} if offset else set())
        X = np.random.default_rng(0).integers(0, 256, (9, 5))
        expected = fb.from_torch(state).predict(X)
        np.testing.assert_allclose(expected, net.predict(X), atol=1e-6)

    def test_half_precision(self):
        module = self.torch.nn.Linear(5, 3).to(self.torch.bfloat16)
        net = fb.from_torch(module)
        assert net.dtype == np.float32
        np.testing.assert_array_equal(net.weights[0].T, module.weight.detach().float().numpy())

    def test_refusals_name_the_module(self):
        nn = self.torch.nn
        for bad, words in [
            (nn.Conv2d(1, 1, 3), r"module '1', Conv2d.*no such layer"),
            (nn.BatchNorm1d(4), r"module '1', BatchNorm1d"),
            (nn.GELU(approximate="tanh"), r"module '1', GELU.*exact"),
            (nn.Softplus(beta=2), r"module '1', Softplus.*beta"),
            (nn.Dropout(1.0), r"module '1', Dropout"),
            (nn.Flatten(), r"module '1', Flatten"),
        ]:
            with pytest.raises(ValueError, match=words):
                fb.from_torch(nn.Sequential(nn.Linear(4, 4), bad, nn.Linear(4, 2)))
        with pytest.raises(ValueError, match="must follow a Linear"):
            fb.from_torch(nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
        with pytest.raises(ValueError, match="follows another activation"):
            fb.from_torch(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh()))
        with pytest.raises(ValueError, match="2 outputs"):
            fb.from_torch(nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2)))

        class Residual(nn.Sequential):
            def forward(self, x):
                return x + super().forward(x)

        with pytest.raises(ValueError, match="Residual"):
            fb.from_torch(Residual(nn.Linear(4, 4)))

    def test_names(self):
        with pytest.raises(ValueError, match="3 different names"):
            make_net().to_torch_state_dict(["a", "b"])


class TestStateDict:
    """What from_torch does without PyTorch."""

    state = {  # noqa: RUF012
        "a.weight": np.ones((4, 2)),
        "a.bias": np.zeros(4),
        "b.weight": np.ones((1, 4)),
    }

    def test_activations_for_each_layer(self):
        net = fb.from_torch(self.state, activation=["silu"], output_activation="sigmoid")
        assert [layer.activation.name for layer in net.layers] == ["silu", "sigmoid"]
        assert net.loss_function == fb.Loss("binary_cross_entropy")

    def test_refusals(self):
        with pytest.raises(TypeError, match='give activation="relu"'):
            fb.from_torch(self.state)
        with pytest.raises(ValueError, match="2 entries for 1 hidden"):
            fb.from_torch(self.state, activation=["relu", "relu"])
        with pytest.raises(ValueError, match=r"'n.running_mean'.*no Linear"):
            fb.from_torch({**self.state, "n.running_mean": np.ones(1)}, activation="relu")
        with pytest.raises(ValueError, match="empty"):
            fb.from_torch({}, activation="relu")
        with pytest.raises(ValueError, match=r"layers.1.weight.*not finite"):
            fb.from_torch({**self.state, "b.weight": np.full((1, 4), np.nan)}, activation="relu")

    def test_never_reads_a_pickle(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        path = tmp_path / "model.pt"
        path.write_bytes(pickle.dumps(Evil()))
        for source in (path, str(path)):
            with pytest.raises(TypeError, match="is a pickle"):
                fb.from_torch(source)
        with pytest.raises(TypeError, match="Module or a state dict, got bytearray"):
            fb.from_torch(bytearray(path.read_bytes()))
        assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestKeras:
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=named)
    def test_model_with_every_activation(self, activation, monkeypatch):
        pytest.importorskip("torch")
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        keras = pytest.importorskip("keras")
        function = {
            "leaky_relu": lambda x: keras.activations.leaky_relu(x, negative_slope=0.3),
            "elu": lambda x: keras.activations.elu(x, alpha=0.7),
            "identity": "linear",
            "gelu": lambda x: keras.activations.gelu(x, approximate=False),
        }.get(named(activation), named(activation))
        Dense = keras.layers.Dense
        model = keras.Sequential(
            [
                keras.Input((5,)),
                Dense(9, function),
                Dense(8, function, use_bias=False),
                Dense(3, "softmax", bias_initializer="normal"),
            ]
        )
        net = fb.from_keras_weights(model.get_weights(), activation, output_activation="softmax")
        X = inputs().astype(np.float32)
        np.testing.assert_allclose(net.predict(X), model.predict(X, verbose=0), atol=1e-6)
        pairs = zip(net.weights, net.biases, strict=True)
        model.set_weights([array for pair in pairs for array in pair if array is not None])
        np.testing.assert_allclose(net.predict(X), model.predict(X, verbose=0), atol=1e-6)

    def test_refusals(self):
        w, b = np.ones((2, 3)), np.zeros(3)
        with pytest.raises(ValueError, match=r"weights\[2\] has shape \(3,\)"):
            fb.from_keras_weights([w, b, b], "relu")
        with pytest.raises(ValueError, match=r"weights\[0\] has shape \(1, 1, 2, 3\)"):
            fb.from_keras_weights([np.ones((1, 1, 2, 3))], "relu")
        with pytest.raises(TypeError, match="give activation"):
            fb.from_keras_weights([w, b, np.ones((3, 1))])
        with pytest.raises(TypeError, match="int64"):
            fb.from_keras_weights([np.ones((2, 3), np.int64)])
        with pytest.raises(TypeError, match="get_weights"):
            fb.from_keras_weights({"a": w})
        with pytest.raises(ValueError, match="empty"):
            fb.from_keras_weights([])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestSklearn:
    neural = pytest.importorskip("sklearn.neural_network")

    def fitted(self, kind, y, activation="relu"):
        make = getattr(self.neural, f"MLP{kind}")
        return make(
            hidden_layer_sizes=(9, 8), activation=activation, max_iter=3, random_state=0
        ).fit(inputs(), y)

    @pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
    @pytest.mark.parametrize(
        ("y", "loss"),
        [
            (np.arange(20) % 3, "cross_entropy"),
            (np.array(["no", "yes"])[np.arange(20) % 2], "binary_cross_entropy"),
            (np.arange(60).reshape(20, 3) % 7 > 3, "binary_cross_entropy"),
        ],
        ids=["classes", "two classes", "multilabel"],
    )
    def test_classifier_both_ways(self, activation, y, loss):
        theirs = self.fitted("Classifier", y, activation)
        net = fb.from_sklearn(theirs)
        assert net.loss_function == fb.Loss(loss)
        assert net.dtype == np.float64
        X = inputs()
        expected = theirs.predict_proba(X)[:, -net.sizes[-1] :]
        np.testing.assert_allclose(net.predict(X), expected, atol=1e-12)
        if y.ndim == 1:
            np.testing.assert_array_equal(
                theirs.classes_[net.predict_classes(X)], theirs.predict(X)
            )
            assert net.classes == tuple(theirs.classes_.tolist())
        back = net.to_sklearn()
        np.testing.assert_array_equal(back.classes_, theirs.classes_)
        assert vars(back).keys() - {"_optimizer"} == vars(theirs).keys() - {"_optimizer"}
        np.testing.assert_array_equal(back.predict(X), theirs.predict(X))
        np.testing.assert_allclose(back.predict_proba(X), theirs.predict_proba(X), atol=1e-12)
        assert back.score(X, y) == theirs.score(X, y)

    @pytest.mark.parametrize("n_out", [1, 3])
    def test_regressor_both_ways(self, n_out):
        y = inputs(n_in=n_out)
        theirs = self.fitted("Regressor", y[:, 0] if n_out == 1 else y)
        net = fb.from_sklearn(theirs)
        assert net.loss_function == fb.Loss("mse")
        assert net.classes is None
        expected = theirs.predict(inputs())
        np.testing.assert_allclose(net.predict(inputs()), expected.reshape(20, -1), atol=1e-12)
        np.testing.assert_allclose(net.to_sklearn().predict(inputs()), expected, atol=1e-12)

    def test_poisson_both_ways(self):
        X, y = inputs(), np.arange(20) % 4
        theirs = self.neural.MLPRegressor("poisson", max_iter=3, random_state=0).fit(X, y)
        net = fb.from_sklearn(theirs)
        assert net.loss_function == fb.Loss("poisson")
        np.testing.assert_allclose(net.predict(X)[:, 0], theirs.predict(X), atol=1e-12)
        back = net.to_sklearn()
        assert (back.loss, back.out_activation_) == ("poisson", "exp")
        np.testing.assert_allclose(back.predict(X), theirs.predict(X), atol=1e-12)

    def test_goes_on_with_partial_fit(self):
        net = make_net("relu")
        estimator = net.to_sklearn()
        X, y = inputs(200).astype(np.float32), np.arange(200) % 3
        estimator.partial_fit(X, y)
        assert (estimator.n_iter_, estimator.t_, len(estimator.loss_curve_)) == (1, 200, 1)
        # Adam's first step is that of its learning rate, in the direction of the gradient's sign.
        steps = [abs(a - b).max() for a, b in zip(estimator.coefs_, net.weights, strict=True)]
        np.testing.assert_allclose(steps, 1e-3, rtol=1e-2)
        # Its loss has the penalty alpha / (2 n) Σ w² on top.
        penalty = 0.5e-4 * sum((w**2).sum() for w in net.weights) / 200
        assert estimator.loss_curve_[0] == pytest.approx(net.loss(X, y) + penalty, rel=1e-4)

    def test_two_softmax_outputs_and_rescaling(self):
        net = fb.Network(
            [fb.Rescaling(0.1, 0.2), fb.Dense(5, 4, "tanh", bias=False), fb.Dense(4, 2)],
            loss="cross_entropy",
            random_state=0,
            dtype="float64",
        )
        proba = net.to_sklearn(["ham", "spam"]).predict_proba(inputs())
        np.testing.assert_allclose(proba, net.predict(inputs()), atol=1e-12)

    def test_refusals(self):
        def refused(words, net, *classes):
            with pytest.raises(ValueError, match=words):
                net.to_sklearn(*classes)

        refused(r"layers\.0.*gelu", make_net("gelu"))
        refused(r"layers\.0.*leaky_relu", make_net("leaky_relu"))
        mixed = fb.Network([fb.Dense(2, 3, "relu"), fb.Dense(3, 3, "tanh"), fb.Dense(3, 1)])
        refused(r"layers\.1 has the activation 'tanh', and layers\.0 'relu'", mixed)
        refused("no output activation 'sigmoid'", make_net("sigmoid", "quadratic"))
        refused("3 different labels", make_net(), ["a", "b"])
        refused("sorted", make_net(), ["c", "b", "a"])
        refused("cross-entropy", make_net(loss="mse"), [1, 2, 3])
        pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(
            self.neural.MLPClassifier()
        )
        with pytest.raises(TypeError, match="Pipeline; give its last step"):
            fb.from_sklearn(pipeline)
        with pytest.raises(TypeError, match="MLPClassifier; call fit first"):
            fb.from_sklearn(self.neural.MLPClassifier())
        with pytest.raises(TypeError, match="got int"):
            fb.from_sklearn(1)
