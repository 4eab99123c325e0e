"""Seconds of training until 98 % of MNIST's test images are recognised, beside PyTorch.

    python benchmarks/time_to_accuracy.py

The recipe, the same for both: 784-256-10, relu, cross-entropy, Adam, batch 64, three epochs of one
cycle of the learning rate up to 0.004. Images are bytes, and each library divides them by 255 as it
trains: here in `Rescaling`, there once a batch. From the same weights, in the same order, taking
turns; loading, compiling (one epoch on 1,000 images before) and testing are not counted.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from peer_fastbackprop import set_weights
from peer_jobs import Weights, initial_weights
from peers import PAUSE

import fastbackprop as fb
from fastbackprop.datasets import load_mnist

SIZES = (784, 256, 10)
EPOCHS, BATCH_SIZE, RATE = 3, 64, 4e-3
GOAL = 0.98

Images = tuple[np.ndarray, np.ndarray]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="of weights and order (default: 5)")
    parser.add_argument("--data", metavar="FOLDER", help="a folder with the IDX files of MNIST")
    args = parser.parse_args(arguments)
    train, test = load_mnist(args.data, download=False)
    runs: dict[str, Callable[[Images, Images, int], tuple[float, float]]]
    runs = {"fastbackprop": train_fastbackprop}
    try:
        import torch  # noqa: F401

        runs["PyTorch eager"] = train_torch
    except ImportError:
        print("Left out: PyTorch, which is not installed")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    reached = True
    for run in runs.values():
        run((train[0][:1000], train[1][:1000]), test, 0)
    for seed in range(args.seeds):
        for name, run in runs.items():
            time.sleep(PAUSE)
            taken, accuracy = run(train, test, seed)
            seconds[name].append(taken)
            reached &= accuracy >= GOAL
            print(f"seed {seed}  {name:<14} {taken:6.2f} s  {accuracy:.2%}", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"median  {name:<14} {median:6.2f} s  ({median / medians['fastbackprop']:.2f})")
    return 0 if reached else 1


def schedule(n: int) -> fb.OneCycle:
    return fb.OneCycle(RATE, total_steps=EPOCHS * -(-n // BATCH_SIZE))


def orders(n: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.permutation(n) for _ in range(EPOCHS))


def weights_of(seed: int) -> Weights:
    return initial_weights(SIZES, "relu", seed)


def train_fastbackprop(train: Images, test: Images, seed: int) -> tuple[float, float]:
    """Seconds and test accuracy."""
    X, y = train
    layers = [fb.Rescaling(1 / 255), fb.Dense(784, 256, "relu"), fb.Dense(256, 10)]
    network = fb.Network(layers, loss="cross_entropy")
    set_weights(network, weights_of(seed))
    optimizer = fb.Adam(schedule(len(X)))
    start = time.perf_counter()
    for order in orders(len(X), seed):
        network.fit(
            X, y, epochs=1, batch_size=BATCH_SIZE, optimizer=optimizer, shuffle=order, verbose=0
        )
    seconds = time.perf_counter() - start
    return seconds, network.evaluate(*test)["accuracy"]


def train_torch(train: Images, test: Images, seed: int) -> tuple[float, float]:
    """Seconds and test accuracy."""
    import torch
    from peer_torch import sequential

    model = sequential(weights_of(seed), "relu", None)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss = torch.nn.CrossEntropyLoss()
    X, y = torch.from_numpy(train[0].reshape(-1, 784)), torch.from_numpy(train[1].astype(np.int64))
    rate, step = schedule(len(X)), 0
    start = time.perf_counter()
    for order in orders(len(X), seed):
        rows = torch.from_numpy(order)
        for images, labels in zip(
            X[rows].split(BATCH_SIZE), y[rows].split(BATCH_SIZE), strict=True
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
