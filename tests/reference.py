"""The mathematics of the package in plain NumPy, float64: what every test compares with.

It is written to be read, not to be fast, and imports nothing from the package. Rows are
samples; weights have the shape (n_in, n_out); the gradient of t is called dt.
"""

import math

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_sum_exp(z):
    """Of each row; z (n, m), result (n,)."""
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def activation(name, z, alpha=None):
    """f(z); `alpha` is the slope of leaky_relu (0.01) or the α of elu (1)."""
    z = np.asarray(z, np.float64)
    if name == "identity":
        return z.copy()
    if name == "relu":
        return np.where(z > 0, z, 0.0)
    if name == "leaky_relu":
        return np.where(z > 0, z, (0.01 if alpha is None else alpha) * z)
    if name == "sigmoid":
        return sigmoid(z)
    if name == "tanh":
        return np.tanh(z)
    if name == "softplus":
        return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    if name == "elu":
        return np.where(z > 0, z, (1.0 if alpha is None else alpha) * np.expm1(np.minimum(z, 0)))
    if name == "silu":
        return z * sigmoid(z)
    if name == "gelu":
        return z * _normal_cdf(z)
    if name == "exp":
        return np.exp(z)
    if name == "softmax":
        return softmax(z)
    raise ValueError(name)


def activation_derivative(name, z, alpha=None):
    """f′(z) of an elementwise activation; the derivative of the left side at a kink."""
    z = np.asarray(z, np.float64)
    if name == "identity":
        return np.ones_like(z)
    if name == "relu":
        return np.where(z > 0, 1.0, 0.0)
    if name == "leaky_relu":
        return np.where(z > 0, 1.0, 0.01 if alpha is None else alpha)
    if name == "sigmoid":
        return sigmoid(z) * sigmoid(-z)
    if name == "tanh":
        return 1 - np.tanh(z) ** 2
    if name == "softplus":
        return sigmoid(z)
    if name == "elu":
        return np.where(z > 0, 1.0, (1.0 if alpha is None else alpha) * np.exp(np.minimum(z, 0)))
    if name == "silu":
        return sigmoid(z) * (1 + z * sigmoid(-z))
    if name == "gelu":
        return _normal_cdf(z) + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    if name == "exp":
        return np.exp(z)
    raise ValueError(name)


def _normal_cdf(z):
    # erfc keeps its precision where 1 + erf would cancel.
    return 0.5 * _erfc(-z / math.sqrt(2))


def as_targets(y, n_out):
    """Targets as a float64 matrix (n, n_out).

    y (n,) is one column if n_out is 1, else class labels, which become one-hot rows.
    """
    y = np.asarray(y)
    if y.ndim == 2:
        return y.astype(np.float64)
    if n_out == 1:
        return y.astype(np.float64)[:, None]
    return np.eye(n_out)[y.astype(int)]


def row_losses(name, outputs, target, delta=1.0):
    """ℓᵢ of each row, (n,); `outputs` are the logits for fused losses; `delta` is q of quantile."""
    outputs = np.asarray(outputs, np.float64)
    y = as_targets(target, outputs.shape[1])
    r = outputs - y
    if name == "quadratic":
        return 0.5 * (r**2).sum(axis=1)
    if name == "mse":
        return (r**2).mean(axis=1)
    if name == "mae":
        return np.abs(r).mean(axis=1)
    if name == "huber":
        linear = delta * (np.abs(r) - 0.5 * delta)
        return np.where(np.abs(r) <= delta, 0.5 * r**2, linear).mean(axis=1)
    if name == "cross_entropy":
        return log_sum_exp(outputs) * y.sum(axis=1) - (y * outputs).sum(axis=1)
    if name == "binary_cross_entropy":
        return (activation("softplus", outputs) - y * outputs).mean(axis=1)
    if name == "poisson":
        entropy = y * np.log(np.where(y > 0, y, 1)) - y
        return (np.exp(outputs) - y * outputs + entropy).mean(axis=1)
    if name == "quantile":
        return np.maximum((1 - delta) * r, -delta * r).mean(axis=1)
    raise ValueError(name)


def row_shares(n, weights=None):
    """Return each row's share in the loss of the batch, (n,): 1/n, or wᵢ / Σ w; 0 if Σ w is 0."""
    if weights is None:
        return np.full(n, 1 / n)
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum() if weights.sum() > 0 else np.zeros(n)


