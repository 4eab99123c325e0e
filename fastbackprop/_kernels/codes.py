"""The integers by which Python tells a kernel which activation, loss or optimizer to run.

They are data, not types: one compiled kernel serves every network, so a new
combination never compiles anything.
"""

# Activations.
IDENTITY = 0
RELU = 1
LEAKY_RELU = 2
SIGMOID = 3
TANH = 4
SOFTPLUS = 5
ELU = 6
SILU = 7
GELU = 8
SOFTMAX = 9  # an output only
EXP = 10

# Losses.
QUADRATIC = 0
MSE = 1
MAE = 2
HUBER = 3
CROSS_ENTROPY = 4
BINARY_CROSS_ENTROPY = 5
POISSON = 6
QUANTILE = 7

# What becomes of a gradient: there is none, it is kept, or an optimizer takes it.
NONE = -1
STORE = 0
SGD = 1
MOMENTUM = 2
ADAM = 3
RMSPROP = 4
