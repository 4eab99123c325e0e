"""What every peer trains, and the small interface through which it is trained."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Weights = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Images:
    """MNIST as every peer sees it: pixels in [0, 1], labels 0 to 9.

    X_train : (n, 784) float32     y_train : (n,) int64
    X_test : (n_test, 784) float32     y_test : (n_test,) int64
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    source: str

    def head(self, n_train: int) -> "Images":
        """Keep the first `n_train` training images, or all of them where there are fewer."""
        return Images(
            self.X_train[:n_train], self.y_train[:n_train], self.X_test, self.y_test, self.source
        )


@dataclass(frozen=True)
class Job:
    """One network, its loss, its optimizer and its images.

    The loss is "quadratic" (½ Σ (a − y)² over the outputs, sigmoid at the output) or
    "cross_entropy" (softmax at the output), averaged over the batch. The optimizer is "sgd" or
    "adam", Adam with beta 0.9 and 0.999 and epsilon 1e-8.
    """

    number: int
    sizes: tuple[int, ...]
    activation: str
    loss: str
    optimizer: str
    learning_rate: float
    batch_size: int
    images: Images

    @property
    def n(self) -> int:
        """Training images in an epoch."""
        return len(self.images.X_train)

    @property
    def n_parameters(self) -> int:
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))

    @property
    def flops(self) -> int:
        """Arithmetic of the matrix products in an epoch: z, dw, and dx but for the first layer."""
        products = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        return 2 * self.n * (3 * sum(products) - products[0])

    @property
    def title(self) -> str:
        layers = "-".join(map(str, self.sizes))
        return (
            f"Job {self.number}: {layers} {self.activation}, {self.loss}, "
            f"{self.optimizer} {self.learning_rate:g}, batch {self.batch_size}, {self.n:,} images"
        )

    def one_hot(self) -> np.ndarray:
        """Training labels as rows of zeros and a one, (n, n_out) float32."""
        return np.eye(self.sizes[-1], dtype=np.float32)[self.images.y_train]

    def initial_weights(self) -> Weights:
        """Return float32 (w, b) in layer order, w (n_in, n_out); the same at every call.

        N(0, 1) for sigmoid layers, as in the textbook experiment; He's for relu.
        """
        rng = np.random.default_rng(self.number)
        weights = []
        for n_in, n_out in pairwise(self.sizes):
            if self.activation == "sigmoid":
                w, b = rng.standard_normal((n_in, n_out)), rng.standard_normal(n_out)
            else:
                w, b = rng.standard_normal((n_in, n_out)) * np.sqrt(2 / n_in), np.zeros(n_out)
            weights.append((w.astype(np.float32), b.astype(np.float32)))
        return weights


def all_jobs(images: Images) -> dict[int, Job]:
    """Return the jobs by number: a small, a medium and a large network for a CPU."""
    adam = ("relu", "cross_entropy", "adam", 1e-3)
    jobs = [
        Job(1, (784, 30, 10), "sigmoid", "quadratic", "sgd", 3.0, 10, images.head(50_000)),
        Job(2, (784, 128, 10), *adam, 64, images),
        Job(3, (784, 512, 512, 10), *adam, 128, images),
    ]
    return {job.number: job for job in jobs}


class Peer(ABC):
    """A library, or a way to use one, that trains a job."""

    library: str
    version: str
    label: str  # the way it is used, for the table
    settings = ""  # what setup chose, for the table too

    def refusal(self, job: Job) -> str | None:
        """Say why this peer cannot train the job, or None where it can."""
        return None

    def images_per_epoch(self, job: Job) -> int:
        """How many images of an epoch to train on; the seconds are scaled up to all of them."""
        return job.n

    @abstractmethod
    def setup(self, job: Job, weights: Weights) -> None:
        """Build the network from a copy of the weights; nothing here is timed."""

    @abstractmethod
    def epoch(self, order: np.ndarray) -> float:
        """Train once on the images `order`, in that order; return the mean loss over them.

        The loss of a batch is taken before its update and weighted by its size. All work is
        finished on return.
        """

    @abstractmethod
    def accuracy(self) -> float:
        """Return the fraction of the test images classified correctly."""


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
