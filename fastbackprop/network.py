"""Network: what a user builds, trains, evaluates, saves and asks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop import (
    activations,
    construction,
    evaluation,
    inference,
    losses,
    optimizers,
    storage,
    summary,
    training,
)
from fastbackprop import metrics as metric_specs
from fastbackprop.activations import Activation
from fastbackprop.callbacks import Callback
from fastbackprop.data import TrainingData, checked_data, checked_inputs, checked_parameters
from fastbackprop.exchange import onnx_writer, pytorch, scikit_learn
from fastbackprop.fitting import Given, checked_recipe, checked_rows, checked_source
from fastbackprop.history import History
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Layer, check_chain
from fastbackprop.losses import Loss
from fastbackprop.metrics import Metrics
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Array, Plan
from fastbackprop.specs import NON_NEGATIVE, checked_flag, checked_number
from fastbackprop.state import State


class Network:
    """A dense feed-forward network.

    Parameters
    ----------
    layers : sequence of int, or sequence of Layer
        The number of units of each layer, inputs first: ``[784, 128, 10]``. Or the layers
        themselves: `Dense`, `Dropout`, `Rescaling`, where each Dense names its activation.
    activation : str or Activation, default "sigmoid"
        Of the hidden layers, where sizes are given.
    loss : str or Loss, default "quadratic"
        What training makes small: quadratic, mse, mae, huber, quantile, poisson,
        cross_entropy or binary_cross_entropy.
    output_activation : str or Activation, optional
        Of the last layer. Unless given it follows from the loss: for quadratic the hidden one, for
        mse, mae, huber and quantile none, for poisson exp, for cross_entropy softmax, for
        binary_cross_entropy sigmoid.
    init : str or Initializer, optional
        How weights are drawn, where sizes are given; chosen by the activation unless given.
    random_state : int, numpy.random.Generator or None, default None
        Decides the initial weights, the order of rows and the dropout masks. With an integer,
        everything is repeatable: the same version on the same type of machine gives the same bits,
        at any number of threads. None draws from the system.
    dtype : "float32" or "float64", default "float32"
        Of parameters and arithmetic.

    Attributes
    ----------
    weights : list of ndarray, (n_in, n_out)
        Of each Dense layer, as writable views.
    biases : list of ndarray, (n_out,)
        Likewise; None for a layer without.
    classes : tuple of str, int or float, or None
        What class 0, 1, ... is called, where that is known.
    history : History
        Every epoch trained so far.
    stop_training : bool
        Set to True in a callback, it ends `fit` after the current epoch. `fit` begins with False.

    Raises
    ------
    TypeError
        If an argument is not of the type named.
    ValueError
        If a name is unknown, a size is below 1, layers do not chain, or the loss does not fit the
        output activation.

    Notes
    -----
    Threads may train and ask different networks at once, and ask one network at once: predict,
    evaluate, gradients. Two threads cannot train one network: the second gets a RuntimeError, and
    the first is not disturbed. What `predict` or `save` gives while another thread trains is of
    parameters in motion; in a callback it is of whole epochs.

    Networks work in processes that are forked, spawned or started by a fork server, by
    multiprocessing, concurrent.futures or joblib. Where a process is forked while another of its
    threads trains, the child's copy of that network may be in the middle of a step and cannot be
    trained; a `clone` of it can. NumPy cannot be imported into two interpreters of one process, so
    the package serves one of them. Nothing in it relies on the global interpreter lock, but it has
    not been run on a free-threaded Python, of which Numba supports 3.14 (cp314t), and not 3.13.

    Examples
    --------
    Learn exclusive or:

    >>> import fastbackprop as fb
    >>> X = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> net = fb.Network([2, 8, 1], "tanh", "binary_cross_entropy", random_state=0)
    >>> _ = net.fit(X, [0, 1, 1, 0], epochs=200, batch_size=4, optimizer=fb.Adam(0.05), verbose=0)
    >>> net.predict_classes(X)
    array([0, 1, 1, 0])
    """

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        activation: str | Activation = "sigmoid",
        loss: str | Loss = "quadratic",
        output_activation: str | Activation | None = None,
        init: str | Initializer | None = None,
        random_state: int | np.random.Generator | None = None,
        dtype: Any = "float32",
    ) -> None:
        chosen_loss = losses.get(loss)
        output = None if output_activation is None else activations.get(output_activation)
        chain = construction.as_layers(layers, activation, init, chosen_loss, output)
        check_chain(chain)
        rng = construction.as_generator(random_state)
        state = State(Plan(chain, chosen_loss, output, construction.as_dtype(dtype)))
        state.plan.draw(rng, state.params)
        state.seed = int(rng.integers(2**62))
        self._begin(chain, state)

    def _begin(self, layers: tuple[Layer, ...], state: State) -> None:
        self._layers = layers
        self._state = state
        self._busy = threading.Lock()
        self._classes: tuple[Any, ...] | None = None
        self.history = History()
        self.stop_training = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_busy"}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved, _busy=threading.Lock())

    # ---------------------------------------------------------------------------- what it is

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as they were given or made from sizes."""
        return self._layers

    @property
    def sizes(self) -> list[int]:
        """Units of each layer, inputs first."""
        stages = self._state.plan.stages
        return [stages[0].dense.n_in, *(stage.dense.n_out for stage in stages)]

    @property
    def loss_function(self) -> Loss:
        """The loss that training makes small; `loss` computes it."""
        return self._state.plan.loss

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters and arithmetic."""
        return self._state.plan.dtype

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """What class 0, 1, ... is called; None where that is not known.

        Training and `predict_classes` are about the numbers 0, 1, ... whatever they are called. The
        names are kept by `save`, go to and come from scikit-learn, and label pictures and what
        ``fastbackprop predict`` prints.

        Raises
        ------
        TypeError, ValueError
            If it is set to anything but different strings or numbers, one for each class.

        Examples
        --------
        >>> net = Network([4, 3], loss="cross_entropy", random_state=0)
        >>> net.classes = ["ham", "spam", "eggs"]
        >>> net.classes[net.predict_classes([[1, 2, 3, 4]])[0]]
        'spam'
        """
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[Any] | None) -> None:
        self._classes = construction.as_classes(names, self._state.plan.n_out)

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return self._state.plan.n_parameters

    @property
    def weights(self) -> list[Array]:
        """The weights of each Dense layer, (n_in, n_out), as writable views."""
        return self._state.plan.weights(self._state.params)

    @property
    def biases(self) -> list[Array | None]:
        """The bias of each Dense layer, (n_out,), as a writable view; None where it has none."""
        return self._state.plan.biases(self._state.params)

    def get_parameters(self) -> Array:
        """All parameters as one vector: layer by layer, weights row by row, then the bias.

        Returns
        -------
        ndarray, (n_parameters,)
            A copy.

        Examples
        --------
        >>> Network([3, 2], random_state=0).get_parameters().shape
        (8,)
        """
        return self._state.plan.pack(self._state.params)

    def set_parameters(self, theta: Any) -> None:
        """Replace all parameters.

        Parameters
        ----------
        theta : array_like, (n_parameters,)
            In the order of `get_parameters`.

        Raises
        ------
        TypeError
            If it does not hold real numbers.
        ValueError
            If its shape is another, or a value is not finite.

        Examples
        --------
        >>> net = Network([2, 1], "identity", "mse")
        >>> net.set_parameters([2, 3, 10])
        >>> net.weights[0].ravel(), net.biases[0]
        (array([2., 3.], dtype=float32), array([10.], dtype=float32))
        """
        values = checked_parameters(theta, self.n_parameters, self.dtype)
        self._state.plan.unpack(values, self._state.params)

    # -------------------------------------------------------------------------- what is trained

    @property
    def frozen(self) -> tuple[int, ...]:
        """The numbers of the Dense layers that training leaves as they are, see `freeze`."""
        return tuple(sorted(self._state.frozen))

    def freeze(self, *layers: int) -> None:
        """Let training leave layers as they are, to the last bit, until `unfreeze`.

        Neither weight decay nor momentum changes them, and their gradients are not part of the norm
        that ``clip_norm`` bounds. Layers before the first one that learns need no backward pass,
        which saves time. Gradients can be asked for as ever. A copy or a pickle of the network
        keeps this, a file that `save` writes does not.

        Parameters
        ----------
        *layers : int
            Their numbers, as in `weights`: Dense layers from 0, or from -1 for the last. All
            layers, if none is given.

        Raises
        ------
        TypeError
            If a number is no integer.
        IndexError
            If there is no such layer.

        Examples
        --------
        Train the last layer only:

        >>> net = Network([4, 8, 8, 3], random_state=0)
        >>> net.freeze(0, 1)
        >>> net.frozen
        (0, 1)
        """
        with self._exclusive():
            self._state.frozen |= self._layer_numbers(layers)

    def unfreeze(self, *layers: int) -> None:
        """Let training change layers again.

        Parameters
        ----------
        *layers : int
            Their numbers, as in `freeze`. All layers, if none is given.

        Raises
        ------
        TypeError
            If a number is no integer.
        IndexError
            If there is no such layer.

        Examples
        --------
        >>> net = Network([4, 8, 8, 3], random_state=0)
        >>> net.freeze()
        >>> net.unfreeze(-1)
        >>> net.frozen
        (0, 1)
        """
        with self._exclusive():
            self._state.frozen -= self._layer_numbers(layers)

    def _layer_numbers(self, layers: tuple[int, ...]) -> frozenset[int]:
        n_layers = len(self._state.plan.stages)
        return construction.as_layer_numbers(layers or range(n_layers), n_layers)

    @property
    def learning_rate_factor(self) -> float:
        """What the optimizer's rate is multiplied by in every step.

        It is 1 when training begins afresh with another optimizer. `ReduceLROnPlateau` makes it
        smaller; a callback of yours may set it, too.

        Raises
        ------
        TypeError, ValueError
            If it is set to anything but a number >= 0.
        RuntimeError
            If it is set before there has been any training.
        """
        return self._state.rate_factor

    @learning_rate_factor.setter
    def learning_rate_factor(self, factor: float) -> None:
        checked = checked_number("learning_rate_factor", factor, NON_NEGATIVE)
        if self._state.optimizer is None:
            raise RuntimeError(
                "learning_rate_factor belongs to an optimizer's state, and there is none yet: give "
                "the optimizer another learning_rate, or set it in a callback"
            )
        self._state.rate_factor = checked

    def clone(self, keep_optimizer: bool = False) -> Network:
        """A network of its own with the same layers and parameters.

        Its seed and number of epochs are the same, too, so that both go on alike; frozen layers
        are frozen in both, and classes have the same names. Its history is empty.

        Parameters
        ----------
        keep_optimizer : bool, default False
            Whether it gets a copy of the optimizer's state; otherwise its training begins afresh.

        Returns
        -------
        Network

        Raises
        ------
        TypeError
            If `keep_optimizer` is no bool.

        Examples
        --------
        >>> net = Network([2, 3, 1], random_state=0)
        >>> twin = net.clone()
        >>> twin.weights[0][...] = 0
        >>> net.weights[0].any()
        np.True_
        """
        keep = checked_flag("keep_optimizer", keep_optimizer)
        net = Network.__new__(Network)
        net._begin(self._layers, deepcopy(self._state))
        net._classes = self._classes
        if not keep:
            net._state.forget()
        return net

    # -------------------------------------------------------------------------------- training

    def fit(
        self,
        X: Any,
        y: Any = None,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: str | Optimizer | None = None,
        validation_data: Iterable[Any] | float | None = None,
        shuffle: bool | Any = True,
        sample_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        threads: int | None = None,
        verbose: int = 1,
        metrics: Metrics = (),
        class_weight: Mapping[int, float] | str | None = None,
        steps_per_epoch: int | None = None,
        resume_from: str | PathLike[str] | None = None,
    ) -> History:
        """Train by mini-batches; a later call goes on where this one ended.

        Parameters
        ----------
        X : array_like, (n, n_in)
            float32, float64 or any integer type; a memmap or a view is read in place, batch by
            batch, never copied whole. Without y: `datasets.Shards`, for data larger than memory, or
            an iterable of batches, (X, y) or (X, y, sample_weight), each of which is a step.
        y : array_like, (n,) or (n, n_out)
            Class labels from 0, or a row of targets (probabilities for the cross-entropies).
        epochs : int, default 10
            Passes over the data; with `resume_from`, those before are among them.
        batch_size : int, default 32
            Rows a step; the last step of an epoch, or on a file of Shards, takes what is left.
            Batches of an iterable come as they are.
        optimizer : str or Optimizer, default Adam()
            Its state lives in the network and goes on in a later call with an equal one.
        validation_data : (X, y), (X, y, sample_weight), float, Shards or iterable, optional
            Evaluated after each epoch. A fraction takes that share of the rows, from the end.
            Files of `datasets.Shards` are all read once before training, to find what is wrong with
            one of them. Of an iterable that is no list or tuple only the first batch is taken, and
            looked at, before training, the others as they come.
        shuffle : bool or array of int, (n,), default True
            Whether rows are taken in a new random order in each epoch; or the order itself. Batches
            of an iterable come in its own order.
        sample_weight : array_like, (n,), optional
            The loss of a batch is Σ wᵢ ℓᵢ / Σ wᵢ: 0 leaves a row out, 2 counts it twice.
        callbacks : sequence of Callback
            Called around each epoch. One may end training by ``net.stop_training = True``.
        threads : int, optional
            How many threads work together. Unless given it is chosen by the work of a step, and is
            at most the number of cores, or NUMBA_NUM_THREADS where the environment has it. The
            result does not depend on it.
        verbose : int, default 1
            0 prints nothing. Otherwise a bar, in a terminal or a notebook.
        metrics : sequence of str, Metric or callable, or dict, optional
            Measured on the validation data after each epoch, under ``val_`` and their names; see
            `evaluate`. Training rows are not measured: their outputs change with every step.
        class_weight : dict from int to float, or "balanced", optional
            What the weights of the training rows of each class are multiplied by, 1 for a class
            that is not named; "balanced" gives every class the same sum of weights.
        steps_per_epoch : int, optional
            For an iterable of batches: how many an epoch takes, from where the last one ended, and
            from the beginning again when it ends. Otherwise an epoch takes all. A generator, which
            can be read only once, needs it if there are several epochs.
        resume_from : path, optional
            A folder in which `Checkpoint` wrote, of which the newest file is taken, or one file.
            The training goes on from there with the same bits as if it had never ended: parameters,
            optimizer, histories and callbacks are put back, and what this network holds is dropped.
            All other arguments must be those that the training began with, so that a script can be
            run again as it is. For that, a folder that is not there yet, or holds no checkpoint,
            means to begin. A training that was completed, or ended by a callback, stays so.

        Returns
        -------
        History
            What was measured in each epoch of this call, and of the one that it resumes.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or every layer is frozen; nothing has changed then.
            If a batch or a file is not, the network is as it was before that epoch, and so is its
            optimizer.
            If a checkpoint is of another network, optimizer, loss or number of rows; nothing has
            changed then.
        FileNotFoundError, PermissionError
            If `resume_from` names a file that may not be read.
        FileFormatError
            If the checkpoint is damaged. The one before it is not taken unasked.
        DivergenceError
            If a loss or a parameter became infinite or NaN. The network then has the parameters of
            the last good epoch.
        KeyboardInterrupt
            On Ctrl-C, within 0.3 s. The step that is being made is dropped; all before it have been
            taken, and `history` has the epochs that were completed. Another call of fit goes on.
            If a parameter is no longer finite then, all are those of the last good epoch.
        RuntimeError
            If the network is being trained by another thread, by the fit that called this callback,
            or when this process was forked. That training is not disturbed.

        Notes
        -----
        Ctrl-C takes longer in two places: the update of over 50 million parameters, which is ended
        (0.7 s for 100 million), and, where kernels are compiled for the first time, the two or
        three seconds in which LLVM makes their machine code.

        One `random_state`, one result, to the last bit of every parameter and loss: for any number
        of threads, in every run, process and start method of processes, whichever type holds the
        values of X (float32, uint8, ...) and however they lie in memory (views, memmaps), and from
        any copy (a file, a pickle, a clone). The promise is for the same version of fastbackprop,
        the same kind of processor (its SIMD width decides the order of sums, as
        FASTBACKPROP_SIMD does) and the same dtype of the network. Initial weights are drawn by
        NumPy, whose version counts, too; so may those of Numba and LLVM.

        To be able to go back, fit keeps a copy of the parameters, and of the optimizer's state
        where it goes on. A copy of more than 64 MiB is in a temporary file.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([1, 16, 1], "tanh", "mse", random_state=0)
        >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> history = net.fit(x, np.sin(3 * x), epochs=300, optimizer=fb.Adam(0.01), verbose=0)
        >>> history["loss"][-1] < 0.01
        True
        """
        self._check_learns()
        recipe = checked_recipe(
            epochs, optimizer, callbacks, metrics, threads, verbose, resume_from
        )
        given = Given(
            X,
            y,
            sample_weight,
            class_weight,
            batch_size,
            shuffle,
            steps_per_epoch,
            validation_data,
        )
        record = History()
        with self._exclusive():
            source, validation = checked_source(given, self._state.plan, recipe)
            try:
                training.fit(self, self._state, source, validation, recipe, record)
            finally:
                self.history.extend(record)
        return record

    def train_step(
        self, X: Any, y: Any, optimizer: str | Optimizer | None = None, sample_weight: Any = None
    ) -> float:
        """One step of the optimizer on one batch.

        Parameters
        ----------
        X, y, sample_weight
            The batch, as in `fit`.
        optimizer : str or Optimizer, default Adam()
            As in `fit`; its step count is what a learning-rate schedule sees.

        Returns
        -------
        float
            The loss of the batch before the step.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described; nothing has changed then.
        DivergenceError
            If the loss or a parameter is not finite; the step has not been taken then.
        RuntimeError
            If the network is being trained, see `fit`.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = Network([1, 1], "identity", "mse", random_state=0)
        >>> net.set_parameters([0, 0])
        >>> net.train_step([[1.0]], [2.0], fb.SGD(0.25))
        4.0
        >>> net.predict([[1.0]])  # the gradient of (a - 2)² was -4, for weight and bias
        array([[2.]], dtype=float32)
        """
        self._check_learns()
        data = self._data(X, y, sample_weight)
        chosen = optimizers.get(optimizer)
        with self._exclusive():
            return training.step(self._state, data, chosen)

    # ------------------------------------------------------------------------------- inference

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
        >>> net = Network([2, 1], "identity", "mse")
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
        >>> net = Network([2, 2], loss="cross_entropy")
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
        >>> net = Network([1, 2], "identity", "cross_entropy", random_state=0)
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
        >>> net = Network([1, 1], "identity", "mse")
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
        >>> net = Network([2, 3, 1], random_state=0)
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
        >>> net = Network([2, 1], "identity", "mse")
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
        >>> net = Network([3, 2], "identity", random_state=0)
        >>> np.allclose(net.jacobian([1, 2, 3]), net.weights[0].T)
        True
        """
        return inference.jacobian(self._state, self._inputs(np.reshape(x, (1, -1)))[0])

    # --------------------------------------------------------------------------------- storage

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to a safetensors file, whole or not at all.

        Parameters
        ----------
        path : str or path
            ``fastbackprop.load`` reads it. An existing file is replaced.

        Raises
        ------
        OSError
            If it cannot be written; an existing file is as it was then.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> Network([2, 3, 1], random_state=0).save(path)
        >>> load(path)
        Network([2, 3, 1], loss='quadratic', dtype='float32')
        """
        storage.write(path, self._contents())

    def to_onnx(self, path: str | PathLike[str], dtype: Any = None) -> None:
        """Write what `predict` computes to an ONNX file (opset 17, IR version 8).

        Parameters
        ----------
        path : str or path
            An existing file is replaced, whole or not at all.
        dtype : "float32" or "float64", optional
            Of input, output and arithmetic; the network's own unless given. onnxruntime has no
            error function for float64, so gelu takes that in float32 always.

        Raises
        ------
        ImportError
            Without the package onnx: ``pip install "fastbackprop[onnx]"``.
        OSError
            If it cannot be written; an existing file is as it was then.
        ValueError
            If `dtype` is another, or the weights are larger than a file of ONNX can be (2 GiB).

        Notes
        -----
        The graph takes "input", (batch, n_in), and gives "output", (batch, n_out); batch is free.
        Rescaling is in it; Dropout, which does nothing outside training, is not.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import fastbackprop as fb
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"
        >>> Network([4, 3, 2], "gelu", "cross_entropy", random_state=0).to_onnx(path)
        >>> fb.from_onnx(path)
        Network([4, 3, 2], loss='cross_entropy', dtype='float32')
        """
        onnx_writer.write(path, self._contents(), dtype)

    def to_torch_state_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """The parameters as PyTorch's Linear layers hold them.

        Parameters
        ----------
        names : sequence of str, optional
            Of the Linear of each Dense layer; "layers.0", "layers.1" and so on unless given. In a
            Sequential of Linear and activations by turns they are "0", "2", "4".

        Returns
        -------
        dict
            A weight (n_out, n_in) and a bias (n_out,) for each layer, as tensors of their own. A
            Rescaling is multiplied into the first layer, which gets a bias if it has an offset.

        Raises
        ------
        ImportError
            Without PyTorch.
        ValueError
            If the number of names is not that of Dense layers.

        Examples
        --------
        >>> from torch import nn                                            # doctest: +SKIP
        >>> module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))  # doctest: +SKIP
        >>> net = Network([4, 3, 2], "tanh", "mse")
        >>> module.load_state_dict(net.to_torch_state_dict(["0", "2"]))     # doctest: +SKIP
        <All keys matched successfully>
        """
        return pytorch.export(self._contents(), names)

    def to_sklearn(self, classes: Any = None) -> Any:
        """A fitted MLPClassifier or MLPRegressor of scikit-learn with the same outputs.

        Parameters
        ----------
        classes : array_like, optional
            The labels, in sorted order; those in `classes`, else 0, 1, ... unless given.

        Returns
        -------
        MLPClassifier or MLPRegressor
            A classifier for the cross-entropies, else a regressor. Two softmax outputs become the
            one logistic output that scikit-learn has for two classes. A Rescaling is multiplied
            into the first layer. Dropout is left out.

        Raises
        ------
        ImportError
            Without scikit-learn.
        ValueError
            If scikit-learn has no such network: hidden activations that differ, or other than
            relu, tanh, sigmoid and identity; outputs of a regression other than linear ones and
            exp, which goes with its Poisson loss.

        Examples
        --------
        >>> net = Network([4, 8, 3], "relu", "cross_entropy", random_state=0)
        >>> X = np.ones((2, 4), np.float32)
        >>> np.allclose(net.to_sklearn().predict_proba(X), net.predict(X), atol=1e-6)
        True
        """
        return scikit_learn.export(self._contents(), classes)

    def _contents(self) -> storage.Contents:
        return storage.contents_of(self._layers, self._state, self._classes)

    @classmethod
    def _from_contents(cls, contents: storage.Contents) -> Network:
        plan = Plan(
            contents.layers, contents.loss, contents.output_activation, np.dtype(contents.dtype)
        )
        state = State(plan)
        storage.restore(contents, state)
        net = cls.__new__(cls)
        net._begin(tuple(contents.layers), state)
        net._classes = contents.classes
        return net

    # ---------------------------------------------------------------------------------- checks

    def _inputs(self, X: Any) -> Array:
        return checked_inputs(X, self._state.plan.n_in)

    def _data(self, X: Any, y: Any, sample_weight: Any, *, values: bool = False) -> TrainingData:
        return checked_data(self._state.plan, X, y, sample_weight, values=values)

    def _check_learns(self) -> None:
        if len(self._state.frozen) == len(self._state.plan.stages):
            raise ValueError("every layer is frozen, so there is nothing to learn; see unfreeze")

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "this network is being trained: by another thread, by the fit that called this "
                "callback, or when this process was forked. Wait for it, or train a copy: "
                "net.clone()"
            )
        try:
            yield
        finally:
            self._busy.release()

    # ------------------------------------------------------------------------------ appearance

    def __repr__(self) -> str:
        if all(isinstance(layer, Dense) for layer in self._layers):
            what = repr(self.sizes)
        else:
            what = f"[{', '.join(map(repr, self._layers))}]"
        return f"Network({what}, loss={self.loss_function.name!r}, dtype={self.dtype.name!r})"

    def summary(self) -> str:
        """A table of layers and numbers of parameters, as text.

        Returns
        -------
        str

        Examples
        --------
        >>> print(Network([784, 30, 10]).summary())
        Layer     Units  Activation  Parameters
        Dense        30  sigmoid         23,550
        Dense        10  sigmoid            310
        Inputs 784, loss quadratic, float32, 23,860 parameters (95.4 kB)
        """
        return summary.as_text(self._layers, self._state)

    def _repr_html_(self) -> str:
        return summary.as_html(self._layers, self._state)


def load(path: str | PathLike[str]) -> Network:
    """Read a network that `Network.save` wrote. It is safe for files from strangers.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Network
        With the same outputs, bit for bit, and names of classes. Optimizer state is not in the
        file.

    Raises
    ------
    FileNotFoundError, PermissionError
        If there is no file that may be read.
    FileFormatError
        If it is not a network, or damaged.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> Network([4, 3, 2], random_state=0).save(path)
    >>> load(path)
    Network([4, 3, 2], loss='quadratic', dtype='float32')
    """
    return Network._from_contents(storage.read(path))
