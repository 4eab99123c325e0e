"""How training shows its progress: a bar, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Silent:
    """The progress of training that nobody watches."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, logs: Mapping[str, float], epochs: int = 1) -> None:
        """Show that epochs were completed, and what was measured in the last of them."""


class _Bar(Silent):
    """A bar over epochs, in a terminal or a notebook."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, logs: Mapping[str, float], epochs: int = 1) -> None:
        text = {
            name: f"{value:.4f}"
            for name, value in logs.items()
            if name in ("loss", "accuracy") or name.startswith("val_")
        }
        self._bar.set_postfix(text, refresh=False)
        self._bar.update(epochs)


def progress(epochs: int, verbose: int, done: int = 0) -> Silent:
    """What shows the progress of so many epochs, some of which are done; a context manager."""
    if not verbose:
        return Silent()
    from tqdm import auto

    class Bar(auto.tqdm):
        monitor_interval = 0  # no thread of its own may outlive fit

    # A notebook's bar would take "disable unless a terminal" for "disable".
    in_notebook = auto.tqdm is not auto.asyncio_tqdm
    return _Bar(
        Bar(
            total=epochs,
            initial=done,
            desc="epochs",
            unit="epoch",
            disable=False if in_notebook else None,
            dynamic_ncols=True,
        )
    )
