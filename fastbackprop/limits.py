"""How much a file may grow in memory, so that a small one from a stranger cannot fill it."""

_ALWAYS = 64 * 2**20  # bytes
_TIMES = 100  # what is measured compresses less; a blank image or a sparse table may do so more


def allowance(file_size: int) -> int:
    """Bytes that the contents of a file of ``file_size`` bytes may take: 64 MiB, or 100 times it.

    Examples
    --------
    >>> allowance(10), allowance(10**6)
    (67108864, 100000000)
    """
    return max(_ALWAYS, _TIMES * file_size)
