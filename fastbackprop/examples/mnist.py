"""Recognise handwritten digits, with every step of training written out.

The tape (`fastbackprop.autograd`) is NumPy all the way down, and made to be read. What its two
loops do, ``Network.fit`` does in compiled kernels.
"""

import argparse

import numpy as np

import fastbackprop as fb
from fastbackprop.autograd import Adam, Linear, ReLU, Sequential, Tensor, cross_entropy_loss


def main(images: int = 1000, epochs: int = 10, batch_size: int = 32) -> float:
    """Train 784-128-10 on so many images; return the fraction of test images recognised."""
    (X_train, y_train), (X_test, y_test) = fb.datasets.load_mnist_small()
    X_train, X_test = X_train[:images] / 255, X_test / 255
    targets = np.eye(10)[y_train[:images]]  # one-hot: a row of probabilities for each image

    rng = np.random.default_rng(0)
    model = Sequential(
        Linear(784, 128, random_state=rng),
        ReLU(),
        Linear(128, 10, random_state=rng),
    )
    optimizer = Adam(model.parameters(), lr=0.001)

    accuracy = 0.0
    for epoch in range(epochs):
        order = rng.permutation(images)
        total = 0.0
        for start in range(0, images, batch_size):
            batch = order[start : start + batch_size]
            x, y = Tensor(X_train[batch]), Tensor(targets[batch])

            optimizer.zero_grad()
            loss = cross_entropy_loss(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)

        predicted = model(Tensor(X_test)).data.argmax(axis=1)
        accuracy = float((predicted == y_test).mean())
        print(f"Epoch {epoch + 1}: loss {total / images:.4f}, test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    main(**vars(parser.parse_args()))
