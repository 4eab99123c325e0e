"""What was measured in each epoch of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        for name in logs:
            if name not in self._columns:
                self._columns[name] = [float("nan")] * len(self.epoch)
        self.epoch.append(epoch)
        for name, column in self._columns.items():
            column.append(float(logs.get(name, float("nan"))))

    def extend(self, other: History) -> None:
        """Add all epochs of another.

        Parameters
        ----------
        other : History
            It stays as it is.
        """
        for row, epoch in enumerate(other.epoch):
            self.append(epoch, {name: column[row] for name, column in other.items()})

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
