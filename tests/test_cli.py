"""The command line as its users meet it: processes, pipes, terminals, signals and mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastbackprop as fb
from fastbackprop import checkpoints
from fastbackprop.cli import compilation, main
from fastbackprop.cli.data import load_task
from fastbackprop.cli.learning_curve import draw_learning_curve
from fastbackprop.cli.output import Output
from fastbackprop.probe import Probe

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("FASTBACKPROP_D")},
    "PYTHONPATH": str(Path(fb.__file__).parents[1]),
    "PYTHONIOENCODING": "utf-8",
    "COLUMNS": "80",
}
EPOCH = re.compile(
    r"Epoch +(\d+)/\d+  loss \d+\.\d+ +test accuracy +(\d+\.\d\d) %  \d+\.\d\d s  [\d,]+ images/s"
)


def command(*arguments, program=("-m", "fastbackprop")):
    return [sys.executable, "-W", "error", *program, *map(str, arguments)]


def run(*arguments, cwd, program=("-m", "fastbackprop"), **environment):
    return subprocess.run(
        command(*arguments, program=program),
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def without(module):
    """What runs the command as if a package were not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; import fastbackprop.cli as c; "
    return ("-c", code + "sys.exit(c.main())")


def mistakes(text):
    """Lines on stderr, but for the one that a machine's first run prints."""
    return [line for line in text.splitlines() if not line.startswith("Compiling")]


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder after ``fastbackprop train --epochs 3``, and the process that ran."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run("train", "--epochs", 3, cwd=folder)


