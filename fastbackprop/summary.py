"""What a network looks like: a table of its layers, as text or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fastbackprop.layers import Dense, Layer
from fastbackprop.state import State

_HEAD = ("Layer", "Units", "Activation", "Parameters")


def _rows(layers: Sequence[Layer], state: State) -> list[tuple[str, str, str, str]]:
    """A row for each layer, as in the head."""
    stages = iter(state.plan.stages)
    rows = []
    for layer in layers:
        if isinstance(layer, Dense):
            stage = next(stages)
            count = stage.rows * layer.n_out
            rows.append(("Dense", str(layer.n_out), stage.activation.name, f"{count:,}"))
        else:
            rows.append((repr(layer), "", "", "0"))
    return rows


def _totals(state: State) -> str:
    plan = state.plan
    size = float(plan.n_parameters * plan.dtype.itemsize)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    number = f"{size:.0f}" if unit == "B" else f"{size:.1f}"
    text = (
        f"Inputs {plan.n_in}, loss {plan.loss.name}, {plan.dtype.name}, "
        f"{plan.n_parameters:,} parameters ({number} {unit})"
    )
    if state.frozen:
        frozen = sum(plan.stages[i].rows * plan.stages[i].dense.n_out for i in state.frozen)
        text += f", {frozen:,} of them frozen"
    return text


def as_text(layers: Sequence[Layer], state: State) -> str:
    """The table, and a line of totals."""
    rows = [_HEAD, *_rows(layers, state)]
    a, b, c, d = (max(len(row[i]) for row in rows) for i in range(4))
    lines = [
        f"{layer:<{a + 2}}{units:>{b + 2}}  {f:<{c}}  {count:>{d}}"
        for layer, units, f, count in rows
    ]
    return "\n".join([*lines, _totals(state)])


def as_html(layers: Sequence[Layer], state: State) -> str:
    """The same for a notebook."""
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(layers, state)
    )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{escape(_totals(state))}</p>"
    )
