"""A preprocessor and an estimator that belong together: what predicting needs, and nothing more."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lodestar.core.models import Family
from lodestar.core.results import Predictions
from lodestar.interface.learning import FeatureMatrix, Preprocessor

__all__ = ["FittedModel", "Scored"]


@dataclass(frozen=True)
class Scored:
    """Rows on their way through a model."""

    features: FeatureMatrix
    predictions: Predictions


@dataclass(frozen=True)
class FittedModel:
    """A preprocessor and an estimator that were fitted on the same rows."""

    preprocessor: Preprocessor
    estimator: Any
    family: Family
    classes: tuple[Any, ...]

    def score(self, rows: pa.Table | pa.RecordBatch) -> Scored:
        """Transform and predict; `rows` holds at least the model's inputs."""
        features = self.preprocessor.transform(rows, dtype=self.family.dtype)
        return Scored(features, self.family.predict(self.estimator, features, self.classes))
