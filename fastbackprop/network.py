"""Network: what a user builds, trains, evaluates, saves and asks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from os import PathLike
from typing import Any

import numpy as np

from fastbackprop import activations, inference, initializers, losses, optimizers, storage, training
from fastbackprop.activations import Activation
from fastbackprop.callbacks import Callback
from fastbackprop.data import (
    TrainingData,
    checked_inputs,
    checked_parameters,
    checked_targets,
    checked_weights,
)
from fastbackprop.initializers import Initializer
from fastbackprop.layers import Dense, Layer, check_chain
from fastbackprop.losses import Loss
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Array, Plan
from fastbackprop.specs import checked_size
from fastbackprop.state import State
from fastbackprop.training import History, Recipe

# A bound that no machine's cores reach in a dense network, below what a system starts readily.
_MOST_THREADS = 256


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
        What training makes small: quadratic, mse, mae, huber, cross_entropy or
        binary_cross_entropy.
    output_activation : str or Activation, optional
        Of the last layer. Unless given it follows from the loss: for quadratic the hidden one, for
        mse, mae and huber none, for cross_entropy softmax, for binary_cross_entropy sigmoid.
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
    history : History
        Every epoch trained so far.

    Raises
    ------
    TypeError
        If an argument is not of the type named.
    ValueError
        If a name is unknown, a size is below 1, layers do not chain, or the loss does not fit the
        output activation.

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
        chain = _as_layers(layers, activation, init, chosen_loss, output)
        check_chain(chain)
        rng = _as_generator(random_state)
        state = State(Plan(chain, chosen_loss, output, _as_dtype(dtype)))
        state.plan.draw(rng, state.params)
        state.seed = int(rng.integers(2**62))
        self._begin(chain, state)

    def _begin(self, layers: tuple[Layer, ...], state: State) -> None:
        self._layers = layers
        self._state = state
        self._busy = threading.Lock()
        self.history = History()

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
        """All parameters as one new vector, (n_parameters,): layer by layer, weights then bias.

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
        """
        values = checked_parameters(theta, self.n_parameters, self.dtype)
        self._state.plan.unpack(values, self._state.params)

    # -------------------------------------------------------------------------------- training

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: str | Optimizer | None = None,
        validation_data: tuple[Any, Any] | tuple[Any, Any, Any] | float | None = None,
        shuffle: bool | Any = True,
        sample_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        threads: int | None = None,
        verbose: int = 1,
    ) -> History:
        """Train by mini-batches; a later call goes on where this one ended.

        Parameters
        ----------
        X : array_like, (n, n_in)
            float32, float64 or any integer type; a memmap or a view is read in place, batch by
            batch, never copied whole.
        y : array_like, (n,) or (n, n_out)
            Class labels from 0, or a row of targets (probabilities for the cross-entropies).
        epochs : int, default 10
            Passes over the data.
        batch_size : int, default 32
            Rows a step; the last step of an epoch takes what is left.
        optimizer : str or Optimizer, default Adam()
            Its state lives in the network and goes on in a later call with an equal one.
        validation_data : (X, y), (X, y, sample_weight) or float, optional
            Evaluated after each epoch. A fraction takes that share of the rows, from the end.
        shuffle : bool or array of int, (n,), default True
            Whether rows are taken in a new random order in each epoch; or the order itself.
        sample_weight : array_like, (n,), optional
            The loss of a batch is Σ wᵢ ℓᵢ / Σ wᵢ: 0 leaves a row out, 2 counts it twice.
        callbacks : sequence of Callback
            Called around each epoch.
        threads : int, optional
            How many threads work together; chosen by the work of a step unless given. The result
            does not depend on it.
        verbose : int, default 1
            0 prints nothing. Otherwise a bar, in a terminal or a notebook.

        Returns
        -------
        History
            What was measured in each epoch of this call.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described; nothing has changed then.
        DivergenceError
            If a loss or a parameter became infinite or NaN. The network then has the parameters of
            the last good epoch.
        KeyboardInterrupt
            On Ctrl-C, after the current step. The network can be used, and fit called again.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> net = fb.Network([1, 16, 1], "tanh", "mse", random_state=0)
        >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> history = net.fit(x, np.sin(3 * x), epochs=300, optimizer=fb.Adam(0.01), verbose=0)
        >>> history["loss"][-1] < 0.01
        True
        """
        data = self._data(X, y, sample_weight)
        if isinstance(validation_data, float):
            data, validation = _split(data, validation_data)
        elif validation_data is None:
            validation = None
        else:
            validation = self._validation(validation_data)
        recipe = Recipe(
            checked_size("epochs", epochs),
            checked_size("batch_size", batch_size),
            optimizers.get(optimizer),
            _as_order(shuffle, len(data.X)),
            _as_callbacks(callbacks),
            _as_threads(threads),
            verbose,
        )
        record = History()
        with self._exclusive():
            try:
                training.fit(self, self._state, data, validation, recipe, record)
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
        """
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
        """
        return inference.outputs(self._state, self._inputs(X))

    def predict_classes(self, X: Any) -> Array:
        """The class of each row, (n,) int64: its largest output; of one output, whether over ½."""
        result = self.predict(X)
        if result.shape[1] == 1:
            return (result[:, 0] > 0.5).astype(np.int64)
        return result.argmax(axis=1)

    def evaluate(self, X: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Loss, and accuracy where there are classes.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``: the mean loss and the fraction classified rightly.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        result = inference.means(self._state, self._data(X, y, sample_weight))
        if result.score is None:
            return {"loss": result.loss}
        return {"loss": result.loss, "accuracy": result.score}

    def loss(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean loss, without dropout; the arguments are those of `evaluate`."""
        return inference.means(self._state, self._data(X, y, sample_weight)).loss

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
        """The gradient of the mean loss with respect to X, (n, n_in)."""
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
        """
        plan, state = self._state.plan, self._state
        storage.write(
            path,
            storage.Contents(
                self._layers,
                plan.loss,
                plan.stages[-1].activation,
                self.dtype.name,
                state.seed,
                state.epoch,
                self.weights,
                self.biases,
            ),
        )

    # ---------------------------------------------------------------------------------- checks

    def _inputs(self, X: Any) -> Array:
        return checked_inputs(X, self._state.plan.n_in)

    def _data(self, X: Any, y: Any, sample_weight: Any, *, values: bool = False) -> TrainingData:
        plan = self._state.plan
        inputs = checked_inputs(X, plan.n_in, values_in=plan.dtype if values else None)
        targets = checked_targets(y, len(inputs), plan.n_out, plan.loss, plan.dtype)
        return TrainingData(inputs, targets, checked_weights(sample_weight, len(inputs)))

    def _validation(self, validation_data: Any) -> TrainingData:
        if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
            raise TypeError(
                "validation_data must be (X, y), (X, y, sample_weight) or a fraction, got "
                f"{type(validation_data).__name__}"
            )
        X, y, *weight = validation_data
        return self._data(X, y, *(weight or [None]), values=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "this network is being trained by another thread; train a copy, or wait for it"
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

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """A row of the summary for each layer: layer, output, activation, parameters."""
        stages = iter(self._state.plan.stages)
        rows = []
        for layer in self._layers:
            name, units = type(layer).__name__, self._state.plan.n_in
            if isinstance(layer, Dense):
                stage = next(stages)
                count = stage.rows * layer.n_out
                units = layer.n_out
                rows.append((name, str(units), stage.activation.name, f"{count:,}"))
            else:
                rows.append((repr(layer), "", "", "0"))
        return rows

    def summary(self) -> str:
        """A table of layers and numbers of parameters, as text.

        Examples
        --------
        >>> print(Network([784, 30, 10]).summary())
        Layer     Units  Activation  Parameters
        Dense        30  sigmoid         23,550
        Dense        10  sigmoid            310
        Inputs 784, loss quadratic, float32, 23,860 parameters (95.4 kB)
        """
        head = ("Layer", "Units", "Activation", "Parameters")
        rows = [head, *self._rows()]
        a, b, c, d = (max(len(row[i]) for row in rows) for i in range(4))
        lines = [
            f"{layer:<{a + 2}}{units:>{b + 2}}  {f:<{c}}  {count:>{d}}"
            for layer, units, f, count in rows
        ]
        return "\n".join([*lines, self._totals()])

    def _totals(self) -> str:
        size = float(self.n_parameters * self.dtype.itemsize)
        for unit in ("B", "kB", "MB", "GB"):
            if size < 1000 or unit == "GB":
                break
            size /= 1000
        number = f"{size:.0f}" if unit == "B" else f"{size:.1f}"
        return (
            f"Inputs {self._state.plan.n_in}, loss {self.loss_function.name}, {self.dtype.name}, "
            f"{self.n_parameters:,} parameters ({number} {unit})"
        )

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>" for name in ("Layer", "Units", "Activation", "Parameters")
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._totals())}</p>"
        )


def load(path: str | PathLike[str]) -> Network:
    """Read a network that `Network.save` wrote. It is safe for files from strangers.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Network
        With the same outputs, bit for bit. Optimizer state is not in the file.

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
    contents = storage.read(path)
    plan = Plan(
        contents.layers, contents.loss, contents.output_activation, np.dtype(contents.dtype)
    )
    state = State(plan, contents.seed)
    state.epoch = contents.epoch
    for own, stored in zip(plan.weights(state.params), contents.weights, strict=True):
        own[...] = stored
    for bias, stored_bias in zip(plan.biases(state.params), contents.biases, strict=True):
        if bias is not None:
            bias[...] = stored_bias
    net = Network.__new__(Network)
    net._begin(tuple(contents.layers), state)
    return net


