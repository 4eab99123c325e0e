"""Pictures of a digit in any form come out as MNIST holds them; other files are refused by name."""

import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastbackprop.datasets import load_mnist_small, sample_image, sample_images
from fastbackprop.errors import FileFormatError
from fastbackprop.images import read_digit_image

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the first 300 test images of the small set, (300, 28, 28), and their labels."""
    _, (X_test, y_test) = load_mnist_small()
    return X_test[:300].reshape(-1, 28, 28), y_test[:300]


@pytest.fixture(scope="module")
def nearest():
    """Return the digit whose mean training image is most like an image: a crude classifier."""
    (X, y), _ = load_mnist_small()
    means = np.stack([X[y == digit].mean(axis=0) for digit in range(10)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return lambda x: int(np.argmax(means @ x.astype(float)))


def through(folder: Path, image, name: str = "digit.png", **options) -> np.ndarray:
    """Save an image, from Pillow or an array, and read it back as a digit."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(folder / name, **options)
    return read_digit_image(folder / name).reshape(28, 28)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def enlarged(image: np.ndarray, times: int = 10) -> np.ndarray:
    return np.kron(image, np.ones((times, times), np.uint8))


# ---------------------------------------------------------------- the form


def test_mnist_comes_back_as_it_was(tmp_path, digits):
    """Most images to the last level; a few are scaled or moved by a pixel."""
    for paper_is_light in (False, True):
        differences = []
        for image in digits[0]:
            drawn = 255 - image if paper_is_light else image
            differences.append(mean_difference(through(tmp_path, drawn), image))
        assert np.median(differences) < 0.05
        assert np.mean(differences) < 0.5


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (3, 3, 3, 3), (60, 5, 0, 111)])
def test_margins_do_not_matter(tmp_path, digits, margins):
    top, bottom, left, right = margins
    for image in digits[0][:20]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        digit = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        page = np.pad(digit, ((top + 1, bottom + 1), (left + 1, right + 1)))
        assert mean_difference(through(tmp_path, page), through(tmp_path, image)) == 0.0


def test_size_hardly_matters(tmp_path, digits):
    for image in digits[0][:20]:
        expected = through(tmp_path, image)
        assert mean_difference(through(tmp_path, enlarged(image)), expected) < 6.0


def test_large_pictures_are_averaged_down_before_anything_else(tmp_path, digits):
    large = Image.fromarray(enlarged(digits[0][0], 150)).convert("RGB")
    expected = through(tmp_path, digits[0][0])
    tracemalloc.start()
    try:
        assert mean_difference(through(tmp_path, large), expected) < 6.0
        assert tracemalloc.get_traced_memory()[1] < 60e6  # 212e6 for its pixels as float32
    finally:
        tracemalloc.stop()


def test_the_form_of_what_is_returned(tmp_path, digits):
    through(tmp_path, digits[0][0])
    x = read_digit_image(str(tmp_path / "digit.png"))
    assert x.shape == (784,)
    assert x.dtype == np.uint8
    assert x.max() == 255


@pytest.mark.parametrize(("height", "width"), [(100, 40), (40, 100), (60, 60), (200, 3), (1, 90)])
def test_the_longer_side_is_20_pixels_and_centred(tmp_path, height, width):
    """A box has its centre of mass in its middle, and that goes to the middle of 28 x 28."""
    page = np.full((300, 250), 230, np.uint8)
    page[17 : 17 + height, 90 : 90 + width] = 40
    image = through(tmp_path, page)
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    scale = 20 / max(height, width)
    assert len(rows) == max(1, round(height * scale))
    assert len(columns) == max(1, round(width * scale))
    assert abs(rows.mean() - 13.5) <= 0.5
    assert abs(columns.mean() - 13.5) <= 0.5
    assert (image[image > 0] == 255).all()


def test_centre_of_mass_not_of_the_box(tmp_path):
    """An L has its mass low and to the left, so the L is moved up and to the right."""
    page = np.zeros((40, 40), np.uint8)
    page[5:25, 5:8] = 255
    page[22:25, 5:25] = 255
    image = through(tmp_path, page).astype(float)
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert rows[0] < 4
    assert columns[0] > 4
    centre_row = image.sum(1) @ np.arange(28) / image.sum()
    centre_column = image.sum(0) @ np.arange(28) / image.sum()
    assert abs(centre_row - 14) <= 0.5
    assert abs(centre_column - 14) <= 0.5


def test_a_mass_far_off_its_box_stays_inside(tmp_path):
    page = np.zeros((60, 60), np.uint8)
    page[10:12, 10:50] = 60
    page[10:50, 10:12] = 60
    page[10:14, 10:14] = 255
    image = through(tmp_path, page)
    assert image[:, -1].any() or image[-1].any()
    assert np.count_nonzero(image.any(1)) == np.count_nonzero(image.any(0)) == 20


