"""Why a model says what it says of one row: exact contributions, where the model supports them.

Trees: TreeSHAP as the library computes it (Lundberg et al. 2020). Linear models: coefficient times
value, which is the same for independent features (Štrumbelj and Kononenko 2014).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.preprocessor import SimpleScaler
from lodestar.interface.learning import FeatureMatrix

__all__ = ["Explanation", "explain"]

# Of n rows: (n, features + 1), or (n, classes, features + 1); the last one is the base.
Contributions = NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """`base` plus all `contributions` is the model's output for the row, in `unit`.

    `unit`: log-odds of `label` (with more than two classes its unnormalised log-probability), or the
    target's own unit. `contributions` are by raw input column, the largest in size first.
    """

    base: float
    contributions: dict[str, float]
    unit: str
    label: Any = None

    @property
    def output(self) -> float:
        """What they sum to."""
        return self.base + sum(self.contributions.values())


def explain(model: FittedModel, rows: pa.Table | pa.RecordBatch) -> Explanation | None:
    """Explain the prediction of one row; None where the model does not support it.

    Raises:
        DataError: the estimator refuses a value of the row.
    """
    compute = _way(model)
    if compute is None:
        return None
    scored = model.score(rows)
    features = scored.features
    values = compute(model.estimator, features)
    at = int(scored.predictions.values[0])
    classes = model.classes
    if not classes:
        return _explained(model, features, values[0], "target")
    if values.ndim > 2:  # noqa: PLR2004 -- one row of contributions per class
        return _explained(model, features, values[0, at], "log-odds", classes[at])
    # Of two classes the margin is the second one's.
    return _explained(model, features, values[0], "log-odds", classes[-1])


def _explained(
    model: FittedModel,
    features: FeatureMatrix,
    values: NDArray[np.float64],
    unit: str,
    label: Any = None,  # noqa: ANN401 -- a class: text, number or bool
) -> Explanation:
    by_input: dict[str, float] = {}
    for name, value in zip(_inputs(model, features), values[:-1].tolist(), strict=True):
        by_input[name] = by_input.get(name, 0.0) + value
    ordered = sorted(by_input.items(), key=lambda item: -abs(item[1]))
    return Explanation(float(values[-1]), dict(ordered), unit, label)


def _inputs(model: FittedModel, features: FeatureMatrix) -> tuple[str, ...]:
    """The raw column behind each preprocessed one; its own name where that is not known."""
    preprocessor = model.preprocessor
    if not isinstance(preprocessor, SimpleScaler):
        return features.names
    return preprocessor.sources


def _way(model: FittedModel) -> Callable[[Any, FeatureMatrix], Contributions] | None:
    ways = {
        "xgboost": _by_xgboost,
        "lightgbm": _by_lightgbm,
        "catboost": _by_catboost,
        "causal": _by_causal,
    }
    estimator = model.estimator
    if model.family.name == "causal" and not hasattr(estimator, "models_t"):
        return None
    if model.family.name == "xgboost" and estimator.booster == "gblinear":
        return None
    if hasattr(estimator, "coef_") and hasattr(estimator, "intercept_"):
        return _by_coefficients
    return ways.get(model.family.name)


def _by_xgboost(estimator: Any, features: FeatureMatrix) -> Contributions:  # noqa: ANN401 -- untyped
    import xgboost

    rows = xgboost.DMatrix(features.array(), missing=estimator.missing, nthread=1)
    found = estimator.get_booster().predict(rows, pred_contribs=True)
    return np.asarray(found, dtype=np.float64)


def _by_lightgbm(estimator: Any, features: FeatureMatrix) -> Contributions:  # noqa: ANN401 -- untyped
    booster = getattr(estimator, "booster_", estimator)
    found = np.asarray(booster.predict(features.array(), pred_contrib=True, num_threads=1))
    width = booster.num_feature() + 1
    return found if found.shape[1] == width else found.reshape(len(found), -1, width)


def _by_catboost(estimator: Any, features: FeatureMatrix) -> Contributions:  # noqa: ANN401 -- untyped
    from catboost import Pool

    return np.asarray(
        estimator.get_feature_importance(Pool(features.data), type="ShapValues", thread_count=1)
    )


def _by_causal(estimator: Any, features: FeatureMatrix) -> Contributions:  # noqa: ANN401 -- untyped
    """A T-learner's uplift is one model's prediction minus the other's, and so are contributions."""
    treated = next(iter(estimator.models_t.values()))
    return _by_xgboost(treated, features) - _by_xgboost(estimator.model_c, features)


def _by_coefficients(estimator: Any, features: FeatureMatrix) -> Contributions:  # noqa: ANN401 -- untyped
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    base = np.atleast_1d(np.asarray(estimator.intercept_, dtype=np.float64))
    values = features.array()[:, None, :] * weights
    bases = np.broadcast_to(base[None, :, None], (len(values), len(base), 1))
    found = np.concatenate([values, bases], axis=2)
    return found[:, 0] if len(weights) == 1 else found