def loss_value(name, outputs, target, weights=None, delta=1.0):
    """L of a batch; `outputs` are the logits for the two cross-entropies."""
    losses = row_losses(name, outputs, target, delta)
    return float(row_shares(len(losses), weights) @ losses)


def loss_gradient(name, outputs, target, weights=None, delta=1.0):
    """Return dL / d outputs, (n, m); `outputs` are the logits for the two cross-entropies."""
    outputs = np.asarray(outputs, np.float64)
    n, m = outputs.shape
    y = as_targets(target, m)
    r = outputs - y
    if name == "quadratic":
        d = r
    elif name == "mse":
        d = 2 * r / m
    elif name == "mae":
        d = np.sign(r) / m
    elif name == "huber":
        d = np.clip(r, -delta, delta) / m
    elif name == "cross_entropy":
        d = softmax(outputs) * y.sum(axis=1, keepdims=True) - y
    elif name == "binary_cross_entropy":
        d = (sigmoid(outputs) - y) / m
    elif name == "poisson":
        d = (np.exp(outputs) - y) / m
    elif name == "quantile":
        d = ((r > 0) * (1 - delta) - (r < 0) * delta) / m
    else:
        raise ValueError(name)
    return row_shares(n, weights)[:, None] * d


class ReferenceNetwork:
    """Dense layers, optionally after x · scale + offset.

    dense : a list of dicts with w (n_in, n_out), b (n_out,) or None, activation, and
        optionally alpha. The activation of the last layer under a cross-entropy has to be
        softmax or sigmoid. Weights are copied to float64.
    masks : in the methods, one (n, n_in) factor for the inputs of each dense layer, or None:
        what Dropout multiplies by, so 0 or 1 / (1 − rate).
    """

    FUSED = {  # noqa: RUF012
        "cross_entropy": "softmax",
        "binary_cross_entropy": "sigmoid",
        "poisson": "exp",
    }

    def __init__(self, dense, loss="quadratic", delta=1.0, scale=1.0, offset=0.0):
        self.dense = [
            {
                "w": np.array(layer["w"], np.float64),
                "b": None if layer.get("b") is None else np.array(layer["b"], np.float64),
                "activation": layer["activation"],
                "alpha": layer.get("alpha"),
            }
            for layer in dense
        ]
        self.loss_name, self.delta = loss, delta
        self.scale, self.offset = scale, offset
        if loss in self.FUSED:
            assert self.dense[-1]["activation"] == self.FUSED[loss]

    @property
    def parameters(self):
        """The arrays themselves: w and b of each layer in order."""
        return [p for layer in self.dense for p in (layer["w"], layer["b"]) if p is not None]

    def trace(self, x, masks=None):
        """Compute the inputs x and the pre-activations z of every layer."""
        x = np.asarray(x, np.float64) * self.scale + self.offset
        inputs, preactivations = [], []
        for i, layer in enumerate(self.dense):
            if masks is not None and masks[i] is not None:
                x = x * masks[i]
            z = x @ layer["w"]
            if layer["b"] is not None:
                z = z + layer["b"]
            inputs.append(x)
            preactivations.append(z)
            x = activation(layer["activation"], z, layer["alpha"])
        return inputs, preactivations

    def forward(self, x, masks=None):
        """Compute the outputs (n, n_out): probabilities under a cross-entropy."""
        last = self.dense[-1]
        return activation(last["activation"], self.trace(x, masks)[1][-1], last["alpha"])

    def _loss_input(self, logits):
        if self.loss_name in self.FUSED:
            return logits
        return activation(self.dense[-1]["activation"], logits, self.dense[-1]["alpha"])

    def loss(self, x, y, weights=None, masks=None):
        outputs = self._loss_input(self.trace(x, masks)[1][-1])
        return loss_value(self.loss_name, outputs, y, weights, self.delta)

    def gradients(self, x, y, weights=None, masks=None):
        """Loss, [(dw, db), ...] in layer order (db None without bias), and dX (n, n_in)."""
        inputs, preactivations = self.trace(x, masks)
        outputs = self._loss_input(preactivations[-1])
        loss = loss_value(self.loss_name, outputs, y, weights, self.delta)
        d = loss_gradient(self.loss_name, outputs, y, weights, self.delta)
        is_logit_gradient = self.loss_name in self.FUSED
        gradients = []
        for i in reversed(range(len(self.dense))):
            layer = self.dense[i]
            if is_logit_gradient:
                dz = d
                is_logit_gradient = False
            else:
                dz = d * activation_derivative(
                    layer["activation"], preactivations[i], layer["alpha"]
                )
            db = None if layer["b"] is None else dz.sum(axis=0)
            gradients.insert(0, (inputs[i].T @ dz, db))
            d = dz @ layer["w"].T
            if masks is not None and masks[i] is not None:
                d = d * masks[i]
        return loss, gradients, d * self.scale

    def train_step(self, x, y, optimizer, weights=None, masks=None):
        """One step; the loss before it."""
        loss, gradients, _ = self.gradients(x, y, weights, masks)
        flat = [g for pair in gradients for g in pair if g is not None]
        optimizer.step(self.parameters, flat)
        return loss

    def train(self, epochs, optimizer):
        """Train, and return the loss of each epoch, (n_epochs,).

        epochs : for each epoch its batches in order, each (x, y) or (x, y, weights).
        The loss of an epoch is the mean over its rows of what each batch lost before its step,
        weighted if there are weights.
        """
        history = []
        for batches in epochs:
            total = share = 0.0
            for x, y, *rest in batches:
                weights = rest[0] if rest else None
                size = len(x) if weights is None else float(np.sum(weights))
                total += size * self.train_step(x, y, optimizer, weights)
                share += size
            history.append(total / share)
        return np.array(history)


