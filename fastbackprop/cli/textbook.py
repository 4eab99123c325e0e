"""``fastbackprop textbook``: the classic first experiment with handwritten digits, as published."""

import argparse
from typing import Any

import numpy as np

from fastbackprop.callbacks import Callback
from fastbackprop.cli import arguments
from fastbackprop.cli.compilation import compile_kernels
from fastbackprop.cli.output import Output
from fastbackprop.datasets import Dataset, load_mnist, load_mnist_small
from fastbackprop.layers import Dense, Rescaling
from fastbackprop.network import Network
from fastbackprop.optimizers import SGD

_TRAINING_IMAGES = 50_000
_PIXELS, _DIGITS = 784, 10

_DESCRIPTION = """\
Run the experiment of Nielsen's "Neural Networks and Deep Learning" (2015),
chapter 1: a network of 784, 30 and 10 sigmoid units, the quadratic cost, all
weights and biases drawn from N(0, 1), stochastic gradient descent. After each
epoch it prints how many test images are recognised:

  Epoch 0: 9111 / 10000
"""

_EPILOG = """\
It uses all of MNIST if it is on this machine (50,000 training and 10,000 test
images), else the 10,000 and 2,000 that come with fastbackprop. To get all of
it: fastbackprop train --data mnist, or name its folder in FASTBACKPROP_DATA.

examples:
  fastbackprop textbook
  fastbackprop textbook --lr 0.01
  fastbackprop textbook --hidden 100 --seed 1
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "textbook",
        help="run the classic 784-30-10 experiment",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    group = parser.add_argument_group("experiment")
    group.add_argument(
        "--lr",
        type=arguments.positive_number,
        default=3.0,
        metavar="RATE",
        help="learning rate, of the cost averaged over the batch (default: %(default)s)",
    )
    for option, default, meaning in (
        ("--epochs", 30, "passes over the training images"),
        ("--batch-size", 10, "images a step"),
        ("--hidden", 30, "hidden units"),
    ):
        group.add_argument(
            option,
            type=arguments.integer(1),
            default=default,
            metavar="N",
            help=f"{meaning} (default: %(default)s)",
        )
    arguments.add_reproducibility(group)
    group = parser.add_argument_group("output")
    arguments.add_output_style(group, quiet="print the line of the last epoch only")


def run(options: argparse.Namespace) -> int:
    """Train and print."""
    output = Output(options.style)
    (X, y), test = _load(output)
    net = textbook_network(options.hidden, options.seed)
    output.event(
        "start",
        n_train=len(X),
        n_test=len(test[0]),
        layers=net.sizes,
        learning_rate=options.lr,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        threads=options.threads,
    )
    compile_kernels(net.dtype, output)
    net.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=SGD(options.lr),
        validation_data=test,
        callbacks=(_Count(output, len(test[0]), options.epochs),),
        threads=options.threads,
        verbose=0,
    )
    return 0


def textbook_network(hidden: int, seed: int) -> Network:
    """Return the network of the experiment, with its first weights drawn.

    Parameters
    ----------
    hidden : int
        Units of the hidden layer.
    seed : int
        Of the weights and of the order of images.

    References
    ----------
    M. A. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 1, "Implementing our network
    to classify digits", http://neuralnetworksanddeeplearning.com/chap1.html

    Examples
    --------
    >>> from fastbackprop.cli.textbook import textbook_network
    >>> textbook_network(30, seed=0).n_parameters
    23860
    """
    chain = [
        Rescaling(1 / 255),
        Dense(_PIXELS, hidden, "sigmoid"),
        Dense(hidden, _DIGITS, "sigmoid"),
    ]
    net = Network(chain, loss="quadratic", random_state=seed)
    # Drawn as the book's code draws them: all biases, then all weights, one row for each output.
    rng = np.random.default_rng(seed)
    for bias in net.biases:
        assert bias is not None
        bias[...] = rng.standard_normal(bias.shape)
    for w in net.weights:
        w.T[...] = rng.standard_normal(w.T.shape)
    return net


def _load(output: Output) -> Dataset:
    try:
        (X, y), test = load_mnist(download=False)
    except FileNotFoundError:
        output.notice(
            "All of MNIST is not on this machine: using the 12,000 images that come along."
        )
        return load_mnist_small()
    return (X[:_TRAINING_IMAGES], y[:_TRAINING_IMAGES]), test


class _Count(Callback):
    """Prints how many test images are recognised."""

    def __init__(self, output: Output, n_test: int, epochs: int) -> None:
        self._output, self._n_test, self._last = output, n_test, epochs - 1

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        right = round(logs["val_accuracy"] * self._n_test)
        line = f"Epoch {epoch}: {right} / {self._n_test}"
        show = self._output.result if epoch == self._last else self._output.progress
        show(line)
        self._output.event(
            "epoch",
            epoch=epoch,
            correct=right,
            n_test=self._n_test,
            **{name.replace("val_", "test_"): value for name, value in logs.items()},
        )
