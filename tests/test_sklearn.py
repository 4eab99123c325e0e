"""The estimators against scikit-learn's own: the same draws, steps, attributes and errors."""

import copy
import inspect
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.7")
pytest.importorskip("scipy")

import scipy.sparse
import sklearn.datasets
import sklearn.neural_network as peers
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastbackprop as fb
from fastbackprop.sklearn import MLPClassifier, MLPRegressor

PAIRS = {
    "MLPClassifier": (MLPClassifier, peers.MLPClassifier),
    "MLPRegressor": (MLPRegressor, peers.MLPRegressor),
}
each_pair = pytest.mark.parametrize("name", PAIRS)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("sys.modules['sklearn'] = None", "import of sklearn halted"),
        ("import sklearn; sklearn.__version__ = '1.6.1'", "(found 1.6.1)"),
    ],
)
def test_without_a_scikit_learn_that_is_new_enough(before, message):
    code = (
        f"import sys; {before}\ntry: import fastbackprop.sklearn\nexcept ImportError as e: print(e)"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "needs scikit-learn 1.7 or later: pip install" in printed
    assert message in printed


# ----------------------------------------------------------------------- the same as scikit-learn


def problem(kind, n=90):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 6))
    z = X @ rng.standard_normal((6, 3)) + 0.3 * rng.standard_normal((n, 3))
    return X, {
        "multiclass": lambda: z.argmax(axis=1),
        "strings": lambda: np.array(["one", "two", "three"])[z.argmax(axis=1)],
        "binary": lambda: np.where(z[:, 0] > 0, "yes", "no"),
        "multilabel": lambda: (z > 0).astype(int),
        "regression": lambda: z[:, 0],
        "column": lambda: z[:, 0],
        "outputs": lambda: z,
        "counts": lambda: rng.poisson(np.exp(0.3 * z[:, 0])),
    }[kind]()


def labels_that_both_take(y):
    """With early stopping, scikit-learn 1.7 and 1.8 fail for labels that are strings."""
    if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9) or y.dtype.kind != "U":
        return y
    return np.unique(y, return_inverse=True)[1]


FITTED = (
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "n_iter_",
    "t_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "n_features_in_",
)


def assert_same(mine, theirs, X, rtol=1e-9):
    for own, other in zip(
        mine.coefs_ + mine.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        assert own.dtype == other.dtype
        np.testing.assert_allclose(own, other, rtol=rtol, atol=rtol)
    for attribute in FITTED:
        assert hasattr(mine, attribute) == hasattr(theirs, attribute), attribute
        value = getattr(theirs, attribute, None)
        if isinstance(value, str) or value is None:
            assert getattr(mine, attribute, None) == value, attribute
        else:
            np.testing.assert_allclose(
                getattr(mine, attribute), value, rtol=rtol, err_msg=attribute
            )
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(mine.classes_, theirs.classes_)
        np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))
        np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), rtol=rtol)
        np.testing.assert_allclose(
            mine.predict_log_proba(X), theirs.predict_log_proba(X), rtol=rtol, atol=rtol
        )
    else:
        np.testing.assert_allclose(mine.predict(X), theirs.predict(X), rtol=rtol, atol=rtol)


