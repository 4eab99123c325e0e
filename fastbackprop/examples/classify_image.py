"""Say which digit an image file shows.

Without a file it takes the ten samples that come with the package. Reading images needs Pillow:
pip install "fastbackprop[cli]".
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fastbackprop as fb
from fastbackprop.images import read_digit_image


def main(images: Sequence[Path] = (), epochs: int = 5) -> list[int]:
    """Train a network on MNIST's digits, then show it the images; return what it sees."""
    (X, y), test = fb.datasets.load_mnist_small()
    net = fb.Network(
        [fb.Rescaling(1 / 255), fb.Dense(784, 128, "relu"), fb.Dropout(0.2), fb.Dense(128, 10)],
        loss="cross_entropy",
        random_state=0,
    )
    net.fit(X, y, epochs=epochs, batch_size=64, verbose=0)
    print(f"Test accuracy: {net.evaluate(*test)['accuracy']:.2%}")

    images = images or fb.datasets.sample_images()
    # Of any size and colours; each becomes 784 bytes, cut out and centred as MNIST's digits are.
    pixels = np.stack([read_digit_image(path) for path in images])
    probabilities = net.predict(pixels)
    digits: list[int] = probabilities.argmax(axis=1).tolist()
    for path, digit, row in zip(images, digits, probabilities, strict=True):
        print(f"{path.name}: {digit} ({row[digit]:.1%})")
    return digits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, nargs="*", metavar="FILE", help="PNG, JPEG, ...")
    parser.add_argument("--epochs", type=int, default=5)
    main(**vars(parser.parse_args()))
