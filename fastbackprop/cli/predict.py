"""``fastbackprop predict``: the probability of each digit, or other class, for an image."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastbackprop.cli import arguments
from fastbackprop.cli.output import Output, bar
from fastbackprop.datasets import sample_image
from fastbackprop.images import read_digit_image
from fastbackprop.layers import Rescaling
from fastbackprop.network import Network, load
from fastbackprop.plan import Array

_PIXELS = 784
_DIGITS = 10

_DESCRIPTION = """\
Print the probability of each digit, 0 to 9, for the picture of one digit. The
picture may be of any size, dark on light or light on dark, in colour or with
transparency. Needs Pillow: pip install "fastbackprop[cli]"
"""

_EPILOG = """\
The samples 0.png to 9.png come with fastbackprop and are found from any folder.

examples:
  fastbackprop predict digits.safetensors 9.png
  fastbackprop predict digits.safetensors --json scans/*.jpg
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="recognise the digit in an image",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="what train wrote; it takes 28 x 28 pixels (mnist-small, mnist)",
    )
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="PNG, JPEG, GIF, BMP, TIFF, WebP or PPM",
    )
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Read every image, then print what the network makes of each."""
    output = Output(options.style)
    net = _load(options.model)
    paths = [_find(path, output) for path in options.images]
    X = np.stack([read_digit_image(path) for path in paths])
    probabilities = _probabilities(net, X)
    loss = net.loss_function.name
    if loss != "cross_entropy":
        output.progress(f"Trained with {loss}: shares of the outputs above 0, no probabilities.")
    digits = tuple(range(_DIGITS))
    classes = digits if net.classes is None else net.classes
    what = "digit" if classes == digits else "class"
    names = [_printable(name) for name in classes]
    width = max(map(len, names))
    for image, path, row in zip(options.images, paths, probabilities, strict=True):
        best = int(row.argmax())
        if len(paths) > 1:
            output.result(f"{image}:")
        for candidate, share in zip(names, row.tolist(), strict=True):
            output.result(f"{candidate:<{width}}  {100 * share:5.1f} %  {bar(share)}".rstrip())
        output.result(f"Predicted {what}: {names[best]}")
        event = {what: classes[best], "probabilities": row.tolist()}
        output.event("prediction", file=str(path), **event)
    return 0


def _printable(name: Any) -> str:
    """Return the name of a class without what could command a terminal; files may be anyone's."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def _load(path: Path) -> Network:
    try:
        net = load(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; fastbackprop train writes one") from None
    if (net.sizes[0], net.sizes[-1]) != (_PIXELS, _DIGITS):
        raise ValueError(
            f"{path}: a network of {net.sizes[0]} inputs and {net.sizes[-1]} outputs; predict "
            f"needs {_PIXELS} inputs (28 x 28 pixels) and {_DIGITS} outputs, as "
            "fastbackprop train gives with mnist-small or mnist"
        )
    return net


def _find(path: Path, output: Output) -> Path:
    """Return the path, or that of the sample image of this name if there is no such file."""
    if path.exists():
        return path
    sample = sample_image(path)
    if sample is None:
        return path
    output.progress(f"No file {path} here: taking the sample image that comes with fastbackprop.")
    return sample


def _probabilities(net: Network, X: Array) -> Array:
    """Return the outputs for images of bytes, (n, 784), as shares that add up to 1, (n, 10)."""
    if not isinstance(net.layers[0], Rescaling):
        X = X / 255.0  # it was trained on numbers, which are usually 0 to 1
    shares = np.maximum(net.predict(X).astype(np.float64), 0.0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), sys.float_info.min)
