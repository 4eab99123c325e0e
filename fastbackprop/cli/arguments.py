"""What the commands take: the parser, and the arguments that several of them share."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from fastbackprop.specs import POSITIVE, Spec, checked_number

_Spec = TypeVar("_Spec", bound=Spec)


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors, so that all errors are printed in one place."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with three lines of usage."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def integer(minimum: int) -> Callable[[str], int]:
    """Return a reader of integers of at least ``minimum``, for argparse."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"expected an integer >= {minimum}, got {text!r}")
        return value

    return read


def positive_number(text: str) -> float:
    """Read a positive number, for argparse."""
    try:
        return checked_number("it", float(text), POSITIVE)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}") from None


def layer_sizes(text: str) -> tuple[int, ...]:
    """Read sizes such as 784,128,10, for argparse."""
    read = integer(1)
    sizes = tuple(read(size) for size in text.split(","))
    if len(sizes) < 2:
        raise argparse.ArgumentTypeError(
            f"expected two sizes or more, such as 784,128,10, got {text!r}"
        )
    return sizes


def named(get: Callable[[str], _Spec]) -> Callable[[str], _Spec]:
    """Return a reader of the names of a registry, for argparse, which drops other messages."""

    def read(name: str) -> _Spec:
        try:
            return get(name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def add_reproducibility(group: argparse._ArgumentGroup) -> None:
    """Add --seed and --threads."""
    group.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="of the first weights and the order of the data (default: %(default)s); one seed "
        "gives the same bits on one machine at any number of threads",
    )
    group.add_argument(
        "--threads",
        type=integer(1),
        metavar="N",
        help="threads to compute with (default: as many cores as the network can keep busy)",
    )


def add_output_style(group: argparse._ArgumentGroup, quiet: str) -> None:
    """Add --json and --quiet, which prints what ``quiet`` says."""
    styles = group.add_mutually_exclusive_group()
    add_json(styles)
    styles.add_argument("--quiet", dest="style", action="store_const", const="quiet", help=quiet)


def add_json(group: argparse._ActionsContainer) -> None:
    """Add --json."""
    group.add_argument(
        "--json",
        dest="style",
        action="store_const",
        const="json",
        default="text",
        help="print one JSON object a line, for programs",
    )