def _as_layers(
    layers: Any,
    activation: str | Activation,
    init: str | Initializer | None,
    loss: Loss,
    output: Activation | None,
) -> tuple[Layer, ...]:
    """The layers themselves, whether they were given or their sizes."""
    if isinstance(layers, str) or not isinstance(layers, Sequence | np.ndarray):
        raise TypeError(f"layers must be a list of sizes or of layers, got {layers!r}")
    if any(isinstance(layer, Layer) for layer in layers):
        hidden = activations.get(activation)
        if hidden.name != "sigmoid" or init is not None:
            raise TypeError(
                "activation and init go with a list of sizes; give each Dense its own instead: "
                f"Dense(n_in, n_out, {hidden.name!r})"
            )
        return tuple(layers)
    if len(layers) < 2:
        raise ValueError(f"a network needs at least an input and an output size, got {layers!r}")
    sizes = [checked_size(f"layers[{i}]", size) for i, size in enumerate(layers)]
    hidden = activations.get(activation)
    if hidden.name == "softmax":
        raise ValueError("activation is for the hidden layers; softmax is an output_activation")
    weights = None if init is None else initializers.get(init)
    inner = [Dense(n_in, n_out, hidden, init=weights) for n_in, n_out in pairwise(sizes[:-1])]
    last = Dense(sizes[-2], sizes[-1], output or loss.default_output(hidden), init=weights)
    return (*inner, last)


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    refused = ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    if dtype is None:  # NumPy takes it for float64
        raise refused
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise refused from None
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise refused
    return result


