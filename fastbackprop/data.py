"""What the caller may pass as X, y, sample_weight and parameters: checked, for the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastbackprop._kernels.records import SCORE_LARGEST, SCORE_NONE, SCORE_THRESHOLD
from fastbackprop._kernels.simd import ELEMENT_TYPES
from fastbackprop.finite import is_surely_finite
from fastbackprop.losses import Loss
from fastbackprop.plan import Array, Plan

_KINDS = {np.dtype(element.name): kind for kind, element in enumerate(ELEMENT_TYPES)}

# Values checked at a time, so that a check of a file larger than memory stays small.
_CHUNK = 1 << 20


class Targets(NamedTuple):
    """What the outputs are compared with: class labels, or a row of numbers for each sample."""

    labels: Array | None  # (n,) int64
    values: Array | None  # (n, n_out) of the network's type
    score: int  # SCORE_*


class TrainingData(NamedTuple):
    """Checked data to learn from, or to evaluate."""

    X: Any  # (n, n_in): an array, or CompressedRows
    targets: Targets
    weights: Array | None

    def rows(self, chosen: slice) -> TrainingData:
        """Some of the rows, as views."""
        labels, values, score = self.targets
        targets = Targets(
            None if labels is None else labels[chosen],
            None if values is None else values[chosen],
            score,
        )
        return TrainingData(
            self.X[chosen], targets, None if self.weights is None else self.weights[chosen]
        )


def _as_array(name: str, value: Any) -> Array:
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} is a sparse {type(value).__name__}; pass {name}.toarray()")
    if callable(getattr(value, "filled", None)) and hasattr(value, "mask"):
        raise TypeError(
            f"{name} is a masked array, with {np.count_nonzero(value.mask)} of {value.size} "
            f"values masked; masks are not read. Pass {name}.filled(value), or leave such rows out."
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must hold real numbers (float or integer). "
            f"Convert it, for example with numpy.asarray({name}, dtype='float32')."
        )
    return array


def _chunks(array: Array) -> Iterator[Array]:
    rows = max(1, _CHUNK // max(1, array[0].size if array.ndim > 1 else 1))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _check_finite(name: str, array: Array) -> None:
    """Refuse NaN and infinity, naming the first."""
    if array.dtype.kind != "f" or is_surely_finite(array):
        return
    start = 0
    for chunk in _chunks(array):
        # The sum is finite unless a term is not, or a sum of huge ones overflows: look closer then.
        with np.errstate(over="ignore", invalid="ignore"):
            total = chunk.sum(dtype=np.float32 if chunk.dtype.itemsize == 2 else None)
        if not np.isfinite(total):
            bad = np.argwhere(~np.isfinite(chunk))
            if len(bad):
                place = (int(bad[0][0]) + start, *map(int, bad[0][1:]))
                raise ValueError(
                    f"{name} contains {chunk[tuple(bad[0])]} at {list(place)}; every value must be "
                    "finite. Remove such rows or fill them in."
                )
        start += len(chunk)


def _check_range(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """Refuse numbers that are finite, but not in the network's type."""
    if array.dtype.kind != "f" or array.dtype.itemsize <= dtype.itemsize:
        return
    largest = np.finfo(dtype).max
    start = 0
    for chunk in _chunks(array):
        outside = np.argwhere(np.abs(chunk) > largest)
        if len(outside):
            place = (int(outside[0][0]) + start, *map(int, outside[0][1:]))
            raise ValueError(
                f"{name} contains {chunk[tuple(outside[0])]} at {list(place)}, beyond the range of "
                f"{dtype}. Scale {name}, or use dtype='float64'."
            )
        start += len(chunk)


def checked_inputs(X: object, n_in: int, *, values_in: np.dtype[Any] | None = None) -> Array:
    """X as a (n, n_in) array of a type that the kernels read; a view wherever possible.

    The kernels look at the values on the way into the first layer, see `refuse_values`; with
    ``values_in``, the network's type, they are looked at here, which reads all of X.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If its shape is not (n, n_in) with n >= 1, or a value is not finite.
    """
    array = X if type(X) is np.ndarray and X.dtype in _KINDS else _as_array("X", X)
    if array.ndim != 2 or array.shape[1] != n_in:
        raise ValueError(
            f"X has shape {array.shape}; layer 0 expects (n, {n_in}). {_shape_advice(array, n_in)}"
        )
    if len(array) == 0:
        raise ValueError(f"X has shape {array.shape}: there is no row in it")
    if array.dtype not in _KINDS:
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        else:  # half and extended precision, foreign byte order
            with np.errstate(over="ignore"):
                array = array.astype(np.float32 if array.dtype.itemsize == 2 else np.float64)
    if not array.flags.c_contiguous and any(
        stride % array.dtype.itemsize for stride in array.strides
    ):
        array = np.ascontiguousarray(array)
    if values_in is not None:
        _check_finite("X", array)
        _check_range("X", array, values_in)
    return array


