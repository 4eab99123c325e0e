"""Metrics by name, and what a caller may pass for one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastbackprop.metrics.classification import AVERAGES, F1, Accuracy, Precision, Recall, TopK
from fastbackprop.metrics.metric import Function, Metric
from fastbackprop.metrics.regression import MAE, R2, RMSE
from fastbackprop.specs import unknown

Metrics = Sequence[str | Metric | Callable[..., float]] | Mapping[str, Callable[..., float]]
"""What ``metrics`` of `Network.fit` and `Network.evaluate` may be."""

_TOP_K = re.compile(r"top_([1-9][0-9]*)_accuracy")

BY_NAME: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Accuracy(),
        *(kind(average) for average in AVERAGES for kind in (Precision, Recall, F1)),
        R2(),
        MAE(),
        RMSE(),
    )
}
"""The metrics that have one name; "top_5_accuracy" and the like are made from theirs."""


def get(spec: str | Metric | Callable[..., float]) -> Metric:
    """Return the metric that `spec` stands for.

    Parameters
    ----------
    spec : str, Metric or callable
        A name, a metric (returned as it is), or a function, which keeps its own name; see
        `Function`.

    Raises
    ------
    TypeError
        If it is anything else, or a function without a name, such as a lambda.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get("top_5_accuracy"), get("f1_macro")
    (TopK(), F1(average='macro'))
    """
    if isinstance(spec, Metric):
        return spec
    if isinstance(spec, str):
        if match := _TOP_K.fullmatch(spec):
            return TopK(int(match[1]))
        if spec not in BY_NAME:
            raise ValueError(unknown("metric", spec, [*BY_NAME, TopK().name]))
        return BY_NAME[spec]
    if not callable(spec):
        raise TypeError(f"a metric must be a name, a Metric or a function, got {spec!r}")
    name = getattr(spec, "__name__", "")
    if not name.isidentifier():
        raise TypeError(f"{spec!r} has no name; pass metrics={{'its name': function}}")
    return Function(name, spec)


def checked(metrics: Any) -> tuple[Metric, ...]:
    """The metrics that the caller named.

    Parameters
    ----------
    metrics : str, Metric or callable, or a sequence of these; or dict from str to callable
        As in `Network.evaluate`.

    Returns
    -------
    tuple of Metric

    Raises
    ------
    TypeError, ValueError
        If one is unknown or named twice.

    Examples
    --------
    >>> [metric.name for metric in checked(["accuracy", TopK(3)])]
    ['accuracy', 'top_3_accuracy']
    """
    chosen: tuple[Metric, ...]
    if isinstance(metrics, Mapping):
        chosen = tuple(Function(name, function) for name, function in metrics.items())
    elif isinstance(metrics, str | Metric) or callable(metrics):
        chosen = (get(metrics),)
    elif isinstance(metrics, Iterable):
        chosen = tuple(get(metric) for metric in metrics)
    else:
        raise TypeError(
            f"metrics must be a list of names, metrics and functions, or a dict of functions, got "
            f"{metrics!r}"
        )
    names = [metric.name for metric in chosen]
    for metric in chosen:
        name = metric.name
        if isinstance(metric, Function) and name in ("loss", *BY_NAME):
            raise ValueError(f"the name {name!r} is taken; call your metric otherwise")
        if names.count(name) > 1:
            raise ValueError(f"the metric {name!r} is named twice; the results would be one")
    return chosen


def is_better_larger(name: str) -> bool:
    """Whether a measurement should grow: of losses, and of what has no name here, it is False.

    Parameters
    ----------
    name : str
        As in the logs of training; what follows ``val_`` counts.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_better_larger("val_accuracy"), is_better_larger("val_loss")
    (True, False)
    """
    name = name.removeprefix("val_")
    if _TOP_K.fullmatch(name):
        return True
    return name in BY_NAME and BY_NAME[name].larger_is_better
