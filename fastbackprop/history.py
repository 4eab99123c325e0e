"""What was measured in each epoch of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape


class History(Mapping[str, list[float]]):
    """What was measured in each epoch: a mapping from names to lists.

    The names are those of the ``logs`` of `Callback.on_epoch_end`.

    Attributes
    ----------
    epoch : list of int
        The number of each epoch, counted from 0 over all calls of ``fit``.

    Examples
    --------
    >>> history = History()
    >>> history.append(0, {"loss": 0.5})
    >>> history["loss"], history.epoch, len(history.epoch)
    ([0.5], [0], 1)
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self._columns: dict[str, list[float]] = {}

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add an epoch; a name that it or earlier ones lack is NaN there.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        logs : mapping from str to float
            What was measured.
        """
        self.append_several([epoch], {name: [value] for name, value in logs.items()})

    def extend(self, other: History) -> None:
        """Add all epochs of another.

        Parameters
        ----------
        other : History
            It stays as it is.
        """
        self.append_several(other.epoch, other)

    def append_several(self, epochs: Sequence[int], logs: Mapping[str, Sequence[float]]) -> None:
        """Add some epochs; a name that they or earlier ones lack is NaN there.

        Parameters
        ----------
        epochs : sequence of int
            Their numbers, from 0.
        logs : mapping from str to sequence of float
            What was measured in each.

        Examples
        --------
        >>> history = History()
        >>> history.append_several(range(2), {"loss": [0.5, 0.25]})
        >>> history["loss"], history.epoch
        ([0.5, 0.25], [0, 1])
        """
        for name in logs:
            if name not in self._columns:
                self._columns[name] = [math.nan] * len(self.epoch)
        self.epoch.extend(epochs)
        for name, column in self._columns.items():
            column.extend(map(float, logs[name]) if name in logs else [math.nan] * len(epochs))

    @property
    def last(self) -> dict[str, float]:
        """What was measured in the last epoch; empty where there is none."""
        return {name: column[-1] for name, column in self._columns.items()}

    def __getitem__(self, name: str) -> list[float]:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns) or "none: no epoch was completed"
            raise KeyError(f"{name!r} was not measured; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        if not self.epoch:
            return "<History: no epochs>"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.last.items())
        return f"<History: {len(self.epoch)} epochs; the last: {last}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("epoch", *self._columns))
        body = "".join(
            "<tr>" + "".join(f"<td>{value:.5g}</td>" for value in row) + "</tr>"
            for row in zip(self.epoch, *self._columns.values(), strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
