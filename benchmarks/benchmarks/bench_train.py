"""Epochs of the standard jobs: seconds, shares of the peak, ratios to other libraries."""

import statistics

import numpy as np

from fastbackprop.cores import available_threads
from fastbackprop.datasets import load_mnist_small
from fastbackprop.standard_jobs import STANDARD_JOBS

from .common import THREADS, installed, share_of_peak, thread_count

JOBS = [job.network for job in STANDARD_JOBS.values()]
LIBRARIES = {
    "numpy": ("peer_numpy", "NumPyBatchedPeer"),
    "torch": ("peer_torch", "TorchPeer"),
    "jax": ("peer_jax", "JaxPeer"),
}


def standard_job(network, rows):
    """Return the job with that network, on at most so many images."""
    (X, y), (X_test, y_test) = load_mnist_small()
    X, X_test = (pixels.astype(np.float32) / np.float32(255) for pixels in (X, X_test))
    data = installed("peer_jobs").Data(X[:rows], y[:rows], X_test, y_test, "MNIST")
    jobs = installed("peer_jobs").all_jobs(data)
    return jobs[1 + JOBS.index(network)]


def race(job, *peers, turns=2, pause=0.0):
    """Train peers on the same batches; refuse to time those that disagree."""
    side_by_side = installed("peers")
    rng = np.random.default_rng(0)
    orders = [job.order(rng) for _ in range(turns)]
    results = side_by_side.race(job, list(peers), orders, pause)
    lines = side_by_side.disagreements(job, results, orders)
    assert not lines, lines
    return results


class Epoch:
    params = [JOBS, THREADS]
    param_names = ["network", "threads"]
    timeout = 120

    def setup(self, network, threads):
        self.threads = thread_count(threads)
        peer = installed("peer_fastbackprop").FastbackpropPeer()
        small = standard_job(network, 640)
        race(small, peer, installed("peer_numpy").NumPyBatchedPeer())
        self.job = standard_job(network, 10_000)
        peer.setup(self.job, self.job.initial_weights())
        self.net, self.optimizer, self.targets = peer.network, peer.optimizer, peer.targets

    def epoch_seconds(self):
        """Train two turns, and return the median seconds of an epoch but the first."""
        history = self.net.fit(
            self.job.data.X_train, self.targets, epochs=1 + 2 * self.job.epochs_per_turn,
            batch_size=self.job.batch_size, optimizer=self.optimizer, threads=self.threads,
            verbose=0,
        )  # fmt: skip
        return statistics.median(history["seconds"][1:])

    # The kernel times itself: fit has checks, a copy of the parameters and a team to start.
    def track_seconds(self, network, threads):
        return self.epoch_seconds()

    track_seconds.unit = "s"


class ShareOfPeak:
    """Of all cores."""

    params = [JOBS]
    param_names = ["network"]
    timeout = 120

    def setup(self, network):
        self.epoch = Epoch()
        self.epoch.setup(network, "all" if available_threads() > 1 else "one")

    def track_share_of_peak(self, network):
        job = self.epoch.job
        seconds = self.epoch.epoch_seconds()
        return share_of_peak(job.flops_per_row * job.n, seconds, "float32", self.epoch.threads)

    track_share_of_peak.unit = "of the measured peak"


class RatioToPeer:
    """How many times as long another library takes, for an epoch of the same training."""

    params = [JOBS[:2], list(LIBRARIES)]
    param_names = ["network", "library"]
    timeout = 120

    def setup(self, network, library):
        module, name = LIBRARIES[library]
        self.other = getattr(installed(module), name)()
        self.ours = installed("peer_fastbackprop").FastbackpropPeer()

    def track_ratio(self, network, library):
        ours, other = race(standard_job(network, 2_000), self.ours, self.other, turns=3, pause=0.3)
        return other.median / ours.median

    track_ratio.unit = "times fastbackprop's"
