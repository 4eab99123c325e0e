"""Exceptions that a caller may want to tell apart from a plain ValueError."""

__all__ = ["FileFormatError"]


_LONGEST = 1000  # characters of a message; a file may hold a name of any length


class FileFormatError(ValueError):
    """A file is not what it should be.

    The message is one line that names the file and the fault, of moderate length and without
    control characters, whatever the file holds. A file that is missing or may not be read raises
    the usual `FileNotFoundError` or `PermissionError` instead.

    Examples
    --------
    >>> from fastbackprop.errors import FileFormatError
    >>> issubclass(FileFormatError, ValueError)
    True
    >>> print(FileFormatError("data.csv, line 3: \\x1b[2J is not a number"))
    data.csv, line 3: \\x1b[2J is not a number
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        if not message.isprintable():
            message = "".join(
                " " if c == "\n" else c if c.isprintable() else c.encode("unicode_escape").decode()
                for c in message
            )
        super().__init__(message)
