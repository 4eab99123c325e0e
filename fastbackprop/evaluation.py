"""Measures of a network over the rows of a source, of which one part is in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastbackprop import inference
from fastbackprop.data import Targets
from fastbackprop.metrics import Metric
from fastbackprop.plan import Array
from fastbackprop.sources import Source, named
from fastbackprop.state import State


class _Answers(NamedTuple):
    """What metrics compare."""

    targets: Targets
    outputs: Array  # (n, n_out)
    weights: Array | None


def evaluation(
    state: State, source: Source, metrics: Sequence[Metric] = (), threads: int | None = None
) -> dict[str, float]:
    """The loss, the accuracy where there are classes, and metrics, by name.

    Raises
    ------
    TypeError, ValueError
        If rows of the source, as they come, are not what it admits, or none of them has a weight.
    """
    sums: list[inference.Sums] = []
    answers: list[_Answers] = []
    for part in source.parts(state.seed, state.epoch):
        X, targets, weights = part.data
        with named(part.name):
            sums.append(inference.sums(state, part.data, threads))
        has_accuracy = sums[-1].score is not None
        if any(metric.name != "accuracy" or not has_accuracy for metric in metrics):
            answers.append(_Answers(targets, inference.outputs(state, X, threads), weights))
        del part, X  # before the next one is read
    total = sum(part.weight for part in sums)
    if total == 0.0:
        raise ValueError("sample_weight is 0 for every row, so there is nothing to measure")
    result = {"loss": sum(part.loss for part in sums) / total}
    scores = [part.score for part in sums if part.score is not None]
    if len(scores) == len(sums):
        result["accuracy"] = sum(scores) / total
    wanted = [metric for metric in metrics if metric.name not in result]
    if wanted:
        joined = answers[0] if len(answers) == 1 else _join(answers)
        for metric in wanted:
            result[metric.name] = metric.measure(*joined)
    return result


def _join(parts: Sequence[_Answers]) -> _Answers:
    """The answers of all parts, in their order."""
    with_labels = [part.targets.labels for part in parts if part.targets.labels is not None]
    with_values = [part.targets.values for part in parts if part.targets.values is not None]
    if with_labels and with_values:
        raise ValueError(
            "y has class labels in some batches and rows of numbers in others; metrics of all rows "
            "need one or the other"
        )
    targets = Targets(
        np.concatenate(with_labels) if with_labels else None,
        np.concatenate(with_values) if with_values else None,
        min(part.targets.score for part in parts),
    )
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate(
            [np.ones(len(p.outputs)) if p.weights is None else p.weights for p in parts]
        )
    return _Answers(targets, np.concatenate([part.outputs for part in parts]), weights)
