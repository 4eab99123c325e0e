"""What may be passed as data, and what each mistake is answered with: before anything changes."""

import itertools
import pickle

import numpy as np
import pytest
from comparison import bits, reference_of

import fastbackprop as fb

N, N_IN, N_OUT = 6, 4, 3
X = np.random.default_rng(0).standard_normal((N, N_IN))
LABELS = np.array([0, 1, 2, 2, 1, 0])
TAKES_TARGETS = ("fit", "train_step", "evaluate", "loss", "loss_and_gradients", "input_gradient")
TAKES_INPUTS = ("predict", "predict_classes")


def make_network(loss="cross_entropy", n_out=N_OUT, n_in=N_IN, dtype="float32"):
    """A network in the middle of its training, so that there is state that could be lost."""
    net = fb.Network([n_in, 5, n_out], "tanh", loss, random_state=0, dtype=dtype)
    net.fit(np.ones((2, n_in)), np.full((2, n_out), 1 / n_out), epochs=2, verbose=0)
    return net


def call(net, method, *data, **options):
    if method == "fit":
        options = {"verbose": 0, **options}
    return getattr(net, method)(*data, **options)


def assert_refused(net, error, message, method, *data, **options):
    """Check the error, and that parameters, history, optimizer state and counters are as before."""
    before, parameters, history = pickle.dumps(net), bits(net), dict(net.history)
    with pytest.raises(error, match=message) as caught:
        call(net, method, *data, **options)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(bits(net), parameters)
    assert dict(net.history) == history
    assert pickle.dumps(net) == before