OPTIONS = [
    {},
    {"alpha": 3.0, "activation": "tanh"},
    {"batch_size": 16, "activation": "logistic", "epsilon": 1e-3, "beta_1": 0.5},
    {"shuffle": False, "hidden_layer_sizes": (7, 5), "activation": "identity"},
    {"hidden_layer_sizes": (), "batch_size": 7},
    {"early_stopping": True, "batch_size": 10, "validation_fraction": 0.2},
    {"solver": "sgd", "learning_rate_init": 0.05},
    {"solver": "sgd", "momentum": 0.5, "nesterovs_momentum": False, "alpha": 1.0},
    {"solver": "sgd", "momentum": 0},
    {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
    {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2, "batch_size": 20},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["strings", "binary", "multilabel", "regression", "outputs"])
def test_the_same_course(kind, options):
    name = "MLPRegressor" if kind in ("regression", "outputs") else "MLPClassifier"
    X, y = problem(kind)
    if "early_stopping" in options:
        y = labels_that_both_take(y)
    mine, theirs = (
        cls(**{"hidden_layer_sizes": (9,), "max_iter": 12, "random_state": 3, **options}).fit(X, y)
        for cls in PAIRS[name]
    )
    assert_same(mine, theirs, X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_same_course_with_batches_that_are_cut_into_chunks(solver):
    X, y = problem("multiclass", n=2500)
    weight = np.random.default_rng(1).uniform(0, 3, len(X))
    options = {"batch_size": 1100, "max_iter": 5, "alpha": 20.0, "random_state": 0}
    mine, theirs = (
        cls((9,), solver=solver, **options).fit(X, y, weight) for cls in PAIRS["MLPClassifier"]
    )
    assert_same(mine, theirs, X)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regression", "outputs"])
def test_the_same_course_with_sample_weight(kind, weighted):
    name = "MLPRegressor" if kind in ("regression", "outputs") else "MLPClassifier"
    X, y = problem(kind)
    y = labels_that_both_take(y)
    weight = np.random.default_rng(1).uniform(0, 3, len(X)) if weighted else None
    for options in ({}, {"early_stopping": True}, {"solver": "sgd", "batch_size": 11}):
        mine, theirs = (
            cls((8,) if name == "MLPClassifier" else "squared_error", max_iter=9, random_state=0)
            .set_params(**options)
            .fit(X, y, sample_weight=weight)
            for cls in PAIRS[name]
        )
        assert_same(mine, theirs, X)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression", "counts"])
def test_lbfgs(kind):
    X, y = problem(kind)
    name = "MLPRegressor" if kind in ("regression", "counts") else "MLPClassifier"
    options = {"loss": "poisson"} if kind == "counts" else {}
    weight = np.random.default_rng(1).uniform(0, 3, len(X))
    for sample_weight in (None, weight):
        mine, theirs = (
            cls(
                solver="lbfgs", activation="tanh", max_iter=7, alpha=0.1, random_state=0, **options
            ).fit(X, y, sample_weight)
            for cls in PAIRS[name]
        )
        assert_same(mine, theirs, X, rtol=1e-6)


def test_lbfgs_takes_many_rows_in_blocks():
    X, y = problem("multiclass", n=2500)
    mine, theirs = (
        cls((5,), solver="lbfgs", activation="tanh", max_iter=5, random_state=0).fit(X, y)
        for cls in PAIRS["MLPClassifier"]
    )
    assert_same(mine, theirs, X, rtol=1e-6)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_poisson(solver):
    X, y = problem("counts")
    mine, theirs = (
        cls("poisson", (8,), solver=solver, activation="tanh", max_iter=10, random_state=0).fit(
            X, y
        )
        for cls in PAIRS["MLPRegressor"]
    )
    assert_same(mine, theirs, X, rtol=1e-6)
    with pytest.raises(ValueError, match="loss='poisson' needs y >= 0"):
        mine.fit(X, y - 1)


@each_pair
def test_float32(name):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    mine, theirs = (cls(max_iter=10, random_state=0).fit(X.astype("f4"), y) for cls in PAIRS[name])
    assert_same(mine, theirs, X.astype("f4"), rtol=2e-3)
    predicted = mine.predict(X.astype("f4")) if name == "MLPRegressor" else mine.predict_proba(X)
    assert predicted.dtype == np.float32


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@each_pair
def test_partial_fit(name, solver):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    first = {"classes": [0, 1, 2]} if name == "MLPClassifier" else {}
    estimators = [
        cls(random_state=0, solver=solver, learning_rate="invscaling") for cls in PAIRS[name]
    ]
    for start in (0, 30, 60, 0):
        rows = slice(start, start + 30)
        for estimator in estimators:
            estimator.partial_fit(X[rows], y[rows], **first)
        first = {}
    assert_same(*estimators, X)


@each_pair
def test_warm_start(name):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    estimators = [cls(random_state=0, warm_start=True, max_iter=4) for cls in PAIRS[name]]
    for _ in range(3):
        for estimator in estimators:
            estimator.fit(X, y)
    assert_same(*estimators, X)
    for estimator in estimators:
        estimator.set_params(activation="tanh", alpha=0.5).fit(X, y)
    assert_same(*estimators, X)


@each_pair
def test_parameters(name):
    mine, theirs = (inspect.signature(cls).parameters.values() for cls in PAIRS[name])
    shared = [(p.name, p.default, p.kind) for p in theirs]
    assert [(p.name, p.default, p.kind) for p in mine][: len(shared)] == shared


@each_pair
def test_errors_are_scikit_learns(name):
    X, y = problem("binary" if name == "MLPClassifier" else "regression")
    wrong = [
        {"hidden_layer_sizes": -1},
        {"hidden_layer_sizes": (3, 0)},
        {"solver": "newton"},
        {"alpha": -1},
        {"learning_rate": "fast"},
        {"n_iter_no_change": 0},
        {"momentum": 2},
        {"batch_size": 0},
        {"early_stopping": True, "validation_fraction": 0.01},
    ]
    for options in wrong:
        messages = []
        for cls in PAIRS[name]:
            with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared
                cls(**options).fit(X[:20], y[:20])
            messages.append(str(error.value))
        assert sorted(messages[0]) == sorted(messages[1]), options  # a set has no order
    for estimator in (cls(solver="lbfgs") for cls in PAIRS[name]):
        assert not hasattr(estimator, "partial_fit") or name == "MLPRegressor"
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        PAIRS[name][0](early_stopping=True).partial_fit(
            X, y, **({"classes": ["no", "yes"]} if name == "MLPClassifier" else {})
        )


@each_pair
def test_errors_in_data_are_scikit_learns(name):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    for cls in PAIRS[name]:
        with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
            cls(hidden_layer_sizes=(2.5,)).fit(X, y)
    mine, theirs = PAIRS[name]
    bad_X = [X[:, 0], X[:0], X[:50], np.where(X > 2, np.nan, X), X + 1j, X[:, :, None]]
    bad_y = [None, y[:, None, None], np.where(y > 1, np.nan, y), y[:5]]
    for options in ({}, {"early_stopping": True}, {"solver": "lbfgs"}):
        for bad in [*((bad, y) for bad in bad_X), *((X, bad) for bad in bad_y)]:
            assert error_of(mine(**options), *bad) == error_of(theirs(**options), *bad) is not None


def error_of(estimator, X, y):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared
        estimator.fit(X, y)
    return str(error.value)


@each_pair
def test_masked_arrays_are_what_they_are_to_scikit_learn(name):
    """Their masks are not read in X; labels that are masked fail as NumPy compares them."""
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    hidden = np.ma.masked_less(X, 0), np.ma.masked_equal(y, y[0])
    for rows, targets in ((hidden[0], y), (X, hidden[1])):
        outcomes = []
        for cls in PAIRS[name]:
            try:
                fitted = cls(max_iter=3, random_state=0).fit(rows, targets)
                outcomes.append([*fitted.predict(rows).ravel(), fitted.loss_])
            except TypeError as error:
                outcomes.append(str(error))
        if isinstance(outcomes[0], str):
            assert outcomes[0] == outcomes[1]
        else:
            np.testing.assert_allclose(*outcomes, rtol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@each_pair
def test_weights_that_are_all_zero(name, solver):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero"):
        PAIRS[name][0](solver=solver).fit(X, y, np.zeros(len(X)))


def test_targets_that_a_regressor_cannot_take():
    X, y = problem("outputs")
    with pytest.raises(TypeError, match="Sparse data was passed for y, but dense data is required"):
        MLPRegressor().fit(X, scipy.sparse.csr_array(y))
    for fitted in (MLPRegressor(max_iter=2, warm_start=True).fit(X, y), MLPRegressor()):
        fitted.partial_fit(X, y)
        before = fitted.predict(X)
        goes_on = fitted.fit if fitted.warm_start else fitted.partial_fit
        for other in (y[:, 0], y[:, :2]):
            with pytest.raises(
                ValueError, match=r"y has \d outputs, but MLPRegressor was .* with 3"
            ):
                goes_on(X, other)
        np.testing.assert_array_equal(fitted.predict(X), before)


def test_classes_of_later_calls():
    X, y = problem("multiclass")
    with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same"):
        MLPClassifier(warm_start=True, max_iter=2).fit(X, y).fit(X, np.minimum(y, 1))
    with pytest.raises(ValueError, match="has classes not in"):
        MLPClassifier().partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, y)


@pytest.mark.filterwarnings("default")
@each_pair
def test_warnings_are_scikit_learns(name):
    X, y = problem("binary" if name == "MLPClassifier" else "regression")
    seen = []
    for cls in PAIRS[name]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cls(max_iter=2, batch_size=1000).fit(X, y.reshape(-1, 1))
            cls(max_iter=2, solver="lbfgs", random_state=0).fit(X, y)
        seen.append([(w.category, str(w.message)) for w in caught])
    assert seen[0] == seen[1]
    assert ConvergenceWarning in {category for category, _ in seen[0]}


@pytest.mark.filterwarnings("default")
def test_a_filter_for_scikit_learns_warnings_still_works():
    X, y = problem("binary")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module="sklearn")
        MLPClassifier(max_iter=2, batch_size=1000).fit(X, y)
    assert not caught


def test_what_it_prints_is_scikit_learns(capsys):
    X, y = problem("binary")
    y = labels_that_both_take(y)
    options = [
        {"tol": 10, "n_iter_no_change": 2, "early_stopping": True},
        {"tol": 10, "n_iter_no_change": 1, "solver": "sgd", "learning_rate": "adaptive"},
    ]
    for option in options:
        printed = []
        for cls in PAIRS["MLPClassifier"]:
            cls((5,), random_state=0, verbose=True, max_iter=50, **option).fit(X, y)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != ""


def test_a_diverging_fit():
    X, y = problem("regression")
    estimator = MLPRegressor(solver="sgd", learning_rate_init=1e30, max_iter=5)
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        estimator.fit(X * 1e30, y)


def test_an_interrupted_fit():
    class Interrupt(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            if epoch == 2:
                raise KeyboardInterrupt

    X, y = problem("binary")
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        estimator = MLPClassifier(callbacks=Interrupt(), random_state=0).fit(X, y)
    assert estimator.n_iter_ == 3
    assert set(estimator.predict(X)) <= {"no", "yes"}


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        ("load_iris", "MLPClassifier"),
        ("load_wine", "MLPClassifier"),
        ("load_breast_cancer", "MLPClassifier"),
        ("load_digits", "MLPClassifier"),
        ("load_diabetes", "MLPRegressor"),
    ],
)
def test_quality_on_bundled_data(loader, name):
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import scale

    X, y = getattr(sklearn.datasets, loader)(return_X_y=True)
    X, X_test, y, y_test = train_test_split(scale(X), y, random_state=0)
    mine, theirs = (
        cls(random_state=0, learning_rate_init=0.01, max_iter=50).fit(X, y).score(X_test, y_test)
        for cls in PAIRS[name]
    )
    assert mine == pytest.approx(theirs, abs=0.01)


