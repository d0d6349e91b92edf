"""Uplift estimators: `fit(X, treatment, y)`, and a prediction that is the effect itself."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lodestar.core.models.family import Estimator, Family, named_parameters
from lodestar.core.models.xgboost import BOOSTER_PARAMETERS, named_parameters_of_base
from lodestar.core.results import Predictions, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["CausalFamily"]

TREATED, CONTROL = "treatment", "control"


class CausalFamily(Family):
    """causalml's meta-learners and whatever else takes a treatment to `fit`.

    The recipe's treatment value is told to the estimator as "treatment", the rest as "control".
    """

    name: ClassVar[str] = "causal"
    needs_validation: ClassVar[frozenset[str]] = frozenset({"early_stopping_rounds"})

    def parameters(self) -> frozenset[str] | None:
        """The signature's names; the XGB* learners pass the others on to XGBRegressor."""
        own = named_parameters(self.cls)
        if own is not None and self.cls.__name__.startswith("XGB"):
            import xgboost

            return own | named_parameters_of_base(xgboost.XGBRegressor) | BOOSTER_PARAMETERS
        return own

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Estimator:
        """Tell the estimator what control rows are called."""
        named = {"control_name": CONTROL} if "control_name" in (self.accepted or ()) else {}
        return super().build({**named, **hyperparameters}, seed=seed)

    def fit(self, estimator: Estimator, features: FeatureMatrix, truth: Truth) -> None:
        """Fit on features, treatment and outcome."""
        labels = np.where(truth.treatment == 1, TREATED, CONTROL)
        estimator.fit(X=features.array(), treatment=labels, y=truth.target.astype(np.float64))

    def predict(
        self, estimator: Estimator, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:
        """The uplift of each row."""
        del classes
        return Predictions(np.asarray(estimator.predict(X=features.array())).reshape(len(features)))