# ---------------------------------------------------------------- modes and colours


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("paper_is_light", [False, True])
def test_every_mode(tmp_path, digits, mode, paper_is_light):
    image = np.where(digits[0][7] > 127, 255, 0).astype(np.uint8)
    expected = through(tmp_path, image)
    drawn = Image.fromarray(255 - image if paper_is_light else image)
    if mode == "I;16":
        drawn = Image.fromarray(np.asarray(drawn).astype(np.uint16) * 257)
    elif mode == "PA":
        drawn = drawn.convert("P").convert("PA")
    else:
        drawn = drawn.convert(mode)
    assert drawn.mode == mode
    assert mean_difference(through(tmp_path, drawn, "digit.tif"), expected) < 1.0


@pytest.mark.parametrize("name", ["d.jpg", "d.gif", "d.bmp", "d.tiff", "d.webp", "d.pgm", "d.png"])
def test_every_format(tmp_path, digits, name):
    image = enlarged(digits[0][3], 4)
    expected = through(tmp_path, image)
    assert mean_difference(through(tmp_path, image, name), expected) < 8.0


@pytest.mark.parametrize("top", [1.0, 255.0, 4095.0, 65535.0, 1e6])
def test_grey_of_any_depth(tmp_path, digits, top):
    expected = through(tmp_path, digits[0][3])
    levels = (digits[0][3] / 255.0 * top).astype(np.float32)
    assert mean_difference(through(tmp_path, Image.fromarray(levels), "digit.tif"), expected) < 1.0