# -------------------------------------------------------------------------------------- kinds of X


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix", "csr_array"])
@each_pair
def test_sparse(name, form, solver):
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    X[np.abs(X) < 0.7] = 0
    compressed = getattr(scipy.sparse, form)(X)
    options = {"random_state": 0, "max_iter": 8, "solver": solver, "activation": "tanh"}
    if solver == "adam":
        options["early_stopping"] = True
    cls = PAIRS[name][0]
    dense, sparse = cls(**options).fit(X, y), cls(**options).fit(compressed, y)
    assert dense.loss_ == sparse.loss_
    np.testing.assert_array_equal(dense.predict(X), sparse.predict(compressed))
    np.testing.assert_array_equal(dense.predict(X[:3]), sparse.predict(compressed[:3]))


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_sparse_is_never_dense_as_a_whole(solver):
    n, n_features = 20_000, 400  # 64 MB as float64
    rng = np.random.default_rng(0)
    X = scipy.sparse.random(n, n_features, 0.005, format="csr", rng=rng)
    y = rng.integers(0, 2, n)
    estimator = MLPClassifier((4,), solver=solver, max_iter=1)
    tracemalloc.start()
    try:
        estimator.fit(X, y).predict(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_pandas():
    pandas = pytest.importorskip("pandas")
    X, y = problem("strings")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    estimator = MLPClassifier(max_iter=3, random_state=0).fit(frame, pandas.Series(y))
    assert estimator.feature_names_in_.tolist() == list("abcdef")
    assert set(estimator.predict(frame)) <= {"one", "two", "three"}
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        estimator.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[list("bacdef")])


