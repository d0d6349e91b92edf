"""A preprocessor and an estimator that belong together: what predicting needs, and nothing more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from lodestar.core.models import Family
from lodestar.core.results import Predictions
from lodestar.errors import DataError, first_line
from lodestar.interface.learning import FeatureMatrix, Preprocessor

__all__ = ["FittedModel", "Scored"]


@dataclass(frozen=True)
class Scored:
    """Rows on their way through a model.

    `unknown` counts, per column, the rows whose category training had not seen. Features may not have
    been needed as a matrix: then they are made when they are asked for.
    """

    predictions: Predictions
    unknown: Mapping[str, int]
    made: Callable[[], FeatureMatrix]

    @cached_property
    def features(self) -> FeatureMatrix:
        """The preprocessed rows."""
        return self.made()


@dataclass(frozen=True)
class FittedModel:
    """A preprocessor and an estimator that were fitted on the same rows."""

    preprocessor: Preprocessor
    estimator: Any
    family: Family
    classes: tuple[Any, ...]

    @property
    def doubt(self) -> str:
        """What the user should know of how it predicts; "" where there is nothing."""
        return ""

    @property
    def side_by_side(self) -> bool:
        """Whether rows may be scored by several threads at once."""
        return False

    def score(self, rows: pa.Table | pa.RecordBatch) -> Scored:
        """Transform and predict; `rows` holds at least the model's inputs.

        Raises:
            DataError: the estimator refuses a value of these rows.
        """
        features = self.preprocessor.transform(rows, dtype=self.family.dtype)
        return Scored(self.predict(features), features.unknown, lambda: features)

    def predict(self, features: FeatureMatrix) -> Predictions:
        """Predict what the preprocessor made.

        Raises:
            DataError: the estimator refuses a value, as forests do above the largest float32.
        """
        try:
            # A number too large for float32 is refused, and need not be warned of as well.
            with np.errstate(over="ignore"):
                return self.family.predict(self.estimator, features, self.classes)
        except self.family.refusals() as error:
            raise DataError(
                f"{self.family.cls.__name__} refuses: {first_line(error)}",
                hint="the rows hold a value that the model cannot compute with",
            ) from error