def test_float_pixels_that_are_not_finite_are_paper(tmp_path, digits):
    levels = digits[0][3].astype(np.float32)
    expected = through(tmp_path, Image.fromarray(levels), "digit.tif")
    levels[0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(through(tmp_path, Image.fromarray(levels), "d.tif"), expected)


@pytest.mark.parametrize(
    ("pen", "paper"),
    [
        ("black", "white"),
        ("white", "black"),
        ("navy", "white"),
        ("yellow", "white"),  # in grey: 226 on 255
        ("blue", "black"),  # in grey: 29 on 0
        ("red", "green"),
        ("#666666", "#999999"),
    ],
)
def test_any_pen_on_any_paper(tmp_path, digits, pen, paper):
    expected = through(tmp_path, digits[0][3])
    page = Image.new("RGB", (28, 28), paper)
    page.paste(pen, mask=Image.fromarray(digits[0][3]))
    assert mean_difference(through(tmp_path, page), expected) < 2.0


@pytest.mark.parametrize("pen", ["black", "white", "red", "#808080", "#707070"])
def test_ink_on_nothing(tmp_path, digits, pen):
    """Transparency is filled so that the ink stands out, whatever its colour."""
    expected = through(tmp_path, digits[0][3])
    drawn = Image.new("RGBA", (28, 28), pen)
    drawn.putalpha(Image.fromarray(digits[0][3]))
    assert mean_difference(through(tmp_path, drawn), expected) < 2.0


@pytest.mark.parametrize(("pen", "paper"), [(0, 255), (255, 0)])
def test_paper_cut_out_with_transparent_corners(tmp_path, digits, pen, paper):
    """Ink and paper are both there, so what is transparent counts as more paper."""
    ink = enlarged(digits[0][3], 4)
    expected = through(tmp_path, ink)
    page = np.where(ink > 127, pen, paper).astype(np.uint8)
    alpha = np.full_like(page, 255)
    for corner in (np.s_[:9, :9], np.s_[:9, -9:], np.s_[-9:, :9], np.s_[-9:, -9:]):
        alpha[corner] = 0
    drawn = Image.merge("LA", (Image.fromarray(page), Image.fromarray(alpha)))
    assert mean_difference(through(tmp_path, drawn), expected) < 12.0


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palette_with_one_transparent_colour(tmp_path, digits, mode):
    """The ink could not be told from the paper by its colour alone."""
    image = np.where(digits[0][3] > 127, 255, 0).astype(np.uint8)
    drawn = Image.fromarray(np.where(image > 0, 255, 250).astype(np.uint8)).convert(mode)
    read = through(tmp_path, drawn, transparency=drawn.getpixel((0, 0)))
    assert mean_difference(read, through(tmp_path, image)) < 1.0


def test_exif_orientation(tmp_path, digits):
    image = Image.fromarray(enlarged(255 - digits[0][3], 4))
    expected = through(tmp_path, image)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    turned = image.transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(through(tmp_path, turned, exif=exif), expected)
    assert mean_difference(through(tmp_path, turned), expected) > 10.0


# ---------------------------------------------------------------- as users take them


def test_digits_that_touch_the_border(tmp_path, digits, nearest):
    """Of an upright 1 most of the border is ink."""
    _, (X, y) = load_mnist_small()
    n_same = 0
    for image in (*digits[0], *X[y == 1].reshape(-1, 28, 28)):
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        n_same += nearest(through(tmp_path, tight).ravel()) == nearest(image.ravel())
    assert n_same >= 490


@pytest.mark.parametrize(("grain", "shadow"), [(15, 0), (25, 0), (4, 20)])
def test_photographs(tmp_path, digits, nearest, grain, shadow):
    """Grey on grey, with grain, or darker to one side: nine of ten read as before."""
    rng = np.random.default_rng(0)
    n_same = 0
    for image in digits[0][:100]:
        page = 190 - 0.6 * enlarged(image) + rng.normal(0, grain, (280, 280))
        page += np.linspace(-shadow, shadow, 280)
        read = through(tmp_path, page.clip(0, 255).astype(np.uint8), "digit.jpg", quality=70)
        n_same += nearest(read.ravel()) == nearest(image.ravel())
    assert n_same >= 90


@pytest.mark.parametrize("times", [1, 10, 80])
def test_specks_do_not_count(tmp_path, digits, times):
    page = 255 - np.pad(enlarged(digits[0][3], times), 5 * times)
    expected = through(tmp_path, page)
    rng = np.random.default_rng(0)
    page[tuple(rng.integers(0, len(page), (2, 5 + 3 * times)))] = 0
    assert mean_difference(through(tmp_path, page), expected) < 3.0

    page[:] = 255
    page[::9, ::9] = 0
    with pytest.raises(FileFormatError, match="blank"):
        through(tmp_path, page)


def test_a_thin_pen_is_not_faint(tmp_path):
    """Lines of a fifth of a pixel, when the digit is 20 pixels high."""
    page = np.full((300, 300), 255, np.uint8)
    page[50:250, 50:250] = 0
    page[52:248, 52:248] = 255
    image = through(tmp_path, page)
    assert image.max() == 255
    assert np.count_nonzero(image > 127) == 4 * 19


def test_samples(nearest):
    """They differ in size and mode, are small, and read as what their names say."""
    forms = set()
    for digit, path in enumerate(sample_images()):
        assert nearest(read_digit_image(path)) == digit
        assert path.stat().st_size < 10_000
        with Image.open(path) as image:
            forms.add((image.mode, image.size))
    assert len(forms) >= 8
    assert {mode for mode, _ in forms} == {"1", "L", "P", "RGB", "RGBA"}


# ---------------------------------------------------------------- what is refused


def png_header(width: int, height: int) -> bytes:
    """Make a PNG that promises so many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the file is empty"),
        (b"This is no image.", "not an image file"),
        (b"\x89PNG\r\n\x1a\n", "not an image file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image file"),
        (b"PK\x03\x04" + bytes(100), "not an image file"),
        (png_header(10_000, 5_001), r"10000 x 5001 pixels; 1 to 50,000,000 are read"),
        (png_header(10_000, 10_000), r"10000 x 10000 pixels; 1 to 50,000,000 are read"),
        (png_header(60_000, 60_000), "more than 50,000,000 pixels"),
        (png_header(2_000_000_000, 2_000_000_000), "more than 50,000,000 pixels"),
        (png_header(100, 100), "the image cannot be decoded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_by_name_and_fault(tmp_path, content, fault):
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=fault) as caught:
        read_digit_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["d.png", "d.jpg", "d.gif", "d.bmp", "d.tiff", "d.webp", "d.pgm"])
def test_truncated_files(tmp_path, digits, name):
    path = tmp_path / name
    Image.fromarray(enlarged(digits[0][3], 4)).save(path)
    content = path.read_bytes()
    for part in (0.05, 0.5, 0.9):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(FileFormatError):
            read_digit_image(path)


@pytest.mark.parametrize("name", ["d.png", "d.jpg", "d.gif", "d.bmp", "d.tiff", "d.webp", "d.pgm"])
def test_mutations_raise_nothing_else(tmp_path, digits, name):
    path = tmp_path / name
    Image.fromarray(enlarged(digits[0][3], 2)).save(path)
    original = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(100):
        content = original.copy()
        at = rng.integers(0, min(len(content), 400), rng.integers(1, 5))
        content[at] = rng.integers(0, 256, len(at))
        path.write_bytes(content.tobytes())
        try:
            assert read_digit_image(path).shape == (784,)
        except FileFormatError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_blank_images(tmp_path, level, mode):
    page = Image.fromarray(np.full((50, 60), level, np.uint8)).convert(mode, dither=0)
    with pytest.raises(FileFormatError, match="no digit to be seen: the image is blank"):
        through(tmp_path, page)


def test_blank_but_for_its_grain_or_fully_transparent_or_one_pixel(tmp_path):
    grain = np.random.default_rng(0).normal(230, 3, (100, 100)).astype(np.uint8)
    deep = grain.astype(np.uint16) * 257
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    for page in (grain, deep, clear, np.zeros((1, 1), np.uint8)):
        with pytest.raises(FileFormatError, match="blank"):
            through(tmp_path, page)


def test_missing_folder_and_forbidden(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        read_digit_image(tmp_path / "missing.png")
    with pytest.raises(FileFormatError, match="a folder, not an image file"):
        read_digit_image(tmp_path)
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError, match=r"secret\.png"):
        read_digit_image(path)


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "fastbackprop\[cli\]"'):
        read_digit_image(sample_image("9.png"))