# ------------------------------------------------------------------------------ fitted parameters


@each_pair
def test_copies_go_on_alike(name, tmp_path):
    joblib = pytest.importorskip("joblib")
    X, y = problem("multiclass" if name == "MLPClassifier" else "regression")
    estimator = PAIRS[name][0](max_iter=3, random_state=0).fit(X, y)
    joblib.dump(estimator, tmp_path / "estimator")
    copies = [
        pickle.loads(pickle.dumps(estimator)),
        copy.deepcopy(estimator),
        joblib.load(tmp_path / "estimator", mmap_mode="r"),
    ]
    expected = estimator.partial_fit(X, y).predict(X)
    for other in copies:
        assert all(np.isfinite(w).all() and w.flags.writeable for w in other.coefs_)
        np.testing.assert_array_equal(other.partial_fit(X, y).predict(X), expected)


def test_parameters_that_the_user_sets():
    X, y = problem("regression")
    mine, theirs = (cls(max_iter=3, random_state=0).fit(X, y) for cls in PAIRS["MLPRegressor"])
    for estimator in (mine, theirs):
        estimator.coefs_[0][0] = 0.5  # in place
        estimator.intercepts_[1] = np.array([3.0])  # another array
    np.testing.assert_allclose(mine.predict(X), theirs.predict(X))
    np.testing.assert_allclose(pickle.loads(pickle.dumps(mine)).predict(X), theirs.predict(X))
    for estimator in (mine, theirs):
        estimator.partial_fit(X, y)
    np.testing.assert_allclose(mine.predict(X), theirs.predict(X))


