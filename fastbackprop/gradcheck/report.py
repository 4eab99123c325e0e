"""What a gradient check found: a verdict, the worst entries, a table, a page and a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from fastbackprop.gradcheck.verdicts import (
    GradientEntry,
    GradientMismatch,
    Verdict,
    excess,
    significant_digits,
)
from fastbackprop.presentation import Row, html_table, new_axes, text_table
from fastbackprop.specs import checked_size

_WIDTH = 80
_SHOWN = 5  # failures that the text lists

# Worst first, however small the numbers.
_RANK = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2, Verdict.KINK: 2}

# Of Okabe and Ito, which colour-blind people can tell apart; the markers differ, too.
_STYLES: dict[Verdict, dict[str, Any]] = {
    Verdict.PASS: {"color": "#0072B2", "marker": "o", "s": 12, "alpha": 0.6},
    Verdict.KINK: {"color": "#E69F00", "marker": "^", "s": 16, "alpha": 0.8},
    Verdict.INCONCLUSIVE: {"color": "#999999", "marker": "s", "s": 16, "alpha": 0.8},
    Verdict.FAIL: {"color": "#D55E00", "marker": "X", "s": 40},
}
_MOST_LABELS = 16  # under the picture, side by side
_EXACT = 1e-17  # where the picture puts an error of 0, or one that is not known


class Comparison(NamedTuple):
    """A gradient that came another way, compared with the one that was checked.

    Attributes
    ----------
    what : str
        Which one.
    error : float
        The worst relative error; NaN if there was nothing to compare.
    tolerance : float
        What it may be.
    name : str or None
        The entry that has it; None if nothing differs.
    actual, expected : float
        The two values.
    """

    what: str
    error: float
    tolerance: float
    name: str | None
    actual: float
    expected: float

    @property
    def ok(self) -> bool:
        """Whether they agree, as far as they could be compared."""
        return not self.error > self.tolerance

    def __str__(self) -> str:
        if math.isnan(self.error):
            return f"{self.what}: not compared, rounding puts units of every row across a kink"
        return f"{self.what}: worst error {self.error:.1e} (allowed {self.tolerance:.0e})"

    def describe(self) -> str:
        """The worst error in one line."""
        digits = significant_digits(self.actual, self.expected)
        return (
            f"{self.what}: {self.name} is {self.actual:.{digits}g} instead of "
            f"{self.expected:.{digits}g} (relative error {excess(self.error, self.tolerance)})"
        )


class TensorSummary(NamedTuple):
    """What was found in one tensor.

    Attributes
    ----------
    name : str
        As in a saved network: ``layers.1.weight``.
    checked : int
        Entries, or directions, that were measured.
    total : int or None
        Entries that there are; None where directions were measured.
    counts : dict of Verdict to int
        How many of each verdict.
    error : float
        The worst relative error of those that are not inconclusive; NaN if there are none.
    """

    name: str
    checked: int
    total: int | None
    counts: dict[Verdict, int]
    error: float

    @property
    def undecided(self) -> bool:
        """Whether every entry is inconclusive."""
        return self.counts[Verdict.INCONCLUSIVE] == self.checked


class GradientCheckReport:
    """The result of `check_gradients` and of `gradcheck.check`.

    Attributes
    ----------
    entries : list of GradientEntry
        Every derivative that was measured, tensor by tensor.
    comparisons : list of Comparison
        Of a network: the steps of training, and the gradients in its own float type.
    different_bits : int
        Numbers that were not the same to the last bit in a second backward pass.
    method : str
        How derivatives were measured.
    rtol : float
        The relative error that passes.

    Examples
    --------
    >>> import fastbackprop as fb
    >>> net = fb.Network([2, 3, 1], "tanh", "mse", random_state=0)
    >>> report = fb.check_gradients(net, [[0.5, -1.0]], [[2.0]])
    >>> report.ok, len(report.entries)
    (True, 15)
    """

    def __init__(
        self,
        entries: Sequence[GradientEntry],
        comparisons: Sequence[Comparison],
        different_bits: int,
        *,
        totals: Mapping[str, int],
        method: str,
        rtol: float,
    ) -> None:
        self.entries = list(entries)
        self.comparisons = list(comparisons)
        self.different_bits = different_bits
        self.method, self.rtol = method, rtol
        self._totals = dict(totals)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something of every tensor is decided."""
        return (
            not _count(self.entries, Verdict.FAIL)
            and not self._undecided
            and all(comparison.ok for comparison in self.comparisons)
            and self.reproducible
        )

    @property
    def reproducible(self) -> bool:
        """Whether the same gradient, computed again, had the same bits."""
        return self.different_bits == 0

    @property
    def _undecided(self) -> list[str]:
        """The tensors of which nothing is known."""
        return [summary.name for summary in self.by_tensor() if summary.undecided]

    def worst(self, count: int = 10) -> list[GradientEntry]:
        """The entries of largest relative error: failures first, then inconclusive ones.

        Parameters
        ----------
        count : int, default 10
            How many at most.

        Returns
        -------
        list of GradientEntry

        Raises
        ------
        TypeError, ValueError
            If `count` is not a positive integer.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> report = fb.gradcheck.check(lambda x: x @ x, lambda x: x, [1.0, 2.0])
        >>> [entry.name for entry in report.worst(1)]
        ['theta[0]']
        """
        most = checked_size("count", count)

        def rank(entry: GradientEntry) -> tuple[int, float]:
            error = entry.relative_error
            return _RANK[entry.verdict], -error if error == error else math.inf

        return sorted(self.entries, key=rank)[:most]

    def by_tensor(self) -> list[TensorSummary]:
        """The number of entries of each verdict, and the worst error, for each tensor.

        Returns
        -------
        list of TensorSummary

        Examples
        --------
        >>> import fastbackprop as fb
        >>> report = fb.gradcheck.check(lambda x: x @ x, lambda x: 2 * x, [1.0, 2.0])
        >>> [(summary.name, summary.checked) for summary in report.by_tensor()]
        [('theta', 2)]
        """
        return [
            TensorSummary(
                name,
                len(group),
                None if group[0].directional else self._totals[name],
                {verdict: _count(group, verdict) for verdict in Verdict},
                max((e.relative_error for e in group if _is_decided(e)), default=math.nan),
            )
            for name, group in self._groups().items()
        ]

    def summary(self) -> str:
        """A table with a line for each tensor, as text of at most 80 columns.

        Returns
        -------
        str

        Examples
        --------
        >>> import fastbackprop as fb
        >>> report = fb.gradcheck.check(lambda x: x @ x, lambda x: x, [1.0, 2.0])
        >>> print(report.summary())
        Tensor  Checked  Pass  Kink  Unclear  Fail  Worst error
        theta         2     0     0        0     2      5.0e-01
        """
        return text_table(self._rows())

    def raise_for_failure(self) -> None:
        """Raise unless `ok`.

        Raises
        ------
        GradientMismatch
            Naming the worst entry.

        Examples
        --------
        >>> import fastbackprop as fb
        >>> fb.gradcheck.check(lambda x: x @ x, lambda x: 2 * x, [1.0, 2.0]).raise_for_failure()
        """
        if not self.ok:
            raise GradientMismatch(self._problems(1)[0])

    def __str__(self) -> str:
        lines = [self._verdict(), "", self.summary(), ""]
        lines += map(str, self.comparisons)
        lines.append(self._repeatability())
        if not self.ok:
            lines += ["", *(piece for line in self._problems(_SHOWN) for piece in _wrapped(line))]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<GradientCheckReport: {self._verdict().removeprefix('Gradients ')}>"

    def _repr_html_(self) -> str:
        after = [str(comparison) for comparison in self.comparisons]
        after += [self._repeatability(), *([] if self.ok else self._problems(_SHOWN))]
        items = "".join(f"<li>{escape(line)}</li>" for line in after)
        return f"<p><b>{escape(self._verdict())}</b></p>{html_table(self._rows())}<ul>{items}</ul>"

    def plot(self, ax: Any = None) -> Any:
        """Draw the relative error of every entry, tensor by tensor, on a logarithmic axis.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure unless given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        axes = new_axes(dpi=150) if ax is None else ax
        groups = self._groups()
        points: dict[Verdict, list[tuple[float, float]]] = {verdict: [] for verdict in Verdict}
        for column, group in enumerate(groups.values()):
            for i, entry in enumerate(group):
                place = column + 0.7 * ((i + 0.5) / len(group) - 0.5)
                points[entry.verdict].append((place, _drawable(entry.relative_error)))
        for verdict, style in _STYLES.items():
            if points[verdict]:
                label = f"{verdict} ({len(points[verdict]):,})"
                places, errors = zip(*points[verdict], strict=True)
                axes.scatter(places, errors, linewidths=0, label=label, **style)
        axes.axhline(self.rtol, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"rtol {self.rtol:g}",
            (1.0, self.rtol),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            horizontalalignment="right",
        )
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, _EXACT / 3), max(high, 10 * self.rtol))
        axes.set_xlim(-0.5, len(groups) - 0.5)
        every = math.ceil(len(groups) / _MOST_LABELS)
        labels = [_short_name(group[0]) for group in groups.values()]
        axes.set_xticks(range(0, len(groups), every), labels[::every])
        axes.set_xlabel("tensor")
        axes.set_ylabel(f"relative error (0 is drawn at {_EXACT:g})")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
        return axes

    def _groups(self) -> dict[str, list[GradientEntry]]:
        groups: dict[str, list[GradientEntry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.tensor_name, []).append(entry)
        return groups

    def _rows(self) -> list[Row]:
        """The summary; the first row is the head."""
        rows: list[Row] = [("Tensor", "Checked", "Pass", "Kink", "Unclear", "Fail", "Worst error")]
        for name, checked, total, counts, error in self.by_tensor():
            measured = f"{checked:,}" if total in (checked, None) else f"{checked:,}/{total:,}"
            numbers = [
                f"{counts[verdict]:,}"
                for verdict in (Verdict.PASS, Verdict.KINK, Verdict.INCONCLUSIVE, Verdict.FAIL)
            ]
            rows.append((name, measured, *numbers, "-" if math.isnan(error) else f"{error:.1e}"))
        return rows

    def _verdict(self) -> str:
        unit = "directions" if self.method == "directional" else "entries"
        how = f"{len(self.entries):,} {unit}, {self.method}, rtol {self.rtol:g}"
        unclear = _count(self.entries, Verdict.INCONCLUSIVE)
        if unclear:
            how += f"; {unclear:,} inconclusive"
        failed = _count(self.entries, Verdict.FAIL)
        if self.ok:
            return f"Gradients passed: {how}"
        if failed or not self._undecided:
            return f"Gradients FAILED: {failed:,} of {how}"
        return f"Gradients UNDECIDED: {how}"

    def _repeatability(self) -> str:
        if self.reproducible:
            return "A second backward pass gave the same bits."
        return f"A second backward pass gave {self.different_bits:,} other numbers."

    def _problems(self, most: int) -> list[str]:
        """What is wrong, worst first, with at most ``most`` entries."""
        failures = [entry for entry in self.worst(most) if entry.verdict is Verdict.FAIL]
        source = "the gradient is" if self._is_function else "backward gives"
        problems = [entry.describe(self.rtol, source) for entry in failures]
        more = _count(self.entries, Verdict.FAIL) - len(failures)
        if more:
            problems.append(f"{more:,} more {'entries fail' if more > 1 else 'entry fails'}")
        problems += [
            f"{name}: nothing is decided, every derivative is inconclusive: finite differences are "
            "not precise enough here; scale the inputs to about 1, or leave out step"
            for name in self._undecided
        ]
        problems += [comparison.describe() for comparison in self.comparisons if not comparison.ok]
        return problems if self.reproducible else [*problems, self._repeatability()]

    @property
    def _is_function(self) -> bool:
        return "theta" in self._totals


def _count(entries: Iterable[GradientEntry], verdict: Verdict) -> int:
    return sum(entry.verdict is verdict for entry in entries)


def _is_decided(entry: GradientEntry) -> bool:
    return entry.verdict is not Verdict.INCONCLUSIVE


def _short_name(entry: GradientEntry) -> str:
    """What is written under the picture: w0, b0, w1, ... and X."""
    return entry.tensor if entry.layer is None else f"{entry.tensor[0]}{entry.layer}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")


def _drawable(error: float) -> float:
    """A place on a logarithmic axis for any error."""
    if error != error:
        return _EXACT
    return min(max(error, _EXACT), 1e3)
