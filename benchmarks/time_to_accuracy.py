"""Seconds of training until 98 % of MNIST's test images are recognised, beside PyTorch.

    python benchmarks/time_to_accuracy.py

Three recipes, the same for both: 784-192-10, relu, cross-entropy, Adam, three epochs of one cycle
of the learning rate, in batches of 32 up to 0.003, of 64 up to 0.005 and of 128 up to 0.007.
PyTorch's time is that of its steps, so that it gains by larger batches. Images are bytes, and each
library divides them by 255 as it trains: here in `Rescaling`, there once a batch. From the same
weights, in the same order, taking turns; loading, compiling (one epoch on 1,000 images before) and
testing are not counted. The exit status is 1 where a median of the accuracies is below 98 %.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from peer_fastbackprop import set_weights
from peer_jobs import Weights, initial_weights
from peers import PAUSE

import fastbackprop as fb
from fastbackprop.datasets import load_mnist

SIZES = (784, 192, 10)
EPOCHS = 3
GOAL = 0.98

Images = tuple[np.ndarray, np.ndarray]


class Recipe(NamedTuple):
    """What differs between the recipes."""

    batch_size: int
    rate: float  # the highest of the cycle


RECIPES = (Recipe(32, 3e-3), Recipe(64, 5e-3), Recipe(128, 7e-3))


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="of weights and order (default: 5)")
    parser.add_argument("--data", metavar="FOLDER", help="a folder with the IDX files of MNIST")
    args = parser.parse_args(arguments)
    train, test = load_mnist(args.data, download=False)
    runs: dict[str, Callable[[Images, Images, Recipe, int], tuple[float, float]]]
    runs = {"fastbackprop": train_fastbackprop}
    try:
        import torch  # noqa: F401

        runs["PyTorch eager"] = train_torch
    except ImportError:
        print("Left out: PyTorch, which is not installed")
    seconds: dict[tuple[str, Recipe], list[float]]
    seconds = {(name, recipe): [] for recipe in RECIPES for name in runs}
    accuracies: dict[tuple[str, Recipe], list[float]] = {key: [] for key in seconds}
    for name, recipe in seconds:
        runs[name]((train[0][:1000], train[1][:1000]), test, recipe, 0)
    for seed in range(args.seeds):
        for (name, recipe), values in seconds.items():
            time.sleep(PAUSE)
            taken, accuracy = runs[name](train, test, recipe, seed)
            values.append(taken)
            accuracies[name, recipe].append(accuracy)
            print(line(f"seed {seed}", name, recipe, taken), f"{accuracy:.2%}", flush=True)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    for (name, recipe), median in medians.items():
        ratio = median / medians["fastbackprop", recipe]
        print(line("median", name, recipe, median), f"{ratio:.2f}")
    best = {name: min(medians[name, recipe] for recipe in RECIPES) for name in runs}
    for name, least in best.items():
        print(f"{name}: {least:.2f} s with its fastest recipe, {least / best['fastbackprop']:.2f}")
    return 0 if all(statistics.median(values) >= GOAL for values in accuracies.values()) else 1


def line(what: str, name: str, recipe: Recipe, seconds: float) -> str:
    return f"{what:<7} {name:<14} batch {recipe.batch_size} {seconds:6.2f} s "


def schedule(recipe: Recipe, n: int) -> fb.OneCycle:
    return fb.OneCycle(recipe.rate, total_steps=EPOCHS * -(-n // recipe.batch_size))


def orders(n: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.permutation(n) for _ in range(EPOCHS))


def weights_of(seed: int) -> Weights:
    return initial_weights(SIZES, "relu", seed)


def train_fastbackprop(
    train: Images, test: Images, recipe: Recipe, seed: int
) -> tuple[float, float]:
    """Seconds and test accuracy."""
    X, y = train
    n_in, n_hidden, n_out = SIZES
    layers = [
        fb.Rescaling(1 / 255),
        fb.Dense(n_in, n_hidden, "relu"),
        fb.Dense(n_hidden, n_out),
    ]
    network = fb.Network(layers, loss="cross_entropy")
    set_weights(network, weights_of(seed))
    optimizer = fb.Adam(schedule(recipe, len(X)))
    start = time.perf_counter()
    for order in orders(len(X), seed):
        network.fit(
            X,
            y,
            epochs=1,
            batch_size=recipe.batch_size,
            optimizer=optimizer,
            shuffle=order,
            verbose=0,
        )
    seconds = time.perf_counter() - start
    return seconds, network.evaluate(*test)["accuracy"]


def train_torch(train: Images, test: Images, recipe: Recipe, seed: int) -> tuple[float, float]:
    """Seconds and test accuracy."""
    import torch
    from peer_torch import sequential

    model = sequential(weights_of(seed), "relu", None)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss = torch.nn.CrossEntropyLoss()
    X, y = torch.from_numpy(train[0].reshape(-1, 784)), torch.from_numpy(train[1].astype(np.int64))
    rate, step = schedule(recipe, len(X)), 0
    start = time.perf_counter()
    for order in orders(len(X), seed):
        rows = torch.from_numpy(order)
        for images, labels in zip(
            X[rows].split(recipe.batch_size), y[rows].split(recipe.batch_size), strict=True
        ):
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            loss(model(images.float().mul_(1 / 255)), labels).backward()
            optimizer.step()
            step += 1
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        outputs = model(torch.from_numpy(test[0].reshape(-1, 784)).float().mul_(1 / 255))
    return seconds, float((outputs.numpy().argmax(1) == test[1]).mean())


if __name__ == "__main__":
    sys.exit(main())