# ----------------------------------------------------------------------------------- extensions


@pytest.mark.parametrize("kind", ["strings", "binary"])
def test_class_weight(kind):
    from sklearn.utils.class_weight import compute_sample_weight

    X, y = problem(kind)
    for class_weight in ("balanced", {name: i + 0.5 for i, name in enumerate(sorted(set(y)))}):
        options = {"max_iter": 5, "random_state": 0}
        by_class = MLPClassifier(class_weight=class_weight, **options).fit(X, y)
        by_row = MLPClassifier(**options).fit(X, y, compute_sample_weight(class_weight, y))
        np.testing.assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X))
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=np.unique(y))


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "silu", "gelu"])
@each_pair
def test_more_activations(name, activation):
    X, y = problem("binary" if name == "MLPClassifier" else "regression")
    options = {"activation": activation, "learning_rate_init": 0.01, "random_state": 0}
    assert PAIRS[name][0](**options).fit(X, y).score(X, y) > 0.8


def test_an_activation_for_each_layer():
    X, y = problem("regression")
    options = {"hidden_layer_sizes": (4, 5), "max_iter": 5, "random_state": 0}
    alike = MLPRegressor(activation=["tanh", "tanh"], **options).fit(X, y)
    named = MLPRegressor(activation="tanh", **options).fit(X, y)
    np.testing.assert_array_equal(alike.predict(X), named.predict(X))
    mixed = MLPRegressor(activation=["relu", "tanh"], **options).fit(X, y)
    hidden = np.maximum(X @ mixed.coefs_[0] + mixed.intercepts_[0], 0)
    hidden = np.tanh(hidden @ mixed.coefs_[1] + mixed.intercepts_[1])
    expected = (hidden @ mixed.coefs_[2] + mixed.intercepts_[2]).ravel()
    np.testing.assert_allclose(mixed.predict(X), expected)
    with pytest.raises(ValueError, match=r"activation names 1 activations, but .* has 2 layers"):
        MLPRegressor(activation=["relu"], **options).fit(X, y)
    with pytest.raises(ValueError, match="unknown activation 'rleu'; did you mean 'relu'"):
        MLPRegressor(activation=["relu", "rleu"], **options).fit(X, y)
    with pytest.raises(TypeError, match=r"activation must be .* got 3.*: identity, logistic, tanh"):
        MLPRegressor(activation=["relu", 3], **options).fit(X, y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_robust_losses_and_quantiles(solver):
    rng = np.random.default_rng(0)
    X = np.zeros((400, 1))
    y = rng.exponential(size=400) - 0.3
    options = {"hidden_layer_sizes": (), "alpha": 0, "solver": solver, "learning_rate_init": 0.02}
    options |= {"random_state": 0, "max_iter": 500, "tol": 1e-9, "n_iter_no_change": 500}

    def constant(loss, **more):
        return MLPRegressor(loss, **options, **more).fit(X, y).predict(X[:1])[0]

    assert constant("mae") == pytest.approx(np.median(y), abs=0.02)
    assert constant("quantile", quantile=0.9) == pytest.approx(np.quantile(y, 0.9), abs=0.06)
    assert constant("huber", delta=100.0) == pytest.approx(y.mean(), abs=0.02)
    assert np.median(y) < constant("huber", delta=0.3) < y.mean()


def test_dropout():
    X, y = problem("multiclass")
    options = {"random_state": 0, "max_iter": 20}
    first, second = (MLPClassifier(dropout=0.3, **options).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    without = MLPClassifier(**options).fit(X, y)
    assert not np.allclose(first.predict_proba(X), without.predict_proba(X))
    assert first.score(X, y) > 0.6
    with pytest.raises(ValueError, match="solver='lbfgs' needs a loss that stays the same"):
        MLPClassifier(dropout=0.3, solver="lbfgs").fit(X, y)


def test_callbacks():
    class Record(fb.Callback):
        def on_train_begin(self, net):
            self.calls = ["begin"]

        def on_epoch_begin(self, net, epoch):
            self.calls.append(epoch)

        def on_epoch_end(self, net, epoch, logs):
            self.calls.append(logs)

        def on_train_end(self, net):
            self.calls.append("end")

    X, y = problem("binary")
    record = Record()
    estimator = MLPClassifier(max_iter=2, early_stopping=True, callbacks=[record]).fit(X, y)
    begin, zero, _, one, logs, end = record.calls
    assert (begin, zero, one, end) == ("begin", 0, 1, "end")
    assert logs["loss"] == estimator.loss_
    assert logs["val_score"] == estimator.validation_scores_[-1]
    assert logs["val_loss"] == estimator.validation_loss_curve_[-1]
    assert logs["learning_rate"] == 0.001


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_callback_may_change_the_rate(solver):
    X, y = problem("regression")
    options = {"solver": solver, "momentum": 0.0, "learning_rate_init": 1e-3, "random_state": 0}
    rates = []
    watch = fb.LambdaCallback(on_epoch_end=lambda net, epoch, logs: rates.append(logs))
    plateau = fb.ReduceLROnPlateau("loss", factor=1e-9, patience=2, min_delta=1e6)
    estimator = MLPRegressor(callbacks=[plateau, watch], max_iter=6, **options).fit(X, y)
    assert [logs["learning_rate"] for logs in rates] == pytest.approx(
        [1e-3] * 3 + [1e-12] * 2 + [1e-21]
    )
    shorter = MLPRegressor(max_iter=3, **options).fit(X, y)
    np.testing.assert_allclose(estimator.coefs_[0], shorter.coefs_[0], atol=1e-9)


def test_a_rate_of_0_is_a_pause():
    class Pause(fb.Callback):
        def on_epoch_end(self, net, epoch, logs):
            net.learning_rate_factor = float(epoch != 1)

    X, y = problem("regression")
    options = {"solver": "sgd", "random_state": 0, "shuffle": False}
    paused = MLPRegressor(callbacks=Pause(), max_iter=5, **options).fit(X, y)
    # An epoch is one step here, whose loss is that before it.
    assert paused.loss_curve_[1] > paused.loss_curve_[2] == paused.loss_curve_[3]
    assert paused.loss_curve_[3] > paused.loss_curve_[4]


@pytest.mark.parametrize("wrong", [[print], [fb.Checkpoint("folder")]], ids=["function", "file"])
def test_callbacks_that_cannot_be_called(wrong):
    X, y = problem("binary")
    with pytest.raises(TypeError, match="callbacks must be Callbacks, and no Checkpoint"):
        MLPClassifier(callbacks=wrong).fit(X, y)


def test_validation_loss_curve():
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split

    X, y = problem("multiclass")
    estimator = MLPClassifier(early_stopping=True, max_iter=1, random_state=0).fit(X, y)
    assert len(estimator.validation_loss_curve_) == 1
    random_state = np.random.RandomState(0)
    for w in (*estimator.coefs_, *estimator.intercepts_):
        random_state.uniform(size=w.shape)
    _, held = train_test_split(np.arange(len(X)), random_state=random_state, test_size=0.1)
    expected = log_loss(y[held], estimator.predict_proba(X[held]), labels=[0, 1, 2])
    assert estimator.validation_loss_curve_[0] == pytest.approx(expected)


def test_threads_change_nothing():
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    options = {"hidden_layer_sizes": (300, 20), "max_iter": 2, "random_state": 0, "alpha": 1}
    fits = [MLPClassifier(n_threads=n, **options).fit(X, y) for n in (1, 2, 3)]
    assert_same(fits[0], peers.MLPClassifier(**options).fit(X, y), X, rtol=1e-8)
    for other in fits[1:]:
        assert other.loss_curve_ == fits[0].loss_curve_
        np.testing.assert_array_equal(other.coefs_[0], fits[0].coefs_[0])


# ------------------------------------------------------------------------------ the ecosystem


def test_pipeline_and_cross_validation():
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = sklearn.datasets.load_iris(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier(learning_rate_init=0.01, random_state=0)
    )
    assert cross_val_score(clone(pipeline), X, y, cv=3).mean() > 0.9


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search(backend):
    joblib = pytest.importorskip("joblib")
    from sklearn.model_selection import GridSearchCV

    X, y = sklearn.datasets.load_iris(return_X_y=True)
    estimator = MLPClassifier(learning_rate_init=0.01, random_state=0)
    search = GridSearchCV(estimator, {"alpha": [1e-4, 100.0]}, n_jobs=2, cv=2)
    with joblib.parallel_config(backend):
        search.fit(X, y)
    assert search.best_params_ == {"alpha": 1e-4}


def test_calibration():
    from sklearn.calibration import CalibratedClassifierCV

    X, y = problem("strings")
    calibrated = CalibratedClassifierCV(MLPClassifier(max_iter=30), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_permutation_importance():
    from sklearn.inspection import permutation_importance

    X, y = problem("regression")
    X = np.hstack([X, np.zeros((len(X), 1))])
    estimator = MLPRegressor(max_iter=300, learning_rate_init=0.01, random_state=0).fit(X, y)
    result = permutation_importance(estimator, X, y, n_repeats=2, random_state=0)
    assert result.importances_mean[-1] == 0 < result.importances_mean.max()


def test_metadata_routing():
    from sklearn import config_context
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = problem("regression")
    weight = np.linspace(0, 2, len(X))
    with config_context(enable_metadata_routing=True):
        estimator = MLPRegressor(max_iter=5, random_state=0).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, estimator).fit(X, y, sample_weight=weight)
    scaled = StandardScaler().fit_transform(X)
    direct = MLPRegressor(max_iter=5, random_state=0).fit(scaled, y, sample_weight=weight)
    np.testing.assert_array_equal(routed.predict(X), direct.predict(scaled))


@pytest.mark.parametrize("name", ["multiclass", "regression"])
def test_arrays_that_skip_the_validation_and_others(name):
    X, y = problem(name)
    make = MLPRegressor if name == "regression" else MLPClassifier
    estimator = make(max_iter=3, random_state=0).fit(X, y)
    expected = estimator.predict(X)
    for form in (X.tolist(), np.asfortranarray(X), X[::-1][::-1], X.astype(object)):
        np.testing.assert_array_equal(estimator.predict(form), expected)
    for value in (np.nan, np.inf):
        bad = X.copy()
        bad[3, 1] = value
        with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
            estimator.predict(bad)
    with pytest.raises(ValueError, match=r"X has 1 features, but MLP\w+ is expecting"):
        estimator.predict(X[:, :1].copy())
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        estimator.predict(X[:0])
    with pytest.raises(NotFittedError):
        make().predict(X)
    np.testing.assert_array_equal(estimator.predict(X), expected)
