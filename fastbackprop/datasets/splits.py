"""Which rows are held out as the test set."""

import numpy as np

__all__ = ["Dataset", "stratified_holdout"]

Dataset = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(X_train, y_train), (X_test, y_test)."""


def stratified_holdout(
    labels: np.ndarray, fraction: float = 0.2, random_state: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a fraction of each class at random as the test set.

    Parameters
    ----------
    labels : ndarray, shape (n,)
        The class of each row, of any sortable type.
    fraction : float, default 0.2
        The part of each class that is held out, rounded to whole rows. A class of two rows or
        more has at least one in each set; a class of one row is in the training set.
    random_state : int, default 0
        Seed of the draw. Equal arguments give the same split everywhere.

    Returns
    -------
    train, test : ndarray of int
        Row numbers, ascending: both sets keep the order of the data.

    Raises
    ------
    ValueError
        ``fraction`` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbackprop.datasets import stratified_holdout
    >>> labels = np.repeat(["cat", "dog"], [10, 5])
    >>> train, test = stratified_holdout(labels)
    >>> np.unique(labels[test], return_counts=True)[1]
    array([2, 1])
    >>> sorted([*train, *test]) == list(range(15))
    True
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be between 0 and 1, such as 0.2, got {fraction!r}")
    # RandomState's stream is frozen (NEP 19); a Generator's may change with a NumPy release.
    rng = np.random.RandomState(random_state)
    held_out = np.zeros(len(labels), bool)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    by_label = np.argsort(codes, kind="stable")
    for rows in np.split(by_label, np.cumsum(counts)[:-1]):
        rng.shuffle(rows)
        n_test = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        held_out[rows[:n_test]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