def replaced(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


# ------------------------------------------------------------------------------------ X refused


class Sparse:
    """What SciPy's sparse matrices look like from outside."""

    nnz = 0

    def toarray(self):
        raise NotImplementedError


BAD_X = {
    "too narrow": (X[:, :3], ValueError, r"X has shape \(6, 3\); layer 0 expects \(n, 4\)"),
    "transposed": (np.zeros((4, 7)), ValueError, r"\(4, 7\); .*\(n, 4\)\. Transpose it\?"),
    "images": (np.zeros((6, 2, 2)), ValueError, r"\(6, 2, 2\).*Flatten each sample: X\.reshape\("),
    "one sample": (X[0], ValueError, r"\(4,\).*For one sample pass X\.reshape\(1, -1\)"),
    "a number": (3.0, ValueError, r"X has shape \(\); layer 0 expects \(n, 4\)"),
    "no rows": (X[:0], ValueError, r"X has shape \(0, 4\): there is no row in it"),
    "empty list": ([], ValueError, r"X has shape \(0,\)"),
    "NaN": (replaced(X, (4, 2), np.nan), ValueError, r"X contains nan at \[4, 2\].*finite"),
    "inf": (replaced(X, (1, 0), np.inf), ValueError, r"X contains inf at \[1, 0\].*finite"),
    "-inf": (replaced(X, (5, 3), -np.inf), ValueError, r"X contains -inf at \[5, 3\].*finite"),
    "float16 NaN": (
        replaced(X, (0, 0), np.nan).astype("f2"),
        ValueError,
        r"X contains nan at \[0, 0\]",
    ),
    "big-endian NaN": (replaced(X, (0, 1), np.nan).astype(">f8"), ValueError, r"nan at \[0, 1\]"),
    "beyond float32": (
        replaced(X, (2, 1), 1e300),
        ValueError,
        r"1e\+300 at \[2, 1\], beyond.*float32",
    ),
    "complex": (X + 1j, TypeError, "X has dtype complex128; it must hold real numbers.*asarray"),
    "objects": (X.astype(object), TypeError, "X has dtype object; it must hold real numbers"),
    "text": (X.astype(str), TypeError, "X has dtype <U.*; it must hold real numbers"),
    "dates": (X.astype("M8[s]"), TypeError, "X has dtype datetime64.*; it must hold real numbers"),
    "None": (None, TypeError, "X has dtype object; it must hold real numbers"),
    "ragged": ([[1, 2, 3, 4], [1, 2]], ValueError, "X is not a rectangular array of numbers"),
    "sparse": (Sparse(), TypeError, r"X is a sparse Sparse; pass X\.toarray\(\)"),
    "masked": (
        np.ma.masked_less(X, 0),
        TypeError,
        r"X is a masked array, with 13 of 24 values masked; .* X\.filled\(value\)",
    ),
    "masked, without a mask": (np.ma.asarray(X), TypeError, r"X is a masked array, with 0 of 24"),
}


@pytest.mark.parametrize("method", [*TAKES_TARGETS, *TAKES_INPUTS])
@pytest.mark.parametrize("case", BAD_X)
def test_inputs_refused(case, method):
    value, error, message = BAD_X[case]
    targets = [LABELS] if method in TAKES_TARGETS else []
    assert_refused(make_network(), error, message, method, value, *targets)


def test_one_feature_given_as_a_vector():
    net = make_network("mse", n_in=1, n_out=1)
    message = r"X has shape \(6,\).*For one feature pass X\.reshape\(-1, 1\)"
    assert_refused(net, ValueError, message, "predict", X[:, 0])


def test_a_bad_value_far_into_the_data_is_found():
    rows = (1 << 20) // N_IN + 10  # beyond the first piece that is checked
    large = np.zeros((rows, N_IN), np.float32)
    large[-1, 2] = np.nan
    assert_refused(
        make_network(), ValueError, rf"X contains nan at \[{rows - 1}, 2\]", "predict", large
    )


def test_large_values_that_overflow_a_sum_are_fine():
    for dtype, large in (("float64", 1e308), ("float32", 3e38)):
        net = fb.Network([4, 2], loss="mse", dtype=dtype)
        net.weights[0][...] = 0.1
        np.testing.assert_allclose(net.predict(np.full((3, 4), large)), 0.4 * large, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimizer", [fb.Adam(), fb.Adam(0.1), fb.SGD(0.1)], ids=str)
def test_a_bad_row_in_a_late_batch_undoes_the_steps_before(optimizer, threads):
    net = make_network()  # whose state is that of Adam()
    options = {"batch_size": 2, "shuffle": False, "optimizer": optimizer, "threads": threads}
    bad = replaced(X, (5, 1), np.nan)
    assert_refused(net, ValueError, r"nan at \[5, 1\]", "fit", bad, LABELS, **options)
    assert_refused(net, ValueError, r"nan at \[5, 1\]", "train_step", bad, LABELS, optimizer)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (X, ValueError, r"x has shape \(6, 4\); .*one sample, \(4,\).*for one row after the other"),
        (X[:, :3], ValueError, r"x has shape \(6, 3\); jacobian takes one sample, \(4,\)\.$"),
        ([1, 2, 3], ValueError, r"x has shape \(3,\); jacobian takes one sample, \(4,\)\.$"),
        (1, ValueError, r"x has shape \(\); jacobian takes one sample, \(4,\)\.$"),
        ([1, 2, 3, np.nan], ValueError, r"x contains nan at \[3\]"),
        ([[1, 2, 3, 1e300]], ValueError, r"x contains 1e\+300 at \[0, 3\], beyond"),
        ([1, 2, 3, 4j], TypeError, "x has dtype complex128"),
        (np.ma.masked_less(X[0], 0), TypeError, "x is a masked array"),
        ([[1, 2], [3]], ValueError, "x is not a rectangular array of numbers"),
    ],
)
def test_jacobian_refuses(value, error, message):
    assert_refused(make_network(), error, message, "jacobian", value)


# ------------------------------------------------------------------------------------ y refused

