"""No trial learns from its validation rows, and none of them can see a test row."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.searching import between, problem_of, searched

from lodestar.core.evaluator import Evaluator
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Truth
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.trainer import Search, Trainer, TrainingResult
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import SearchLimits
from lodestar.interface.execution import TrialTask
from lodestar.interface.learning import Preprocessor

ROWS = 60
PATH = "sklearn.linear_model.LinearRegression"


class Kept(SimpleScaler):
    """The built-in preprocessor; what was fitted of it is looked at afterwards."""


def fitted_in_a_trial(problem: TrialProblem, seed: int) -> tuple[bytes, bytes]:
    """Run a whole trial; the bytes of the preprocessor and of the model that it fitted."""
    made: list[Preprocessor] = []
    models: list[Any] = []

    def preprocessor() -> Preprocessor:
        made.append(Kept())
        return made[-1]

    class Remembering(problem.learner.family.__class__):  # type: ignore[name-defined,misc]  # whichever class it is
        def fit(self, estimator: Any, features: Any, truth: Truth) -> None:  # noqa: ANN401 -- a library's
            super().fit(estimator, features, truth)
            models.append(estimator)

    family = Remembering(problem.learner.family.cls, problem.learner.family.task)
    learner = type(problem.learner)(family, preprocessor, 42)
    trial = TrialProblem(
        problem.inputs,
        problem.truth,
        problem.split_columns,
        problem.strata,
        learner,
        problem.splitter,
        problem.metric,
    )
    outcome = trial.run(TrialTask(0, {}, seed, False), lambda step, value: None, lambda: False)
    assert outcome.state == "complete", outcome.error
    (only,), (model,) = made, models
    return pickle.dumps(vars(only)), pickle.dumps(model)


def changed(
    table: pa.Table, rows: NDArray[np.int64], values: list[float], kind: str | None
) -> pa.Table:
    """Other values in these rows, in every column."""
    columns = {}
    for name in table.column_names:
        column = table.column(name).to_pylist()
        for row, value in zip(rows, np.resize(values, len(rows)), strict=True):
            column[row] = kind if name == "kind" else float(value)
        columns[name] = pa.array(column, table.schema.field(name).type)
    return pa.table(columns)


VALUES = st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1, max_size=6)
KINDS = st.sampled_from(["red", "a kind of its own", "", None])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), values=VALUES, kind=KINDS, data=st.data())
def test_no_validation_row_reaches_a_trials_preprocessor_or_model(
    seed: int, values: list[float], kind: str | None, data: st.DataObject
) -> None:
    problem = problem_of(PATH, "regression", "rmse", rows=ROWS)
    split = problem.splitter.validation(problem.split_columns, None, np.arange(ROWS), seed=seed)
    rows = np.array(data.draw(st.lists(st.sampled_from(list(split.test)), min_size=1, unique=True)))
    before = fitted_in_a_trial(problem, seed)
    problem.inputs = changed(problem.inputs, rows, values, kind)
    problem.truth.target[rows] = np.resize(values, len(rows))
    assert fitted_in_a_trial(problem, seed) == before


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), value=st.floats(3.0, 1e6), data=st.data())
def test_every_training_row_does_reach_it(seed: int, value: float, data: st.DataObject) -> None:
    problem = problem_of(PATH, "regression", "rmse", rows=ROWS)
    split = problem.splitter.validation(problem.split_columns, None, np.arange(ROWS), seed=seed)
    row = np.array([data.draw(st.sampled_from(list(split.train)))])
    before = fitted_in_a_trial(problem, seed)
    problem.inputs = changed(problem.inputs, row, [value], "red")
    after = fitted_in_a_trial(problem, seed)
    assert after[0] != before[0]
    assert after[1] != before[1]


def a_table_and_some_of_its_test_rows(data: st.DataObject) -> tuple[pa.Table, NDArray[np.int64]]:
    problem = problem_of(PATH, "regression", "rmse", rows=ROWS)
    table = problem.inputs.append_column("target", pa.array(problem.truth.target))
    test = problem.splitter.holdout(problem.split_columns, None).test
    rows = np.array(data.draw(st.lists(st.sampled_from(list(test)), min_size=1, unique=True)))
    return table, rows


@settings(max_examples=30, deadline=None)
@given(values=VALUES, kind=KINDS, data=st.data())
def test_no_test_row_reaches_the_search(
    values: list[float], kind: str | None, data: st.DataObject
) -> None:
    table, rows = a_table_and_some_of_its_test_rows(data)
    before, after = seen_by_a_search(table), seen_by_a_search(changed(table, rows, values, kind))
    assert after.inputs.equals(before.inputs)
    assert after.truth.target.tobytes() == before.truth.target.tobytes()
    assert fitted_in_a_trial(after, 5) == fitted_in_a_trial(before, 5)


def training_of(
    table: pa.Table, problem: TrialProblem, search: Search
) -> tuple[Trainer, Roles, TargetReader]:
    trainer = Trainer(
        learner=problem.learner,
        splitter=problem.splitter,
        evaluator=Evaluator("regression", seed=1),
        metric=problem.metric,
        hyperparameters={},
        split_columns=(),
        search=search,
    )
    roles = Roles.of(
        table.schema,
        target="target",
        treatment=None,
        entity_keys=(),
        timestamp="event_timestamp",
        excluded=(),
        criterion=None,
    )
    target = TargetReader.learn(table, roles, "regression", positive=None, treatment_value=None)
    return trainer, roles, target


class SeenError(Exception):
    """The search has been given its problem; nothing further is of interest."""

    def __init__(self, problem: TrialProblem) -> None:
        super().__init__()
        self.problem = problem


def seen_by_a_search(table: pa.Table) -> TrialProblem:
    """What the trainer gives to a search."""
    problem = problem_of(PATH, "regression", "rmse", rows=ROWS)

    def search(seen: TrialProblem) -> None:
        raise SeenError(seen)

    trainer, roles, target = training_of(table, problem, search)
    try:
        trainer.train(table, roles, target)
    except SeenError as seen:
        return seen.problem
    raise AssertionError("the search was not called")


STOPPING = SearchLimits(n_trials=3, seconds=60, candidates=2, splits=2, patience=4, pruning=False)
SPACE = {"n_estimators": 40, "n_jobs": 1, "learning_rate": between(0.2, 0.8)}


def trained_with_early_stopping(table: pa.Table) -> tuple[TrainingResult, bytes]:
    """A whole training whose trials stop early; its result, and the bytes of its model."""
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse", rows=ROWS)
    trainer, roles, target = training_of(
        table, problem, lambda seen: searched(seen, SPACE, STOPPING)
    )
    result = trainer.train(table, roles, target)
    return result, bytes(result.model.estimator.get_booster().save_raw())


@settings(max_examples=8, deadline=None)
@given(values=VALUES, kind=KINDS, data=st.data())
def test_no_test_row_decides_where_trials_stop_and_how_many_rounds_the_model_has(
    values: list[float], kind: str | None, data: st.DataObject
) -> None:
    table, rows = a_table_and_some_of_its_test_rows(data)
    before, model = trained_with_early_stopping(table)
    after, again = trained_with_early_stopping(changed(table, rows, values, kind))
    assert before.tuning is not None
    assert after.tuning is not None
    assert all(record.rounds for record in before.tuning.history)
    assert after.tuning.history[0].rounds == before.tuning.history[0].rounds
    assert after.tuning.best_params == before.tuning.best_params
    assert again == model


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), value=st.floats(-1e6, 1e6), data=st.data())
def test_where_a_trial_stops_depends_on_its_own_validation_rows_alone(
    seed: int, value: float, data: st.DataObject
) -> None:
    """The rows that stop a trial teach it nothing: of as many rounds, the model is the same."""
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse", rows=ROWS)
    split = problem.splitter.validation(problem.split_columns, None, np.arange(ROWS), seed=seed)
    row = data.draw(st.sampled_from(list(split.test)))
    given_ = {"n_estimators": 40, "n_jobs": 1, "learning_rate": 0.5}
    models: list[Any] = []

    class Remembering(problem.learner.family.__class__):  # type: ignore[name-defined,misc]  # whichever class it is
        def fit_watched(self, estimator: Any, *rest: Any) -> None:  # noqa: ANN401 -- a library's
            super().fit_watched(estimator, *rest)
            models.append(estimator.get_booster())

    family = Remembering(problem.learner.family.cls, "regression")
    problem.learner = type(problem.learner)(family, SimpleScaler, 42)
    for _ in range(2):
        task = TrialTask(0, given_, seed, False, 4)
        outcome = problem.run(task, lambda step, value: None, lambda: False)
        assert outcome.state == "complete", outcome.error
        problem = replace(problem, _last=None)
        problem.truth.target[row] = value
    rounds = min(model.num_boosted_rounds() for model in models)
    assert models[0][:rounds].save_raw() == models[1][:rounds].save_raw()
