"""The 8x8 digits that come with scikit-learn."""

import numpy as np

from fastbackprop.datasets.splits import Dataset, stratified_holdout

__all__ = ["load_digits"]


def load_digits() -> Dataset:
    """Load the 1,797 digits of 8x8 pixels that come with scikit-learn.

    A fifth of each class is the test set, the same rows every time.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        X : uint8, shape (1438, 64) and (359, 64), values 0 (paper) to 16 (ink).
        y : int64, shape (n,), the digits 0 to 9.

    Raises
    ------
    ImportError
        scikit-learn is not installed.

    References
    ----------
    E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49.

    Examples
    --------
    >>> from fastbackprop.datasets import load_digits
    >>> (X_train, y_train), (X_test, y_test) = load_digits()
    >>> X_train.shape, X_test.shape, X_train.dtype, int(X_train.max())
    ((1438, 64), (359, 64), dtype('uint8'), 16)
    """
    try:
        from sklearn.datasets import load_digits as sklearn_load_digits
    except ImportError as error:
        raise ImportError(
            "load_digits reads the images from scikit-learn, which is not installed: "
            "pip install scikit-learn (or use load_mnist_small, which needs nothing)"
        ) from error
    bunch = sklearn_load_digits()
    X, y = bunch.data.astype(np.uint8), bunch.target.astype(np.int64)
    train, test = stratified_holdout(y)
    return (X[train], y[train]), (X[test], y[test])
