"""NPZ and CSV files become training and test sets; damaged ones say where the fault is."""

import io
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastbackprop.datasets import read_csv, read_npz, stratified_holdout
from fastbackprop.errors import FileFormatError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 4, 3), np.uint8)
Y = np.repeat(np.arange(5), 10)


def rows_of(table) -> list[tuple]:
    """All rows with their labels, sorted: what must survive a split."""
    return sorted(
        (*map(float, x), y if table.classes is None else table.classes[y])
        for X, labels in (table.train, table.test)
        for x, y in zip(X, labels, strict=True)
    )


# ---------------------------------------------------------------- the split


def test_holdout_is_a_stratified_partition():
    labels = RNG.permutation(np.repeat(["a", "b", "c", "d", "e"], [100, 51, 2, 1, 7]))
    train, test = stratified_holdout(labels, 0.2, random_state=3)
    assert sorted([*train, *test]) == list(range(161))
    assert list(train) == sorted(train)
    assert list(test) == sorted(test)
    counts = {label: int((labels[test] == label).sum()) for label in "abcde"}
    assert counts == {"a": 20, "b": 10, "c": 1, "d": 0, "e": 1}


def test_holdout_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(4), 25)
    first, again = stratified_holdout(labels), stratified_holdout(labels)
    other = stratified_holdout(labels, random_state=1)
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])
    # As it was when this was written: a split may not change with a release of NumPy.
    np.testing.assert_array_equal(stratified_holdout(np.zeros(20))[1], [1, 8, 18, 19])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20])
def test_holdout_wants_a_fraction(fraction):
    with pytest.raises(ValueError, match=f"between 0 and 1, such as 0.2, got {fraction}"):
        stratified_holdout(np.zeros(5), fraction)


# ---------------------------------------------------------------- NPZ


@pytest.mark.parametrize("letter", ["X", "x"])
def test_npz_with_its_own_test_set(tmp_path, letter):
    """Keras' mnist.npz has x_train, y_train, x_test and y_test."""
    path = tmp_path / "data.npz"
    arrays = {f"{letter}_train": X, "y_train": Y, f"{letter}_test": X[::5], "y_test": Y[::5]}
    np.savez(path, **arrays, notes=np.array("ignored"))
    table = read_npz(path)
    np.testing.assert_array_equal(table.train[0], X.reshape(50, 12))
    np.testing.assert_array_equal(table.test[0], X[::5].reshape(10, 12))
    np.testing.assert_array_equal(table.train[1], Y)
    np.testing.assert_array_equal(table.test[1], Y[::5])
    np.testing.assert_array_equal(table.classes, np.arange(5))
    assert table.train[0].dtype == np.uint8
    assert table.train[1].dtype == table.test[1].dtype == np.int64


def test_npz_without_one_holds_out_a_fifth(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, X=X, y=Y)
    (X_train, y_train), (X_test, y_test), classes = table = read_npz(str(path))
    assert X_train.shape == (40, 12)
    assert X_test.shape == (10, 12)
    np.testing.assert_array_equal(np.bincount(y_train), 8)
    np.testing.assert_array_equal(np.bincount(y_test), 2)
    np.testing.assert_array_equal(classes, np.arange(5))
    assert rows_of(table) == sorted((*map(float, x.ravel()), y) for x, y in zip(X, Y, strict=True))
    assert not np.array_equal(read_npz(path, random_state=1).test[0], X_test)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.repeat([3, -1, 7, 100, 4], 10), [-1, 3, 4, 7, 100]),
        (np.repeat([1.0, 2.0], 25), [1, 2]),
        (np.repeat(np.array(["b", "a"]), 25), ["a", "b"]),
        (np.repeat(np.array([b"b", b"a"]), 25), ["a", "b"]),
        (np.arange(50) % 2 == 0, [0, 1]),
        ((np.arange(50) % 3).astype(">u2"), [0, 1, 2]),
        ((np.arange(50) % 3).reshape(50, 1), [0, 1, 2]),
    ],
)
def test_npz_labels_become_positions_in_classes(tmp_path, labels, classes):
    path = tmp_path / "data.npz"
    np.savez(path, X=X, y=labels)
    table = read_npz(path)
    assert table.classes.tolist() == classes
    assert table.train[1].dtype == np.int64
    flat = labels.reshape(-1).astype(str) if labels.dtype.kind == "S" else labels.reshape(-1)
    expected = sorted((*map(float, x.ravel()), y) for x, y in zip(X, flat, strict=True))
    assert rows_of(table) == expected


