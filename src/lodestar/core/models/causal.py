"""Uplift estimators: `fit(X, treatment, y)`, and a prediction that is the effect itself."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lodestar.core.models.family import Family, named_parameters
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

    def parameters(self) -> frozenset[str] | None:
        """The signature's names; the XGB* learners pass the others on to XGBRegressor."""
        own = named_parameters(self.cls)
        if own is None and self.cls.__name__.startswith("XGB"):
            import xgboost

            names = {name for base in self.cls.__mro__ for name in named_parameters(base) or ()}
            return names | named_parameters_of_base(xgboost.XGBRegressor) | BOOSTER_PARAMETERS
        return own

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Any:  # noqa: ANN401
        """Tell the estimator what control rows are called."""
        names = {name for base in self.cls.__mro__ for name in named_parameters(base) or ()}
        named = {"control_name": CONTROL} if "control_name" in (self.parameters() or names) else {}
        return super().build({**named, **hyperparameters}, seed=seed)

    def fit(self, estimator: Any, features: FeatureMatrix, truth: Truth) -> None:  # noqa: ANN401
        """Fit on features, treatment and outcome."""
        labels = np.where(truth.treatment == 1, TREATED, CONTROL)
        estimator.fit(X=features.array(), treatment=labels, y=truth.target.astype(np.float64))

    def predict(
        self, estimator: Any, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:  # noqa: ANN401
        """The uplift of each row."""
        del classes
        return Predictions(np.asarray(estimator.predict(X=features.array())).reshape(len(features)))
