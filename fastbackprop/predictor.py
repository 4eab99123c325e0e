"""What a network computes from rows of data: outputs, measures and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbackprop import evaluation, inference
from fastbackprop import metrics as metric_specs
from fastbackprop.data import TrainingData, checked_data, checked_inputs, checked_sample
from fastbackprop.fitting import checked_rows
from fastbackprop.metrics import Metrics
from fastbackprop.parameters import ParameterHolder
from fastbackprop.plan import Array


class Predictor(ParameterHolder):
    """What a network says of data and leaves itself as it is: outputs, measures, gradients."""

    def predict(self, X: Any) -> Array:
        """The network's outputs.

        Parameters
        ----------
        X : array_like, (n, n_in)
            As in `fit`.

        Returns
        -------
        ndarray, (n, n_out)
            Probabilities for the cross-entropies, else the last layer's activations.

        Raises
        ------
        TypeError, ValueError
            If X is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([2, 1], "identity", "mse")
        >>> net.set_parameters([2, 3, 10])
        >>> net.predict([[1, 1], [0, -1]])
        array([[15.],
               [ 7.]], dtype=float32)
        """
        return inference.outputs(self._state, self._inputs(X))

    def predict_classes(self, X: Any) -> Array:
        """The class of each row: that of its largest output; of one output, whether it is over ½.

        Parameters
        ----------
        X : array_like, (n, n_in)
            As in `fit`.

        Returns
        -------
        ndarray of int64, (n,)
            Numbers from 0; `classes` says what they are called.

        Raises
        ------
        TypeError, ValueError
            If X is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([2, 2], loss="cross_entropy")
        >>> net.set_parameters([1, 0, 0, 1, 0, 0])
        >>> net.predict_classes([[3, 1], [-1, 0]])
        array([0, 1])
        """
        result = self.predict(X)
        if result.shape[1] == 1:
            return (result[:, 0] > 0.5).astype(np.int64)
        return result.argmax(axis=1)

    def evaluate(
        self, X: Any, y: Any = None, sample_weight: Any = None, metrics: Metrics = ()
    ) -> dict[str, float]:
        """Loss, accuracy where there are classes, and any other metrics.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`: arrays, or `datasets.Shards` or an iterable of batches without y, of which
            one is in memory at a time (for metrics, the outputs of all).
        metrics : sequence of str, Metric or callable, or dict, optional
            More to measure, by the names of `fastbackprop.metrics` ("top_5_accuracy", "precision",
            "recall", "f1", "f1_macro", "r2", "mae", "rmse", ...), as one of its objects, or by a
            function of y and the outputs (n, n_out); a dict gives functions other names.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``: the mean loss and the fraction classified rightly;
            then the metrics by name.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([1, 2], "identity", "cross_entropy", random_state=0)
        >>> net.set_parameters([-1, 1, 0, 0])
        >>> result = net.evaluate([[-2], [1], [3]], [0, 0, 1], metrics=["recall", "f1"])
        >>> {name: round(value, 3) for name, value in result.items()}
        {'loss': 0.716, 'accuracy': 0.667, 'recall': 1.0, 'f1': 0.667}
        """
        chosen = metric_specs.checked(metrics)
        rows = checked_rows(X, y, sample_weight, self._state.plan, chosen)
        return evaluation.evaluation(self._state, rows, chosen)

    def loss(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The mean loss, without dropout.

        Parameters
        ----------
        X, y, sample_weight
            As in `evaluate`.

        Returns
        -------
        float
            In nats for the cross-entropies, else as `Loss` says.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([1, 1], "identity", "mse")
        >>> net.set_parameters([1, 0])
        >>> net.loss([[1], [2]], [3, 2])
        2.0
        """
        return self.evaluate(X, y, sample_weight)["loss"]

    def loss_and_gradients(
        self, X: Any, y: Any, sample_weight: Any = None
    ) -> tuple[float, list[tuple[Array, Array | None]]]:
        """The mean loss, without dropout, and its gradient with respect to each parameter.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; all rows are one batch.

        Returns
        -------
        loss : float
            The mean loss.
        gradients : list of (dw, db)
            Of each Dense layer: (n_in, n_out) and (n_out,); db is None for a layer without bias.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([2, 3, 1], random_state=0)
        >>> loss, gradients = net.loss_and_gradients([[0.5, -1.0]], [1.0])
        >>> [(dw.shape, db.shape) for dw, db in gradients]
        [((2, 3), (3,)), ((3, 1), (1,))]
        """
        result = inference.gradients(self._state, self._data(X, y, sample_weight))
        plan = self._state.plan
        pairs = zip(plan.weights(result.parameters), plan.biases(result.parameters), strict=True)
        return result.loss, list(pairs)

    def input_gradient(self, X: Any, y: Any, sample_weight: Any = None) -> Array:
        """The gradient of the mean loss, without dropout, with respect to X.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; all rows are one batch.

        Returns
        -------
        ndarray, (n, n_in)
            In units of the loss over those of X.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([2, 1], "identity", "mse")
        >>> net.set_parameters([2, 3, 0])
        >>> net.input_gradient([[1, 1]], [4])  # 2 · (5 − 4) · w
        array([[4., 6.]], dtype=float32)
        """
        data = self._data(X, y, sample_weight)
        result = inference.gradients(self._state, data, inputs=True).inputs
        assert result is not None
        return result

    def jacobian(self, x: Any) -> Array:
        """The derivative of each output with respect to each input, (n_out, n_in), at one sample.

        Parameters
        ----------
        x : array_like, (n_in,)
            The sample.

        Returns
        -------
        ndarray, (n_out, n_in)
            In units of the outputs over those of x.

        Raises
        ------
        TypeError, ValueError
            If x is not as described.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([3, 2], "identity", random_state=0)
        >>> np.allclose(net.jacobian([1, 2, 3]), net.weights[0].T)
        True
        """
        plan = self._state.plan
        return inference.jacobian(self._state, checked_sample(x, plan.n_in, plan.dtype))

    def _inputs(self, X: Any) -> Array:
        return checked_inputs(X, self._state.plan.n_in)

    def _data(self, X: Any, y: Any, sample_weight: Any, *, values: bool = False) -> TrainingData:
        return checked_data(self._state.plan, X, y, sample_weight, values=values)