PROBABILITIES = np.eye(N_OUT)[LABELS]
BAD_LABELS = {
    "too few": (LABELS[:5], ValueError, r"y has shape \(5,\), but X has 6 rows"),
    "too many": (np.tile(LABELS, 2), ValueError, r"y has shape \(12,\), but X has 6 rows"),
    "a number": (1, ValueError, r"y has shape \(\), but X has 6 rows"),
    "empty": ([], ValueError, r"y has shape \(0,\), but X has 6 rows"),
    "a column": (
        LABELS[:, None],
        ValueError,
        r"y has shape \(6, 1\).*3 outputs and expects \(6, 3\) or \(6,\).*pass y\.ravel\(\)",
    ),
    "too wide": (np.full((6, 4), 0.25), ValueError, r"y has shape \(6, 4\).*expects \(6, 3\)"),
    "three axes": (np.zeros((6, 3, 1)), ValueError, r"y has shape \(6, 3, 1\).*expects \(6, 3\)"),
    "from 1": (LABELS + 1, ValueError, r"y\[2\] is 3; .*from 0 to 2.*subtract 1\?"),
    "negative": (LABELS - 1, ValueError, r"y\[0\] is -1; the network has 3 outputs.*0 to 2"),
    "far out": (replaced(LABELS, 5, 99), ValueError, r"y\[5\] is 99; .*from 0 to 2"),
    "fraction": (LABELS + 0.5, ValueError, r"y\[0\] is 0\.5; class labels must be integers"),
    "huge": (replaced(LABELS * 1.0, 3, 1e30), ValueError, r"y\[3\] is 1e\+30; class labels"),
    "unsigned": (
        replaced(LABELS.astype("u8"), 1, 2**64 - 1),
        ValueError,
        r"y\[1\] is 18446744073709551615;",
    ),
    "NaN": (replaced(LABELS * 1.0, 2, np.nan), ValueError, r"y contains nan at \[2\].*finite"),
    "inf": (replaced(LABELS * 1.0, 2, np.inf), ValueError, r"y contains inf at \[2\].*finite"),
    "complex": (LABELS * 1j, TypeError, "y has dtype complex128; it must hold real numbers"),
    "masked": (
        np.ma.masked_equal(LABELS, 2),
        TypeError,
        r"y is a masked array, with 2 of 6 values masked; .* y\.filled\(value\)",
    ),
    "text": (["a", "b", "c", "a", "b", "c"], TypeError, "y has dtype <U1; it must hold real"),
    "objects": ([None] * 6, TypeError, "y has dtype object; it must hold real numbers"),
    "ragged": ([[1], [0, 1]] * 3, ValueError, "y is not a rectangular array of numbers"),
    "negative probability": (
        replaced(PROBABILITIES, (1, 2), -0.25),
        ValueError,
        r"y\[1, 2\] is -0\.25; .*probabilities in \[0, 1\]",
    ),
    "probability above 1": (
        replaced(PROBABILITIES, (4, 0), 1.5),
        ValueError,
        r"y\[4, 0\] is 1\.5; .*probabilities in \[0, 1\]",
    ),
    "wrong sum": (
        replaced(PROBABILITIES, (3, 1), 0.5),
        ValueError,
        r"row 3 of y sums to 1\.5; .*must sum to 1.*binary_cross_entropy",
    ),
}


@pytest.mark.parametrize("method", TAKES_TARGETS)
@pytest.mark.parametrize("case", BAD_LABELS)
def test_targets_refused(case, method):
    value, error, message = BAD_LABELS[case]
    assert_refused(make_network(), error, message, method, X, value)


BAD_NUMBERS = {
    "a vector for three outputs": (X[:, 0], r"\(6,\) and dtype float64; .*\(6, 3\), or \(6,\) int"),
    "NaN": (replaced(X[:, :3], (1, 1), np.nan), r"y contains nan at \[1, 1\].*finite"),
    "beyond float32": (
        replaced(X[:, :3], (1, 2), -1e39),
        r"y contains -1e\+39 at \[1, 2\], beyond",
    ),
}


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_numbers_to_fit_refused(case):
    value, message = BAD_NUMBERS[case]
    assert_refused(make_network("mse"), ValueError, message, "fit", X, value)


def test_binary_targets_refused():
    net = make_network("binary_cross_entropy", n_out=1)
    for y, message in [
        ([0, 1, 2, 0, 1, 0], r"y\[2, 0\] is 2; .*probabilities in \[0, 1\]"),
        ([0, 1, 0, -1, 1, 0], r"y\[3, 0\] is -1; .*probabilities in \[0, 1\]"),
        (PROBABILITIES, r"y has shape \(6, 3\); the network has 1 outputs"),
    ]:
        assert_refused(net, ValueError, message, "fit", X, y)


# ----------------------------------------------------------------------- sample_weight refused

