"""Prediction of one row and of many, from Python."""

import numpy as np

import fastbackprop as fb
from fastbackprop import machine
from fastbackprop.cores import available_threads

from .common import EFFORT, check_outputs, installed, normal, share_of_peak

NETWORKS = [(784, 128, 10), (4, 32, 32, 2)]


class Predict:
    params = [NETWORKS, [1, 10_000], ["float32", "float64"]]
    param_names = ["network", "rows", "dtype"]

    def setup(self, network, rows, dtype):
        self.net = fb.Network(list(network), "relu", "mse", random_state=0, dtype=dtype)
        self.X = normal(np.random.default_rng(0), (rows, network[0]), dtype)
        check_outputs(self.net, self.X[:100], "relu")

    def time_predict(self, network, rows, dtype):
        self.net.predict(self.X)


class ShareOfPeak:
    """Of 10,000 rows on all cores."""

    params = [NETWORKS]
    param_names = ["network"]

    def setup(self, network):
        self.predict = Predict()
        self.predict.setup(network, 10_000, "float32")

    def track_share_of_peak(self, network):
        net, X = self.predict.net, self.predict.X
        seconds = machine.call_seconds(lambda: net.predict(X), EFFORT)
        flops = 2 * len(X) * sum(w.size for w in net.weights)
        return share_of_peak(flops, seconds, "float32", available_threads())

    track_share_of_peak.unit = "of the measured peak"


class RatioToPeer:
    """How many times as long another library takes for the same call."""

    params = [[7, 9], ["peer_numpy", "peer_torch", "peer_onnxruntime"]]
    param_names = ["job of ../peers.py", "peer"]

    def setup(self, number, peer):
        names = {"peer_numpy": "NumPyBatchedPeer", "peer_torch": "TorchPeer"}
        other = getattr(installed(peer), names.get(peer, "OnnxRuntimePeer"))()
        self.peers = [installed("peer_fastbackprop").FastbackpropPeer(), other]
        self.job = installed("peer_jobs").CALL_JOBS[number]

    def track_ratio(self, number, peer):
        results, lines = installed("peer_calls").race_calls(self.job, self.peers, 3, 0.2)
        assert not lines, lines
        ours, other = results
        return other.median / ours.median

    track_ratio.unit = "times fastbackprop's"