def test_npz_a_class_only_the_test_set_has(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X_train=X, y_train=Y, X_test=X[:2], y_test=[2, 9])
    table = read_npz(path)
    assert table.classes.tolist() == [0, 1, 2, 3, 4, 9]
    assert table.test[1].tolist() == [2, 5]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("?", "u1"),
        ("u1", "u1"),
        ("i2", "i2"),
        (">i4", "i4"),
        ("u8", "u8"),
        ("f2", "f4"),
        (">f4", "f4"),
        ("f8", "f8"),
    ],
)
def test_npz_keeps_the_dtype_of_features(tmp_path, dtype, expected):
    path = tmp_path / "data.npz"
    np.savez(path, X=X.astype(dtype), y=Y)
    read = read_npz(path).train[0]
    assert read.dtype == np.dtype(expected)
    assert read.dtype.isnative


def test_npz_values_to_predict_and_rows_of_probabilities(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=X, y=Y)
    table = read_npz(path, regression=True)
    assert table.classes is None
    assert table.train[1].dtype == np.float64
    assert len(table.test[1]) == 10
    np.savez(path, X=X, y=np.eye(5)[Y])
    table = read_npz(path)
    assert table.classes is None
    assert table.train[1].shape == (40, 5)
    assert table.test[1].shape == (10, 5)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"images": X}, "expected the arrays X_train, y_train, .* it has none"),
        ({"X": X}, "of these it has X"),
        ({"X_train": X, "y_train": Y, "X_test": X}, "of these it has X_train, y_train, X_test"),
        ({"X": X, "y": Y[1:]}, r"y has shape \(49,\); X has 50 rows"),
        ({"X": X, "y": Y.reshape(5, 5, 2)}, r"y has shape \(5, 5, 2\); X has 50 rows"),
        ({"X": X[:, 0, 0], "y": Y}, r"X has shape \(50,\); \(n, n_in\) is expected"),
        ({"X": X[:0], "y": Y[:0]}, r"X has shape \(0, 4, 3\)"),
        ({"X": X * 1j, "y": Y}, "X has dtype complex128; numbers are expected"),
        ({"X": X.astype(str), "y": Y}, "X has dtype <U3; numbers are expected"),
        ({"X": X, "y": Y * 1j}, "y has dtype complex128"),
        ({"X": np.where(X > 200, np.nan, X), "y": Y}, r"X\[\d+, \d+\] is nan, not a"),
        ({"X": X, "y": np.where(Y == 1, np.inf, Y)}, r"y\[10\] is inf, not a finite"),
        ({"X": X, "y": np.where(Y == 1, 0.5, Y)}, r"y\[10\]: the label is 0.5; class labels are"),
        ({"X": X, "y": np.where(Y == 1, 1e30, Y)}, r"y\[10\]: the label is 1e\+30"),
        ({"X": X[:1], "y": Y[:1]}, "1 rows are too few to hold out any"),
        ({"X": X, "y": Y, "X_test": X[:, :2], "y_test": Y}, r"X_test have shape \(6,\), in"),
        ({"X": X, "y": Y, "X_test": X, "y_test": np.eye(5)[Y]}, r"y_test have shape \(5,\), in"),
        ({"X": X, "y": Y, "X_test": X, "y_test": Y.astype(str)}, "only one .* is text"),
    ],
)
def test_npz_refuses(tmp_path, arrays, fault):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(FileFormatError, match=fault) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_npz_refuses_text_to_predict(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=X, y=Y.astype(str))
    with pytest.raises(FileFormatError, match=r"y\[0\]: the label '0' is not a number"):
        read_npz(path, regression=True)


