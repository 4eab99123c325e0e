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

from collections.abc import Callable

import numpy as np
import torch
from peer_jobs import Call, CallJob, Job, Peer, Weights, thread_counts
from torch import nn

from fastbackprop.machine import Effort, call_seconds

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class TorchPeer(Peer):
    """`nn.Sequential` with a fused optimizer, at the thread count that is fastest for the job."""

    library = "PyTorch"
    version = torch.__version__
    label = "PyTorch eager"

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.X_train = torch.from_numpy(job.data.X_train)
        self.loss: nn.Module
        if job.loss == "quadratic":
            # The mean over n·n_out values is the quadratic loss times 2/n_out. The rest goes into
            # the learning rate: the same update with two operations a batch fewer.
            self.targets = torch.from_numpy(job.targets())
            self.loss, self.loss_scale = nn.MSELoss(), job.sizes[-1] / 2
        elif job.loss == "mse":
            self.targets = torch.from_numpy(job.targets())
            self.loss, self.loss_scale = nn.MSELoss(), 1.0
        else:
            self.targets = torch.from_numpy(job.data.y_train)
            self.loss, self.loss_scale = nn.CrossEntropyLoss(), 1.0
        order = np.arange(min(job.rows_per_turn, 100 * job.batch_size)) % job.n

        def train() -> Callable[[], object]:
            self._build(weights)
            return lambda: self.epoch(order)

        self.settings = set_fastest_thread_count(train)
        self._build(weights)

    def _build(self, weights: Weights) -> None:
        job = self.job
        output = ACTIVATIONS[job.activation] if job.loss == "quadratic" else None
        self.model = sequential(weights, job.activation, output)
        self.optimizer = OPTIMIZERS[job.optimizer](
            self.model.parameters(), lr=job.learning_rate * self.loss_scale, fused=True
        )

    def epoch(self, order: np.ndarray) -> float:
        batch_size = self.job.batch_size
        if self.job.is_full_batch:  # full batches: nothing to gather
            steps = len(order) // batch_size
            X_batches, y_batches = [self.X_train] * steps, [self.targets] * steps
        else:
            rows = torch.from_numpy(order)
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

    def outputs(self, X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.model(torch.from_numpy(X)).numpy()

    def call(self, job: CallJob, weights: Weights) -> Call:
        X, y = map(torch.from_numpy, job.rows_and_targets())
        model = sequential(weights, job.activation, None, job.dropout)
        parameters = list(model.parameters())

        def predict() -> list:
            with torch.inference_mode():
                return [model(X)]

        def gradients() -> list:
            model.zero_grad()
            loss = nn.functional.mse_loss(model(X), y)
            loss.backward()
            # PyTorch keeps weights as (n_out, n_in).
            return [loss.detach(), *(p.grad.T if p.ndim == 2 else p.grad for p in parameters)]

        run = predict if job.task == "predict" else gradients
        self.settings = set_fastest_thread_count(lambda: run)
        return run


def sequential(
    weights: Weights, activation: str, output: type[nn.Module] | None, dropout: float = 0.0
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (w, b) in enumerate(weights):
        is_last = i == len(weights) - 1
        if is_last and dropout:
            layers.append(nn.Dropout(dropout))
        linear = nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers.append(linear)
        if not is_last:
            layers.append(ACTIVATIONS[activation]())
        elif output is not None:
            layers.append(output())
    return nn.Sequential(*layers)


def set_fastest_thread_count(prepare: Callable[[], Callable[[], object]]) -> str:
    """Time what `prepare` returns at 1, 2, 4, ... threads and at all cores; say which was best."""
    counts = thread_counts()
    seconds = {}
    for threads in counts if len(counts) > 1 else []:
        torch.set_num_threads(threads)
        run = prepare()
        seconds[threads] = call_seconds(run, Effort(0.02, 3))
    best = min(seconds, key=lambda threads: seconds[threads], default=1)
    torch.set_num_threads(best)
    return "1 thread" if best == 1 else f"{best} threads"