class TestTrain:
    def test_prints_a_line_an_epoch_and_the_accuracy(self, trained):
        _, process = trained
        assert process.returncode == 0, process.stderr
        lines = process.stdout.splitlines()
        epochs = [match for match in map(EPOCH.fullmatch, lines) if match]
        assert [int(match[1]) for match in epochs] == [1, 2, 3]
        (final,) = (line for line in lines if line.startswith("Test accuracy: "))
        accuracy = re.fullmatch(r"Test accuracy: (.*) % \((.*) of 2,000 images\)", final)
        assert accuracy[1] == epochs[-1][2]
        assert float(accuracy[1]) == pytest.approx(int(accuracy[2].replace(",", "")) / 20)
        assert 90 < float(accuracy[1]) < 98

    def test_fits_the_terminal_and_sends_it_no_codes(self, trained):
        text = trained[1].stdout
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
        assert "\r" not in text

    def test_writes_the_network_and_the_curve(self, trained):
        folder, _ = trained
        assert {path.name for path in folder.iterdir()} == {
            "digits.safetensors",
            "learning_curve.png",
        }
        net = fb.load(folder / "digits.safetensors")
        assert net.classes == tuple(range(10))
        assert net.sizes == [784, 128, 10]
        X_test, y_test = fb.datasets.load_mnist_small()[1]
        assert net.evaluate(X_test, y_test)["accuracy"] > 0.9

    def test_json(self, tmp_path):
        process = run(
            "train", "--json", "--epochs", 2, "--layers", "784,16,10", "--seed", 5, cwd=tmp_path
        )
        start, *epochs, end = objects(process.stdout)
        assert (start["event"], end["event"]) == ("start", "end")
        assert (start["layers"], start["seed"], start["n_train"]) == ([784, 16, 10], 5, 10_000)
        assert [epoch["epoch"] for epoch in epochs] == [1, 2]
        assert end["test_accuracy"] == epochs[-1]["test_accuracy"]
        assert end["out"] == "digits.safetensors"
        assert mistakes(process.stderr) == []

    def test_one_seed_gives_one_file_at_any_number_of_threads(self, tmp_path):
        contents = []
        for threads in (1, 2):
            process = run(
                *("train", "--quiet", "--epochs", 1, "--layers", "784,16,10", "--dtype", "float64"),
                *("--activation", "tanh", "--optimizer", "sgd", "--threads", threads),
                *("--out", tmp_path / "net.safetensors"),
                cwd=tmp_path,
            )
            assert re.fullmatch(r"Test accuracy: .*\n", process.stdout)
            assert fb.load(tmp_path / "net.safetensors").dtype == np.float64
            contents.append((tmp_path / "net.safetensors").read_bytes())
        assert contents[0] == contents[1]

    def test_what_was_asked_for_reaches_fit(self, tmp_path, monkeypatch, capsys):
        asked = {}

        def fit(net, X, y, **arguments):
            asked.update(arguments, net=net)
            raise KeyboardInterrupt

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(fb.Network, "fit", fit)
        arguments = "--threads 3 --epochs 7 --batch-size 9 --optimizer rmsprop --lr 0.5"
        network = "--layers 784,20,10 --activation elu --loss quadratic"
        assert main(["train", *arguments.split(), *network.split()]) == 130
        assert (asked["threads"], asked["epochs"], asked["batch_size"]) == (3, 7, 9)
        assert asked["optimizer"] == fb.RMSprop(0.5)
        assert asked["net"].sizes == [784, 20, 10]
        rescaling, *dense = asked["net"].layers
        assert rescaling == fb.Rescaling(1 / 255)
        assert [layer.activation.name for layer in dense] == ["elu", "elu"]
        assert capsys.readouterr().err.endswith("interrupted. Nothing was saved.\n")
        assert list(tmp_path.iterdir()) == []

    def test_without_matplotlib(self, tmp_path):
        process = run("train", "--epochs", 1, cwd=tmp_path, program=without("matplotlib"))
        assert process.returncode == 0
        assert "fastbackprop[cli]" in process.stdout
        assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]

    def test_divergence(self, tmp_path):
        process = run("train", "--optimizer", "sgd", "--lr", "1e6", cwd=tmp_path)
        assert process.returncode == 1
        (line,) = mistakes(process.stderr)
        assert line.startswith("fastbackprop: error: training diverged")
        assert line.endswith("Nothing was saved.")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
    @pytest.mark.parametrize("epochs_before", [0, 2])
    def test_interrupt(self, tmp_path, epochs_before):
        arguments = ("train", "--json", "--epochs", 10**6)
        if epochs_before == 0:  # an epoch that takes longer than sending a signal
            arguments += ("--layers", "784,1024,1024,1024,10")
        with subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for _ in range(1 + epochs_before):
                assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        (message,) = mistakes(err)
        if epochs_before == 0:
            assert message in (
                "fastbackprop: interrupted",
                "fastbackprop: interrupted. Nothing was saved.",
            )
            assert list(tmp_path.iterdir()) == []
        else:
            assert message == (
                "fastbackprop: interrupted. digits.safetensors holds what was trained until then."
            )
            assert objects(out)[-1]["epochs"] >= epochs_before
            fb.load(tmp_path / "digits.safetensors")

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is no signal there")
    def test_sigterm_saves(self, tmp_path):
        with subprocess.Popen(
            command("train", "--json", "--epochs", 10**6, "--checkpoint", "run"),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for _ in range(3):
                assert process.stdout.readline()
            process.terminate()
            out, err = process.communicate(timeout=120)
        assert process.returncode == 143
        (message,) = mistakes(err)
        assert message == (
            "fastbackprop: terminated. digits.safetensors holds what was trained until then."
        )
        epochs = objects(out)[-1]["epochs"]
        assert epochs >= 2
        fb.load(tmp_path / "digits.safetensors")
        assert max(checkpoints.numbered(tmp_path / "run")) in (epochs, epochs - 1)

    def test_sigterm_is_as_before_afterwards(self, tmp_path, monkeypatch):
        def fit(net, X, y, **arguments):
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(fb.Network, "fit", fit)
        before = signal.getsignal(signal.SIGTERM)
        assert main(["train"]) == 143
        assert signal.getsignal(signal.SIGTERM) is before
        codes = []
        other = threading.Thread(target=lambda: codes.append(main(["train", "--epochs", "0"])))
        other.start()
        other.join()
        assert codes == [2]

    def test_a_resumed_training_gives_the_same_network(self, tmp_path):
        folders = []
        for name, parts in (("whole", [4]), ("parts", [2, 4, 4])):
            folder = tmp_path / name
            folder.mkdir()
            folders.append(folder)
            for epochs in parts:
                arguments = ("--epochs", epochs, "--checkpoint", "run", "--resume")
                process = run("train", *arguments, cwd=folder)
                assert process.returncode == 0, process.stderr
        whole, resumed = ((folder / "digits.safetensors").read_bytes() for folder in folders)
        assert whole == resumed
        assert "Resuming  from run/epoch-000004.safetensors" in process.stdout
        process = run("train", "--checkpoint", "run", cwd=folders[0])
        assert process.returncode == 2
        (message,) = mistakes(process.stderr)
        assert "add --resume to go on" in message

    @pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
    def test_broken_pipe(self, tmp_path):
        with subprocess.Popen(
            command("train", "--epochs", 10**6),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline()
            process.stdout.close()
            err = process.stderr.read()
        assert process.returncode == 141
        assert mistakes(err) == []


class TestPredict:
    def test_prints_each_probability_and_the_digit(self, trained):
        process = run("predict", "digits.safetensors", "9.png", cwd=trained[0])
        assert process.returncode == 0, process.stderr
        note, *lines, answer = process.stdout.splitlines()
        assert "9.png" in note
        assert answer == "Predicted digit: 9"
        rows = [re.fullmatch(r"(\d) {2,4}(\d+\.\d) %(?:  (█+))?", line) for line in lines]
        assert [row[1] for row in rows] == list("0123456789")
        percentages = [float(row[2]) for row in rows]
        assert sum(percentages) == pytest.approx(100, abs=0.5)
        for row, percentage in zip(rows, percentages, strict=True):
            assert len(row[3] or "") == pytest.approx(0.4 * percentage, abs=0.53)

    def test_json_of_several_images(self, trained):
        names = [f"{digit}.png" for digit in range(10)]
        process = run("predict", "--json", "digits.safetensors", *names, cwd=trained[0])
        predictions = objects(process.stdout)
        assert [Path(one["file"]).name for one in predictions] == names
        assert sum(one["digit"] == i for i, one in enumerate(predictions)) >= 8
        for one in predictions:
            assert sum(one["probabilities"]) == pytest.approx(1.0)
            assert np.argmax(one["probabilities"]) == one["digit"]

    def test_a_file_comes_before_a_sample_of_its_name(self, trained, tmp_path):
        sample = fb.datasets.sample_image("7.png")
        (tmp_path / "9.png").write_bytes(sample.read_bytes())
        process = run("predict", trained[0] / "digits.safetensors", "9.png", cwd=tmp_path)
        assert process.stdout.splitlines()[-1] == "Predicted digit: 7"
        assert "sample" not in process.stdout

    def test_ascii_terminal(self, trained):
        folder = trained[0]
        arguments = ("predict", "digits.safetensors", "9.png")
        process = run(*arguments, cwd=folder, PYTHONIOENCODING="ascii")
        assert process.returncode == 0
        assert "#####" in process.stdout

    def test_names_of_classes(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        net = fb.Network([784, 10], loss="cross_entropy", random_state=0)
        net.set_parameters(np.r_[np.zeros(7840), np.eye(10)[3]])
        net.classes = ["zero", "one", "two", "dr\x1bei", *range(4, 10)]
        net.save("net.safetensors")
        assert main(["predict", "net.safetensors", "9.png"]) == 0
        lines = capsys.readouterr().out.splitlines()[1:]
        assert lines[0].startswith("zero          8.5 %  ")
        assert lines[-1] == r"Predicted class: 'dr\x1bei'"
        assert main(["predict", "--json", "net.safetensors", "9.png"]) == 0
        assert json.loads(capsys.readouterr().out)["class"] == "dr\x1bei"

    def test_a_network_without_probabilities_says_so(self, tmp_path):
        net = fb.Network([784, 10], random_state=0)
        net.save(tmp_path / "net.safetensors")
        process = run("predict", "net.safetensors", "9.png", cwd=tmp_path)
        assert "Trained with quadratic" in process.stdout
        assert max(map(len, process.stdout.splitlines())) <= 80

    def test_without_pillow(self, trained):
        process = run(
            "predict", "digits.safetensors", "9.png", cwd=trained[0], program=without("PIL")
        )
        assert process.returncode == 2
        assert "fastbackprop[cli]" in process.stderr.splitlines()[-1]


class TestCheck:
    def test_prints_the_report(self, trained):
        process = run("check", "digits.safetensors", "--rows", 4, cwd=trained[0])
        assert process.returncode == 0, process.stderr
        verdict, _, head, *_ = lines = process.stdout.splitlines()
        assert verdict.startswith("Gradients passed: 3,")
        assert head.split()[:2] == ["Tensor", "Checked"]
        assert any(line.startswith("layers.0.weight  1,000/100,352  ") for line in lines)
        assert any(line.startswith("gradients in float32: worst error") for line in lines)
        assert max(map(len, lines)) <= 80

    def test_json_of_data_rows(self, trained, capsys, monkeypatch):
        monkeypatch.chdir(trained[0])
        arguments = "--data mnist-small --rows 3 --max-per-tensor 10 --method richardson --json"
        assert main(["check", "digits.safetensors", *arguments.split()]) == 0
        *events, end = objects(capsys.readouterr().out)
        tensors = {event["tensor"]: event for event in events if event["event"] == "tensor"}
        names = [f"layers.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")]
        assert list(tensors) == [*names, "X"]
        assert (tensors["X"]["checked"], tensors["X"]["total"]) == (10, 3 * 784)
        assert tensors["layers.1.bias"]["fail"] == 0
        assert sum(event["event"] == "comparison" for event in events) == 5
        assert end["ok"]
        assert end["worst_error"] < 1e-6

    def test_a_failure_is_exit_code_1(self, trained, capsys, monkeypatch):
        monkeypatch.chdir(trained[0])
        differentiate = Probe.differentiate

        def wrong(probe):
            loss = differentiate(probe)
            probe.parameter_gradients *= 1.01
            return loss

        monkeypatch.setattr(Probe, "differentiate", wrong)
        arguments = ["--rows", "3", "--max-per-tensor", "20"]
        assert main(["check", "digits.safetensors", *arguments]) == 1
        out, err = capsys.readouterr()
        assert out.startswith("Gradients FAILED: ")
        assert "more entries fail" in out
        assert mistakes(err) == []
        assert main(["check", "digits.safetensors", *arguments, "--json"]) == 1
        assert objects(capsys.readouterr().out)[-1]["ok"] is False

    def test_the_picture(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("matplotlib")
        monkeypatch.chdir(tmp_path)
        fb.Network([4, 3, 2], "relu", random_state=0).save("net.safetensors")
        for name in ("check.png", "check.svg"):
            assert main(["check", "net.safetensors", "--plot", name]) == 0
            assert capsys.readouterr().out.endswith(f"Wrote {name}\n")
        assert Path("check.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in Path("check.svg").read_text()

    def test_without_matplotlib(self, tmp_path):
        fb.Network([4, 3, 2], random_state=0).save(tmp_path / "net.safetensors")
        process = run(
            "check", "net.safetensors", "--plot", "check.png",
            cwd=tmp_path, program=without("matplotlib"),
        )  # fmt: skip
        assert process.returncode == 2
        assert "fastbackprop[cli]" in process.stderr.splitlines()[-1]
        assert process.stdout == ""

    @pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
    def test_random_data_suit_the_network(self, loss, tmp_path, capsys):
        layers = [fb.Rescaling(1 / 255, -0.5), fb.Dense(6, 4, "tanh"), fb.Dense(4, 3)]
        path = tmp_path / "net.safetensors"
        fb.Network(layers, loss=loss, random_state=0).save(path)
        assert main(["check", str(path), "--max-per-tensor", "0"]) == 0
        assert "passed: 235 entries" in capsys.readouterr().out

    def test_the_table(self, capsys):
        assert main(["check"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        head, *rows = lines[2:]
        assert head.split()[:4] == ["quadratic", "mse", "mae", "huber"]
        assert [row.split()[0] for row in rows] == [
            name for name in fb.activations.NAMES if name not in ("exp", "softmax")
        ]
        errors = [float(cell) for row in rows for cell in row.split()[1:]]
        assert len(errors) == 9 * 8
        assert max(errors) < 1e-7

    def test_the_table_in_json(self, capsys):
        assert main(["check", "--json"]) == 0
        networks = objects(capsys.readouterr().out)
        assert len(networks) == 9 * 8
        assert all(network["ok"] for network in networks)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """A folder with a few files of no use."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty.png", "empty.npz", "empty.csv", "empty.safetensors"):
        Path(name).touch()
    for name in ("text.png", "text.npz", "text.txt", "text.safetensors"):
        Path(name).write_text("no such thing\n" * 10)
    fb.Network([64, 10], random_state=0).save("small.safetensors")
    net = fb.Network([784, 10], loss="cross_entropy", random_state=0)
    net.save("net.safetensors")
    whole = Path("net.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(whole[: len(whole) // 2])
    picture = fb.datasets.sample_image("9.png").read_bytes()
    Path("half.png").write_bytes(picture[: len(picture) // 2])
    Path("regression.csv").write_text("1.5,2.5\n2.5,3.5\n" * 5)
    return tmp_path


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "COMMAND"),
        ("trian", "'train', 'predict', 'check', 'textbook'|train, predict, check, textbook"),
        ("train --epoch 3", "unrecognized arguments: --epoch 3"),
        ("train --activation rleu", "did you mean 'relu'.*gelu"),
        ("train --activation softmax", "softmax"),
        ("train --loss crossentropy", "did you mean 'cross_entropy'"),
        ("train --optimizer lbfgs", "sgd, adam, adamw, rmsprop"),
        ("train --dtype float16", "float32.*float64"),
        ("train --data mnits", "did you mean 'mnist'"),
        ("train --data missing.npz", "missing.npz: No such file"),
        ("train --data missing.csv", "missing.csv: No such file"),
        ("train --data empty.npz", "empty.npz"),
        ("train --data text.npz", "text.npz"),
        ("train --data empty.csv", "empty.csv"),
        ("train --data text.txt", r"\.npz or \.csv"),
        ("train --data .", "train-images-idx3-ubyte"),
        ("train --data regression.csv", "mse"),
        ("train --layers 784", "784,128,10"),
        ("train --layers 784,x,10", "'x'"),
        ("train --layers 100,10", "784,128,10"),
        ("train --layers 784,11", "784,128,10"),
        ("train --epochs 0", "'0'"),
        ("train --batch-size 1.5", "'1.5'"),
        ("train --lr -1", "'-1'"),
        ("train --lr nan", "'nan'"),
        ("train --threads 0", "'0'"),
        ("train --seed -1", "'-1'"),
        ("train --quiet --json", "not allowed"),
        ("train --out missing/net.safetensors", "no folder missing"),
        ("train --out .", "folder"),
        ("train --resume", "--checkpoint DIR --resume"),
        ("textbook --lr 0", "'0'"),
        ("check missing.safetensors", "missing.safetensors: No such file"),
        ("check half.safetensors", "half.safetensors"),
        ("check text.safetensors", "text.safetensors"),
        ("check --data mnist-small", "--data needs a MODEL"),
        ("check --plot check.png", "--plot needs a MODEL"),
        ("check --rows 4", "--rows needs a MODEL"),
        ("check --method directional", "--method needs a MODEL"),
        ("check --max-per-tensor 0", "--max-per-tensor needs a MODEL"),
        ("check net.safetensors --data digits", "64 inputs and 10 outputs, .* 784 and 10"),
        ("check net.safetensors --data mnits", "did you mean 'mnist'"),
        ("check net.safetensors --plot check.txt", "must end in .png, .svg or .pdf"),
        ("check net.safetensors --plot missing/check.png", "no folder missing"),
        ("check net.safetensors --method forward", "central.*richardson.*directional"),
        ("check net.safetensors --rows 0", "'0'"),
        ("check net.safetensors --max-per-tensor -1", "'-1'"),
        ("predict net.safetensors", "FILE"),
        ("predict missing.safetensors 9.png", "missing.safetensors.*fastbackprop train"),
        ("predict empty.safetensors 9.png", "empty.safetensors"),
        ("predict text.safetensors 9.png", "text.safetensors"),
        ("predict half.safetensors 9.png", "half.safetensors"),
        ("predict small.safetensors 9.png", "64 inputs.*784"),
        ("predict . 9.png", "irectory|denied"),
        ("predict net.safetensors missing.png", "missing.png: No such file"),
        ("predict net.safetensors empty.png", "empty.png"),
        ("predict net.safetensors text.png", "text.png"),
        ("predict net.safetensors half.png", "half.png"),
        ("predict net.safetensors .", "folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, expected):
    before = set(Path().iterdir())
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(f"fastbackprop: error: .*(?:{expected}).*\n", err), err
    assert out == ""
    assert set(Path().iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such permissions there")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_found_out_before_training(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["train", "--out", str(tmp_path / "net.safetensors")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "train", "predict", "check", "textbook"])
def test_help_is_complete(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  fastbackprop " in text
    assert max(map(len, text.splitlines())) <= 80
    for option in re.split(r"\n  (?=--)", text.split("\noutput:")[0])[1:]:
        assert "(default:" in option or option.startswith(("--version", "--json")), option


def test_version_of_the_module_and_the_command(tmp_path):
    process = run("--version", cwd=tmp_path)
    assert process.stdout == f"fastbackprop {fb.__version__}\n"


class TestData:
    def test_bytes_are_scaled(self, tmp_path):
        X = np.arange(256, dtype=np.uint8).reshape(16, 16)
        y = np.arange(16) % 2
        np.savez(tmp_path / "images.npz", X=X, y=y)
        rows = np.column_stack([X, y])
        np.savetxt(tmp_path / "images.csv", rows, fmt="%d", delimiter=",")
        for name in ("images.npz", "images.csv"):
            task = load_task(str(tmp_path / name))
            assert (task.n_in, task.n_out, task.rows) == (16, 2, "images")
            assert task.scale == pytest.approx(1 / 255)

    @pytest.mark.parametrize(
        "X", [np.ones((10, 3)), np.eye(10, dtype=np.uint8), np.linspace(0, 255, 20).reshape(10, 2)]
    )
    def test_other_numbers_are_not(self, X, tmp_path):
        np.savez(tmp_path / "table.npz", X=X, y=np.arange(10) % 2)
        assert load_task(str(tmp_path / "table.npz")).scale is None

    def test_regression(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        x = np.linspace(-1, 1, 100)
        np.savetxt("line.csv", np.column_stack([x, 3 * x + 0.5]), delimiter=",")
        arguments = "train --data line.csv --loss mse --lr 0.03 --batch-size 8 --epochs 60"
        assert main(arguments.split()) == 0
        assert fb.load("digits.safetensors").classes is None
        out = capsys.readouterr().out
        assert "Network   1-128-1" in out
        assert "80 training and 20 test rows" in out
        final = re.search(r"^Test loss: (.*)$", out, re.MULTILINE)
        assert float(final[1]) < 0.1

    def test_labels_of_a_table_are_kept(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        rows = [f"{i / 20},{'yes' if i >= 20 else 'no'}" for i in range(40)]
        Path("answers.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8")
        assert main(["train", "--data", "answers.csv", "--epochs", "1", "--quiet"]) == 0
        assert fb.load("digits.safetensors").classes == ("no", "yes")

    def test_digits(self, tmp_path):
        pytest.importorskip("sklearn")
        task = load_task("digits")
        assert (task.n_in, task.n_out) == (64, 10)
        assert task.train[0].max() * task.scale == 1.0


class TestWaitForTheCompiler:
    def test_a_long_one_is_announced_beside_the_output(self, monkeypatch, capsys):
        announced = threading.Event()

        class Watched(Output):
            def notice(self, text):
                super().notice(text)
                announced.set()

        def compile_kernels(dtype):
            assert announced.wait(60)

        monkeypatch.setattr(compilation, "_PATIENCE_SECONDS", 0.0)
        monkeypatch.setattr(compilation.job, "compile_kernels", compile_kernels)
        compilation.compile_kernels(np.dtype("float32"), Watched("json"))
        out, err = capsys.readouterr()
        assert (out, mistakes(err)) == ("", [])
        assert err.startswith("Compiling")

    def test_a_short_one_is_not(self, monkeypatch, capsys):
        monkeypatch.setattr(compilation, "_PATIENCE_SECONDS", 3600.0)
        monkeypatch.setattr(compilation.job, "compile_kernels", lambda dtype: None)
        compilation.compile_kernels(np.dtype("float32"), Output("text"))
        assert capsys.readouterr() == ("", "")


class TestLearningCurve:
    @pytest.fixture(autouse=True)
    def _needs_matplotlib(self):
        pytest.importorskip("matplotlib")

    @pytest.mark.parametrize("n_epochs", [1, 50])
    @pytest.mark.parametrize("accuracy", [True, False])
    def test_has_a_panel_for_each_measure(self, tmp_path, n_epochs, accuracy):
        history = fb.History()
        for epoch in range(n_epochs):
            logs = {"loss": 1.0 / (epoch + 1), "val_loss": 2.0 / (epoch + 1)}
            if accuracy:
                logs |= {"accuracy": 0.9, "val_accuracy": 0.8}
            history.append(epoch, logs)
        path = tmp_path / "curve.png"
        assert draw_learning_curve(path, history, fb.Loss("mse"), r"no $\mathtext$")
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        assert (width, height) == (1500 if accuracy else 750, 600)


class TestPictures:
    @pytest.fixture(autouse=True)
    def _needs_matplotlib(self):
        pytest.importorskip("matplotlib").use("agg")

    def test_those_that_fit_images(self, tmp_path, capsys):
        folder = tmp_path / "new" / "pictures"
        arguments = ["train", "--epochs", "1", "--layers", "784,8,10", "--json"]
        arguments += ["--out", str(tmp_path / "net"), "--plots", str(folder)]
        assert main(arguments) == 0
        (end,) = (event for event in objects(capsys.readouterr().out) if event["event"] == "end")
        assert sorted(end["plots"]) == sorted(str(path) for path in folder.iterdir())
        assert {path.stem for path in folder.iterdir()} == {
            *("accuracy", "activations", "confusion_matrix", "gradient_flow", "loss"),
            *("misclassified", "network", "weights"),
        }
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())

    @pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
    def test_those_that_fit_a_table_of_two_columns(self, tmp_path, capsys, loss):
        rng = np.random.default_rng(0)
        rows = [f"{a:.3f},{b:.3f},{int(a > b)}" for a, b in rng.normal(size=(60, 2))]
        table = tmp_path / "table.csv"
        table.write_text("\n".join(["first,second,label", *rows]))
        arguments = ["train", "--data", str(table), "--epochs", "1", "--loss", loss]
        arguments += ["--out", str(tmp_path / "net"), "--plots", str(tmp_path)]
        assert main(arguments) == 0
        assert "pictures to" in capsys.readouterr().out
        expected = {"activations", "decision_boundary", "gradient_flow", "loss", "network"}
        if loss == "cross_entropy":
            expected |= {"accuracy", "confusion_matrix"}
        assert {path.stem for path in tmp_path.glob("*.png")} == expected | {"learning_curve"}

    def test_refused_before_the_training(self, tmp_path):
        (tmp_path / "file").write_text("")
        process = run("train", "--plots", "file", cwd=tmp_path)
        assert (process.returncode, process.stdout) == (2, "")
        assert mistakes(process.stderr) == ["fastbackprop: error: file: File exists"]
        process = run("train", "--plots", "new", cwd=tmp_path, program=without("matplotlib"))
        assert (process.returncode, process.stdout) == (2, "")
        assert 'pip install "fastbackprop[plots]"' in process.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"file"}
