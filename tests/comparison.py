"""A network beside its reference: the same parameters, optimizer, batches and dropout masks."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import reference
from test_dropout import plain_mask, splitmix64

import fastbackprop as fb

# Sizes around those of a SIMD vector and a register tile.
SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 33, 100)
ELEMENTWISE = (
    "identity",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "softplus",
    "elu",
    "silu",
    "gelu",
)
KINKED = ("relu", "leaky_relu")
LOSSES = (
    "quadratic",
    "mse",
    "mae",
    "huber",
    "cross_entropy",
    "binary_cross_entropy",
    "poisson",
    "quantile",
)
OUTPUTS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "exp"}


def reference_of(net):
    """Return a ReferenceNetwork with the parameters that the network has now."""
    loss = net.loss_function
    dense = [layer for layer in net.layers if isinstance(layer, fb.Dense)]
    described = []
    for i, (layer, w, b) in enumerate(zip(dense, net.weights, net.biases, strict=True)):
        activation = layer.activation
        if activation is None:
            is_last = i == len(dense) - 1
            name = OUTPUTS.get(loss.name, "identity") if is_last else "identity"
            activation = fb.Activation(name)
        described.append({"w": w, "b": b, "activation": activation.name, "alpha": activation.alpha})
    first = net.layers[0]
    rescaling = first if isinstance(first, fb.Rescaling) else fb.Rescaling(1.0)
    return reference.ReferenceNetwork(
        described, loss.name, loss.parameter, rescaling.scale, rescaling.offset
    )


def reference_optimizer(spec):
    """Return the reference's optimizer for a specification, with no state yet."""
    arguments = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return getattr(reference, type(spec).__name__)(**arguments)


def torch_optimizer(spec, parameters):
    """Return PyTorch's optimizer for a specification; clipping is another call there."""
    import torch

    shared = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if isinstance(spec, fb.SGD):
        return torch.optim.SGD(
            parameters,
            momentum=spec.momentum,
            dampening=spec.dampening,
            nesterov=spec.nesterov,
            **shared,
        )
    if isinstance(spec, fb.RMSprop):
        return torch.optim.RMSprop(
            parameters,
            alpha=spec.alpha,
            eps=spec.eps,
            momentum=spec.momentum,
            centered=spec.centered,
            **shared,
        )
    kind = torch.optim.AdamW if isinstance(spec, fb.AdamW) else torch.optim.Adam
    return kind(parameters, betas=spec.betas, eps=spec.eps, **shared)


def make_targets(rng, loss, n, n_out):
    """Targets (n, n_out) that suit the loss: probabilities for the cross-entropies."""
    if loss == "cross_entropy":
        return rng.dirichlet(np.ones(n_out), n)
    if loss == "binary_cross_entropy":
        return rng.random((n, n_out))
    if loss == "poisson":
        return rng.poisson(2.0, (n, n_out)).astype(np.float64)
    return rng.standard_normal((n, n_out))


def is_near_kink(net, X, y, margin=1e-5):
    """Whether rounding may decide the side of a kink: of a relu, mae, quantile or a flat huber."""
    twin = reference_of(net)
    _, preactivations = twin.trace(X)
    kinks = [
        np.abs(z).min()
        for layer, z in zip(twin.dense, preactivations, strict=True)
        if layer["activation"] in KINKED
    ]
    if twin.loss_name in ("mae", "quantile"):
        kinks.append(np.abs(twin.forward(X) - reference.as_targets(y, net.sizes[-1])).min())
    return min(kinks, default=1.0) < margin


def pickled(net):
    """Send a network through a pickle."""
    return pickle.loads(pickle.dumps(net))


each_copy = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])


def flat(pairs):
    """Join [(dw, db), ...] in the order of get_parameters."""
    return np.concatenate([part.ravel() for pair in pairs for part in pair if part is not None])


def assert_close(actual, expected, tolerance):
    """Compare within a tolerance relative to the largest expected value.

    Kernels take numbers below the smallest normal one for 0.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    smallest = np.finfo(actual.dtype).tiny if actual.dtype.kind == "f" else 0.0
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale + smallest)


def bits(net):
    """Return the parameters as unsigned integers, so that equal means equal to the last bit."""
    theta = net.get_parameters()
    return theta.view(f"u{theta.itemsize}")


def epoch_order(net, epoch, n, batch):
    """Return the order of rows that shuffle=True takes in an epoch."""
    if batch >= n:
        return np.arange(n)
    epochs = next((k for k in (64, 32, 16, 8, 4, 2) if k * n <= 1024), 1)
    rng = np.random.default_rng([net._state.seed, epoch // epochs])
    if epochs == 1:
        return rng.permutation(n)
    return rng.permuted(np.tile(np.arange(n), (epochs, 1)), axis=1)[epoch % epochs]


def dropout_masks(net, epoch, step, n):
    """Return what Dropout multiplies the inputs of each Dense by in one step, or None."""
    masks, rate = [], 0.0
    for layer in net.layers:
        if isinstance(layer, fb.Dropout):
            rate = layer.rate
        elif isinstance(layer, fb.Dense):
            key = 0
            for word in (net._state.seed, epoch, step, len(masks)):
                key = splitmix64(key ^ word % 2**64)
            kept = plain_mask(n, layer.n_in, rate, key)
            masks.append(kept / (1 - rate) if rate else None)
            rate = 0.0
    return masks
