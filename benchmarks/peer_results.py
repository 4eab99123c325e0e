"""What a race gave: its results, the tables that show them, and their numbers for JSON."""

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peer_jobs import CallJob, Job

WIDTH = 80


@dataclass
class Result:
    """What one peer did in one job; `seconds` are of whole turns, scaled where need be."""

    label: str
    settings: str
    n_trained: int  # rows a turn
    seconds: list[float]
    losses: list[float]  # mean training loss of each turn
    score: float  # test accuracy, or in a regression the mean squared error

    @property
    def median(self) -> float:
        """Seconds of a turn in the steady state."""
        return statistics.median(self.seconds[1:])


@dataclass
class CallResult:
    """How long one peer's call took; `seconds` are the mean of a call in each turn."""

    label: str
    settings: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of a call in the steady state."""
        return statistics.median(self.seconds[1:])


def ratio_to_fastbackprop(
    result: Result | CallResult, results: Sequence[Result | CallResult]
) -> float | None:
    """Say how many times as long it takes as fastbackprop's, None where it did not run."""
    for other in results:
        if other.label == "fastbackprop":
            return result.median / other.median
    return None


def print_table(job: Job, results: list[Result]) -> None:
    """Print one line a peer, with its seconds a turn and where they lead."""
    print(f"{'':26}{'first s':>9}{'median s':>10}{'ratio':>8}{'GFLOP/s':>9}{'loss':>9}{'test':>9}")
    notes = []
    for result in results:
        label = result.label
        if result.settings:
            label += f", {result.settings}"
        if result.n_trained < job.rows_per_turn:
            label += " *"
            notes.append(
                f"* Trained on {result.n_trained:,} rows a turn; its seconds are scaled "
                f"to {job.rows_per_turn:,}. Its loss is checked against NumPy, batched, on the "
                "same rows."
            )
        score = f"{result.score:.5f}" if job.is_regression else f"{result.score:.2%}"
        ratio = ratio_to_fastbackprop(result, results)
        print(
            f"{label:26}{result.seconds[0]:9.3f}{result.median:10.4f}"
            f"{'-' if ratio is None else format(ratio, '.2f'):>8}"
            f"{job.flops / result.median / 1e9:9.1f}{result.losses[-1]:9.5f}{score:>9}"
        )
    for note in notes:
        print_wrapped(note)


def print_calls(job: CallJob, results: list[CallResult]) -> None:
    """Print one line a peer, with the microseconds of a call."""
    print(f"{'':44}{'median µs':>12}{'ratio':>10}{'GFLOP/s':>14}")
    for result in results:
        label = result.label + (f", {result.settings}" if result.settings else "")
        ratio = ratio_to_fastbackprop(result, results)
        print(
            f"{label:44}{1e6 * result.median:12.2f}"
            f"{'-' if ratio is None else format(ratio, '.2f'):>10}"
            f"{job.flops / result.median / 1e9:14.3f}"
        )


def job_report(job: Job, results: list[Result], warnings: list[str]) -> dict[str, Any]:
    """Return the job's numbers for JSON."""
    return {
        "job": job.number,
        "title": job.title,
        "flops_per_turn": job.flops,
        "score": "test loss" if job.is_regression else "test accuracy",
        "results": [
            {
                "peer": result.label,
                "settings": result.settings,
                "rows_per_turn": result.n_trained,
                "seconds": result.seconds,
                "median": result.median,
                "ratio": ratio_to_fastbackprop(result, results),
                "losses": result.losses,
                "score": result.score,
            }
            for result in results
        ],
        "disagreements": warnings,
    }


def call_report(job: CallJob, results: list[CallResult], warnings: list[str]) -> dict[str, Any]:
    """Return the job's numbers for JSON."""
    return {
        "job": job.number,
        "title": job.title,
        "flops_per_call": job.flops,
        "results": [
            {
                "peer": result.label,
                "settings": result.settings,
                "seconds": result.seconds,
                "median": result.median,
                "ratio": ratio_to_fastbackprop(result, results),
            }
            for result in results
        ],
        "disagreements": warnings,
    }


def print_wrapped(text: str) -> None:
    print(textwrap.fill(text, WIDTH, subsequent_indent="  "))
