"""How reports show what they found: rows as text, rows as HTML, and axes to draw on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

Row = tuple[str, ...]


def text_table(rows: Sequence[Row]) -> str:
    """Columns as wide as they need, the first one aligned to the left.

    Examples
    --------
    >>> print(text_table([("Layer", "Units"), ("layers.0", "7")]))
    Layer     Units
    layers.0      7
    """
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([f"{name:<{first}}", *map(str.rjust, cells, others)]) for name, *cells in rows
    )


def html_table(rows: Sequence[Row]) -> str:
    """A table whose first row is the head.

    Examples
    --------
    >>> html_table([("Layer",), ("<0>",)])
    '<table><thead><tr><th>Layer</th></tr></thead><tbody><tr><td>&lt;0&gt;</td></tr></tbody></table>'
    """
    head, *body = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    )
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def new_axes(
    what: str = "plot", size: tuple[float, float] = (7.0, 4.5), dpi: int | None = None
) -> Any:
    """Axes of a new figure of pyplot, which ``plt.show()`` shows.

    Parameters
    ----------
    what : str
        What needs matplotlib, for the error.
    size : (float, float)
        Inches.
    dpi : int, optional
        Dots an inch; as matplotlib is set unless given.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f'{what} needs matplotlib, which is not installed: pip install "fastbackprop[plots]"'
        ) from error
    _, axes = pyplot.subplots(figsize=size, dpi=dpi, layout="constrained")
    return axes
