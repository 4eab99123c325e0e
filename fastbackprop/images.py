"""A picture of one digit, of any size and kind, brought into the form of MNIST's images."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastbackprop.errors import FileFormatError

__all__ = ["read_digit_image"]

# Not all that Pillow knows: it hands EPS to Ghostscript, and takes nearly any bytes for TGA.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_MAX_PIXELS = 50_000_000
_MAX_SIDE = 65_535  # JPEG's; each row of pixels costs some memory of its own
_WORKING_SIDE = 512  # larger pictures are first averaged down to this or up to twice as much
_MIN_CONTRAST = 20.0  # of 255; a blank sheet as JPEG or from a scanner stays below it
_SIDE = 28
_DIGIT_SIDE = 20
_EDGE = 0.2 * 255  # 0.1: grain counts as ink; 0.4: MNIST's own images change four times as much


def read_digit_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture of one digit and return it as MNIST would hold it.

    The ink may be dark on light or light on dark, in any colour; transparent parts count as
    paper. The digit is cut out, scaled with antialiasing so that its longer side is 20 pixels,
    and placed in 28 x 28 with its centre of mass in the middle.

    Parameters
    ----------
    path : str or path-like
        A PNG, JPEG, GIF, BMP, TIFF, WebP or PPM file of at most 50 million pixels, 65,535 a
        side, in any mode, turned as its EXIF orientation says. A photograph should be lit evenly.

    Returns
    -------
    ndarray, shape (784,), uint8
        0 is paper, 255 is ink, row by row.

    Raises
    ------
    FileFormatError
        The file is no image, is damaged, empty, a folder, too large, or shows nothing.
    FileNotFoundError, PermissionError
        The file cannot be opened.
    ImportError
        Pillow is not installed.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*,
    http://yann.lecun.com/exdb/mnist/, says how the digits were normalised and centred; see also
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document
    recognition*, Proceedings of the IEEE 86(11), 1998, section III.A.

    Examples
    --------
    >>> from fastbackprop.datasets import sample_image
    >>> from fastbackprop.images import read_digit_image
    >>> x = read_digit_image(sample_image("9.png"))
    >>> x.shape, x.dtype
    ((784,), dtype('uint8'))
    """
    path = Path(path)
    digit = _cut_out(_separate_ink(_read_pixels(path)))
    if digit is None:
        raise FileFormatError(f"{path}: no digit to be seen: the image is blank")
    return _normalize(digit).reshape(-1)


