"""Plain NumPy in float32: a batch at a time, and a sample at a time as textbooks write it."""

from abc import abstractmethod

import numpy as np
from peer_jobs import Call, CallJob, Data, Job, Peer, Weights


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * z))  # 1 / (1 + exp(−z)) without its overflow


ACTIVATIONS = {"sigmoid": sigmoid, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}
DERIVATIVES = {
    "sigmoid": lambda a: a * (1 - a),
    "relu": lambda a: (a > 0).astype(a.dtype),
    "tanh": lambda a: 1 - a * a,
}


def forward(x: np.ndarray, weights: Weights, activation: str) -> np.ndarray:
    """Pre-activations of the last layer, (n, n_out)."""
    *hidden, (w, b) = weights
    for w_hidden, b_hidden in hidden:
        x = ACTIVATIONS[activation](x @ w_hidden + b_hidden)
    return x @ w + b


class NumPyPeer(Peer):
    """The epoch and the update; how a batch's gradients come about is left to the two kinds."""

    library = "NumPy"
    version = np.__version__

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.X_train, self.targets = job.data.X_train, job.targets()
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
        return ACTIVATIONS[self.job.activation](z)

    def activation_derivative(self, a: np.ndarray) -> np.ndarray:
        """Return the derivative in terms of the activation's own value, which all kinds allow."""
        return DERIVATIVES[self.job.activation](a)

    def outputs(self, X: np.ndarray) -> np.ndarray:
        return forward(X, self.weights, self.job.activation)

    def output_loss(self, z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of the losses of rows z (n, n_out), and its gradient."""
        if self.job.loss == "quadratic":
            a = sigmoid(z)
            return 0.5 * np.sum((a - y) ** 2), (a - y) * a * (1 - a)
        if self.job.loss == "mse":
            return np.sum((z - y) ** 2) / z.shape[1], 2 / z.shape[1] * (z - y)
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -np.sum(y * log_p), np.exp(log_p) - y


class NumPyBatchedPeer(NumPyPeer):
    label = "NumPy, batched"

    def loss_and_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        activations = [x]
        for w, b in self.weights[:-1]:
            activations.append(self.activation(activations[-1] @ w + b))
        w, b = self.weights[-1]
        z = activations[-1] @ w + b
        loss, dz = self.output_loss(z, y)
        dz /= len(x)
        gradients: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            gradients[:0] = [activations[i].T @ dz, dz.sum(axis=0)]
            if i > 0:
                dz = (dz @ self.weights[i][0].T) * self.activation_derivative(activations[i])
        return float(loss) / len(x), gradients

    def call(self, job: CallJob, weights: Weights) -> Call | None:
        X, y = job.rows_and_targets()
        if job.task == "predict":
            return lambda: [forward(X, weights, job.activation)]
        if job.dropout:
            return None
        data = Data(X, y, X, y, "noise")
        self.setup(
            Job(
                job.number, job.sizes, job.activation, "mse", "sgd", 0.1, len(X), len(X), data=data
            ),
            weights,
        )

        def gradients() -> list:
            loss, values = self.loss_and_gradients(X, y)
            return [loss, *values]

        return gradients


class NumPyPerSamplePeer(NumPyPeer):
    """The loop over samples that textbooks teach: column vectors, one gradient for each sample."""

    label = "NumPy, per sample"

    def rows_per_turn(self, job: Job) -> int:
        """Bound the work of a turn, which would else take minutes: about a second of it."""
        batches = int(min(2.5e8 / job.n_parameters, 20_000) / job.batch_size)
        return min(job.rows_per_turn, max(batches, 1) * job.batch_size)

    def loss_and_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        total = 0.0
        sums = [np.zeros_like(p) for p in self.parameters]
        for x_sample, y_sample in zip(x, y, strict=True):
            loss, gradients = self.backpropagate(x_sample[:, np.newaxis], y_sample[:, np.newaxis])
            total += loss
            sums = [s + g for s, g in zip(sums, gradients, strict=True)]
        return total / len(x), [s / len(x) for s in sums]

    def backpropagate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """Return one sample's loss and gradients; x is (n_in, 1), y is (n_out, 1)."""
        activations = [x]
        for w, b in self.weights[:-1]:
            activations.append(self.activation(w.T @ activations[-1] + b[:, np.newaxis]))
        w, b = self.weights[-1]
        z = w.T @ activations[-1] + b[:, np.newaxis]
        loss, dz = self.output_loss(z.T, y.T)
        dz = dz.T
        gradients: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            gradients[:0] = [activations[i] @ dz.T, dz[:, 0]]
            if i > 0:
                dz = (self.weights[i][0] @ dz) * self.activation_derivative(activations[i])
        return float(loss), gradients
