"""Predictions as columns, the way they are written, served and compared."""

from typing import Any

import numpy as np
import pyarrow as pa

from lodestar.core.results import Predictions

__all__ = ["prediction_columns"]


def prediction_columns(predictions: Predictions) -> dict[str, pa.Array]:
    """`prediction` (label, value or uplift), and `probability_<label>` for each class."""
    if not predictions.classes:
        return {"prediction": pa.array(np.asarray(predictions.values))}
    labels = pa.array(predictions.classes)
    columns: dict[str, Any] = {"prediction": labels.take(pa.array(predictions.values))}
    if predictions.probabilities is not None:
        for position, label in enumerate(predictions.classes):
            values = np.ascontiguousarray(predictions.probabilities[:, position])
            columns[f"probability_{label}"] = pa.array(values)
    return columns
