"""Exceptions that a caller may want to tell apart from a plain ValueError."""

__all__ = ["FileFormatError"]


class FileFormatError(ValueError):
    """A file is not what it should be.

    The message is one line that names the file and the fault. A file that is missing or may not
    be read raises the usual `FileNotFoundError` or `PermissionError` instead.

    Examples
    --------
    >>> from fastbackprop.errors import FileFormatError
    >>> issubclass(FileFormatError, ValueError)
    True
    """
