"""Trains four classifiers on three small data sets of scikit-learn and writes classifiers.csv.

    python examples/results/classifiers.py

Every run draws its training rows by its seed. The test items of a data set are the same for all.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

DATA = {"cancer": load_breast_cancer, "digits": load_digits, "wine": load_wine}
SIZES = (20, 40, 80)
SEEDS = range(5)
CLASSIFIERS = {
    "logistic C=0.01": lambda seed: LogisticRegression(C=0.01, max_iter=2000),
    "logistic C=1": lambda seed: LogisticRegression(C=1.0, max_iter=2000),
    "svm": lambda seed: SVC(),
    "forest": lambda seed: RandomForestClassifier(100, random_state=seed),
}


def runs() -> Iterator[dict[str, object]]:
    """One row a run."""
    for dataset, load in DATA.items():
        x, y = load(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(y))
        train, test = order[: len(y) // 2], order[len(y) // 2 :]
        for size in SIZES:
            for seed in SEEDS:
                rows = np.random.default_rng(seed).choice(train, size, replace=False)
                for name, make in CLASSIFIERS.items():
                    model = make_pipeline(StandardScaler(), make(seed)).fit(x[rows], y[rows])
                    yield {
                        "dataset": dataset,
                        "n_train": size,
                        "classifier": name,
                        "seed": seed,
                        "accuracy": round(float(model.score(x[test], y[test])), 4),
                        "n_test": len(test),
                    }


def main() -> None:
    """Write the table beside this file."""
    rows = list(runs())
    with Path(__file__).with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
