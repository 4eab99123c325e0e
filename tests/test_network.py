"""Network: construction, outputs, losses and gradients against the reference, and its looks."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from comparison import (
    ELEMENTWISE,
    LOSSES,
    OUTPUTS,
    SIZES,
    assert_close,
    bits,
    each_copy,
    flat,
    is_near_kink,
    make_targets,
    reference_of,
)

import fastbackprop as fb

DTYPES = ("float32", "float64")
HIDDEN = [fb.Activation(name) for name in ELEMENTWISE]
HIDDEN += [fb.Activation("leaky_relu", 0.3), fb.Activation("elu", 0.4)]

# ------------------------------------------------------------------------------------ construction


@pytest.mark.parametrize("sizes", [[5, 3], (5, 4, 3), np.array([5, 4, 4, 3]), [np.int64(5), 3]])
def test_sizes(sizes):
    net = fb.Network(sizes)
    assert net.sizes == [int(size) for size in sizes]
    assert len(net.layers) == len(sizes) - 1
    assert [w.shape for w in net.weights] == list(itertools.pairwise(net.sizes))
    assert [b.shape for b in net.biases] == [(size,) for size in net.sizes[1:]]
    assert net.n_parameters == sum(w.size for w in net.weights) + sum(b.size for b in net.biases)


def test_defaults():
    net = fb.Network([784, 30, 10])
    assert [layer.activation.name for layer in net.layers] == ["sigmoid", "sigmoid"]
    assert net.loss_function == fb.Loss("quadratic")
    assert net.dtype == np.float32
    assert len(net.history.epoch) == 0


@pytest.mark.parametrize("hidden", ELEMENTWISE)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_activation_follows_from_the_loss(loss, hidden):
    net = fb.Network([4, 3, 2], hidden, loss)
    expected = hidden if loss == "quadratic" else OUTPUTS.get(loss, "identity")
    assert [layer.activation.name for layer in net.layers] == [hidden, expected]


@pytest.mark.parametrize("loss", LOSSES)
def test_output_of_a_dense_without_activation(loss):
    net = fb.Network([fb.Dense(4, 3), fb.Dense(3, 2)], loss=loss, random_state=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 4))
    logits = (x @ net.weights[0] + net.biases[0]) @ net.weights[1] + net.biases[1]
    odds = np.exp(logits)
    expected = {
        "cross_entropy": odds / odds.sum(axis=1, keepdims=True),
        "binary_cross_entropy": odds / (1 + odds),
        "poisson": odds,
    }.get(loss, logits)
    assert_close(net.predict(x), expected, 1e-14)


def test_output_activation_given():
    net = fb.Network([4, 3, 2], "relu", "mse", output_activation="tanh", random_state=0)
    assert [layer.activation.name for layer in net.layers] == ["relu", "tanh"]
    assert np.abs(net.predict(np.full((1, 4), 1e3))).max() <= 1


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("cross_entropy", "sigmoid"),
        ("cross_entropy", "identity"),
        ("binary_cross_entropy", "softmax"),
        ("binary_cross_entropy", "tanh"),
        ("quadratic", "softmax"),
        ("mse", "softmax"),
    ],
)
def test_output_activation_that_does_not_fit(loss, output):
    with pytest.raises(ValueError, match=f"{loss}.*{output}|{output}.*{loss}"):
        fb.Network([4, 3, 2], loss=loss, output_activation=output)
    with pytest.raises(ValueError, match=f"{loss}.*{output}|{output}.*{loss}"):
        fb.Network([fb.Dense(4, 2, output)], loss=loss)


def test_one_layer_object_in_two_places():
    layer = fb.Dense(3, 3)
    net = fb.Network([layer, layer], loss="cross_entropy", random_state=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    assert_close(net.predict(x), reference_of(net).forward(x), 1e-14)
    assert not np.array_equal(net.weights[0], net.weights[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": [784]}, ValueError, r"at least an input and an output size, got \[784\]"),
        ({"layers": []}, ValueError, r"at least an input and an output size, got \[\]"),
        ({"layers": [4, 0, 2]}, ValueError, r"layers\[1\] must be a positive integer, got 0"),
        ({"layers": [4, -1]}, ValueError, r"layers\[1\] must be a positive integer, got -1"),
        ({"layers": [4.0, 2]}, TypeError, r"layers\[0\] must be a positive integer, got 4.0"),
        ({"layers": [True, 2]}, TypeError, r"layers\[0\] must be a positive integer, got True"),
        ({"layers": "784,10"}, TypeError, "list of sizes or of layers, got '784,10'"),
        ({"layers": 784}, TypeError, "list of sizes or of layers, got 784"),
        ({"layers": [4, fb.Dense(4, 2)]}, TypeError, "layer 0 must be one of Dense.*, got 4"),
        ({"layers": [fb.Dense(4, 3), fb.Dense(2, 1)]}, ValueError, "takes 2 inputs.*3 outputs"),
        ({"layers": [fb.Dropout(0.5)]}, ValueError, "at least one Dense"),
        ({"layers": [fb.Dense(4, 3), fb.Rescaling(2)]}, ValueError, "must be the first layer"),
        ({"layers": [fb.Dense(4, 2)], "activation": "relu"}, TypeError, r"give each Dense its own"),
        ({"layers": [fb.Dense(4, 2)], "init": "he"}, TypeError, r"give each Dense its own"),
        ({"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'"),
        ({"activation": "softmax"}, ValueError, "softmax is an output_activation"),
        ({"activation": None, "loss": "sme"}, ValueError, "unknown loss 'sme'.*Known: quadratic"),
        ({"loss": None}, TypeError, "loss must be a name, got None. Known: quadratic"),
        ({"loss": "mse", "output_activation": "tan"}, ValueError, "did you mean 'tanh'"),
        ({"init": "hee"}, ValueError, "unknown initializer 'hee'"),
        ({"random_state": -1}, ValueError, "random_state must be an integer >= 0, got -1"),
        ({"random_state": 1.5}, TypeError, "an integer, a numpy.random.Generator or None, got 1.5"),
        ({"random_state": "seed"}, TypeError, "an integer, a numpy.random.Generator or None"),
        ({"dtype": "float16"}, ValueError, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": "banana"}, ValueError, "dtype must be 'float32' or 'float64', got 'banana'"),
        ({"dtype": None}, ValueError, "dtype must be 'float32' or 'float64', got None"),
        ({"dtype": ">f4"}, ValueError, "dtype must be 'float32' or 'float64', got '>f4'"),
        ({"dtype": int}, ValueError, "dtype must be 'float32' or 'float64', got <class 'int'>"),
    ],
)
def test_construction_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        fb.Network(**{"layers": [4, 3, 2], **arguments})


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), "f4"])
def test_dtype_spellings(dtype):
    assert fb.Network([2, 1], dtype=dtype).dtype == np.float32


# ------------------------------------------------------------------------- against the reference


def architectures():
    """One network of each depth, without bias and with, over all SIZES; a batch size for each."""
    sizes = itertools.cycle(SIZES)
    batches = itertools.cycle((1, 5, 8, 17, 64, 70))
    for depth, bias in itertools.product((1, 2, 3, 4), (True, False)):
        yield [next(sizes) for _ in range(depth + 1)], bias, next(batches)
    yield [257, 300, 5], True, 9  # sums that are made in two halves


def build(sizes, activation, loss, bias, dtype, seed):
    dense = [
        fb.Dense(n_in, n_out, activation, bias, bias_init="normal")
        for n_in, n_out in itertools.pairwise(sizes[:-1])
    ]
    output = activation if loss == "quadratic" else OUTPUTS.get(loss, "identity")
    last = fb.Dense(*sizes[-2:], output, bias, bias_init="normal")
    return fb.Network([*dense, last], loss=loss, random_state=seed, dtype=dtype)


def cases(activation, loss, dtype):
    """Networks with a batch that rounding cannot push over a kink."""
    for (sizes, bias, n), seed in zip(architectures(), itertools.count(), strict=False):
        rng = np.random.default_rng(seed)
        while True:
            net = build(sizes, activation, loss, bias, dtype, rng)
            X = rng.standard_normal((n, sizes[0])).astype(dtype)
            y = make_targets(rng, loss, n, sizes[-1]).astype(dtype)
            if not is_near_kink(net, X, y):
                break
        weights = rng.random(n)
        weights[1::3] = 0  # never the first row, so that something is left
        for sample_weight in (None, weights):
            yield net, X, y, sample_weight


def tolerance(net):
    """Rounding of a sum over a layer, once for each layer forward and back."""
    if net.dtype == np.float64:
        return 1e-12
    return 20 * 2 * len(net.layers) * np.finfo(np.float32).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", HIDDEN, ids=str)
def test_outputs_loss_and_gradients(activation, loss, dtype):
    for net, X, y, sample_weight in cases(activation, loss, dtype):
        twin = reference_of(net)
        expected_loss, expected_gradients, expected_dx = twin.gradients(X, y, sample_weight)
        within = tolerance(net)
        assert_close(net.predict(X), twin.forward(X), within)
        value, gradients = net.loss_and_gradients(X, y, sample_weight)
        assert_close(value, expected_loss, within)
        assert_close(net.loss(X, y, sample_weight), expected_loss, within)
        assert_close(net.evaluate(X, y, sample_weight)["loss"], expected_loss, within)
        for (dw, db), (expected_dw, expected_db) in zip(gradients, expected_gradients, strict=True):
            assert dw.dtype == net.dtype
            assert_close(dw, expected_dw, within)
            assert (db is None) == (expected_db is None)
            if db is not None:
                assert_close(db, expected_db, within)
        dx = net.input_gradient(X, y, sample_weight)
        assert dx.dtype == net.dtype
        assert_close(dx, expected_dx, within)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_class_labels_are_one_hot_rows(loss, dtype):
    rng = np.random.default_rng(0)
    net = fb.Network([7, 9, 5], "tanh", loss, random_state=rng, dtype=dtype)
    X, labels = rng.standard_normal((40, 7)).astype(dtype), rng.integers(0, 5, 40)
    rows = np.eye(5)[labels]
    assert net.loss(X, labels) == net.loss(X, rows)
    loss_1, gradients_1 = net.loss_and_gradients(X, labels)
    loss_2, gradients_2 = net.loss_and_gradients(X, rows)
    assert loss_1 == loss_2
    np.testing.assert_array_equal(flat(gradients_1), flat(gradients_2))
    assert_close(loss_1, reference_of(net).loss(X, labels), tolerance(net))
    expected = np.mean(net.predict(X).argmax(axis=1) == labels)
    assert net.evaluate(X, labels)["accuracy"] == pytest.approx(expected, abs=1e-12)


def test_accuracy():
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((50, 3)), rng.random(50)
    one = fb.Network([3, 1], loss="binary_cross_entropy", random_state=rng)
    y = rng.integers(0, 2, 50)
    right = one.predict_classes(X) == y
    assert one.evaluate(X, y)["accuracy"] == pytest.approx(right.mean())
    assert one.evaluate(X, y, weights)["accuracy"] == pytest.approx(
        np.average(right, weights=weights)
    )
    several = fb.Network([3, 4], loss="binary_cross_entropy", random_state=rng)
    y = rng.integers(0, 2, (50, 4))
    right = (several.predict(X) > 0.5) == y
    assert several.evaluate(X, y)["accuracy"] == pytest.approx(right.mean())
    regression = fb.Network([3, 4], loss="mse", random_state=rng)
    assert list(regression.evaluate(X, rng.random((50, 4)))) == ["loss"]


def test_predict_classes():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4))
    net = fb.Network([4, 3], loss="cross_entropy", random_state=rng)
    classes = net.predict_classes(X)
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes, net.predict(X).argmax(axis=1))
    net = fb.Network([4, 1], loss="binary_cross_entropy", random_state=rng)
    np.testing.assert_array_equal(net.predict_classes(X), net.predict(X)[:, 0] > 0.5)


def numerical_jacobian(twin, x, step=1e-6):
    columns = []
    for unit in np.eye(len(x)):
        above, below = twin.forward([x + step * unit]), twin.forward([x - step * unit])
        columns.append((above - below)[0] / (2 * step))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (9, 17, 3), (3, 8, 8, 16)], ids=str)
def test_jacobian(sizes, loss):
    net = fb.Network(sizes, "tanh", loss, random_state=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal(sizes[0])
    result = net.jacobian(x)
    assert result.shape == (sizes[-1], sizes[0])
    np.testing.assert_allclose(result, numerical_jacobian(reference_of(net), x), atol=1e-8)
    net = fb.Network(sizes, "tanh", loss, random_state=0, dtype="float32")
    np.testing.assert_allclose(net.jacobian(x), result, atol=1e-5)


def test_jacobian_of_a_composition_is_the_product_of_jacobians():
    net = fb.Network([6, 5, 4], "gelu", "cross_entropy", random_state=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal(6)
    inputs, preactivations = reference_of(net).trace([x])
    z, a = preactivations[0][0], net.predict([x])[0]
    softmax = np.diag(a) - np.outer(a, a)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    cdf = np.where(np.abs(z) > 1e-12, inputs[1][0] / z, 0.5)
    gelu = np.diag(cdf + z * density)
    expected = softmax @ net.weights[1].T @ gelu @ net.weights[0].T
    assert_close(net.jacobian(x), expected, 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_rows_that_are_zero_leave_them_out(dtype):
    rng = np.random.default_rng(0)
    net = fb.Network([5, 8, 3], "tanh", "cross_entropy", random_state=rng, dtype=dtype)
    X, y = rng.standard_normal((20, 5)), rng.integers(0, 3, 20)
    weights = rng.integers(0, 3, 20)
    repeated = np.repeat(np.arange(20), weights)
    loss, gradients = net.loss_and_gradients(X, y, weights)
    expected, expected_gradients = net.loss_and_gradients(X[repeated], y[repeated])
    assert_close(loss, expected, tolerance(net))
    assert_close(flat(gradients), flat(expected_gradients), tolerance(net))
    assert not net.input_gradient(X, y, weights)[weights == 0].any()


# ------------------------------------------------------------------------------------- Rescaling


@pytest.mark.parametrize("dtype", DTYPES)
def test_rescaling(dtype):
    rng = np.random.default_rng(0)
    net = fb.Network(
        [fb.Rescaling(1 / 255, -0.5), fb.Dense(33, 17, "tanh"), fb.Dense(17, 4)],
        loss="cross_entropy",
        random_state=rng,
        dtype=dtype,
    )
    X, y = rng.integers(0, 256, (9, 33), dtype=np.uint8), rng.integers(0, 4, 9)
    twin = reference_of(net)
    loss, gradients, dx = twin.gradients(X, y)
    assert_close(net.predict(X), twin.forward(X), tolerance(net))
    value, actual = net.loss_and_gradients(X, y)
    assert_close(value, loss, tolerance(net))
    assert_close(flat(actual), flat(gradients), tolerance(net))
    # With respect to X as the caller gave it, so with the factor of the rescaling.
    assert_close(net.input_gradient(X, y), dx, tolerance(net))
    x = X[0].astype(float)
    np.testing.assert_allclose(net.jacobian(x), numerical_jacobian(twin, x, 1e-3), atol=1e-6)


def test_dropout_is_for_training_only():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, 6)), rng.integers(0, 2, 9)
    dense = fb.Dense(6, 8, "relu"), fb.Dense(8, 2)
    plain = fb.Network(dense, loss="cross_entropy", random_state=0)
    net = fb.Network(
        [fb.Dropout(0.5), dense[0], fb.Dropout(0.9), dense[1]],
        loss="cross_entropy",
        random_state=0,
    )
    np.testing.assert_array_equal(net.predict(X), plain.predict(X))
    assert net.evaluate(X, y) == plain.evaluate(X, y)
    gradients, expected = net.loss_and_gradients(X, y)[1], plain.loss_and_gradients(X, y)[1]
    np.testing.assert_array_equal(flat(gradients), flat(expected))
    np.testing.assert_array_equal(net.input_gradient(X, y), plain.input_gradient(X, y))


# ------------------------------------------------------------------------------------ parameters


def test_weights_and_biases_are_writable_views():
    net = fb.Network([7, 9, 3], "tanh", "mse", random_state=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 7))
    before = net.predict(x)
    net.weights[1][:, 0] = 0
    net.biases[1][0] = 2.5
    after = net.predict(x)
    np.testing.assert_array_equal(after[:, 0], 2.5)
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    net.weights[0][...] *= 2
    assert_close(net.predict(x), reference_of(net).forward(x), 1e-14)


def test_layers_without_bias():
    net = fb.Network([fb.Dense(3, 4, "relu", bias=False), fb.Dense(4, 2)], loss="mse")
    assert net.biases[0] is None
    assert net.biases[1].shape == (2,)
    assert net.n_parameters == 3 * 4 + 4 * 2 + 2
    _, ((_, db), _) = net.loss_and_gradients([[1, 2, 3]], [[0, 0]])
    assert db is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_round_trip(dtype):
    net = fb.Network([7, 17, 3], random_state=0, dtype=dtype)
    theta = net.get_parameters()
    assert theta.shape == (net.n_parameters,)
    assert theta.dtype == net.dtype
    parts = [p.ravel() for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    np.testing.assert_array_equal(theta, np.concatenate(parts))
    other = fb.Network([7, 17, 3], random_state=1, dtype=dtype)
    assert not np.array_equal(other.get_parameters(), theta)
    other.set_parameters(theta)
    np.testing.assert_array_equal(bits(other), bits(net))
    x = np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_array_equal(other.predict(x), net.predict(x))


def test_get_parameters_is_a_copy():
    net = fb.Network([3, 2], random_state=0)
    theta = net.get_parameters()
    before = theta.copy()
    theta[:] = 7
    np.testing.assert_array_equal(net.get_parameters(), before)
    net.set_parameters(theta)
    theta[:] = 8
    np.testing.assert_array_equal(net.get_parameters(), 7)


def test_parameters_from_a_list_and_another_dtype():
    net = fb.Network([2, 1], dtype="float32")
    net.set_parameters([1, 2, 3])
    np.testing.assert_array_equal(net.weights[0], [[1], [2]])
    np.testing.assert_array_equal(net.biases[0], [3])
    net.set_parameters(np.array([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(net.get_parameters(), np.float32([0.1, 0.2, 0.3]))


# ---------------------------------------------------------------------------------- random_state


def test_one_seed_one_network():
    first, second = (fb.Network([5, 4, 3], random_state=7) for _ in range(2))
    np.testing.assert_array_equal(bits(first), bits(second))
    other = fb.Network([5, 4, 3], random_state=8)
    assert not np.array_equal(bits(first), bits(other))
    same = fb.Network([5, 4, 3], random_state=np.random.default_rng(7))
    np.testing.assert_array_equal(bits(first), bits(same))


def test_a_generator_is_used_and_goes_on():
    rng = np.random.default_rng(7)
    first, second = (fb.Network([5, 4, 3], random_state=rng) for _ in range(2))
    assert not np.array_equal(bits(first), bits(second))


def test_no_seed_is_a_new_one_each_time():
    first, second = (fb.Network([5, 4, 3]) for _ in range(2))
    assert not np.array_equal(bits(first), bits(second))


def test_the_seed_decides_the_order_of_rows_too():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    nets = [fb.Network([3, 2], loss="mse", random_state=seed) for seed in (0, 0, 1)]
    theta = nets[0].get_parameters()
    for net in nets:
        net.set_parameters(theta)
        net.fit(X, y, epochs=1, batch_size=3, optimizer="sgd", verbose=0)
    np.testing.assert_array_equal(bits(nets[0]), bits(nets[1]))
    assert not np.array_equal(bits(nets[0]), bits(nets[2]))


@pytest.mark.parametrize("init", ["he_normal", "glorot_uniform", "orthogonal", "normal", "uniform"])
def test_both_dtypes_start_from_the_same_numbers(init):
    single, double = (fb.Network([9, 8, 7], init=init, random_state=3, dtype=d) for d in DTYPES)
    np.testing.assert_array_equal(
        single.get_parameters(), double.get_parameters().astype(np.float32)
    )


def test_initial_parameters_follow_the_layers():
    net = fb.Network(
        [
            fb.Dense(3, 2, init=fb.Initializer("constant", value=0.25), bias_init="ones"),
            fb.Dense(2, 2, init="orthogonal"),
        ],
        loss="mse",
        dtype="float64",
    )
    assert (net.weights[0] == 0.25).all()
    assert (net.biases[0] == 1).all()
    np.testing.assert_allclose(net.weights[1].T @ net.weights[1], np.eye(2), atol=1e-15)
    assert not net.biases[1].any()


# -------------------------------------------------------------------------------------- copies


def trained(dtype="float32"):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)), rng.integers(0, 3, 40)
    net = fb.Network(
        [fb.Rescaling(2.0, 1.0), fb.Dense(5, 9, "elu"), fb.Dropout(0.3), fb.Dense(9, 3)],
        loss="cross_entropy",
        random_state=0,
        dtype=dtype,
    )
    net.fit(X, y, epochs=2, batch_size=7, optimizer=fb.Adam(0.01), verbose=0)
    return net, X, y


@pytest.mark.parametrize("dtype", DTYPES)
@each_copy
def test_copies_are_equal_and_independent(duplicate, dtype):
    net, X, y = trained(dtype)
    other = duplicate(net)
    assert other.layers == net.layers
    assert other.loss_function == net.loss_function
    assert other.dtype == net.dtype
    assert dict(other.history) == dict(net.history)
    assert repr(other) == repr(net)
    np.testing.assert_array_equal(bits(other), bits(net))
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    before = bits(net)
    other.weights[0][...] = 0
    other.fit(X, y, epochs=1, optimizer=fb.Adam(0.01), verbose=0)
    np.testing.assert_array_equal(bits(net), before)
    assert net.history.epoch == [0, 1]
    assert other.history.epoch == [0, 1, 2]


# ---------------------------------------------------------------------------------- appearance


def test_repr():
    assert repr(fb.Network([4, 3, 2])) == "Network([4, 3, 2], loss='quadratic', dtype='float32')"
    net = fb.Network([fb.Rescaling(0.5), fb.Dense(4, 2)], loss="mse", dtype="float64")
    assert repr(net) == "Network([Rescaling(0.5), Dense(4, 2)], loss='mse', dtype='float64')"


def test_summary():
    net, _, _ = trained()
    assert net.summary() == (
        "Layer                         Units  Activation  Parameters\n"
        "Rescaling(2.0, offset=1.0)                                0\n"
        "Dense                             9  elu                 54\n"
        "Dropout(0.3)                                              0\n"
        "Dense                             3  softmax             30\n"
        "Inputs 5, loss cross_entropy, float32, 84 parameters (336 B)"
    )


def test_summary_counts_without_bias_and_in_large_units():
    net = fb.Network([fb.Dense(1000, 1000, bias=False)], loss="mse", dtype="float64")
    assert net.summary().splitlines()[1].endswith("1,000,000")
    assert net.summary().endswith("1,000,000 parameters (8.0 MB)")


def test_html_is_well_formed():
    net, _, _ = trained()
    tree = ElementTree.fromstring(f"<div>{net._repr_html_()}</div>")
    header = [cell.text for cell in tree.iter("th")]
    assert header == ["Layer", "Units", "Activation", "Parameters"]
    rows = [[cell.text or "" for cell in row] for row in tree.iter("tr")][1:]
    assert len(rows) == 4
    assert rows[1] == ["Dense", "9", "elu", "54"]
    assert "84 parameters" in tree.find("p").text
    assert rows[2][0] == "Dropout(0.3)"
    history = ElementTree.fromstring(f"<div>{net.history._repr_html_()}</div>")
    assert len(list(history.iter("tr"))) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_and_many_have_the_same_outputs(dtype):
    rng = np.random.default_rng(0)
    for n_in in (3, 300, 40_000):  # rows of which many, some and none are few
        net = fb.Network([n_in, 5, 2], "tanh", random_state=rng, dtype=dtype)
        X = rng.random((200, n_in)) if n_in < 1000 else rng.random((3, n_in))
        for element in ("f4", "f8", "u1"):
            rows = (X * 200).astype(element)
            whole = net.predict(rows)
            for n in (1, 2, 7):
                np.testing.assert_array_equal(net.predict(rows[:n]), whole[:n])
                np.testing.assert_array_equal(net.predict(rows[::-1][:n]), whole[::-1][:n])
    with pytest.raises(ValueError, match=r"X contains nan at \[0, 1\]"):
        net.predict(np.where(np.arange(n_in) == 1, np.nan, 0.0)[None])
    first = net.predict(rows[:1])
    net.weights[0][...] = 0
    assert (net.predict(rows[:1]) != first).any(), "prepared calls read the parameters in place"


def test_threads_that_predict_with_one_network():
    rng = np.random.default_rng(0)
    net = fb.Network([20, 30, 4], "tanh", random_state=rng)
    X = rng.random((64, 20))
    expected = net.predict(X)
    with ThreadPoolExecutor(8) as pool:
        rows = pool.map(lambda i: net.predict(X[i % 64 : i % 64 + 1])[0], range(2000))
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row, expected[i % 64])
