"""Plain NumPy in float32: a batch at a time, and a sample at a time as textbooks write it."""

from abc import abstractmethod

import numpy as np
from peer_jobs import Job, Peer, Weights


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * z))  # 1 / (1 + exp(−z)) without its overflow


class NumPyPeer(Peer):
    """The epoch and the update; how a batch's gradients come about is left to the two kinds."""

    library = "NumPy"
    version = np.__version__

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.X_train, self.targets = job.images.X_train, job.one_hot()
        self.weights = [(w.copy(), b.copy()) for w, b in weights]
        self.parameters = [p for layer in self.weights for p in layer]
        self.step = 0
        self.m = [np.zeros_like(p) for p in self.parameters]
        self.v = [np.zeros_like(p) for p in self.parameters]

    @abstractmethod
    def loss_and_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """Return the batch's mean loss and its gradients, in the order of `parameters`."""

    def epoch(self, order: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(order), self.job.batch_size):
            rows = order[start : start + self.job.batch_size]
            loss, gradients = self.loss_and_gradients(self.X_train[rows], self.targets[rows])
            total += loss * len(rows)
            self.update(gradients)
        return total / len(order)

    def update(self, gradients: list[np.ndarray]) -> None:
        learning_rate = self.job.learning_rate
        if self.job.optimizer == "sgd":
            for p, g in zip(self.parameters, gradients, strict=True):
                p -= learning_rate * g
            return
        self.step += 1
        m_scale, v_scale = 1 / (1 - 0.9**self.step), 1 / (1 - 0.999**self.step)
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            p -= learning_rate * m_scale * m / (np.sqrt(v_scale * v) + 1e-8)

    def activation(self, z: np.ndarray) -> np.ndarray:
        return sigmoid(z) if self.job.activation == "sigmoid" else np.maximum(z, 0)

    def activation_derivative(self, a: np.ndarray) -> np.ndarray:
        """Return the derivative in terms of the activation's own value, which both kinds allow."""
        return a * (1 - a) if self.job.activation == "sigmoid" else (a > 0).astype(a.dtype)

    def accuracy(self) -> float:
        a = self.job.images.X_test
        for w, b in self.weights[:-1]:
            a = self.activation(a @ w + b)
        w, b = self.weights[-1]
        return float(np.mean((a @ w + b).argmax(1) == self.job.images.y_test))


class NumPyBatchedPeer(NumPyPeer):
    label = "NumPy, batched"

    def loss_and_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        activations = [x]
        for w, b in self.weights[:-1]:
            activations.append(self.activation(activations[-1] @ w + b))
        w, b = self.weights[-1]
        z = activations[-1] @ w + b
        if self.job.loss == "quadratic":
            a = sigmoid(z)
            loss = 0.5 * np.sum((a - y) ** 2)
            dz = (a - y) * a * (1 - a)
        else:
            z -= z.max(axis=1, keepdims=True)
            log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
            loss = -np.sum(y * log_p)
            dz = np.exp(log_p) - y
        dz /= len(x)
        gradients: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            gradients[:0] = [activations[i].T @ dz, dz.sum(axis=0)]
            if i > 0:
                dz = (dz @ self.weights[i][0].T) * self.activation_derivative(activations[i])
        return float(loss) / len(x), gradients


class NumPyPerSamplePeer(NumPyPeer):
    """The loop over samples that textbooks teach: column vectors, one gradient for each sample."""

    label = "NumPy, per sample"

    def images_per_epoch(self, job: Job) -> int:
        """Bound the work of an epoch, which would else take minutes: about a second of it."""
        batches = int(2.5e8 / job.n_parameters / job.batch_size)
        return min(job.n, max(batches, 1) * job.batch_size)

    def loss_and_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        total = 0.0
        sums = [np.zeros_like(p) for p in self.parameters]
        for x_sample, y_sample in zip(x, y, strict=True):
            loss, gradients = self.backpropagate(x_sample[:, np.newaxis], y_sample[:, np.newaxis])
            total += loss
            sums = [s + g for s, g in zip(sums, gradients, strict=True)]
        return total / len(x), [s / len(x) for s in sums]

    def backpropagate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """Return one sample's loss and gradients; x is (784, 1), y is (10, 1)."""
        activations = [x]
        for w, b in self.weights[:-1]:
            activations.append(self.activation(w.T @ activations[-1] + b[:, np.newaxis]))
        w, b = self.weights[-1]
        z = w.T @ activations[-1] + b[:, np.newaxis]
        if self.job.loss == "quadratic":
            a = sigmoid(z)
            loss = 0.5 * np.sum((a - y) ** 2)
            dz = (a - y) * a * (1 - a)
        else:
            z -= z.max()
            log_p = z - np.log(np.exp(z).sum())
            loss = -np.sum(y * log_p)
            dz = np.exp(log_p) - y
        gradients: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            gradients[:0] = [activations[i] @ dz.T, dz[:, 0]]
            if i > 0:
                dz = (self.weights[i][0] @ dz) * self.activation_derivative(activations[i])
        return float(loss), gradients
