"""Which columns matter: found by shuffling them, or by the trees' own accounts."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from xgboost import XGBRegressor

from lodestar.core.fitted import FittedModel
from lodestar.core.importance import permutation_importance, shap_importance
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Task, Truth


def rows(count: int = 400) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "noise": rng.normal(size=count),
            "strong": rng.normal(size=count),
            "weak": rng.normal(size=count),
        }
    )


def truth(table: pa.Table, task: Task) -> Truth:
    score = 5 * table["strong"].to_numpy() + table["weak"].to_numpy()
    if task == "regression":
        return Truth(score)
    return Truth((score > 0).astype(int), classes=("no", "yes"))


def fitted(cls: type, task: Task) -> FittedModel:
    table, family, scaler = rows(), family_of(cls, task), SimpleScaler()
    known = truth(table, task)
    scaler.fit(table, known.target)
    estimator = family.build({}, seed=0)
    family.fit(estimator, scaler.transform(table, dtype=family.dtype), known)
    return FittedModel(scaler, estimator, family, known.classes)


@pytest.mark.parametrize(
    ("cls", "task", "metric"),
    [
        (LinearRegression, "regression", "rmse"),
        (LinearRegression, "regression", "r2"),
        (LogisticRegression, "classification", "roc_auc"),
    ],
)
def test_the_column_that_decides_comes_first_whether_the_metric_is_high_or_low(
    cls: type, task: Task, metric: str
) -> None:
    model = fitted(cls, task)
    found = permutation_importance(
        model, rows(), truth(rows(), task), task=task, metric=metric, seed=0
    )
    assert [item.feature for item in found] == ["strong", "weak", "noise"]
    assert found[0].mean > 10 * abs(found[2].mean)
    assert {item.kind for item in found} == {"permutation"}
    assert {item.metric for item in found} == {metric}


def test_the_same_seed_gives_the_same_importance() -> None:
    model, known = fitted(LinearRegression, "regression"), truth(rows(), "regression")
    one, same, other = (
        permutation_importance(model, rows(), known, task="regression", metric="rmse", seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_what_cannot_be_measured_is_left_out() -> None:
    model, known = fitted(LogisticRegression, "classification"), truth(rows(), "classification")
    one_class = Truth(np.zeros(400, dtype=int), classes=("no", "yes"))
    for table, target, metric in (
        (rows(), known, "no_such_metric"),
        (rows(), one_class, "roc_auc"),
        (rows().slice(0, 0), known.at(np.array([], dtype=int)), "roc_auc"),
    ):
        assert (
            permutation_importance(
                model, table, target, task="classification", metric=metric, seed=0
            )
            == ()
        )


def test_the_trees_own_account_names_the_same_column() -> None:
    found = shap_importance(fitted(XGBRegressor, "regression"), rows(), seed=0)
    assert [item.feature for item in found] == ["strong", "weak", "noise"]
    assert {item.kind for item in found} == {"shap"}


def test_a_library_without_such_an_account_gives_none() -> None:
    assert shap_importance(fitted(LinearRegression, "regression"), rows(), seed=0) == ()