def _read_pixels(path: Path) -> np.ndarray:
    """Decode a file into float32 (height, width, channels), 0 to 255, paper where transparent."""
    try:
        import PIL
    except ImportError as error:
        raise ImportError(
            'reading images needs Pillow, which is not installed: pip install "fastbackprop[cli]"'
        ) from error
    if path.is_dir():
        raise FileFormatError(f"{path}: a folder, not an image file")
    # A read of bytes in memory ends where they do. That of a file first makes room for as many as
    # it is asked for, and Pillow asks for what the file says.
    file = io.BytesIO(path.read_bytes())
    if not file.getbuffer():
        raise FileFormatError(f"{path}: the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is an error here, or of no matter
        try:
            return _decode(file, path)
        except FileFormatError:
            raise
        except PIL.UnidentifiedImageError:
            known = ", ".join(_FORMATS)
            raise FileFormatError(f"{path}: not an image file (of {known})") from None
        # A damaged file can raise anything in Pillow's decoders: OSError, SyntaxError, ValueError,
        # struct.error, EOFError, IndexError ...
        except Exception as error:
            fault = " ".join(str(error).split()) or type(error).__name__
            raise FileFormatError(f"{path}: the image cannot be decoded: {fault}") from None


def _decode(file: BinaryIO, path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        image: Any = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise FileFormatError(f"{path}: more than {_MAX_PIXELS:,} pixels") from None
    width, height = image.size
    if not 0 < width * height <= _MAX_PIXELS:  # from the header: nothing is decoded yet
        raise FileFormatError(f"{path}: {width} x {height} pixels; 1 to {_MAX_PIXELS:,} are read")
    if max(width, height) > _MAX_SIDE:
        raise FileFormatError(
            f"{path}: {width} x {height} pixels; a side has at most {_MAX_SIDE:,}"
        )
    ImageOps.exif_transpose(image, in_place=True)
    factor = max(max(image.size) // _WORKING_SIDE, 1)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image, factor)
        factor = 1
    grey = "L" if image.mode in ("1", "L") else "RGB"
    mode = "RGBA" if image.has_transparency_data else grey
    if image.mode != mode:  # which would copy it
        image = image.convert(mode)
    if factor > 1:
        image = image.reduce(factor)
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    return _fill_transparent(pixels) if pixels.shape[2] == 4 else pixels


def _to_eight_bits(image: Any, factor: int) -> Any:
    """Bring 12-bit, 16-bit, 32-bit or float grey to 0 to 255, where Pillow would clip it.

    It is averaged down by a factor first, since its pixels are large.
    """
    from PIL import Image

    extremes = np.nan_to_num(image.getextrema(), posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    if factor > 1:
        image = image.reduce(factor)
    levels = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    lowest = min(levels.min(), extremes.min(), 0.0)
    levels -= lowest
    brightest = max(levels.max(), extremes.max() - lowest)
    full_scale = next((top for top in (1, 255, 4095, 65535) if brightest <= top), brightest)
    return Image.fromarray((levels * (255.0 / full_scale)).astype(np.uint8))


def _fill_transparent(pixels: np.ndarray) -> np.ndarray:
    """Composite (height, width, RGBA) on a paper that makes the ink stand out."""
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255.0
    solid = colours[alpha[..., 0] > 0.5]
    if len(solid) == 0:
        solid = colours.reshape(-1, 3)
    spread = np.percentile(solid, 98, axis=0) - np.percentile(solid, 2, axis=0)
    if spread.max() > 127.0:
        paper = np.median(solid, axis=0)  # both paper and ink are there: go on with the paper
    else:
        paper = np.full(3, 255.0 if solid.mean() < 128.0 else 0.0)  # there is only ink
    return (colours * alpha + paper * (1.0 - alpha)).astype(np.float32)


def _separate_ink(pixels: np.ndarray) -> np.ndarray:
    """Return how much ink each pixel holds, (height, width), 0 to 255; 0 all over if blank.

    Paper is the median colour of the border. Ink is what departs from it, in the channel and the
    direction (darker or lighter) in which the picture does so most.
    """
    height, width, _ = pixels.shape
    rim = max(1, min(height, width) // 28)
    inside = np.zeros((height, width), bool)
    inside[rim : height - rim, rim : width - rim] = True
    border = pixels[~inside]
    paper = np.median(border, axis=0)
    departures = np.stack([pixels - paper, paper - pixels])  # (2, height, width, channels)
    strengths = np.square(np.maximum(departures, 0.0)).sum(axis=(1, 2))
    direction, channel = np.unravel_index(np.argmax(strengths), strengths.shape)
    ink = departures[direction, ..., channel]

    # Two standard deviations of the paper's grain count as paper: by the median, so that ink
    # that runs over the border hardly matters.
    full = ink.max()
    grain = 2.0 * 1.4826 * np.median(np.abs(border[:, channel] - paper[channel]))
    grain = min(grain, full / 3.0)
    if full - grain < _MIN_CONTRAST:
        return np.zeros((height, width), np.float32)
    return np.clip((ink - grain) * (255.0 / (full - grain)), 0.0, 255.0)


def _cut_out(ink: np.ndarray) -> np.ndarray | None:
    """Return the part of (height, width) that holds the digit, or None if there is none."""
    height, width = ink.shape
    padded = np.pad(ink, 1)
    around = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    strong = (ink > _EDGE) & (around > 1.1 * 255)  # the latter leaves out single pixels: dust
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    if len(rows) == 0:
        return None
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _normalize(digit: np.ndarray) -> np.ndarray:
    """Scale (height, width) so that the longer side is 20, and centre it in (28, 28)."""
    from PIL import Image

    scale = _DIGIT_SIDE / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    resized = Image.fromarray(digit.astype(np.float32)).resize(
        (width, height), Image.Resampling.HAMMING
    )
    digit = np.asarray(resized)
    digit = digit * (255.0 / digit.max())  # thin strokes fade when they are averaged down

    total = digit.sum()
    centre_row = (digit.sum(axis=1) @ np.arange(height)) / total
    centre_column = (digit.sum(axis=0) @ np.arange(width)) / total
    top = min(max(round(_SIDE / 2 - centre_row), 0), _SIDE - height)
    left = min(max(round(_SIDE / 2 - centre_column), 0), _SIDE - width)
    image = np.zeros((_SIDE, _SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(digit)
    return image
