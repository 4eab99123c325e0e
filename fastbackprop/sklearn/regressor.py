"""MLPRegressor: squared, Poisson, absolute, Huber and quantile losses."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from fastbackprop._kernels.records import SCORE_NONE
from fastbackprop.activations import Activation
from fastbackprop.data import Targets
from fastbackprop.losses import Loss
from fastbackprop.plan import Array
from fastbackprop.sklearn.base import BaseMLP
from fastbackprop.sklearn.objective import Objective

_LOSSES = ("squared_error", "poisson", "mae", "huber", "quantile")


class MLPRegressor(RegressorMixin, BaseMLP):
    """A regressor with one output or several.

    A drop-in replacement of ``sklearn.neural_network.MLPRegressor``: the same parameters,
    attributes, errors and, but for rounding, results, with epochs that run in compiled kernels. The
    type of X decides that of the arithmetic: pass float32 for about twice the speed.

    Parameters
    ----------
    loss : {"squared_error", "poisson", "mae", "huber", "quantile"}, default="squared_error"
        "squared_error" is ½(y − a)² and "poisson" half the Poisson deviance, with an output a = eᶻ
        and y ≥ 0, as in scikit-learn. "mae" is |y − a|, "huber" and "quantile" are those of
        `fastbackprop.Loss`.
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
    delta : float, default=1.0
        Where the Huber loss turns from a parabola into a line, in the unit of y.
    quantile : float, default=0.5
        The share of targets that should be below the output of the quantile loss.
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
    coefs_, intercepts_ : list of ndarray, (n_in, n_out) and (n_out,)
        The parameters of each layer. What is written there is what predictions use.
    loss_ : float
        The loss of the last epoch, penalty included.
    best_loss_ : float or None
        The least loss of an epoch; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float; or None
        With early stopping: the score of each epoch (R²), and the best.
    validation_loss_curve_ : list of float, or None
        With early stopping: the loss of each epoch on the samples held back, without penalty.
    n_iter_, t_ : int
        Epochs of the last fit; samples learned from in all.
    n_features_in_, n_outputs_, n_layers_ : int
        Inputs, outputs, and layers with that of the inputs.
    feature_names_in_ : ndarray of str
        The columns of X, where it had names.
    out_activation_ : str
        "exp" for the Poisson loss, else "identity".

    References
    ----------
    scikit-learn 1.7, ``sklearn.neural_network.MLPRegressor``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbackprop.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> regressor = MLPRegressor(activation="tanh", solver="lbfgs", random_state=0)
    >>> regressor.fit(X, np.sin(3 * X[:, 0])).score(X, np.sin(3 * X[:, 0])) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions(set(_LOSSES))],
        "delta": [Interval(Real, 0, None, closed="neither")],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
        delta: float = 1.0,
        quantile: float = 0.5,
        dropout: float = 0.0,
        callbacks: Any = (),
        n_threads: int | None = None,
    ) -> None:
        self.loss = loss
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
        self.delta = delta
        self.quantile = quantile
        self.dropout = dropout
        self.callbacks = callbacks
        self.n_threads = n_threads

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples. CSR is read as it is, batch by batch; CSC becomes CSR first.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets; at least 0 for the Poisson loss.
        sample_weight : array-like of shape (n_samples,), default=None
            The loss of a batch is Σ wᵢ ℓᵢ / Σ wᵢ.

        Returns
        -------
        self : MLPRegressor
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from data for one epoch, going on from where an earlier call ended.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self : MLPRegressor
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if issparse(y):
            raise TypeError(
                "Sparse data was passed for y, but dense data is required. Use '.toarray()' to "
                "convert to a dense numpy array."
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and np.any(y < 0):
            raise ValueError("loss='poisson' needs y >= 0, got a negative value in y")
        return X, y

    def _objective(self) -> Objective:
        n_out = float(self.n_outputs_)
        if self.loss == "squared_error":
            self.out_activation_ = "identity"
            return Objective(
                Loss("quadratic"), Activation("identity"), 1.0, 1.0 / n_out, self.alpha
            )
        if self.loss == "poisson":
            self.out_activation_ = "exp"
            return Objective(Loss("poisson"), Activation("exp"), n_out, n_out, self.alpha)
        self.out_activation_ = "identity"
        options = {"huber": {"delta": self.delta}, "quantile": {"quantile": self.quantile}}
        loss = Loss(self.loss, **options.get(self.loss, {}))
        return Objective(loss, Activation("identity"), n_out, 1.0, self.alpha)

    def _targets(self, y: Array, dtype: np.dtype[Any]) -> Targets:
        return Targets(None, np.ascontiguousarray(y, dtype=dtype), SCORE_NONE)

    def _validation_score(self, outputs: Array, y: Array, sample_weight: Array | None) -> float:
        return float(r2_score(y, outputs, sample_weight=sample_weight))

    def predict(self, X: Any) -> Array:
        """The outputs for samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            What the network predicts.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs
