"""The package itself, through its public interface."""

import numpy as np
from peer_jobs import Call, CallJob, Job, Peer, Weights

import fastbackprop
from fastbackprop import SGD, Adam, Dense, Dropout, Network
from fastbackprop.probe import Probe


class FastbackpropPeer(Peer):
    """`Network.fit`, an epoch at a call, or all full batches of a turn."""

    library = "fastbackprop"
    version = fastbackprop.__version__
    label = "fastbackprop"

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.network = Network(list(job.sizes), job.activation, job.loss, dtype="float32")
        set_weights(self.network, weights)
        self.optimizer = {"sgd": SGD, "adam": Adam}[job.optimizer](job.learning_rate)
        self.targets = job.targets() if job.loss == "quadratic" else job.data.y_train

    def epoch(self, order: np.ndarray) -> float:
        history = self.network.fit(
            self.job.data.X_train,
            self.targets,
            epochs=self.job.epochs_per_turn if self.job.is_full_batch else 1,
            batch_size=self.job.batch_size,
            optimizer=self.optimizer,
            shuffle=False if self.job.is_full_batch else order,
            verbose=0,
        )
        return float(np.mean(history["loss"]))

    def outputs(self, X: np.ndarray) -> np.ndarray:
        return self.network.predict(X)

    def call(self, job: CallJob, weights: Weights) -> Call:
        X, y = job.rows_and_targets()
        layers = [Dense(*w.shape, job.activation) for w, _ in weights[:-1]]
        if job.dropout:
            layers.append(Dropout(job.dropout))
        network = Network([*layers, Dense(*weights[-1][0].shape)], loss="mse")
        set_weights(network, weights)
        if job.task == "predict":
            return lambda: [network.predict(X)]
        # `Network.loss_and_gradients` leaves dropout out. This is what it is made of.
        state = network._state
        probe = Probe(
            state, network._data(X, y, None), dropout_epoch=0 if job.dropout else None, threads=1
        )
        flat = probe.parameter_gradients
        pairs = zip(state.plan.weights(flat), state.plan.biases(flat), strict=True)
        gradients = [gradient for pair in pairs for gradient in pair]
        return lambda: [probe.differentiate(), *gradients]


def set_weights(network: Network, weights: Weights) -> None:
    for i, (w, b) in enumerate(weights):
        network.weights[i][...] = w
        network.biases[i][...] = b
