"""What both estimators share: parameters and the course of a fit."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from itertools import chain
from numbers import Integral, Real
from operator import index
from typing import Any, ClassVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_sample_weight

from fastbackprop import inference
from fastbackprop.callbacks import Callback, Checkpoint
from fastbackprop.data import Targets, TrainingData
from fastbackprop.plan import Array
from fastbackprop.sklearn import lbfgs, stochastic
from fastbackprop.sklearn.holder import ACTIVATIONS, NetworkHolder, as_inputs
from fastbackprop.sklearn.objective import Objective

STOCHASTIC_SOLVERS = ("sgd", "adam")

# The level of a warning in `_fit_stochastic` that names the place where scikit-learn calls `fit`:
# a user's filter for warnings of the module sklearn goes on to hold.
_FROM_FIT = 4


class BaseMLP(NetworkHolder, ABC):
    """Base of `MLPClassifier` and `MLPRegressor`; see there."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), list, tuple],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC_SOLVERS})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "callbacks": [list, tuple, Callback],
        "n_threads": [Interval(Integral, 1, 256, closed="both"), None],
    }

    # ------------------------------------------------------- what a kind of estimator decides

    @abstractmethod
    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Array]:
        """X and y as arrays, y of the shape (n,) or (n, n_outputs)."""

    @abstractmethod
    def _objective(self) -> Objective:
        """What is made small; sets ``out_activation_``."""

    @abstractmethod
    def _targets(self, y: Array, dtype: np.dtype[Any]) -> Targets:
        """The targets of validated (n, n_outputs) y for the kernels."""

    @abstractmethod
    def _validation_score(self, outputs: Array, y: Array, sample_weight: Array | None) -> float:
        """How well outputs fit validated (n, n_outputs) y: what early stopping goes by."""

    def _weights(self, X: Any, y: Array, sample_weight: Any) -> Array | None:
        """The weight of each row."""
        if sample_weight is None:
            return None
        weights: Array = _check_sample_weight(sample_weight, X)
        if not weights.any():  # which scikit-learn's check refuses since 1.9
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weights

    # ------------------------------------------------------------------------------------- fit

    def _draw(self, rng: np.random.RandomState) -> None:
        """Initial parameters, the same that scikit-learn draws."""
        names = self.activation
        if isinstance(names, str):
            names = [names]
        for i, (weights, bias) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            name = names[min(i, len(names) - 1)] if names else "relu"
            factor = 2.0 if name == "logistic" else 6.0
            bound = np.sqrt(factor / sum(weights.shape))
            weights[...] = rng.uniform(-bound, bound, weights.shape)
            bias[...] = rng.uniform(-bound, bound, bias.shape)

    def _initialize(
        self, n_features: int, hidden: list[int], objective: Objective, dtype: np.dtype[Any]
    ) -> None:
        """Everything that a first fit begins with."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(hidden) + 2
        self._build([n_features, *hidden, self.n_outputs_], dtype, objective)
        self._draw(self._random_state)
        if self.dropout > 0.0:
            self._network._state.seed = int(self._random_state.randint(2**31))
        if self.solver in STOCHASTIC_SOLVERS:
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            if self.early_stopping:
                self.validation_scores_: Any = []
                self.validation_loss_curve_: Any = []
                self.best_validation_score_: Any = -np.inf
                self.best_loss_: Any = None
                self._best_parameters = self._network.get_parameters()
            else:
                self.best_loss_ = np.inf
                self.validation_scores_ = None
                self.validation_loss_curve_ = None
                self.best_validation_score_ = None

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        sizes = self.hidden_layer_sizes
        hidden = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        hidden = [index(size) for size in hidden]
        first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validate_input(X, y, incremental, reset=first_pass)
        sample_weight = self._weights(X, y, sample_weight)
        if y.ndim == 1:
            y = y.reshape(-1, 1)
        n_outputs = y.shape[1]
        if not first_pass and n_outputs != len(self.intercepts_[-1]):
            raise ValueError(
                f"y has {n_outputs} outputs, but {type(self).__name__} was fitted with "
                f"{len(self.intercepts_[-1])}, and goes on from there."
            )
        self.n_outputs_ = n_outputs
        self._random_state = check_random_state(self.random_state)
        objective = self._objective()
        if first_pass:
            self._initialize(X.shape[1], hidden, objective, X.dtype)
        else:
            self._go_on_with(objective)
        if self.solver == "lbfgs":
            self._fit_lbfgs(X, y, sample_weight, objective)
        else:
            self._fit_stochastic(X, y, sample_weight, objective, incremental)
        if not all(np.isfinite(w).all() for w in chain(self.coefs_, self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    def _go_on_with(self, objective: Objective) -> None:
        """Keep the weights, in a network that is as the estimator's parameters say now."""
        old = self._current_network()
        layers = self._layers(old.sizes, objective.output)
        if tuple(layers) != old.layers or objective.loss != old.loss_function:
            self._build(old.sizes, old.dtype, objective)
            self._network.set_parameters(old.get_parameters())
        self._link()

    def _training_data(self, X: Any, y: Array, sample_weight: Any) -> TrainingData:
        network = self._network
        weights = None
        if sample_weight is not None:
            weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
        inputs = as_inputs(X, network.sizes[0])
        return TrainingData(inputs, self._targets(y, network.dtype), weights)

    def _fit_lbfgs(
        self, X: Any, y: Array, sample_weight: Array | None, objective: Objective
    ) -> None:
        if self.dropout > 0.0:
            raise ValueError(
                f"solver='lbfgs' needs a loss that stays the same, got dropout={self.dropout}; "
                "use solver='adam' or 'sgd'"
            )
        data = self._training_data(X, y, sample_weight)
        state = self._network._state
        with lbfgs.FullGradient(state, data, objective, self._threads()) as gradient:
            result = lbfgs.minimize(
                gradient,
                max_fun=self.max_fun,
                max_iter=self.max_iter,
                tol=self.tol,
                verbose=bool(self.verbose),
            )
            self.loss_ = gradient.reported_loss()
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)

    def _begin_descent(self, objective: Objective) -> None:
        """A new optimizer, at its first learning rate."""
        self._network._state.forget()
        policy = self.learning_rate if self.solver == "sgd" else "constant"
        self._rate = stochastic.LearningRate(self.learning_rate_init, policy, self.power_t)
        if self.solver == "sgd":
            self._optimizer = stochastic.sgd(
                self.learning_rate_init, self.momentum, self.nesterovs_momentum, objective
            )
        else:
            self._optimizer = stochastic.adam(
                self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon, objective
            )

    def _batch_rows(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=_FROM_FIT + 1,
            )
        return min(int(self.batch_size), n)

    def _hold_back(
        self, X: Any, y: Array, sample_weight: Array | None
    ) -> tuple[Array, stochastic.HeldBack]:
        """The rows to learn from, and the others, to validate with: scikit-learn's own split."""
        chosen, others = train_test_split(
            np.arange(X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        if len(others) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        X_val = (X.tocsr() if hasattr(X, "tocsr") else X)[others]
        weights = None if sample_weight is None else sample_weight[others]
        data = self._training_data(X_val, y[others], weights)
        return chosen, stochastic.HeldBack(data, y[others])

    def _checked_callbacks(self) -> list[Callback]:
        callbacks = [self.callbacks] if isinstance(self.callbacks, Callback) else self.callbacks
        for callback in callbacks:
            if not isinstance(callback, Callback) or isinstance(callback, Checkpoint):
                raise TypeError(
                    "callbacks must be Callbacks, and no Checkpoint, which goes with Network.fit "
                    f"alone; got {callback!r}"
                )
            names = ["loss", "learning_rate", "seconds"]
            callback.check_logs([*names, *(["val_score", "val_loss"] * self.early_stopping)])
        return list(callbacks)

    def _fit_stochastic(
        self,
        X: Any,
        y: Array,
        sample_weight: Array | None,
        objective: Objective,
        incremental: bool,
    ) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._begin_descent(objective)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        net, state = self._network, self._network._state
        rows, held_back = None, None
        if self.early_stopping:
            rows, held_back = self._hold_back(X, y, sample_weight)
        n = X.shape[0] if rows is None else len(rows)
        callbacks = self._checked_callbacks()
        descent = stochastic.Descent(
            state,
            self._training_data(X, y, sample_weight),
            n,
            self._batch_rows(n),
            objective,
            self._optimizer,
            self._threads(),
        )
        net.stop_training = False
        for callback in callbacks:
            callback.on_train_begin(net)
        order = rows
        shuffled = np.arange(n)
        try:
            with descent:
                self.n_iter_ = 0
                for _ in range(self.max_iter):
                    for callback in callbacks:
                        callback.on_epoch_begin(net, state.epoch)
                    if self.shuffle:
                        # As sklearn.utils.shuffle would, epoch after epoch.
                        permutation = np.arange(n)
                        self._random_state.shuffle(permutation)
                        shuffled = shuffled[permutation]
                        order = shuffled if rows is None else rows[shuffled]
                    logs = self._run_epoch(descent, order, n, held_back, objective)
                    for callback in callbacks:
                        callback.on_epoch_end(net, state.epoch - 1, dict(logs))
                    if self._ends_here() or incremental or net.stop_training:
                        break
                    if self.n_iter_ == self.max_iter:
                        warnings.warn(
                            f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached "
                            "and the optimization hasn't converged yet.",
                            ConvergenceWarning,
                            stacklevel=_FROM_FIT,
                        )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=_FROM_FIT)
        if self.early_stopping:
            state.plan.unpack(self._best_parameters, state.params)
        for callback in callbacks:
            callback.on_train_end(net)

    def _run_epoch(
        self,
        descent: stochastic.Descent,
        order: Array | None,
        n: int,
        held_back: stochastic.HeldBack | None,
        objective: Objective,
    ) -> dict[str, float]:
        """One epoch and what it leads to, but for stopping; returns what callbacks are told."""
        start = time.perf_counter()
        logs = {"learning_rate": descent.rate(self._rate)}
        self.loss_ = logs["loss"] = descent.run(order, self._rate)
        logs["seconds"] = time.perf_counter() - start
        self.n_iter_ += 1
        self.t_ += n
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if held_back is None:
            self._note_loss()
        else:
            logs.update(self._validate(held_back, objective))
        self._rate.end_epoch(self.t_)
        return logs

    def _note_loss(self) -> None:
        if self.loss_ > self.best_loss_ - self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        self.best_loss_ = min(self.loss_, self.best_loss_)

    def _validate(self, held_back: stochastic.HeldBack, objective: Objective) -> dict[str, float]:
        state = self._network._state
        data = held_back.data
        outputs = inference.outputs(state, data.X, self._threads())
        score = np.nan
        if np.isfinite(outputs).all():
            score = float(self._validation_score(outputs, held_back.y, data.weights))
        sums = inference.sums(state, data, self._threads())
        loss = sums.loss / sums.weight * objective.report_factor
        self.validation_scores_.append(score)
        self.validation_loss_curve_.append(loss)
        if self.verbose:
            print(f"Validation score: {score:f}")
        if score < self.best_validation_score_ + self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        if score > self.best_validation_score_:
            self.best_validation_score_ = score
            self._best_parameters = state.plan.pack(state.params)
        return {"val_score": score, "val_loss": loss}

    def _ends_here(self) -> bool:
        """Whether training stops because it makes no progress."""
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        measure = "Validation score" if self.early_stopping else "Training loss"
        reason = (
            f"{measure} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        if self._rate.should_stop(reason, bool(self.verbose)):
            return True
        self._no_improvement_count = 0
        return False

    def _check_solver(self) -> bool:
        if self.solver not in STOCHASTIC_SOLVERS:
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
