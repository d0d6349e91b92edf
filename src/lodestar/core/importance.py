"""How much each feature matters to a fitted model."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.metrics import find_metric
from lodestar.core.results import Importance, Task, Truth

__all__ = ["PRIMARY_METRIC", "permutation_importance", "shap_importance"]

# What a task is judged by where the recipe names no metric.
PRIMARY_METRIC: dict[Task, str] = {
    "classification": "roc_auc",
    "regression": "rmse",
    "causal": "qini",
}
REPEATS = 5
# Predicting is the cost: rows are chosen so that all shuffles together predict about this many.
PREDICTED_ROWS = 60_000
MOST_ROWS = 2_000
SHAP_ROWS = 200


def permutation_importance(
    model: FittedModel, rows: pa.Table, truth: Truth, *, task: Task, metric: str, seed: int
) -> tuple[Importance, ...]:
    """Drop of the metric on held-out rows when one column is shuffled (Breiman 2001).

    The largest first; positive means that the model is worse without the column's information.
    """
    judge = find_metric(metric, task)
    if judge is None or rows.num_rows == 0:
        return ()
    generator = np.random.default_rng(seed)
    sample = _sample(rows.num_rows, len(rows.column_names), generator)
    rows, truth = rows.take(sample), truth.at(sample)
    if task == "classification" and len(np.unique(truth.target)) < len(truth.classes):
        return ()
    sign = 1.0 if judge.direction == "maximize" else -1.0
    whole = judge.compute(truth, model.score(rows).predictions, None)
    found = []
    for position, name in enumerate(rows.column_names):
        drops = []
        for _ in range(REPEATS):
            order = generator.permutation(rows.num_rows)
            shuffled = rows.set_column(position, name, rows.column(position).take(order))
            drops.append(
                sign * (whole - judge.compute(truth, model.score(shuffled).predictions, None))
            )
        found.append(
            Importance(name, float(np.mean(drops)), float(np.std(drops)), "permutation", metric)
        )
    return tuple(sorted(found, key=lambda item: -item.mean))


def shap_importance(model: FittedModel, rows: pa.Table, *, seed: int) -> tuple[Importance, ...]:
    """Mean absolute TreeSHAP contribution per preprocessed column, where the library computes it."""
    generator = np.random.default_rng(seed)
    count = min(SHAP_ROWS, rows.num_rows)
    sample = np.sort(generator.choice(rows.num_rows, count, replace=False))
    features = model.preprocessor.transform(rows.take(sample), dtype=model.family.dtype)
    values = model.family.contributions(model.estimator, features)
    if values is None:
        return ()
    means = np.abs(values).mean(axis=0)
    found = [
        Importance(name, float(mean), 0.0, "shap")
        for name, mean in zip(features.names, means, strict=True)
    ]
    return tuple(sorted(found, key=lambda item: -item.mean))


def _sample(rows: int, columns: int, generator: np.random.Generator) -> NDArray[np.int64]:
    count = min(rows, MOST_ROWS, max(200, PREDICTED_ROWS // (REPEATS * max(columns, 1))))
    return np.sort(generator.choice(rows, count, replace=False))
