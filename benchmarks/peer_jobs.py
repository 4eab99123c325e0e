"""What every peer trains and computes, and the small interface through which it does so."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fastbackprop.cores import available_threads
from fastbackprop.standard_jobs import STANDARD_JOBS, StandardJob

Weights = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Data:
    """What a job trains and tests on, as every peer sees it: for images, pixels in [0, 1].

    X_train : (n, n_in) float32     y_train : (n,) int64, or (n, n_out) float32 in a regression
    X_test : (n_test, n_in) float32     y_test : likewise
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    source: str

    def head(self, n_train: int) -> "Data":
        """Keep the first `n_train` training rows, or all of them where there are fewer."""
        return dataclasses.replace(
            self, X_train=self.X_train[:n_train], y_train=self.y_train[:n_train]
        )


@dataclass(frozen=True)
class Job(StandardJob):
    """A standard job of the package with its data."""

    data: Data = dataclasses.field(kw_only=True)

    @property
    def is_regression(self) -> bool:
        return self.data.y_train.ndim == 2

    @property
    def is_full_batch(self) -> bool:
        """Whether an epoch is one step; then all epochs of a turn are one call of a peer."""
        return self.batch_size >= self.n

    @property
    def epochs_per_turn(self) -> int:
        """Enough that a turn is longer than what begins it: caches are full of another's data."""
        if self.is_full_batch:
            return 100
        return 1 if self.make_rows is None else 10

    @property
    def rows_per_turn(self) -> int:
        return self.n * self.epochs_per_turn

    @property
    def flops(self) -> int:
        """Arithmetic of the matrix products in a turn."""
        return self.flops_per_row * self.rows_per_turn

    @property
    def title(self) -> str:
        turn = f", {self.epochs_per_turn} epochs a turn" if self.epochs_per_turn > 1 else ""
        return super().title + turn

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Rows in the order in which a turn takes them; that of a full batch does not matter."""
        if self.is_full_batch:
            return np.tile(np.arange(self.n), self.epochs_per_turn)
        return np.concatenate([rng.permutation(self.n) for _ in range(self.epochs_per_turn)])

    def targets(self) -> np.ndarray:
        """Training targets as rows, (n, n_out) float32; labels become zeros and a one."""
        if self.is_regression:
            return self.data.y_train
        return np.eye(self.sizes[-1], dtype=np.float32)[self.data.y_train]

    def score(self, outputs: np.ndarray) -> float:
        """Test accuracy from (n_test, n_out) outputs; in a regression, the mean squared error."""
        if self.is_regression:
            return float(np.mean((outputs - self.data.y_test) ** 2))
        return float(np.mean(outputs.argmax(1) == self.data.y_test))

    def initial_weights(self) -> Weights:
        return initial_weights(self.sizes, self.activation, self.number)


def initial_weights(sizes: Iterable[int], activation: str, seed: int) -> Weights:
    """Return float32 (w, b) in layer order, w (n_in, n_out); the same at every call.

    N(0, 1) for sigmoid layers, as in the textbook experiment; He's for relu; Glorot's for tanh.
    """
    rng = np.random.default_rng(seed)
    weights = []
    for n_in, n_out in pairwise(sizes):
        w, b = rng.standard_normal((n_in, n_out)), np.zeros(n_out)
        if activation == "sigmoid":
            b = rng.standard_normal(n_out)
        else:
            w *= np.sqrt(2 / n_in if activation == "relu" else 2 / (n_in + n_out))
        weights.append((w.astype(np.float32), b.astype(np.float32)))
    return weights


def all_jobs(images: Data) -> dict[int, Job]:
    """Return the jobs of training by number, those of images with no more than are given."""
    n_images = len(images.X_train)
    jobs = {}
    for number, standard in STANDARD_JOBS.items():
        if standard.make_rows is None:
            data = images.head(standard.n)
        else:
            # A tenth of the rows where the images are few, which is for a quick check.
            n = standard.n if n_images > 1_000 else standard.n // 10
            train, test = standard.make_rows(n, 0), standard.make_rows(n // 5, 1)
            data = Data(*train, *test, standard.make_rows.__name__)
        fields = {
            field.name: getattr(standard, field.name) for field in dataclasses.fields(standard)
        }
        fields["n"] = len(data.X_train)
        fields["batch_size"] = min(standard.batch_size, fields["n"])
        jobs[number] = Job(**fields, data=data)
    return jobs


@dataclass(frozen=True)
class CallJob:
    """One call from Python on a network with a linear output: outputs, or loss and gradients.

    The task is "predict", or "gradients" of the mean squared error over rows and outputs; with
    dropout before the last layer where that is not 0.
    """

    number: int
    sizes: tuple[int, ...]
    activation: str
    task: str
    rows: int
    dropout: float = 0.0

    @property
    def flops(self) -> int:
        """Arithmetic of the matrix products in a call."""
        products = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        each = sum(products) if self.task == "predict" else 3 * sum(products) - products[0]
        return 2 * self.rows * each

    @property
    def title(self) -> str:
        layers = "-".join(map(str, self.sizes))
        dropout = f", dropout {self.dropout:g}" if self.dropout else ""
        rows = f"{self.rows:,} row{'s' * (self.rows > 1)}"
        return f"Job {self.number}: {layers} {self.activation}{dropout}, {self.task}, {rows}"

    def weights(self) -> Weights:
        return initial_weights(self.sizes, self.activation, self.number)

    def rows_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return X (rows, n_in) and y (rows, n_out), float32; the same at every call."""
        rng = np.random.default_rng(self.number)
        X, y = (rng.standard_normal((self.rows, k)) for k in (self.sizes[0], self.sizes[-1]))
        return X.astype(np.float32), y.astype(np.float32)


CALL_JOBS = {
    job.number: job
    for job in (
        CallJob(6, (24, 8, 2), "tanh", "gradients", 200, dropout=0.2),
        CallJob(7, (784, 128, 10), "relu", "predict", 1),
        CallJob(8, (4, 32, 32, 2), "relu", "predict", 1),
        CallJob(9, (784, 128, 10), "relu", "predict", 10_000),
        CallJob(10, (4, 32, 32, 2), "relu", "predict", 10_000),
    )
}

# What a call returns, in the peer's own kind of array: [outputs], or [loss, dw, db, dw, db, ...].
Call = Callable[[], list]


class Peer(ABC):
    """A library, or a way to use one, that trains a job."""

    library: str
    version: str
    label: str  # the way it is used, for the table
    settings = ""  # what setup chose, for the table too

    def refusal(self, job: Job) -> str | None:
        """Say why this peer cannot train the job, or None where it can."""
        return None

    def rows_per_turn(self, job: Job) -> int:
        """How many rows of a turn to train on; the seconds are scaled up to all of them."""
        return job.rows_per_turn

    @abstractmethod
    def setup(self, job: Job, weights: Weights) -> None:
        """Build the network from a copy of the weights; nothing here is timed."""

    @abstractmethod
    def epoch(self, order: np.ndarray) -> float:
        """Train once on the rows `order`, in that order; return the mean loss over them.

        The loss of a batch is taken before its update and weighted by its size. All work is
        finished on return.
        """

    @abstractmethod
    def outputs(self, X: np.ndarray) -> np.ndarray:
        """Return the trained network's outputs, (n, n_out): of a classifier, its logits will do."""

    def call(self, job: CallJob, weights: Weights) -> Call | None:
        """Build the network, and return what is timed; None where this peer does not do it."""
        return None


def thread_counts() -> list[int]:
    """Return 1, 2, 4, ... and all the cores that this process may run on."""
    cores = available_threads()
    return sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})