def checked_sample(x: object, n_in: int, dtype: np.dtype[Any]) -> Array:
    """One sample as (n_in,) of a type that the kernels read; an image may have more axes.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it has not n_in of them, or a value is not finite in the network's type.
    """
    array = _as_array("x", x)
    if array.size != n_in:
        rows = array.ndim == 2 and array.shape[1] == n_in
        advice = " Call it for one row after the other." if rows else ""
        raise ValueError(
            f"x has shape {array.shape}; jacobian takes one sample, ({n_in},).{advice}"
        )
    _check_finite("x", np.atleast_1d(array))
    _check_range("x", np.atleast_1d(array), dtype)
    return checked_inputs(array.reshape(1, n_in), n_in)[0]


def refuse_values(X: Array | CompressedRows, dtype: np.dtype[Any]) -> NoReturn:
    """Raise the ValueError for data in which a kernel met a value that is not finite.

    Raises
    ------
    ValueError
        Always, naming the first such value.
    """
    values = X.values if isinstance(X, CompressedRows) else X
    _check_finite("X", values)
    _check_range("X", values, dtype)
    raise ValueError(
        f"X has values that are not finite in {dtype} after Rescaling. Choose another scale."
    )


def _shape_advice(array: Array, n_in: int) -> str:
    if array.ndim == 2 and array.shape[0] == n_in:
        return "Transpose it?"
    if array.ndim > 2 and array[0].size == n_in:
        return "Flatten each sample: X.reshape(len(X), -1)."
    if array.ndim == 1 and array.size == n_in:
        return "For one sample pass X.reshape(1, -1)."
    if array.ndim == 1 and n_in == 1:
        return "For one feature pass X.reshape(-1, 1)."
    return f"The network was built for {n_in} features."


@dataclass(frozen=True)
class CompressedRows:
    """Rows of which only some elements are stored (CSR); the others are 0.

    Attributes
    ----------
    values : ndarray
        The stored elements, row by row, of a type that the kernels read.
    columns : ndarray of int64
        The column of each.
    starts : ndarray of int64, (n + 1,)
        Where each row begins among them.
    """

    values: Array
    columns: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, chosen: slice) -> CompressedRows:
        first, last, step = chosen.indices(len(self))
        if step != 1:
            raise ValueError(f"compressed rows can only be taken one after another, got {chosen}")
        return CompressedRows(self.values, self.columns, self.starts[first : last + 1])


def input_arrays(X: Array | CompressedRows) -> dict[str, Array | None]:
    """The arrays of X by the names that a job gives them."""
    if isinstance(X, CompressedRows):
        return {"x": X.values, "x_columns": X.columns, "x_starts": X.starts}
    return {"x": X}


def input_fields(X: Array | CompressedRows) -> dict[str, int]:
    """The fields of a job that describe X."""
    if isinstance(X, CompressedRows):
        return {"x_kind": _KINDS[X.values.dtype], "x_size": X.values.itemsize, "n": len(X)}
    return {
        "x_kind": _KINDS[X.dtype],
        "x_size": X.itemsize,
        "x_row": X.strides[0],
        "x_column": X.strides[1],
        "n": len(X),
    }


def checked_targets(y: object, n: int, n_out: int, loss: Loss, dtype: np.dtype[Any]) -> Targets:
    """Y as class labels or as rows of numbers, whichever it is for this loss.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If its shape does not fit, a value is not finite, a label is not an integer in
        [0, n_out), or a probability is not in [0, 1].
    """
    array = _as_array("y", y)
    if array.ndim == 0 or len(array) != n:
        raise ValueError(f"y has shape {array.shape}, but X has {n} rows; they must be as many")
    _check_finite("y", array)
    classes = loss.is_classification
    if array.ndim == 1 and n_out > 1:
        if not classes and array.dtype.kind == "f":
            raise ValueError(
                f"y has shape {array.shape} and dtype {array.dtype}; the network has {n_out} "
                f"outputs and expects ({n}, {n_out}), or ({n},) integer class labels."
            )
        return Targets(_checked_labels(array, n_out), None, SCORE_LARGEST)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.shape != (n, n_out):
        hint = " Class labels have shape (n,): pass y.ravel()." if array.shape == (n, 1) else ""
        raise ValueError(
            f"y has shape {array.shape}; the network has {n_out} outputs and expects "
            f"({n}, {n_out}){f' or ({n},) class labels' if n_out > 1 else ''}.{hint}"
        )
    _check_range("y", array, dtype)
    values = np.ascontiguousarray(array, dtype=dtype)
    if classes:
        _check_probabilities(array, sums=loss.name == "cross_entropy")
        score = SCORE_LARGEST if loss.name == "cross_entropy" else SCORE_THRESHOLD
    else:
        if loss.name == "poisson":
            _check_counts(array)
        score = SCORE_LARGEST if n_out > 1 and _is_one_hot(values) else SCORE_NONE
    return Targets(None, values, score)