ONES = np.ones(N)
BAD_WEIGHTS = {
    "too few": (ONES[:5], ValueError, r"sample_weight has shape \(5,\); expected \(6,\)"),
    "a column": (ONES[:, None], ValueError, r"sample_weight has shape \(6, 1\); expected \(6,\)"),
    "a number": (2.0, ValueError, r"sample_weight has shape \(\); expected \(6,\)"),
    "negative": (replaced(ONES, 4, -0.5), ValueError, r"sample_weight\[4\] is -0\.5;.*at least 0"),
    "NaN": (replaced(ONES, 1, np.nan), ValueError, r"sample_weight contains nan at \[1\]"),
    "inf": (replaced(ONES, 1, np.inf), ValueError, r"sample_weight contains inf at \[1\]"),
    "zero": (np.zeros(N), ValueError, "sample_weight is 0 for every row"),
    "masked": (np.ma.masked_equal(ONES, 2), TypeError, "sample_weight is a masked array, with 0"),
    "complex": (ONES * 1j, TypeError, "sample_weight has dtype complex128"),
    "text": (["1"] * N, TypeError, "sample_weight has dtype <U1"),
}


@pytest.mark.parametrize("method", TAKES_TARGETS)
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_sample_weight_refused(case, method):
    value, error, message = BAD_WEIGHTS[case]
    assert_refused(make_network(), error, message, method, X, LABELS, sample_weight=value)


# ------------------------------------------------------------------ the other arguments of fit


def falls_below_zero(step):
    return 0.1 - step