def test_npz_does_not_unpickle(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=X, y=np.array([{}] * 50, dtype=object))
    with pytest.raises(FileFormatError, match=r"y\.npy holds pickled objects, which are not read"):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_npz_that_is_none(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not a readable NPZ file"):
        read_npz(path)
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "missing.npz")


def npy_header(shape: tuple, version: tuple[int, int] = (1, 0)) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (npy_header((10**9, 8)) + bytes(64), "X.npy needs 640000000.* bytes by its header"),
        (npy_header((2, 2)) + bytes(31), "X.npy needs 100 bytes by its header"),
        (npy_header((2, 2)) + bytes(33), "X.npy needs 100 bytes by its header"),
        (npy_header((2, 2), version=(9, 9)) + bytes(32), "unknown version of NPY"),
        (b"text", "X.npy: not an NPY file"),
    ],
    ids=["gigabytes", "short", "long", "version", "text"],
)
def test_npz_with_a_lying_member_costs_nothing(tmp_path, member, fault):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", member)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=fault):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_npz_whose_directory_lies_too_costs_nothing(tmp_path):
    """Both the NPY header and the size in the ZIP directory promise 3 GB."""
    path = tmp_path / "data.npz"
    member = npy_header((375_000_000,)) + bytes(64)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", member)
    content = path.read_bytes()
    claimed = struct.pack("<I", len(member) - 64 + 3 * 10**9)
    path.write_bytes(content.replace(struct.pack("<II", len(member), len(member)), claimed * 2))
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_npz_mutations_raise_nothing_else(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=X, y=Y)
    original = np.frombuffer(buffer.getvalue(), np.uint8)
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(1)
    n_refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of names that occur twice
        for _ in range(500):
            content = original.copy()
            at = rng.integers(0, len(content), rng.integers(1, 6))
            content[at] = rng.integers(0, 256, len(at))
            path.write_bytes(content.tobytes()[: rng.integers(1, 2 * len(content))])
            try:
                read_npz(path)
            except FileFormatError:
                n_refused += 1
    assert n_refused > 300


# ---------------------------------------------------------------- CSV


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


BODY = "".join(f"{i}.5,{i * i},{'xyz'[i % 3]}\n" for i in range(30))


def expected_rows() -> list[tuple]:
    return sorted((i + 0.5, float(i * i), "xyz"[i % 3]) for i in range(30))


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        "width,height,species\n" + BODY,
        "width,height,label\n" + BODY,
        "\ufeff" + BODY,
        "1,2,Class\n" + BODY,
        "\n" + BODY.replace("\n", "\r\n\r\n"),
        BODY.rstrip(),
        BODY.replace(",", " , "),
        '"width","height","the ""kind"""\n' + BODY.replace("x", '"x"'),
    ],
)
def test_csv_last_column_is_the_label(tmp_path, text):
    table = read_csv(write_csv(tmp_path, text))
    assert table.classes.tolist() == ["x", "y", "z"]
    assert rows_of(table) == expected_rows()
    assert table.train[0].shape == (24, 2)
    assert table.train[0].dtype == np.float64
    np.testing.assert_array_equal(np.bincount(table.test[1]), [2, 2, 2])