def _as_generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    try:
        return np.random.default_rng(checked_size("random_state", random_state, minimum=0))
    except TypeError:
        raise TypeError(
            "random_state must be an integer, a numpy.random.Generator or None, got "
            f"{random_state!r}"
        ) from None


def _as_order(shuffle: Any, n: int) -> bool | Array:
    if isinstance(shuffle, bool | np.bool_):
        return bool(shuffle)
    order = np.asarray(shuffle)
    if order.shape != (n,) or order.dtype.kind not in "iu":
        raise ValueError(
            f"shuffle must be True, False or {n} integer row numbers, got an array of shape "
            f"{order.shape} and dtype {order.dtype}"
        )
    outside = np.flatnonzero((order < 0) | (order >= n))
    if len(outside):
        raise ValueError(
            f"shuffle[{outside[0]}] is {order[outside[0]]}; row numbers must be from 0 to {n - 1}"
        )
    return np.ascontiguousarray(order, dtype=np.int64)


def _as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    if isinstance(callbacks, Callback):
        return (callbacks,)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of Callback, got {callbacks!r}")
    given = tuple(callbacks)
    for callback in given:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback must derive from Callback, got {callback!r}")
    return given


def _as_threads(threads: Any) -> int | None:
    if threads is None:
        return None
    count = checked_size("threads", threads)
    if count > _MOST_THREADS:
        raise ValueError(
            f"threads must be at most {_MOST_THREADS}, got {count}; more than there are cores "
            "makes nothing faster"
        )
    return count


def _split(data: TrainingData, fraction: float) -> tuple[TrainingData, TrainingData]:
    """The first rows to learn from, and the rest to validate with."""
    n = len(data.X)
    held = round(n * fraction) if 0.0 < fraction < 1.0 else 0
    if not 0 < held < n:
        raise ValueError(
            f"validation_data is {fraction}; as a fraction of {n} rows it must leave at least one "
            "to learn from and one to validate with"
        )
    parts = data.rows(slice(None, n - held)), data.rows(slice(n - held, None))
    for part, which in zip(parts, ("left", "held back"), strict=True):
        if part.weights is not None and not part.weights.any():
            raise ValueError(
                f"sample_weight is 0 for every row {which} by validation_data={fraction}; take "
                "another fraction, or shuffle the rows"
            )
    return parts
