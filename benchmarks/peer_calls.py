"""Calls from Python, timed side by side: outputs of one row or of many, loss and gradients."""

import dataclasses
import time

import numpy as np
from peer_jobs import Call, CallJob, Peer
from peer_numpy import NumPyBatchedPeer
from peer_results import CallResult

from fastbackprop.machine import Effort, call_seconds

# A turn is as many calls as take this long, so that the clock and the loop do not count.
TURN = Effort(0.05, 1)

# Of the largest value in an array: float32 sums over 784 products, in any order.
CALL_TOLERANCE = 1e-4


def race_calls(
    job: CallJob, peers: list[Peer], turns: int, pause: float
) -> tuple[list[CallResult], list[str]]:
    """Time every peer that takes part, in turns; return the results and the disagreements."""
    expected = arrays(build(job, NumPyBatchedPeer(), with_dropout=False))
    lines: list[str] = []
    taking_part: list[tuple[Peer, Call]] = []
    for peer in peers:
        call = build(job, peer, with_dropout=True)
        if call is None:
            continue
        exact = build(job, peer, with_dropout=False) if job.dropout else call
        lines += disagreement(peer.label, arrays(exact), expected)
        if job.dropout and np.isclose(float(call()[0]), float(expected[0]), rtol=1e-6):
            lines.append(f"{peer.label}: its loss is that without dropout")
        taking_part.append((peer, call))
    seconds: list[list[float]] = [[] for _ in taking_part]
    for _ in range(turns):
        for (_, call), of_peer in zip(taking_part, seconds, strict=True):
            time.sleep(pause)
            of_peer.append(call_seconds(call, TURN))
    results = [
        CallResult(peer.label, peer.settings, of_peer)
        for (peer, _), of_peer in zip(taking_part, seconds, strict=True)
    ]
    return results, lines


def build(job: CallJob, peer: Peer, *, with_dropout: bool) -> Call | None:
    if not with_dropout:
        job = dataclasses.replace(job, dropout=0.0)
    return peer.call(job, job.weights())


def arrays(call: Call | None) -> list[np.ndarray]:
    assert call is not None
    return [np.asarray(value).astype(np.float64) for value in call()]


def disagreement(label: str, found: list[np.ndarray], expected: list[np.ndarray]) -> list[str]:
    """Compare all that a call returned with NumPy's: a line, or none where they agree."""
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape:
            return [f"{label}: result {i} has the shape {a.shape}, NumPy's has {b.shape}"]
        tolerance = CALL_TOLERANCE * np.abs(b).max()
        if not np.abs(a - b).max() <= tolerance:  # so written, a NaN is a disagreement
            return [
                f"{label}: result {i} differs from NumPy's by {np.abs(a - b).max():.2g}, "
                f"more than {tolerance:.2g}"
            ]
    return []
