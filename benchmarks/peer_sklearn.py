"""scikit-learn's MLPClassifier, an epoch at a `partial_fit`."""

import numpy as np
import sklearn
from peer_jobs import Job, Peer, Weights
from sklearn.neural_network import MLPClassifier


class SklearnPeer(Peer):
    """Its Adam adds epsilon before the bias correction; the difference is below the tolerance."""

    library = "scikit-learn"
    version = sklearn.__version__
    label = "scikit-learn"

    def refusal(self, job: Job) -> str | None:
        if (job.loss, job.optimizer) != ("cross_entropy", "adam"):
            return f"MLPClassifier has no {job.loss} loss"
        return None

    def setup(self, job: Job, weights: Weights) -> None:
        self.job = job
        data = job.data
        self.model = MLPClassifier(
            hidden_layer_sizes=job.sizes[1:-1],
            activation=job.activation,
            solver="adam",
            alpha=0.0,
            batch_size=job.batch_size,
            learning_rate_init=job.learning_rate,
            shuffle=False,  # the rows come in the order given
        )
        # The first call makes the arrays and the optimizer. The weights are then set, and the
        # optimizer, which has taken a step, is dropped so that the next call makes a new one.
        n = job.batch_size
        classes = np.arange(job.sizes[-1])
        self.model.partial_fit(data.X_train[:n], data.y_train[:n], classes=classes)
        for i, (w, b) in enumerate(weights):
            self.model.coefs_[i][...] = w
            self.model.intercepts_[i][...] = b
        del self.model._optimizer

    def epoch(self, order: np.ndarray) -> float:
        data = self.job.data
        self.model.partial_fit(data.X_train[order], data.y_train[order])
        return float(self.model.loss_)

    def outputs(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(X)