BAD_OPTIONS = [
    ({"epochs": 0}, ValueError, "epochs must be a positive integer, got 0"),
    ({"epochs": -3}, ValueError, "epochs must be a positive integer, got -3"),
    ({"epochs": 2.0}, TypeError, r"epochs must be a positive integer, got 2\.0"),
    ({"epochs": True}, TypeError, "epochs must be a positive integer, got True"),
    ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
    ({"batch_size": "32"}, TypeError, "batch_size must be a positive integer, got '32'"),
    ({"threads": 0}, ValueError, "threads must be a positive integer, got 0"),
    ({"threads": 1.5}, TypeError, r"threads must be a positive integer, got 1\.5"),
    ({"threads": 100_000}, ValueError, r"threads must be at most 256, got 100000"),
    ({"optimizer": "adma"}, ValueError, "unknown optimizer 'adma'; did you mean 'adam'.*rmsprop"),
    ({"optimizer": fb.Adam}, TypeError, "optimizer must be a name, got <class.*Known: sgd, adam"),
    ({"optimizer": 0.1}, TypeError, r"optimizer must be a name, got 0\.1"),
    (
        {"optimizer": fb.SGD(falls_below_zero), "batch_size": 2},
        ValueError,
        r"the learning rate of step 1 must be a number >= 0, got -0\.9",
    ),
    (
        {"optimizer": fb.SGD(lambda step: "fast")},
        TypeError,
        "the learning rate of step 0 must be a number, got 'fast'",
    ),
    ({"shuffle": 1}, ValueError, r"shuffle must be True, False or 6 integer row numbers.*\(\)"),
    ({"shuffle": "yes"}, ValueError, "shuffle must be True, False or 6 integer row numbers"),
    ({"shuffle": np.arange(5)}, ValueError, r"6 integer row numbers, got .*\(5,\)"),
    ({"shuffle": np.arange(6.0)}, ValueError, "6 integer row numbers, got.*float64"),
    ({"shuffle": np.arange(1, 7)}, ValueError, r"shuffle\[5\] is 6; .*from 0 to 5"),
    ({"shuffle": np.arange(6) - 1}, ValueError, r"shuffle\[0\] is -1; .*from 0 to 5"),
    ({"callbacks": [print]}, TypeError, "a callback must derive from Callback, got <built-in"),
    ({"callbacks": fb.Callback}, TypeError, "must be a sequence of Callback, got <class"),
    ({"callbacks": None}, TypeError, "must be a sequence of Callback, got None"),
    ({"validation_data": X}, TypeError, "must be .X, y., .* a fraction, .* got ndarray"),
    ({"validation_data": (X,)}, TypeError, "must be .X, y., .* a fraction, .* got tuple"),
    ({"validation_data": 1}, TypeError, "must be .X, y., .* a fraction, .* got int"),
    ({"validation_data": 0.0}, ValueError, r"validation_data is 0\.0; .*at least one to learn"),
    ({"validation_data": 1.0}, ValueError, r"validation_data is 1\.0; .*at least one to learn"),
    ({"validation_data": 0.05}, ValueError, r"validation_data is 0\.05; as a fraction of 6 rows"),
    ({"validation_data": -0.5}, ValueError, r"validation_data is -0\.5"),
    ({"validation_data": np.nan}, ValueError, "validation_data is nan"),
    ({"validation_data": (X[:, :2], LABELS)}, ValueError, r"\(6, 2\); layer 0 expects \(n, 4\)"),
    ({"validation_data": (X, LABELS + 9)}, ValueError, r"y\[0\] is 9"),
    ({"validation_data": (X, LABELS, -ONES)}, ValueError, r"sample_weight\[0\] is -1\.0"),
    (
        {"validation_data": 0.5, "sample_weight": [1, 1, 1, 0, 0, 0]},
        ValueError,
        "sample_weight is 0 for every row held back by validation_data=0.5",
    ),
    (
        {"validation_data": 0.5, "sample_weight": [0, 0, 0, 1, 1, 1]},
        ValueError,
        "sample_weight is 0 for every row left by validation_data=0.5",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_options_of_fit_refused(options, error, message):
    assert_refused(make_network(), error, message, "fit", X, LABELS, **options)


def test_options_of_train_step_refused():
    net = make_network()
    for optimizer, error, message in (
        ("adma", ValueError, "did you mean 'adam'"),
        (3, TypeError, "optimizer must be a name, got 3"),
        (fb.SGD(lambda step: -1), ValueError, "the learning rate of step 0 must be"),
    ):
        assert_refused(net, error, message, "train_step", X, LABELS, optimizer)


BAD_THETA = {
    "too short": ([1.0, 2.0], ValueError, r"theta has shape \(2,\); this network expects \(43,\)"),
    "a matrix": (np.ones((43, 1)), ValueError, r"theta has shape \(43, 1\); .*expects \(43,\)"),
    "NaN": (replaced(np.ones(43), 7, np.nan), ValueError, r"theta contains nan at \[7\]"),
    "inf": (replaced(np.ones(43), 0, -np.inf), ValueError, r"theta contains -inf at \[0\]"),
    "beyond float32": (np.full(43, 1e39), ValueError, r"theta contains 1e\+39 at \[0\].*float32"),
    "complex": (np.ones(43) * 1j, TypeError, "theta has dtype complex128"),
    "text": (["1"] * 43, TypeError, "theta has dtype <U1"),
}


@pytest.mark.parametrize("case", BAD_THETA)
def test_parameters_refused(case):
    value, error, message = BAD_THETA[case]
    assert_refused(make_network(), error, message, "set_parameters", value)


# ----------------------------------------------------------------------------------- good data


def results(X, y, net=None, **options):
    """Everything that depends on the data, for comparison."""
    net = net or make_network()
    loss, gradients = net.loss_and_gradients(X, y, **options)
    net.fit(X, y, epochs=2, batch_size=4, verbose=0, **options)
    return [bits(net), loss, *itertools.chain(*gradients), net.predict(X)]


def assert_equal(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


SINGLE = X.astype("f4")


@pytest.mark.parametrize(
    "same",
    [
        SINGLE.astype("f8"),
        SINGLE.astype("g"),
        SINGLE.astype(">f4"),
        SINGLE.astype(">f8"),
        SINGLE.tolist(),
        tuple(map(tuple, SINGLE.tolist())),
        list(SINGLE),
        memoryview(SINGLE),
    ],
    ids=lambda same: f"{type(same).__name__} {getattr(same, 'dtype', '')}",
)
def test_inputs_accepted(same):
    assert_equal(results(same, LABELS), results(SINGLE, LABELS))


@pytest.mark.parametrize("element", ["f2", "?", "u1", "i1", ">u2"])
def test_narrow_inputs_accepted(element):
    narrow = np.abs(X).astype(element)
    assert_equal(results(narrow, LABELS), results(narrow.astype("f8"), LABELS))


def test_single_values_in_rows_accepted():
    broadcast = np.broadcast_to(SINGLE[0], (N, N_IN))
    assert_equal(results(broadcast, LABELS), results(broadcast.copy(), LABELS))


@pytest.mark.parametrize(
    "same",
    [
        *(LABELS.astype(element) for element in ("u1", "i1", ">i2", "u8", "f2", "f4", ">f8", "g")),
        LABELS.tolist(),
        LABELS[::-1].copy()[::-1],
        np.stack([LABELS, LABELS], axis=1)[:, 1],
    ],
    ids=lambda same: f"{type(same).__name__} {getattr(same, 'dtype', '')}",
)
def test_labels_accepted(same):
    assert_equal(results(X, same), results(X, LABELS))


@pytest.mark.parametrize(
    "same",
    [PROBABILITIES, PROBABILITIES.astype("u1"), PROBABILITIES.astype("?"), PROBABILITIES.tolist()],
)
def test_rows_of_probabilities_accepted(same):
    assert_equal(results(X, same), results(X, LABELS))


def test_rows_that_sum_to_1_but_for_rounding():
    y = np.random.default_rng(0).dirichlet(np.ones(N_OUT), N).astype("f2")
    assert np.isfinite(make_network().loss(X, y))


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_one_output_takes_a_vector_or_a_column(loss):
    y = (X[:, 0] > 0).astype(float)
    expected = results(X, y, make_network(loss, n_out=1))
    for same in (y[:, None], y.astype(int), y > 0, y.tolist(), y.astype(">f8")):
        assert_equal(results(X, same, make_network(loss, n_out=1)), expected)


def test_numbers_to_fit_of_any_layout():
    y = X[:, :3]
    expected = results(X, np.ascontiguousarray(y), make_network("mse"))
    for same in (y, np.asfortranarray(y), y.tolist(), y.astype("g"), y.astype(">f8")):
        assert_equal(results(X, same, make_network("mse")), expected)


@pytest.mark.parametrize("weights", [[1, 0, 2, 0, 1, 3], np.array([1, 0, 2, 0, 1, 3], "u1")])
def test_weights_accepted(weights):
    expected = results(X, LABELS, sample_weight=np.array(weights, float))
    assert_equal(results(X, LABELS, sample_weight=weights), expected)


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"), index=list("uvwxyz"))
    expected = results(X, LABELS)
    assert_equal(results(frame, pd.Series(LABELS)), expected)
    assert_equal(results(frame, pd.DataFrame(PROBABILITIES)), expected)
    # A column is an attribute, and each frame has a method "mask".
    assert_equal(results(frame.rename(columns={"b": "filled"}), pd.Series(LABELS)), expected)
    frame["a"] = "text"
    assert_refused(make_network(), TypeError, "X has dtype object", "predict", frame)


def test_pytorch_tensors():
    torch = pytest.importorskip("torch")
    expected = results(SINGLE, LABELS)
    assert_equal(results(torch.from_numpy(SINGLE), torch.from_numpy(LABELS)), expected)


def test_data_are_never_written():
    inputs, labels, weights = X.copy(), LABELS.copy(), ONES.copy()
    for array in (inputs, labels, weights):
        array.flags.writeable = False
    net = make_network()
    net.fit(inputs, labels, sample_weight=weights, validation_data=(inputs, labels), verbose=0)
    net.input_gradient(inputs, labels, weights)
    net.predict(inputs)


def test_one_row():
    net = make_network("mse", dtype="float64")
    y = np.ones((1, N_OUT))
    expected = reference_of(net).loss(X[:1], y)
    assert net.loss(X[:1], y) == pytest.approx(expected, rel=1e-13)
    assert net.fit(X[:1], y, epochs=1, verbose=0)["loss"] == [pytest.approx(expected, rel=1e-13)]


def test_a_large_file_is_read_in_place(tmp_path):
    import tracemalloc

    rows = 40_000
    np.save(tmp_path / "X.npy", np.zeros((rows, 64), np.uint8))
    data = np.load(tmp_path / "X.npy", mmap_mode="r")
    net = fb.Network([fb.Rescaling(1 / 255), fb.Dense(64, 2)], loss="cross_entropy")
    labels = np.zeros(rows, np.int64)
    net.fit(data[:64], labels[:64], epochs=1, verbose=0)
    tracemalloc.start()
    net.fit(data, labels, epochs=1, batch_size=1000, optimizer=fb.SGD(1e-3), verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < data.nbytes  # as float32 it would be four times that


def test_poisson_needs_counts():
    net = fb.Network([2, 1], loss="poisson")
    with pytest.raises(
        ValueError, match=r"y\[1, 0\] is -1.0; the loss 'poisson' expects targets of"
    ):
        net.loss([[0, 1], [1, 0]], [0.0, -1.0])
