"""A network's way out: to its own files, and to the forms of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from fastbackprop import storage
from fastbackprop.exchange import onnx_writer, pytorch, scikit_learn
from fastbackprop.parameters import ParameterHolder


class Exporter(ParameterHolder):
    """What a network can be written as: safetensors, ONNX, PyTorch, scikit-learn."""

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
        >>> import fastbackprop as fb
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> fb.Network([2, 3, 1], random_state=0).save(path)
        >>> fb.load(path)
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
        >>> fb.Network([4, 3, 2], "gelu", "cross_entropy", random_state=0).to_onnx(path)
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
        >>> import fastbackprop as fb
        >>> from torch import nn                                            # doctest: +SKIP
        >>> module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))  # doctest: +SKIP
        >>> net = fb.Network([4, 3, 2], "tanh", "mse")
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
        >>> import fastbackprop as fb
        >>> import numpy as np
        >>> net = fb.Network([4, 8, 3], "relu", "cross_entropy", random_state=0)
        >>> X = np.ones((2, 4), np.float32)
        >>> np.allclose(net.to_sklearn().predict_proba(X), net.predict(X), atol=1e-6)
        True
        """
        return scikit_learn.export(self._contents(), classes)

    def _contents(self) -> storage.Contents:
        return storage.contents_of(self._layers, self._state, self._classes)
