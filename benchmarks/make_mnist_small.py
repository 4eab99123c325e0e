"""Make what fastbackprop/datasets ships of MNIST: the small set in IDX files, and ten samples.

    python benchmarks/make_mnist_small.py ../shared/data/mnist

Run it again and the files come out the same, given the same zlib and Pillow.
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from fastbackprop.datasets import read_idx

PACKAGE = Path(__file__).resolve().parent.parent / "fastbackprop" / "datasets"
PER_CLASS = {"train": 1000, "t10k": 200}


def choose_rows(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the rows of per_class members of each class, evenly spread, in their order.

    Spread, because MNIST is in the order of its writers, and the later test writers are harder
    to read. Without random numbers, so that the choice depends on no generator.
    """
    members = (np.flatnonzero(labels == digit) for digit in range(10))
    return np.sort(np.concatenate([m[np.arange(per_class) * len(m) // per_class] for m in members]))


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write uint8 values as gzip'd IDX, without a time or a name in it.

    gzip: 1.95 MB in all, read in 35 ms. xz tried: 1.66 MB, 150 ms, and not in every Python.
    """
    header = struct.pack(f">HBB{values.ndim}I", 0, 0x08, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=9, mtime=0))


def enlarge(image: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def coloured(ink: Image.Image, pen: str, paper: str) -> Image.Image:
    """Draw ink (mode L, 255 is ink) with a pen on paper, colours by name."""
    page = Image.new("RGB", ink.size, paper)
    page.paste(pen, mask=ink)
    return page


def on_page(drawing: Image.Image, size: tuple[int, int], corner: tuple[int, int]) -> Image.Image:
    page = Image.new(drawing.mode, size, "white")
    page.paste(drawing, corner)
    return page


def transparent(ink: Image.Image, pen: str) -> Image.Image:
    image = Image.new("RGBA", ink.size, pen)
    image.putalpha(ink)
    return image


def draw_samples(digits: list[np.ndarray]) -> list[Image.Image]:
    """Show ten images of MNIST, 0 to 9, as ten users might have drawn, scanned or saved them."""
    zero, one, two, three, four, five, six, seven, eight, nine = digits
    return [
        Image.fromarray(zero),  # as MNIST has it: 28 x 28, white on black
        Image.fromarray(255 - one).resize((84, 84), Image.Resampling.NEAREST),
        coloured(enlarge(two, 140), pen="midnightblue", paper="white"),
        enlarge(three, 112).point(lambda v: 255 * (v < 110)).convert("1"),
        transparent(enlarge(four, 112), pen="black"),
        on_page(coloured(enlarge(five, 120), "black", "white"), (200, 160), (60, 10)),
        coloured(enlarge(six, 140), "gold", "darkgreen").quantize(16),
        transparent(enlarge(seven, 112), pen="white"),
        coloured(enlarge(eight, 84), "crimson", "white").quantize(16),
        on_page(coloured(enlarge(nine, 200), "black", "white"), (280, 280), (30, 50)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the four IDX files of MNIST, .gz")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="default: the package")
    arguments = parser.parse_args()

    for folder in ("data", "samples"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    for part, per_class in PER_CLASS.items():
        images = read_idx(arguments.source / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.source / f"{part}-labels-idx1-ubyte.gz")
        rows = choose_rows(labels, per_class)
        write_idx(arguments.out / "data" / f"{part}-images-idx3-ubyte.gz", images[rows])
        write_idx(arguments.out / "data" / f"{part}-labels-idx1-ubyte.gz", labels[rows])

    # What is left of the test set, which was read last: the most typical of each digit.
    left = np.setdiff1d(np.arange(len(labels)), rows)
    digits = []
    for digit in range(10):
        candidates = images[left[labels[left] == digit]]
        distances = np.square(candidates - candidates.mean(axis=0)).sum(axis=(1, 2))
        digits.append(candidates[np.argmin(distances)])
    for digit, drawing in enumerate(draw_samples(digits)):
        drawing.save(arguments.out / "samples" / f"{digit}.png", optimize=True)


if __name__ == "__main__":
    main()
