"""MLPClassifier: log-loss for binary, multiclass and multilabel problems."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)
from sklearn.utils.validation import validate_data

from fastbackprop._kernels.records import SCORE_LARGEST, SCORE_THRESHOLD
from fastbackprop.activations import Activation
from fastbackprop.data import Targets
from fastbackprop.losses import Loss
from fastbackprop.plan import Array
from fastbackprop.sklearn.base import BaseMLP
from fastbackprop.sklearn.objective import Objective


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A classifier that makes the log-loss small.

    A drop-in replacement of ``sklearn.neural_network.MLPClassifier``: the same parameters,
    attributes, errors and, but for rounding, results, with epochs that run in compiled kernels. The
    type of X decides that of the arithmetic: pass float32 for about twice the speed.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, or int, default=(100,)
        Units of each hidden layer.
    activation : str, or list of str, default="relu"
        Of the hidden layers: "identity", "logistic", "tanh" or "relu" as in scikit-learn, or
        "leaky_relu" (slope 0.01), "elu", "silu" or "gelu". A list names one for each layer.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        "lbfgs" is SciPy's, on the gradient of all the data; it does not use ``dropout``,
        ``callbacks`` or ``early_stopping``.
    alpha : float, default=0.0001
        The penalty ½ alpha · Σ w² / n on the weights, not the intercepts, for n samples a batch.
    batch_size : int or "auto", default="auto"
        Samples a step; "auto" is min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        For sgd. "invscaling" is learning_rate_init / (t + 1)^power_t after t samples, "adaptive" a
        fifth whenever training makes no progress.
    learning_rate_init : float, default=0.001
        The first learning rate.
    power_t : float, default=0.5
        The exponent of "invscaling".
    max_iter : int, default=200
        At most so many epochs, or iterations of lbfgs.
    shuffle : bool, default=True
        Whether samples are taken in a new random order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, batches, the validation split and dropout. The first three are
        those of scikit-learn for the same number.
    tol : float, default=1e-4
        Training stops, or its rate falls, when the loss (the validation score, with early
        stopping) has not become better by this for ``n_iter_no_change`` epochs.
    verbose : bool or int, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last fit.
    momentum : float, default=0.9
        Of sgd, in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether it is Nesterov's.
    early_stopping : bool, default=False
        Whether to hold back ``validation_fraction`` of the samples, stop when the score there gets
        no better, and return to the weights that were best.
    validation_fraction : float, default=0.1
        The share of samples held back.
    beta_1, beta_2 : float, default=0.9 and 0.999
        Of adam: what is kept of the running means of the gradient and of its square in each step.
    epsilon : float, default=1e-8
        Of adam: what is added to the root of the second.
    n_iter_no_change : int, default=10
        See ``tol``.
    max_fun : int, default=15000
        At most so many evaluations of the loss by lbfgs.
    class_weight : dict, list of dict, "balanced" or None, default=None
        A factor of the weight of each sample by its class, as in scikit-learn's other classifiers.
    dropout : float, default=0.0
        The probability that a hidden unit's output is left out of a training step.
    callbacks : Callback or sequence of Callback, default=()
        Called around each epoch with the network inside and a dict of ``loss``, ``learning_rate``,
        ``seconds`` and, with early stopping, ``val_loss`` and ``val_score``.
    n_threads : int or None, default=None
        How many threads work together. The result does not depend on it. None chooses by the work,
        and in a worker process of joblib takes no more than its share of the cores.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted; for several labels at a time, their columns.
    coefs_, intercepts_ : list of ndarray, (n_in, n_out) and (n_out,)
        The parameters of each layer. What is written there is what predictions use.
    loss_ : float
        The loss of the last epoch, penalty included.
    best_loss_ : float or None
        The least loss of an epoch; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float; or None
        With early stopping: the score of each epoch (accuracy), and the best.
    validation_loss_curve_ : list of float, or None
        With early stopping: the loss of each epoch on the samples held back, without penalty.
    n_iter_, t_ : int
        Epochs of the last fit; samples learned from in all.
    n_features_in_, n_outputs_, n_layers_ : int
        Inputs, outputs, and layers with that of the inputs.
    feature_names_in_ : ndarray of str
        The columns of X, where it had names.
    out_activation_ : str
        "softmax" for more than two classes, else "logistic".

    References
    ----------
    scikit-learn 1.7, ``sklearn.neural_network.MLPClassifier``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastbackprop.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(learning_rate_init=0.01, random_state=0).fit(X, y)
    >>> classifier.predict(X[:3])
    array([0, 0, 0])
    >>> classifier.score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }
    loss = "log_loss"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: float = 0.0,
        callbacks: Any = (),
        n_threads: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.class_weight = class_weight
        self.dropout = dropout
        self.callbacks = callbacks
        self.n_threads = n_threads

    # ------------------------------------------------------------------------------------- fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Learn from data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples. CSR is read as it is, batch by batch; CSC becomes CSR first.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels of any kind, or rows of 0 and 1 for several labels at a time.
        sample_weight : array-like of shape (n_samples,), default=None
            The loss of a batch is Σ wᵢ ℓᵢ / Σ wᵢ.

        Returns
        -------
        self : MLPClassifier
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Learn from data for one epoch, going on from where an earlier call ended.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will have. Needed in the first call, ignored later.

        Returns
        -------
        self : MLPClassifier
        """
        if self.class_weight is not None and not isinstance(self.class_weight, dict):
            raise ValueError(
                f"class_weight={self.class_weight!r} is not supported for partial_fit, which does "
                "not see all of y. Pass a dict, or sample_weight."
            )
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer.fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start:
                if set(classes) != set(self.classes_):
                    raise ValueError(
                        "warm_start can only be used where `y` has the same classes as in the "
                        f"previous call to fit. Previously got {self.classes_}, `y` has {classes}"
                    )
            elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    "`y` has classes not in `self.classes_`. "
                    f"`self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        return X, self._label_binarizer.transform(y).astype(bool)

    def _weights(self, X: Any, y: Array, sample_weight: Any) -> Array | None:
        weights = super()._weights(X, y, sample_weight)
        if self.class_weight is None:
            return weights
        labels = self._label_binarizer.inverse_transform(y.astype(np.int64))
        by_class = compute_sample_weight(self.class_weight, labels)
        return by_class if weights is None else weights * by_class

    def _objective(self) -> Objective:
        if self._label_binarizer.y_type_ == "multiclass":
            self.out_activation_ = "softmax"
            return Objective(Loss("cross_entropy"), Activation("softmax"), 1.0, 1.0, self.alpha)
        self.out_activation_ = "logistic"
        n_out = float(self.n_outputs_)  # of which binary_cross_entropy is the mean
        loss = Loss("binary_cross_entropy")
        return Objective(loss, Activation("sigmoid"), n_out, n_out, self.alpha)

    def _targets(self, y: Array, dtype: np.dtype[Any]) -> Targets:
        if self.out_activation_ == "softmax":
            return Targets(y.argmax(axis=1).astype(np.int64), None, SCORE_LARGEST)
        return Targets(None, np.ascontiguousarray(y, dtype=dtype), SCORE_THRESHOLD)

    def _validation_score(self, outputs: Array, y: Array, sample_weight: Array | None) -> float:
        if self.out_activation_ == "softmax":
            right = outputs.argmax(axis=1) == y.argmax(axis=1)
        else:
            right = ((outputs > 0.5) == y).all(axis=1)
        return float(np.average(right, weights=sample_weight))

    # --------------------------------------------------------------------------------- predict

    def predict(self, X: Any) -> Array:
        """The classes of samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The most probable class of each; for several labels at a time, 0 or 1 for each label.
        """
        outputs = self._outputs(X)
        if self.out_activation_ == "softmax":
            return self.classes_[outputs.argmax(axis=1)]
        if self.n_outputs_ == 1 and len(self.classes_) == 2:
            return self.classes_[(outputs[:, 0] > 0.5).astype(np.intp)]
        if self.n_outputs_ == 1:
            outputs = outputs.ravel()
        return self._label_binarizer.inverse_transform(outputs)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        outputs = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.hstack([1.0 - outputs, outputs])
        return outputs

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
