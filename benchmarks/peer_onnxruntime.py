"""ONNX Runtime, for prediction only: the network as an ONNX graph of Gemm and activations."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from peer_jobs import Call, CallJob, Job, Peer, Weights

from fastbackprop.cores import available_threads


class OnnxRuntimePeer(Peer):
    library = "ONNX Runtime"
    version = onnxruntime.__version__
    label = "ONNX Runtime"

    def refusal(self, job: Job) -> str | None:
        return "it predicts only"

    def setup(self, job: Job, weights: Weights) -> None:
        raise NotImplementedError("ONNX Runtime does not train here")

    def epoch(self, order: np.ndarray) -> float:
        raise NotImplementedError("ONNX Runtime does not train here")

    def outputs(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError("ONNX Runtime does not train here")

    def call(self, job: CallJob, weights: Weights) -> Call | None:
        if job.task != "predict":
            return None
        options = onnxruntime.SessionOptions()
        # For one row, a pool of threads costs more than it brings.
        options.intra_op_num_threads = 1 if job.rows == 1 else available_threads()
        session = onnxruntime.InferenceSession(
            graph(job, weights), options, providers=["CPUExecutionProvider"]
        )
        inputs = {"x": job.rows_and_targets()[0]}
        return lambda: session.run(None, inputs)


def graph(job: CallJob, weights: Weights) -> bytes:
    """Return the network as a serialized ONNX model."""
    operator = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}[job.activation]
    nodes, constants, value = [], [], "x"
    for i, (w, b) in enumerate(weights):
        constants += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"z{i}"]))
        value = f"z{i}"
        if i < len(weights) - 1:
            nodes.append(helper.make_node(operator, [value], [f"a{i}"]))
            value = f"a{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])
        for name, columns in (("x", job.sizes[0]), (value, job.sizes[-1]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "network", ends[:1], ends[1:], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()
