"""Put the classifier into a scikit-learn pipeline, and let a grid search tune it.

Only the import of MLPClassifier differs from a script for scikit-learn's own.
"""

import argparse

from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbackprop.sklearn import MLPClassifier


def main(max_iter: int = 300) -> float:
    """Tell three wines by 13 measurements; return the fraction of the test wines told rightly."""
    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

    pipeline = make_pipeline(
        StandardScaler(),
        MLPClassifier(learning_rate_init=0.01, max_iter=max_iter, random_state=0),
    )
    grid = {
        "mlpclassifier__hidden_layer_sizes": [(16,), (64,), (32, 32)],
        "mlpclassifier__alpha": [1e-4, 1e-2, 1.0],
    }
    search = GridSearchCV(pipeline, grid, cv=5).fit(X_train, y_train)

    for name, value in search.best_params_.items():
        print(f"{name.removeprefix('mlpclassifier__')}: {value}")
    accuracy = float(search.score(X_test, y_test))
    print(f"Cross-validated {search.best_score_:.1%}; on {len(X_test)} other wines {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-iter", type=int, default=300)
    main(**vars(parser.parse_args()))