class _Optimizer:
    """What the optimizers share: the rate of a step, clipping, and weight decay."""

    def __init__(self, learning_rate, weight_decay=0.0, clip_norm=None):
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.t = 0

    def step(self, parameters, gradients):
        """Change the parameters, a list of float64 arrays, in place."""
        rate = self.learning_rate(self.t) if callable(self.learning_rate) else self.learning_rate
        if self.clip_norm is not None:
            norm = math.sqrt(sum((g**2).sum() for g in gradients))
            factor = min(1.0, self.clip_norm / (norm + 1e-6))
            gradients = [g * factor for g in gradients]
        self.t += 1
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            self.update(i, p, g, rate)

    def decayed(self, p, g):
        return g + self.weight_decay * p


class SGD(_Optimizer):
    def __init__(self, learning_rate, momentum=0.0, dampening=0.0, nesterov=False, **shared):
        super().__init__(learning_rate, **shared)
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        self.v = {}

    def update(self, i, p, g, rate):
        g = self.decayed(p, g)
        if self.momentum == 0:
            p -= rate * g
            return
        if self.t == 1:  # the first gradient is not dampened
            self.v[i] = g
        else:
            self.v[i] = self.momentum * self.v[i] + (1 - self.dampening) * g
        p -= rate * (g + self.momentum * self.v[i] if self.nesterov else self.v[i])


class Adam(_Optimizer):
    decoupled = False

    def __init__(self, learning_rate, betas=(0.9, 0.999), eps=1e-8, **shared):
        super().__init__(learning_rate, **shared)
        self.betas, self.eps = betas, eps
        self.m, self.v = {}, {}

    def update(self, i, p, g, rate):
        if self.decoupled:
            p *= 1 - rate * self.weight_decay
        else:
            g = self.decayed(p, g)
        beta1, beta2 = self.betas
        self.m[i] = beta1 * self.m.get(i, 0.0) + (1 - beta1) * g
        self.v[i] = beta2 * self.v.get(i, 0.0) + (1 - beta2) * g**2
        m_hat = self.m[i] / (1 - beta1**self.t)
        v_hat = self.v[i] / (1 - beta2**self.t)
        p -= rate * m_hat / (np.sqrt(v_hat) + self.eps)


class AdamW(Adam):
    decoupled = True


class RMSprop(_Optimizer):
    def __init__(self, learning_rate, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, **shared):
        super().__init__(learning_rate, **shared)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered
        self.v, self.u, self.b = {}, {}, {}

    def update(self, i, p, g, rate):
        g = self.decayed(p, g)
        self.v[i] = self.alpha * self.v.get(i, 0.0) + (1 - self.alpha) * g**2
        variance = self.v[i]
        if self.centered:
            self.u[i] = self.alpha * self.u.get(i, 0.0) + (1 - self.alpha) * g
            variance = self.v[i] - self.u[i] ** 2
        scaled = g / (np.sqrt(variance) + self.eps)
        self.b[i] = self.momentum * self.b.get(i, 0.0) + scaled
        p -= rate * self.b[i]
