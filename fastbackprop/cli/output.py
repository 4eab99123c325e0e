"""What the commands print: lines for people or JSON for programs, to any terminal or pipe."""

import json
import math
import sys
from typing import Literal

_BAR_WIDTH = 40


class Output:
    """Lines on stdout, each flushed, so that a program that reads them sees them at once.

    Parameters
    ----------
    style : {"text", "quiet", "json"}
        For people, only the results, or for programs.
    """

    def __init__(self, style: Literal["text", "quiet", "json"]) -> None:
        self.style = style

    def progress(self, text: str) -> None:
        """Print what a person wants to see while waiting."""
        if self.style == "text":
            self._write(text)

    def result(self, text: str) -> None:
        """Print what a person has waited for."""
        if self.style != "json":
            self._write(text)

    def notice(self, text: str) -> None:
        """Tell a person about the circumstances, on stderr: stdout is for what was asked for."""
        if self.style != "quiet":
            print(text, file=sys.stderr, flush=True)

    def event(self, name: str, **values: object) -> None:
        """Print an object for a program; a number that JSON does not know becomes null."""
        if self.style == "json":
            known = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in values.items()
            }
            self._write(json.dumps({"event": name, **known}))

    def _write(self, text: str) -> None:
        # A file's name may hold what the terminal's encoding does not.
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def bar(fraction: float) -> str:
    """Return a bar of up to 40 characters for a fraction of 0 to 1."""
    block = "█"
    try:
        block.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        block = "#"
    return block * round(_BAR_WIDTH * fraction)
