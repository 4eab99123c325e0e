"""The command ``fastbackprop``: one place where every way to end becomes a line and a code."""

import argparse
import os
import sys
from collections.abc import Sequence

from fastbackprop._version import __version__
from fastbackprop.cli import bench, check, predict, textbook, train
from fastbackprop.cli.arguments import Parser
from fastbackprop.cli.termination import Terminated
from fastbackprop.stepping import DivergenceError

__all__ = ["main"]

_EXAMPLES = """\
examples:
  fastbackprop train
  fastbackprop predict digits.safetensors 9.png
  fastbackprop check digits.safetensors
  fastbackprop textbook --lr 3.0
  fastbackprop bench --quick

exit codes:
  0 done; 1 training diverged, or a check failed; 2 wrong arguments or files;
  130 interrupted; 143 terminated
"""

# What the shell reports for a program that a signal ended: 128 + the signal's number.
_INTERRUPTED = 128 + 2
_BROKEN_PIPE = 128 + 13
_TERMINATED = 128 + 15


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process unless given.

    Returns
    -------
    int
        0 when done, 1 when training diverged or a check failed, 2 for wrong arguments or files, 130
        after Ctrl-C, 141 when whoever read the output went away, 143 when ``train`` was sent
        SIGTERM. Divergence, 2, 130 and 143 print one line to stderr.

    Examples
    --------
    >>> from fastbackprop.cli import main
    >>> main(["--version"])
    fastbackprop ...
    0
    """
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Terminated as end:
        return _fail(_TERMINATED, str(end))
    except KeyboardInterrupt as interrupt:
        return _fail(_INTERRUPTED, str(interrupt) or "interrupted")
    except DivergenceError as error:
        return _fail(1, f"error: {error}")
    except MemoryError as error:
        return _fail(2, f"error: not enough memory: {error}")
    except OSError as error:
        return _fail(2, f"error: {_describe(error)}")
    except (ValueError, ImportError) as error:
        return _fail(2, f"error: {error}")


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # after --help and --version
        return int(stop.code or 0)
    return int(arguments.run(arguments))


def _parser() -> Parser:
    parser = Parser(
        prog="fastbackprop",
        description="Train dense neural networks on the CPU, and recognise digits with them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (train, predict, check, textbook, bench):
        command.add_parser(commands)
    return parser


def _describe(error: OSError) -> str:
    """Say what the system refused, without its number."""
    if error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _fail(code: int, message: str) -> int:
    print("fastbackprop:", " ".join(message.split()), file=sys.stderr, flush=True)
    return code
