"""Networks made from models of other libraries; nothing is executed to read them."""

from __future__ import annotations

from os import PathLike
from typing import Any

from fastbackprop.activations import Activation
from fastbackprop.exchange import keras, onnx_reader, pytorch, scikit_learn
from fastbackprop.exchange.assembly import assemble
from fastbackprop.losses import Loss
from fastbackprop.network import Network


def from_onnx(
    path: str | PathLike[str],
    *,
    output: str | None = None,
    loss: str | Loss | None = None,
    dtype: Any = None,
) -> Network:
    """Read a chain of dense layers from an ONNX file. It is safe for files from strangers.

    Parameters
    ----------
    path : str or path
        The file, with its weights inside.
    output : str, optional
        The output of the graph to read, needed if there are several, not counting class labels;
        what only others need is not looked at.
    loss : str or Loss, optional
        For later training and `evaluate`; ONNX holds none. cross_entropy after softmax,
        binary_cross_entropy after sigmoid, poisson after exp, else mse. A cross-entropy after a
        linear output takes the outputs for logits: `predict` then gives probabilities.
    dtype : "float32" or "float64", optional
        Of the network; that of the weights unless given.

    Returns
    -------
    Network
        With the outputs of the graph; labels of a classifier of skl2onnx are its ``classes``. One
        sigmoid p, made into the probabilities 1 − p and p, becomes a softmax of two outputs.

    Raises
    ------
    ImportError
        Without the package onnx: ``pip install "fastbackprop[onnx]"``.
    FileNotFoundError, PermissionError
        If there is no file that may be read.
    FileFormatError
        If it is not ONNX, is damaged, keeps weights in other files, or holds anything else than a
        chain of Gemm or MatMul + Add with the activations of fastbackprop, each as an operator or
        as the usual small formula; a scale and an offset in front, the same for all features;
        Flatten, Reshape to rows, Squeeze of a single output, Cast, Identity, Dropout, and ZipMap.
        The message names the operator and the node.
    ValueError
        If the loss does not fit the output.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import fastbackprop as fb
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"
    >>> fb.Network([4, 3, 2], "silu", "cross_entropy").to_onnx(path)
    >>> print(fb.from_onnx(path).summary())
    Layer     Units  Activation  Parameters
    Dense         3  silu                15
    Dense         2  softmax              8
    Inputs 4, loss cross_entropy, float32, 23 parameters (92 B)
    """
    parts, classes = onnx_reader.read(path, output)
    net = Network._from_contents(assemble(parts, loss, dtype))
    net.classes = classes
    return net


def from_torch(
    source: Any,
    *,
    activation: Any = None,
    output_activation: str | Activation | None = None,
    loss: str | Loss | None = None,
    dtype: Any = None,
) -> Network:
    """Copy a PyTorch module, or the parameters in its state dict.

    It takes objects, never a file: a .pt file is a pickle, which may execute code when it is read.

    Parameters
    ----------
    source : torch.nn.Module or mapping
        A Sequential of Linear, Dropout, activations and Identity, with Flatten in front. Or a state
        dict with the weight, and then the bias, of each Linear in the order of the layers.
    activation : str, Activation or sequence of these, optional
        Of the hidden layers, all or each; needed with a state dict, which does not hold them.
    output_activation : str or Activation, optional
        Of the last layer, with a state dict; linear unless given.
    loss : str or Loss, optional
        As in `from_onnx`. For a module that returns logits give the loss it was trained with:
        "cross_entropy" or "binary_cross_entropy".
    dtype : "float32" or "float64", optional
        As in `from_onnx`. Half precision becomes float32.

    Returns
    -------
    Network
        With copies of the parameters.

    Raises
    ------
    TypeError
        If it is neither a module nor a mapping, or the activations are missing or superfluous.
    ValueError
        If a module or an entry is not known; it is named. If the loss does not fit the output.

    Examples
    --------
    >>> import numpy as np
    >>> hidden = {"fc.weight": np.ones((3, 2)), "fc.bias": np.zeros(3)}
    >>> state = {**hidden, "out.weight": np.ones((1, 3))}
    >>> from_torch(state, activation="relu").predict([[1.0, 2.0]])
    array([[9.]])
    """
    parts = pytorch.read(source, activation, output_activation)
    return Network._from_contents(assemble(parts, loss, dtype))


def from_keras_weights(
    weights: Any,
    activation: Any = None,
    *,
    output_activation: str | Activation | None = None,
    loss: str | Loss | None = None,
    dtype: Any = None,
) -> Network:
    """Copy the weights of a Keras model of Dense layers.

    Parameters
    ----------
    weights : list of array
        What ``model.get_weights()`` returns: the kernel (n_in, n_out) of each layer, followed by
        its bias (n_out,) where it has one.
    activation : str, Activation or sequence of these
        Of the hidden layers, all or each; the list does not hold them. Keras's leaky_relu has the
        slope 0.2: ``Activation("leaky_relu", 0.2)``. Its gelu is the exact one, as here.
    output_activation : str or Activation, optional
        Of the last layer; linear unless given.
    loss, dtype
        As in `from_onnx`.

    Returns
    -------
    Network
        With copies of the weights.

    Raises
    ------
    TypeError
        If it is no list of float arrays, or `activation` is missing.
    ValueError
        If an array belongs to no Dense layer; it is named.

    Examples
    --------
    >>> import numpy as np
    >>> weights = [np.ones((2, 3)), np.zeros(3), np.ones((3, 1)), np.zeros(1)]
    >>> from_keras_weights(weights, "relu").predict([[1.0, 2.0]])
    array([[9.]])
    """
    parts = keras.read(weights, activation, output_activation)
    return Network._from_contents(assemble(parts, loss, dtype))


def from_sklearn(estimator: Any, *, loss: str | Loss | None = None, dtype: Any = None) -> Network:
    """Copy a fitted MLPClassifier or MLPRegressor.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        scikit-learn's, or any object with coefs_, intercepts_, activation and out_activation_.
    loss, dtype
        As in `from_onnx`.

    Returns
    -------
    Network
        With copies of the parameters, and ``classes_`` as its ``classes``.
        `Network.predict_classes` gives positions in them.

    Raises
    ------
    TypeError
        If it is something else, such as a Pipeline, or not fitted.
    ValueError
        If an activation is not known.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbackprop as fb
    >>> net = fb.Network([4, 8, 3], "relu", "cross_entropy", random_state=0)
    >>> copy = from_sklearn(net.to_sklearn())
    >>> np.array_equal(copy.get_parameters(), net.get_parameters())
    True
    """
    net = Network._from_contents(assemble(scikit_learn.read(estimator), loss, dtype))
    net.classes = scikit_learn.classes_of(estimator, net.sizes[-1])
    return net
