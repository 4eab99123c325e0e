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
        place = len(self.epoch)
        try:
            self.append_several(other.epoch, other)
        except BaseException:  # Ctrl-C must not lose what was measured
            if len(self.epoch) == place:
                self.append_several(other.epoch, other)
            raise

    def append_several(self, epochs: Sequence[int], logs: Mapping[str, Sequence[float]]) -> None:
        """Add some epochs; a name that they or earlier ones lack is NaN there.

        Parameters
        ----------
        epochs : sequence of int
            Their numbers, from 0.
        logs : mapping from str to sequence of float
            What was measured in each.

        Raises
        ------
        ValueError
            If there are not as many values as epochs.

        Examples
        --------
        >>> history = History()
        >>> history.append_several(range(2), {"loss": [0.5, 0.25]})
        >>> history["loss"], history.epoch
        ([0.5, 0.25], [0, 1])
        """
        new = {name: list(map(float, column)) for name, column in logs.items()}
        for name, column in new.items():
            if len(column) != len(epochs):
                raise ValueError(f"{name!r} has {len(column)} values for {len(epochs)} epochs")
        place = len(self.epoch)

        def add() -> None:
            """What may be done again after an exception; the epochs come last."""
            for name in new:
                self._columns.setdefault(name, [math.nan] * place)
            for name, column in self._columns.items():
                column[place:] = new.get(name, [math.nan] * len(epochs))
            self.epoch[place:] = epochs

        try:
            add()
        except BaseException:  # Ctrl-C must not leave a half of it
            add()
            raise

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
        last = ", ".join(f"{name} {column[-1]:.4g}" for name, column in self._columns.items())
        return f"<History: {len(self.epoch)} epochs; the last: {last}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("epoch", *self._columns))
        body = "".join(
            "<tr>" + "".join(f"<td>{value:.5g}</td>" for value in row) + "</tr>"
            for row in zip(self.epoch, *self._columns.values(), strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
