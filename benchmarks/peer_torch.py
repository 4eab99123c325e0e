"""PyTorch, eager, on the CPU: the usual training loop with its fastest settings.

Tried on two cores (AVX-512), seconds an epoch for jobs 1, 2 and 3:

- fused=True 1.08, 0.45, 1.00; foreach=True 1.11, 0.68, 1.46; neither 1.06, 0.69, 1.50. Fused wins
  or draws.
- `Tensor.split` of the permuted images beats a slice a batch by up to a quarter; indexing the
  images batch by batch draws with permuting them once.
- `torch.set_flush_denormal(True)` makes job 2 a quarter faster on one thread (Adam's first moment
  decays into denormals for pixels that are nearly always 0). It is left at its default, off: it
  is a mode of the process's threads, and the other peers run on them too.
"""

import time

import numpy as np
import torch
from peer_jobs import Job, Peer, Weights, available_cores
from torch import nn

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class TorchPeer(Peer):
    """`nn.Sequential` with a fused optimizer, at the thread count that is fastest for the job."""

    library = "PyTorch"
    version = torch.__version__
    label = "PyTorch eager"

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.X_train = torch.from_numpy(job.images.X_train)
        self.loss: nn.Module
        if job.loss == "quadratic":
            # The mean over n·n_out values is the quadratic loss times 2/n_out. The rest goes into
            # the learning rate: the same update with two operations a batch fewer.
            self.targets = torch.from_numpy(job.one_hot())
            self.loss, self.loss_scale = nn.MSELoss(), job.sizes[-1] / 2
        else:
            self.targets = torch.from_numpy(job.images.y_train)
            self.loss, self.loss_scale = nn.CrossEntropyLoss(), 1.0
        threads = self._fastest_thread_count(weights)
        torch.set_num_threads(threads)
        self.settings = "1 thread" if threads == 1 else f"{threads} threads"
        self._build(weights)

    def _build(self, weights: Weights) -> None:
        job = self.job
        layers: list[nn.Module] = []
        for w, b in weights:
            linear = nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, ACTIVATIONS[job.activation]()]
        if job.loss == "cross_entropy":
            del layers[-1]
        self.model = nn.Sequential(*layers)
        self.optimizer = OPTIMIZERS[job.optimizer](
            self.model.parameters(), lr=job.learning_rate * self.loss_scale, fused=True
        )

    def _fastest_thread_count(self, weights: Weights) -> int:
        """Time 100 batches at 1, 2, 4, ... threads and at all cores."""
        cores = available_cores()
        if cores == 1:
            return 1
        order = np.arange(min(self.job.n, 100 * self.job.batch_size))
        seconds = {}
        for threads in {2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores}:
            torch.set_num_threads(threads)
            self._build(weights)
            trials = []
            for _ in range(3):
                start = time.perf_counter()
                self.epoch(order)
                trials.append(time.perf_counter() - start)
            seconds[threads] = min(trials)
        return min(seconds, key=lambda threads: seconds[threads])

    def epoch(self, order: np.ndarray) -> float:
        rows = torch.from_numpy(order)
        batch_size = self.job.batch_size
        X_batches = self.X_train[rows].split(batch_size)
        y_batches = self.targets[rows].split(batch_size)
        losses = []
        for X, y in zip(X_batches, y_batches, strict=True):
            self.optimizer.zero_grad()
            loss = self.loss(self.model(X), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        sizes = torch.full((len(losses),), batch_size, dtype=torch.float64)
        sizes[-1] = len(X)
        return float(torch.stack(losses).double() @ sizes) / len(order) * self.loss_scale

    def accuracy(self) -> float:
        images = self.job.images
        with torch.no_grad():
            predicted = self.model(torch.from_numpy(images.X_test)).argmax(1).numpy()
        return float(np.mean(predicted == images.y_test))