@pytest.mark.parametrize("name", ["label", "target", "class", "y", "Y", " Label "])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_csv_finds_the_label_by_name(tmp_path, name, column):
    names = ["a", "b"]
    names.insert(column, name)
    lines = [",".join(names)]
    for line in BODY.splitlines():
        *cells, label = line.split(",")
        cells.insert(column, label)
        lines.append(",".join(cells))
    table = read_csv(write_csv(tmp_path, "\n".join(lines)))
    assert rows_of(table) == expected_rows()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "2"], [2, 9, 10]),
        (["1.0", "2", "-3e0"], [-3, 1, 2]),
        (["10", "9", "two"], ["10", "9", "two"]),
    ],
)
def test_csv_classes_sort_as_numbers_if_all_are(tmp_path, labels, classes):
    text = "".join(f"{i},{labels[i % 3]}\n" for i in range(30))
    assert read_csv(write_csv(tmp_path, text)).classes.tolist() == classes


def test_csv_values_to_predict(tmp_path):
    path = write_csv(tmp_path, "".join(f"{i},{i / 4}\n" for i in range(20)))
    table = read_csv(path, regression=True)
    assert table.classes is None
    np.testing.assert_array_equal(table.train[0][:, 0] / 4, table.train[1])
    assert len(table.test[1]) == 4
    with pytest.raises(FileFormatError, match=r"line 2: the label is 0.25; .*mse \(regression=Tr"):
        read_csv(path)
    path = write_csv(tmp_path, BODY)
    with pytest.raises(FileFormatError, match="the label 'x' is not a number"):
        read_csv(path, regression=True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ": the file is empty"),
        ("\n \n", ": the file is empty"),
        ("1\n2\n", ", line 1: one column; features and a label"),
        ("1;2;a\n", ", line 1: one column; features and a label, separated by commas"),
        ("a,b,label\n", ": 0 rows are too few"),
        ("1,2,x\n", ": 1 rows are too few"),
        ("1,2,x\n1,2,y\n", ": 2 rows are too few"),
        ("label,target,a\n1,2,3\n", ", line 1: which column is the label: label, target"),
        ("1,2,x\n\n1,2\n", ", line 3: 2 columns, but line 1 has 3"),
        ("1,2,x\n1,2,x,4\n", ", line 2: 4 columns, but line 1 has 3"),
        ("a,b,label\n1,2,x\n1,two,y\n", ", line 3, column 2: 'two' is not a number; the label is"),
        ("label,a,b\nx,1,2\ny,,2\n", ", line 3, column 2: an empty cell is not a number"),
        ("1,2,x\n1,nan,y\n", ", line 2, column 2: nan is not a finite number"),
        ("y,a\n1,2\n1,-inf\n", ", line 3, column 2: -inf is not a finite number"),
        ("1,2,x\n1,2,\n", ", line 2: the label is empty"),
        ("1,2,3\n1,2,nan\n", ", line 2: the label nan is not a finite number"),
        ("1,2,3\n1,2,3.5\n", ", line 2: the label is 3.5; class labels are whole numbers"),
        ('1,2,x\n"1\n",3,x\n1,bad,x\n', ", line 4, column 2: 'bad' is not a number"),
        ("1,2," + "x" * 200_000, ", line 1: field larger than field limit"),
    ],
    ids=lambda value: value[:40],
)
def test_csv_refuses_by_line_and_column(tmp_path, text, fault):
    path = write_csv(tmp_path, text)
    with pytest.raises(FileFormatError) as caught:
        read_csv(path)
    assert str(caught.value).startswith(f"{path}{fault}")
    assert "\n" not in str(caught.value)


def test_csv_is_closed_although_its_error_is_kept(tmp_path, monkeypatch):
    path, files, opened = tmp_path / "data.csv", [], Path.open
    path.write_text("1,2\n3\n5,6\n")

    def noted(*args, **options):
        files.append(opened(*args, **options))
        return files[-1]

    monkeypatch.setattr(Path, "open", noted)
    with pytest.raises(FileFormatError, match="1 columns") as kept:
        read_csv(path)
    assert [file.closed for file in files] == [True]
    del kept


def test_csv_that_is_not_text(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"1,2,x\n\xff\xfe,2,x\n")
    with pytest.raises(FileFormatError, match="not text in UTF-8"):
        read_csv(path)
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "missing.csv")