def _checked_labels(array: Array, n_out: int) -> Array:
    """Class labels as a copy, since the kernels trust them and the caller may change his own."""
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # a float beyond int64 is no integer either
            labels = array.astype(np.int64)
        wrong = np.flatnonzero(labels != array)
        if len(wrong):
            raise ValueError(
                f"y[{wrong[0]}] is {array[wrong[0]]}; class labels must be integers from 0 to "
                f"{n_out - 1}."
            )
    else:
        labels = array.astype(np.int64, order="C")
    if labels.view(np.uint64).max() >= n_out:  # as which the negative ones are huge
        outside = np.flatnonzero((labels < 0) | (labels >= n_out))
        label = array[outside[0]]
        hint = " Labels count from 0: subtract 1?" if label == n_out else ""
        raise ValueError(
            f"y[{outside[0]}] is {label}; the network has {n_out} outputs, so class labels must "
            f"be from 0 to {n_out - 1}.{hint}"
        )
    return labels


def _check_counts(array: Array) -> None:
    negative = np.argwhere(array < 0)
    if len(negative):
        place = tuple(map(int, negative[0]))
        raise ValueError(
            f"y[{', '.join(map(str, place))}] is {array[place]}; the loss 'poisson' expects "
            "targets of at least 0, such as counts."
        )


def _check_probabilities(array: Array, *, sums: bool) -> None:
    outside = np.argwhere((array < 0) | (array > 1))
    if len(outside):
        place = tuple(map(int, outside[0]))
        raise ValueError(
            f"y[{', '.join(map(str, place))}] is {array[place]}; this loss expects probabilities "
            "in [0, 1] (or class labels)."
        )
    if sums:
        totals = _row_sums(array, np.dtype(np.float64))
        wrong = np.flatnonzero(np.abs(totals - 1.0) > 1e-3)
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]} of y sums to {totals[wrong[0]]:.6g}; rows of class probabilities "
                "must sum to 1. For independent labels use binary_cross_entropy."
            )


def _is_one_hot(values: Array) -> bool:
    if values.item(0) not in (0.0, 1.0):  # as most that are not
        return False
    if not np.all((values == 0) | (values == 1)):
        return False
    return bool(np.all(_row_sums(values, values.dtype) == 1))


def _row_sums(array: Array, dtype: np.dtype[Any]) -> Array:
    """The sum of each row: for 50,000 rows of 10 ``sum(axis=1)`` takes 0.8 ms, this 0.16."""
    sums: Array = np.einsum("ij->i", array, dtype=dtype)
    return sums


def checked_weights(sample_weight: object, n: int, *, all_zero: bool = False) -> Array | None:
    """sample_weight as float64 (n,), or None.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If its shape is not (n,), or a weight is negative or not finite, or all are 0
        and that is not allowed.
    """
    if sample_weight is None:
        return None
    array = _as_array("sample_weight", sample_weight)
    if array.shape != (n,):
        raise ValueError(f"sample_weight has shape {array.shape}; expected ({n},), one a row of X")
    _check_finite("sample_weight", array)
    weights = np.ascontiguousarray(array, dtype=np.float64)
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise ValueError(
            f"sample_weight[{negative[0]}] is {weights[negative[0]]}; weights must be at least 0"
        )
    if not (all_zero or weights.any()):
        raise ValueError("sample_weight is 0 for every row, so there is nothing to learn from")
    return weights


def checked_parameters(theta: object, n: int, dtype: np.dtype[Any]) -> Array:
    """Theta as (n,) in the network's type.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If its shape is not (n,), or a value is not finite.
    """
    array = _as_array("theta", theta)
    if array.shape != (n,):
        raise ValueError(f"theta has shape {array.shape}; this network expects ({n},)")
    _check_finite("theta", array)
    _check_range("theta", array, dtype)
    return array.astype(dtype)


def checked_data(
    plan: Plan,
    X: object,
    y: object,
    sample_weight: object = None,
    *,
    values: bool = False,
    all_zero: bool = False,
) -> TrainingData:
    """X, y and sample_weight for one network.

    With ``values``, those of X are looked at here; see `checked_inputs`. With ``all_zero`` every
    weight may be 0, as in a batch of many.

    Raises
    ------
    TypeError, ValueError
        If one of them is not what the network takes.
    """
    inputs = checked_inputs(X, plan.n_in, values_in=plan.dtype if values else None)
    targets = checked_targets(y, len(inputs), plan.n_out, plan.loss, plan.dtype)
    weights = checked_weights(sample_weight, len(inputs), all_zero=all_zero)
    return TrainingData(inputs, targets, weights)
