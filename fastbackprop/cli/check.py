"""``fastbackprop check``: whether the gradients of a network are those of its loss."""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from fastbackprop import losses
from fastbackprop.cli import arguments, data
from fastbackprop.cli.compilation import compile_kernels
from fastbackprop.cli.output import Output
from fastbackprop.gradcheck import METHODS, GradientCheckReport, check_gradients, worst_errors
from fastbackprop.gradcheck.table import random_data
from fastbackprop.network import Network, load
from fastbackprop.plan import Array

_HEADS = {"cross_entropy": "cross-ent.", "binary_cross_entropy": "bin. c.-e."}

# What is checked of a MODEL, unless options say otherwise; without one, they have no meaning.
_ROWS, _METHOD, _MAX_PER_TENSOR = 32, "central", 1000

_DESCRIPTION = """\
Compare the gradients that the compiled kernels compute with finite differences
of the loss, in float64. With a network: one that train or Network.save wrote,
at its parameters. Without one: small networks of every activation and loss,
on this machine, and the worst relative error of each.
"""

_EPILOG = """\
Without --data the inputs are random numbers, and the targets, too. DATA is what
fastbackprop train takes; its test rows are used, as the network takes them.

exit codes:
  0 all gradients are right; 1 some are not, or of some tensor nothing can be
  decided; 2 wrong arguments or files

examples:
  fastbackprop check
  fastbackprop check digits.safetensors --data mnist-small
  fastbackprop check digits.safetensors --method directional --plot check.png
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="check the gradients of a network by finite differences",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "model", type=Path, nargs="?", metavar="MODEL", help="what train or Network.save wrote"
    )
    group = parser.add_argument_group("check")
    group.add_argument(
        "--data", metavar="DATA", help="rows to check at (default: random inputs and targets)"
    )
    group.add_argument(
        "--rows",
        type=arguments.integer(1),
        metavar="N",
        help=f"how many rows (default: {_ROWS})",
    )
    group.add_argument(
        "--method",
        choices=METHODS,
        help=f"how derivatives are measured (default: {_METHOD})",
    )
    group.add_argument(
        "--max-per-tensor",
        type=arguments.integer(0),
        metavar="N",
        help="entries of each tensor to check, chosen at random; 0 checks all "
        f"(default: {_MAX_PER_TENSOR})",
    )
    group.add_argument(
        "--seed",
        type=arguments.integer(0),
        default=0,
        metavar="N",
        help="of all that is random (default: %(default)s)",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the error of every entry; PNG, SVG or PDF by the ending of FILE",
    )
    arguments.add_json(group)


def run(options: argparse.Namespace) -> int:
    """Check, print, and tell by the exit code."""
    output = Output(options.style)
    if options.model is None:
        for option in ("--data", "--rows", "--method", "--max-per-tensor", "--plot"):
            if getattr(options, option[2:].replace("-", "_")) is not None:
                raise ValueError(f"{option} needs a MODEL: fastbackprop check MODEL {option} ...")
        return _print_table(output, options.seed)
    net = load(options.model)
    X, y = _rows(net, options)
    if options.plot is not None:
        _check_plot(options.plot)
    compile_kernels(np.dtype(np.float64), output)
    most = options.max_per_tensor
    report = check_gradients(
        net,
        X,
        y,
        method=options.method or _METHOD,
        max_per_tensor=(_MAX_PER_TENSOR if most is None else most) or None,
        seed=options.seed,
    )
    output.result(str(report))
    _send(output, report)
    if options.plot is not None:
        report.plot().figure.savefig(options.plot)
        output.progress(f"Wrote {options.plot}")
    return 0 if report.ok else 1


def _rows(net: Network, options: argparse.Namespace) -> tuple[Array, Array]:
    rows = options.rows or _ROWS
    if options.data is None:
        return random_data(net, rows, options.seed)
    task = data.load_task(options.data, regression=not net.loss_function.is_classification)
    if (task.n_in, task.n_out) != (net.sizes[0], net.sizes[-1]):
        raise ValueError(
            f"--data {options.data} has {task.n_in} inputs and {task.n_out} outputs, but "
            f"{options.model} {net.sizes[0]} and {net.sizes[-1]}"
        )
    X, y = task.test
    return X[:rows], y[:rows]


def _check_plot(path: Path) -> None:
    """Find out before the work whether the picture can be drawn where it should go."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot {path}: the name must end in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError('--plot needs matplotlib: pip install "fastbackprop[cli]"') from None


def _send(output: Output, report: GradientCheckReport) -> None:
    """The report, for programs."""
    for tensor in report.by_tensor():
        output.event(
            "tensor",
            tensor=tensor.name,
            checked=tensor.checked,
            total=tensor.total,
            worst_error=_finite(tensor.error),
            **{str(verdict): count for verdict, count in tensor.counts.items()},
        )
    for comparison in report.comparisons:
        output.event(
            "comparison",
            what=comparison.what,
            worst_error=_finite(comparison.error),
            tolerance=comparison.tolerance,
            ok=comparison.ok,
        )
    worst = report.worst(1)[0]
    output.event(
        "end",
        ok=report.ok,
        reproducible=report.reproducible,
        worst=worst.name,
        verdict=str(worst.verdict),
        worst_error=_finite(worst.relative_error),
    )


def _finite(error: float) -> float | None:
    """An error for JSON, which knows no NaN: null if there is none."""
    return error if math.isfinite(error) else None


def _print_table(output: Output, seed: int) -> int:
    """Print the worst error of each activation (rows) and loss (columns)."""
    compile_kernels(np.dtype(np.float64), output)
    heads = [_HEADS.get(name, name) for name in losses.NAMES]
    output.result("Worst relative error of the gradients, float64, against central differences")
    output.result("")
    output.result(f"{'':<10}" + "".join(f" {head:>{_column(head)}}" for head in heads))
    ok, cells = True, [""]
    for activation, loss, report in worst_errors(seed):
        error = max(tensor.error for tensor in report.by_tensor())
        ok = ok and report.ok
        output.event("network", activation=activation, loss=loss, worst_error=error, ok=report.ok)
        text = f"{error:.0e}" if report.ok else "FAILED"
        cells.append(f" {text:>{_column(heads[len(cells) - 1])}}")
        if len(cells) > len(heads):
            output.result(f"{activation:<10}" + "".join(cells))
            cells = [""]
    return 0 if ok else 1


def _column(head: str) -> int:
    return max(len(head), len("FAILED"))
