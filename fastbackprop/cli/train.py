"""``fastbackprop train``: from a data set to a file with a trained network and its curve."""

import argparse
import dataclasses
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastbackprop import activations, checkpoints, losses, optimizers
from fastbackprop.callbacks import Callback, Checkpoint
from fastbackprop.cli import arguments, data
from fastbackprop.cli.compilation import compile_kernels
from fastbackprop.cli.learning_curve import draw_learning_curve
from fastbackprop.cli.output import Output
from fastbackprop.cli.pictures import draw_pictures, prepare_folder
from fastbackprop.cli.termination import sigterm_raises
from fastbackprop.layers import Dense, Layer, Rescaling
from fastbackprop.network import Network
from fastbackprop.optimizers import Optimizer
from fastbackprop.stepping import DivergenceError

_CURVE = "learning_curve.png"
_LEARNING_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}
_REGRESSION_LOSSES = ("mse", "mae", "huber", "poisson", "quantile")

_DESCRIPTION = """\
Train a classifier, by default on the 10,000 images of handwritten digits that
come with fastbackprop; print a line for each epoch; write the network, and
where matplotlib is installed a picture of the loss and the accuracy.
"""

_EPILOG = """\
data:
  mnist-small  10,000 training and 2,000 test images of MNIST, installed
  mnist        all 70,000: from the folder that FASTBACKPROP_DATA names, or the
               cache, or downloaded, with pip install "fastbackprop[data]"
  digits       1,797 digits of 8 x 8 pixels, with pip install scikit-learn
  FILE.npz     X_train, y_train, X_test, y_test; or X and y, a fifth held out
  FILE.csv     a row a line; the column label, target, class or y, or the last,
               is the label; a fifth is held out
  FOLDER       the four IDX files of MNIST, or of a data set in its form
Bytes are scaled to [0, 1]. Other numbers are used as they are: bring columns to
about the range -1 to 1. With the losses mse, mae, huber, poisson and quantile,
the labels of FILE are numbers to predict (regression).

Ctrl-C ends the training, and writes what has been trained; so does SIGTERM.
After a crash, the same command with --checkpoint DIR --resume goes on from the
last epoch, and gives the same network to the last bit.

examples:
  fastbackprop train --epochs 20 --layers 784,256,128,10
  fastbackprop train --data mnist --optimizer sgd --out mnist.safetensors
  fastbackprop train --data table.csv --loss mse --json
  fastbackprop train --plots pictures
  fastbackprop train --epochs 100 --checkpoint run --resume
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a digit classifier, or one for your own data",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)

    group = parser.add_argument_group("data and network")
    group.add_argument(
        "--data",
        default="mnist-small",
        metavar="DATA",
        help="%(metavar)s is one of those below (default: %(default)s)",
    )
    group.add_argument(
        "--layers",
        type=arguments.layer_sizes,
        metavar="N,N,...",
        help="units of each layer, inputs first (default: inputs,128,outputs as the data ask; "
        "784,128,10 for MNIST)",
    )
    group.add_argument(
        "--activation",
        type=arguments.named(activations.get),
        default="relu",
        metavar="NAME",
        help="of the hidden layers: "
        + ", ".join(name for name in activations.NAMES if name != "softmax")
        + " (default: %(default)s)",
    )
    group.add_argument(
        "--loss",
        type=arguments.named(losses.get),
        default="cross_entropy",
        metavar="NAME",
        help=f"{', '.join(losses.NAMES)} (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of parameters and arithmetic (default: %(default)s)",
    )

    group = parser.add_argument_group("training")
    group.add_argument(
        "--optimizer",
        type=arguments.named(optimizers.get),
        default="adam",
        metavar="NAME",
        help=f"{', '.join(_LEARNING_RATES)} (default: %(default)s)",
    )
    group.add_argument(
        "--lr",
        type=arguments.positive_number,
        metavar="RATE",
        help="learning rate (default: "
        + ", ".join(f"{rate:g} for {name}" for name, rate in _LEARNING_RATES.items())
        + ")",
    )
    group.add_argument(
        "--epochs",
        type=arguments.integer(1),
        default=10,
        metavar="N",
        help="passes over the training data (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=arguments.integer(1),
        default=64,
        metavar="N",
        help="rows a step (default: %(default)s)",
    )
    arguments.add_reproducibility(group)
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="a folder, made where there is none, for what training needs to go on: written after "
        "each epoch, the last three kept (default: none)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest file in the folder of --checkpoint, if there is one; the other "
        "arguments must be those that the training began with, but for --epochs, their total "
        "(default: begin)",
    )

    group = parser.add_argument_group("output")
    arguments.add_output_style(group, quiet="print only the accuracy on the test data")
    group.add_argument(
        "--out",
        type=Path,
        default=Path("digits.safetensors"),
        metavar="FILE",
        help="the network; an existing file is replaced, and so is learning_curve.png in the same "
        "folder (default: %(default)s)",
    )
    group.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="a folder, made where there is none, for pictures of the network, its training and "
        "its mistakes on the test data",
    )


def run(options: argparse.Namespace) -> int:
    """Train, save, report.

    Raises
    ------
    KeyboardInterrupt, DivergenceError
        Training ended early, by Ctrl-C, SIGTERM or itself; what the completed epochs gave has been
        written.
    """
    with sigterm_raises():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    output = Output(options.style)
    _check_writable(options.out)
    former = _former(options.checkpoint, options.resume)
    if options.plots is not None:
        prepare_folder(options.plots)
    task = data.load_task(options.data, regression=options.loss.name in _REGRESSION_LOSSES)
    net = _network(task, options)
    optimizer = _optimizer(options)
    _announce(output, task, net, optimizer, options)
    callbacks: list[Callback] = [_Progress(output, task, options.epochs)]
    if options.checkpoint is not None:
        callbacks.append(Checkpoint(options.checkpoint))
    if former is not None:
        output.progress(f"Resuming  from {former}")
    compile_kernels(net.dtype, output)

    stopped: KeyboardInterrupt | DivergenceError | None = None
    try:
        net.fit(
            *task.train,
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=optimizer,
            validation_data=task.test,
            callbacks=callbacks,
            resume_from=former,
            threads=options.threads,
            verbose=0,
        )
    except (KeyboardInterrupt, DivergenceError) as error:
        if not net.history.epoch:
            raise type(error)(f"{str(error) or 'interrupted.'} Nothing was saved.") from None
        stopped = error

    net.save(options.out)
    measured = net.evaluate(*task.test)
    curve = options.out.parent / _CURVE
    title = f"{task.name}: {_dashed(net)}, {net.loss_function.name}"
    drawn = draw_learning_curve(curve, net.history, net.loss_function, title)
    written = f"{options.out} and {curve}" if drawn else f"{options.out}"

    output.result(_final_line(measured, task))
    output.progress(f"Wrote {written}")
    if not drawn:
        output.progress('No learning curve without matplotlib: pip install "fastbackprop[cli]"')
    pictures = []
    if options.plots is not None:
        pictures = draw_pictures(options.plots, net, task, net.history)
        output.progress(f"Wrote {len(pictures)} pictures to {options.plots}")
    output.event(
        "end",
        epochs=len(net.history.epoch),
        **{f"test_{name}": value for name, value in measured.items()},
        out=str(options.out),
        learning_curve=str(curve) if drawn else None,
        plots=[str(picture) for picture in pictures],
    )
    if stopped is not None:
        raise type(stopped)(
            f"{str(stopped) or 'interrupted.'} {options.out} holds what was trained until then."
        )
    if net.sizes[0] == 784 and net.sizes[-1] == 10:
        output.progress(f"Now try: fastbackprop predict {options.out} 9.png")
    return 0


class _Progress(Callback):
    """Prints a line for each epoch."""

    def __init__(self, output: Output, task: data.Task, epochs: int) -> None:
        self._output, self._task, self._epochs = output, task, epochs

    def on_epoch_end(self, net: Network, epoch: int, logs: dict[str, float]) -> None:
        parts = [f"Epoch {epoch + 1:>{len(str(self._epochs))}}/{self._epochs}"]
        parts.append(f"loss {logs['loss']:<#8.4g}")
        if "val_accuracy" in logs:
            parts.append(f"test accuracy {100 * logs['val_accuracy']:5.2f} %")
        else:
            parts.append(f"test loss {logs['val_loss']:<#8.4g}")
        parts.append(f"{logs['seconds']:.2f} s")
        parts.append(f"{logs['rows_per_second']:,.0f} {self._task.rows}/s")
        self._output.progress("  ".join(parts))
        values = {name.replace("val_", "test_"): value for name, value in logs.items()}
        self._output.event("epoch", epoch=epoch + 1, **values)


def _former(folder: Path | None, resumes: bool) -> Path | None:
    """The checkpoint to go on from; None to begin."""
    if folder is None:
        if resumes:
            raise ValueError("--resume needs the folder to go on from: --checkpoint DIR --resume")
        return None
    former = checkpoints.newest(folder)
    if former is not None and not resumes:
        raise ValueError(
            f"--checkpoint {folder} holds checkpoints of another training: add --resume to go on "
            "from the newest, or name another folder"
        )
    return former


def _check_writable(out: Path) -> None:
    """Find out before the training whether its result can be written."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the name of a file")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ValueError(f"--out {out}: cannot write to its folder: {error.strerror}") from None


