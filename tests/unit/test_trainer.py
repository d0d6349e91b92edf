"""Learning: test rows set aside, everything fitted on the others, judged once."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from lodestar.core.evaluator import Evaluator
from lodestar.core.learner import Learner
from lodestar.core.metrics import find_metric
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Task, Truth
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.splitter import Splitter
from lodestar.core.trainer import Trainer, TrainingResult, strata
from lodestar.errors import LodestarError, UsageError
from lodestar.settings import recipe

ESTIMATORS: dict[Task, Any] = {"classification": LogisticRegression, "regression": LinearRegression}
METRICS: dict[Task, str] = {"classification": "roc_auc", "regression": "rmse"}


def a_table(rows: int = 200) -> pa.Table:
    rng = np.random.default_rng(0)
    a = rng.normal(50, 10, rows)
    return pa.table(
        {
            "id": range(rows),
            "a": a,
            "city": rng.choice(["x", "y"], rows).tolist(),
            "y": np.where(a + rng.normal(0, 3, rows) > 50, "yes", "no").tolist(),
            "amount": 2 * a + rng.normal(0, 1, rows),
        }
    )


def train(
    table: pa.Table,
    task: Task = "classification",
    hyperparameters: Mapping[str, Any] | None = None,
    **split: Any,  # noqa: ANN401 -- any key of the section
) -> TrainingResult:
    target = {"classification": "y", "regression": "amount"}[task]
    other = {"classification": "amount", "regression": "y"}[task]
    roles = Roles.of(
        table.schema,
        target=target,
        treatment=None,
        entity_keys=("id",),
        timestamp="event_timestamp",
        excluded=(other,),
    )
    reader = TargetReader.learn(table, roles, task, positive=None, treatment_value=None)
    metric = find_metric(METRICS[task], task)
    assert metric is not None
    learner = Learner(
        family_of(ESTIMATORS[task], task), lambda: SimpleScaler(exclude_cols=(other,)), seed=1
    )
    section = recipe.Split.model_validate(split)
    trainer = Trainer(
        learner=learner,
        splitter=Splitter(section, task=task, timestamp_col="event_timestamp"),
        evaluator=Evaluator(task, seed=1),
        metric=metric,
        hyperparameters=hyperparameters or {},
        split_columns=(),
    )
    return trainer.train(table, roles, reader)


@pytest.mark.parametrize("task", ESTIMATORS)
def test_training_learns_and_is_judged_on_the_rows_set_aside(task: Task) -> None:
    result = train(a_table(), task)
    assert len(result.split.test) == 40
    assert len(result.split.train) == 160
    assert result.evaluation.rows == 40
    assert result.evaluation.metrics[METRICS[task]].value == pytest.approx(
        {"classification": 0.95, "regression": 1.0}[task], abs=0.25
    )
    assert result.tuning is None


def test_the_preprocessor_saw_the_training_part_alone() -> None:
    table = a_table()
    result = train(table)
    train_rows = table.column("a").to_numpy()[result.split.train]
    scaler = result.model.preprocessor
    assert isinstance(scaler, SimpleScaler)
    (learned,) = (item for item in scaler.to_json()["columns"] if item["name"] == "a")
    assert learned["mean"] == [train_rows.mean()]
    assert learned["mean"] != [table.column("a").to_numpy().mean()]


def test_the_evaluation_is_that_of_the_models_own_predictions() -> None:
    table = a_table()
    result = train(table)
    rows = table.select(result.roles.inputs).take(result.split.test)
    predicted = result.model.score(rows).predictions
    again = Evaluator("classification", seed=1).evaluate(
        result.truth.at(result.split.test), predicted
    )
    assert again.metrics == result.evaluation.metrics


def test_keys_and_target_are_no_features() -> None:
    trained = train(a_table())
    assert trained.roles.inputs == ("a", "city")
    assert isinstance(trained.model.preprocessor, SimpleScaler)
    assert trained.model.preprocessor.to_json()["columns"][0]["name"] == "a"


def test_hyperparameters_reach_the_estimator() -> None:
    result = train(a_table(), hyperparameters={"C": 0.25})
    assert result.model.estimator.C == 0.25
    assert result.hyperparameters == {"C": 0.25}


def test_equal_inputs_give_equal_models() -> None:
    one, other = (train(a_table()).model.estimator for _ in range(2))
    assert one.coef_.tobytes() == other.coef_.tobytes()


def test_the_given_rows_are_never_changed() -> None:
    table = a_table()
    train(table)
    assert table.equals(a_table())


def test_a_value_that_the_estimator_refuses_is_the_recipes_mistake() -> None:
    with pytest.raises(UsageError, match="LogisticRegression refuses"):
        train(a_table(), hyperparameters={"C": -1})


@pytest.mark.parametrize("rows", [1, 3])
def test_too_few_rows_are_a_clear_error(rows: int) -> None:
    with pytest.raises(LodestarError) as caught:
        train(a_table().slice(0, rows))
    assert caught.value.exit_code == 3


def test_a_split_is_stratified_by_class_or_by_treatment_and_outcome() -> None:
    classes = strata(Truth(np.array([1, 0, 1]), classes=("no", "yes")))
    assert classes is not None
    assert classes.tolist() == ["yes", "no", "yes"]
    assert strata(Truth(np.array([1.5, 2.5]))) is None
    both = strata(Truth(np.array([0.0, 1, 0, 1]), np.array([0, 0, 1, 1])))
    assert both is not None
    assert len(set(both.tolist())) == 4
    many = strata(Truth(np.arange(20.0), np.arange(20) % 2))
    assert many is not None
    assert set(many.tolist()) == {0, 1}
