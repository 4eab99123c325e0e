"""Network: what a user builds, trains, evaluates, saves and asks.

Here it is built and trained. What it holds is in `parameters`, what training may change of it in
`trainable`, what it computes in `predictor`, and what it can be written as in `exchange.exporters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop import (
    activations,
    construction,
    losses,
    optimizers,
    single_step,
    storage,
    training,
)
from fastbackprop.activations import Activation
from fastbackprop.callbacks import Callback
from fastbackprop.exchange.exporters import Exporter
from fastbackprop.fitting import Given, checked_recipe, checked_source
from fastbackprop.history import History
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Layer, check_chain
from fastbackprop.losses import Loss
from fastbackprop.metrics import Metrics
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Plan
from fastbackprop.predictor import Predictor
from fastbackprop.specs import checked_flag
from fastbackprop.state import State
from fastbackprop.trainable import Trainable


class Network(Trainable, Predictor, Exporter):
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
        Set to True in a callback, it ends `fit` after the current epoch; elsewhere, as in another
        thread, within some 10 ms or after the current epoch. `fit` begins with False.

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
        net._begin(self._layers, self._state.copy(keep_optimizer=keep))
        net._classes = self._classes
        return net

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
            of an iterable come in its own order, and a batch of all rows is taken as it is.
        sample_weight : array_like, (n,), optional
            The loss of a batch is Σ wᵢ ℓᵢ / Σ wᵢ: 0 leaves a row out, 2 counts it twice.
        callbacks : sequence of Callback
            Called around each epoch. One may end training by ``net.stop_training = True``. Without
            any, and without validation, short epochs are taken together, 10 ms of them at a time.
        threads : int, optional
            How many threads work together. Unless given it is chosen by the work of a step and of
            an epoch; in a training of more than some milliseconds, another number is tried now and
            then, and kept if it is faster. It is at most the number of cores, or NUMBA_NUM_THREADS
            where the environment has it. The result does not depend on it. On Linux, threads that
            training starts wake on cores of their own; that of the caller is left alone.
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
            What was measured in each epoch of this call, and of the one that it resumes. Of epochs
            that were taken together, ``seconds`` and ``rows_per_second`` are the mean.

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
            If a parameter or a loss is no longer finite then, all are those of a good epoch before.
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
            return single_step.step(self._state, data, chosen)

    def __repr__(self) -> str:
        if all(isinstance(layer, Dense) for layer in self._layers):
            what = repr(self.sizes)
        else:
            what = f"[{', '.join(map(repr, self._layers))}]"
        return f"Network({what}, loss={self.loss_function.name!r}, dtype={self.dtype.name!r})"


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