def _network(task: data.Task, options: argparse.Namespace) -> Network:
    sizes = options.layers or (task.n_in, 128, task.n_out)
    if (sizes[0], sizes[-1]) != (task.n_in, task.n_out):
        raise ValueError(
            f"--layers {','.join(map(str, sizes))} does not fit {task.name}, which needs "
            f"{task.n_in} inputs and {task.n_out} outputs: {task.n_in},128,{task.n_out}"
        )
    functions = [options.activation] * (len(sizes) - 2)
    functions.append(options.loss.default_output(options.activation))
    chain: list[Layer] = [] if task.scale is None else [Rescaling(task.scale)]
    for (n_in, n_out), function in zip(pairwise(sizes), functions, strict=True):
        chain.append(Dense(n_in, n_out, function))
    net = Network(chain, loss=options.loss, random_state=options.seed, dtype=options.dtype)
    net.classes = task.classes
    return net


def _optimizer(options: argparse.Namespace) -> Optimizer:
    chosen: Optimizer = options.optimizer
    rate = options.lr or _LEARNING_RATES[_name(chosen)]
    return dataclasses.replace(chosen, learning_rate=rate)


def _name(optimizer: Optimizer) -> str:
    return type(optimizer).__name__.lower()


def _dashed(net: Network) -> str:
    return "-".join(map(str, net.sizes))


