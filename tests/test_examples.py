"""The example scripts: each is run, and reaches what it shows."""

import importlib
import pkgutil
import runpy
import sys

import numpy as np
import pytest

from fastbackprop import examples
from fastbackprop.examples import (
    classify_image,
    larger_than_memory,
    mnist,
    regression,
    surrogate,
)

NAMES = sorted(module.name for module in pkgutil.iter_modules(examples.__path__))


def test_mnist(capsys):
    assert mnist.main(images=300, epochs=6) > 0.7
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"Epoch {i}" for i in range(1, 7)]


def test_regression(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curve.png"
    assert regression.main(picture=str(picture)) < 0.1  # of noise of 0.2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in capsys.readouterr().out


def test_regression_writes_nothing_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    regression.main(epochs=1)
    assert not list(tmp_path.iterdir())


def test_the_simulation_without_drag_is_a_parabola():
    expected = 20.0**2 * 1.0 / 9.81  # v² sin(2·45°) / g
    assert surrogate.distance(np.array([[20.0, 45.0, 0.0]]))[0] == pytest.approx(expected, rel=2e-3)


def test_surrogate(capsys):
    assert surrogate.main(throws=1000, epochs=60) > 0.998
    output = capsys.readouterr().out
    simulated, predicted = (
        float(line.split(": ")[1].split()[0])
        for line in output.splitlines()
        if line.startswith("Longest")
    )
    assert predicted == pytest.approx(simulated, abs=3.0)


def test_pipeline(capsys):
    pytest.importorskip("sklearn")
    from fastbackprop.examples import pipeline

    assert pipeline.main(max_iter=300) > 0.95
    assert "alpha: " in capsys.readouterr().out


def test_classify_image(capsys):
    pytest.importorskip("PIL")
    assert classify_image.main() == list(range(10))
    assert "9.png: 9 (" in capsys.readouterr().out


def test_larger_than_memory(capsys):
    accuracy, share = larger_than_memory.main(files=12, rows=8000)
    assert accuracy > 0.95
    assert share < 0.25
    assert "Shards(11 files, 88,000 rows of 100)" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_script_that_is_listed(name, monkeypatch, capsys):
    if name == "pipeline":
        pytest.importorskip("sklearn")
    assert f"`{name}`" in examples.__doc__
    module = importlib.import_module(f"fastbackprop.examples.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(module.__file__, run_name="__main__")
    assert module.__doc__.split()[0] in capsys.readouterr().out
