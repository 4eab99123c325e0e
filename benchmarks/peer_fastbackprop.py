"""The package itself, through its public interface."""

import numpy as np
from peer_jobs import Job, Peer, Weights

import fastbackprop
from fastbackprop import SGD, Adam, Network


class FastbackpropPeer(Peer):
    """`Network.fit`, an epoch at a call."""

    library = "fastbackprop"
    version = fastbackprop.__version__
    label = "fastbackprop"

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        self.network = Network(
            list(job.sizes), activation=job.activation, loss=job.loss, dtype="float32"
        )
        for i, (w, b) in enumerate(weights):
            self.network.weights[i][...] = w
            self.network.biases[i][...] = b
        self.optimizer = {"sgd": SGD, "adam": Adam}[job.optimizer](job.learning_rate)
        self.targets = job.one_hot() if job.loss == "quadratic" else job.images.y_train

    def epoch(self, order: np.ndarray) -> float:
        history = self.network.fit(
            self.job.images.X_train,
            self.targets,
            epochs=1,
            batch_size=self.job.batch_size,
            optimizer=self.optimizer,
            shuffle=order,
            verbose=0,
        )
        return history["loss"][-1]

    def accuracy(self) -> float:
        images = self.job.images
        return float(np.mean(self.network.predict_classes(images.X_test) == images.y_test))