def _announce(
    output: Output,
    task: data.Task,
    net: Network,
    optimizer: Optimizer,
    options: argparse.Namespace,
) -> None:
    """Say what is going to be trained, on what and how."""
    n_train, n_test = len(task.train[0]), len(task.test[0])
    activation, rate = options.activation.name, optimizer.learning_rate
    output.progress(f"Data      {task.name}: {n_train:,} training and {n_test:,} test {task.rows}")
    output.progress(
        f"Network   {_dashed(net)}, {activation}, {net.n_parameters:,} parameters, {net.dtype}"
    )
    output.progress(
        f"Training  {options.loss.name}, {_name(optimizer)} at {rate:g}, "
        f"batches of {options.batch_size}"
    )
    output.event(
        "start",
        data=task.name,
        n_train=n_train,
        n_test=n_test,
        layers=net.sizes,
        activation=activation,
        loss=options.loss.name,
        optimizer=_name(optimizer),
        learning_rate=rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        dtype=options.dtype,
        seed=options.seed,
        threads=options.threads,
        parameters=net.n_parameters,
    )


def _final_line(measured: dict[str, float], task: data.Task) -> str:
    if "accuracy" not in measured:
        return f"Test loss: {measured['loss']:#.6g}"
    n = len(task.test[0])
    right = round(measured["accuracy"] * n)
    return f"Test accuracy: {100 * measured['accuracy']:.2f} % ({right:,} of {n:,} {task.rows})"
