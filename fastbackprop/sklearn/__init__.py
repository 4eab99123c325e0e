"""scikit-learn's multi-layer perceptrons on compiled kernels: change the import, keep the script.

`MLPClassifier` and `MLPRegressor` take the parameters of those in `sklearn.neural_network`, in the
same order and with the same defaults, and have the same fitted attributes. With the same
``random_state`` they draw the same initial weights and the same batches. What they add has neutral
defaults.

This module needs scikit-learn 1.7 or later: ``pip install "fastbackprop[sklearn]"``.
"""

try:
    import sklearn as _sklearn

    if tuple(map(int, _sklearn.__version__.split(".")[:2])) < (1, 7):
        raise ImportError(f"found {_sklearn.__version__}")
except ImportError as error:
    raise ImportError(
        "fastbackprop.sklearn needs scikit-learn 1.7 or later: "
        f'pip install "fastbackprop[sklearn]" ({error})'
    ) from error

from fastbackprop.sklearn.classifier import MLPClassifier
from fastbackprop.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
