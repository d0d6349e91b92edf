"""The one way in which anything is fitted here: fixed or tuned, for a trial or for good."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lodestar.core.fitted import FittedModel
from lodestar.core.models import Family
from lodestar.core.models.watching import Watch
from lodestar.core.results import Truth
from lodestar.errors import DataError, LodestarError, UsageError, first_line
from lodestar.interface.learning import FeatureMatrix, Preprocessor

__all__ = ["Learner", "TrainRows"]


@dataclass(frozen=True)
class TrainRows:
    """Rows to learn from, transformed by a preprocessor that was fitted on them alone."""

    preprocessor: Preprocessor
    features: FeatureMatrix
    truth: Truth


@dataclass(frozen=True)
class Learner:
    """Makes preprocessors and estimators, and fits them.

    `places`: where the recipe gives each hyperparameter, and at "" all of them, for errors.
    """

    family: Family
    preprocessor: Callable[[], Preprocessor]
    seed: int
    places: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, rows: pa.Table, truth: Truth) -> TrainRows:
        """Fit a new preprocessor on these rows."""
        preprocessor = self.preprocessor()
        preprocessor.fit(rows, truth.target)
        features = preprocessor.transform(rows, dtype=self.family.dtype)
        return TrainRows(preprocessor, features, truth)

    def single_training_iteration(
        self, rows: TrainRows, hyperparameters: Mapping[str, Any], *, watch: Watch | None = None
    ) -> FittedModel:
        """Fit a new estimator on the prepared rows; a watched one tells how it goes.

        Raises:
            UsageError: the estimator refuses a hyperparameter.
            DataError: it refuses the rows.
        """
        try:
            estimator = self.family.build(hyperparameters, seed=self.seed)
            if watch is None:
                self.family.fit(estimator, rows.features, rows.truth)
            else:
                self.family.fit_watched(estimator, rows.features, rows.truth, watch)
        except self.family.refusals() as error:
            raise self._refused(hyperparameters, error) from error
        return FittedModel(rows.preprocessor, estimator, self.family, rows.truth.classes)

    def _refused(self, hyperparameters: Mapping[str, Any], error: Exception) -> LodestarError:
        """In the library's own words; it is the recipe's mistake where they name a hyperparameter."""
        words = first_line(error)
        named = [name for name in hyperparameters if re.search(rf"\b{re.escape(name)}\b", words)]
        said = f"{self.family.cls.__name__} refuses: {words}"
        # The rows are numbers by now: what is of a wrong type is a hyperparameter.
        if not named and not isinstance(error, TypeError):
            hint = "see the columns' values, or model.hyperparameters in the recipe"
            return DataError(said, hint=hint)
        first = min(named, key=words.index, default="")
        where = self.places.get(first) or self.places.get("")
        return UsageError(said, where=where, hint="see model.hyperparameters in the recipe")
