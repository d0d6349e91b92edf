"""Whatever stands in the test rows: what was fitted does not change by a bit."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from tests.examples import examples

from lodestar.core.evaluator import Evaluator
from lodestar.core.learner import Learner
from lodestar.core.metrics import find_metric
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.splitter import Splitter
from lodestar.core.trainer import Trainer, TrainingResult
from lodestar.settings import recipe

ROWS = 40
CITIES = ["a", "b", "c", None]


def a_table(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(size=ROWS),
            "n": rng.integers(0, 9, ROWS),
            "city": [CITIES[position] for position in rng.integers(0, 4, ROWS)],
            "y": rng.normal(size=ROWS),
        }
    )


def train(table: pa.Table, *, grouped: bool) -> TrainingResult:
    roles = Roles.of(
        table.schema, target="y", treatment=None, entity_keys=(), timestamp="event_timestamp"
    )
    metric = find_metric("rmse", "regression")
    assert metric is not None
    criterion = "city" if grouped else None
    trainer = Trainer(
        learner=Learner(
            family_of(Ridge, "regression"), lambda: SimpleScaler(criterion_col=criterion), seed=0
        ),
        splitter=Splitter(recipe.Split(), task="regression", timestamp_col="event_timestamp"),
        evaluator=Evaluator("regression", seed=0, resamples=10),
        metric=metric,
        hyperparameters={},
        split_columns=(),
    )
    return trainer.train(table, roles, TargetReader("regression"))


def learned(result: TrainingResult) -> tuple[str, bytes, float]:
    scaler, estimator = result.model.preprocessor, result.model.estimator
    assert isinstance(scaler, SimpleScaler)
    return json.dumps(scaler.to_json()), estimator.coef_.tobytes(), float(estimator.intercept_)


@settings(deadline=None, max_examples=examples(60))
@given(
    seed=st.integers(0, 1_000),
    grouped=st.booleans(),
    x=st.floats(-1e9, 1e9),
    n=st.integers(-(2**40), 2**40),
    city=st.one_of(st.none(), st.text(max_size=5), st.sampled_from(CITIES)),
    y=st.floats(-1e6, 1e6),
    data=st.data(),
)
def test_changing_any_test_rows_changes_nothing_that_was_fitted(
    seed: int,
    grouped: bool,
    x: float,
    n: int,
    city: str | None,
    y: float,
    data: st.DataObject,
) -> None:
    table = a_table(seed)
    before = train(table, grouped=grouped)
    test = before.split.test.tolist()
    chosen = data.draw(st.sets(st.sampled_from(test), min_size=1))
    rows = table.to_pylist()
    for position in chosen:
        rows[position] = {"x": x, "n": n, "city": city, "y": y}
    after = train(pa.Table.from_pylist(rows, schema=table.schema), grouped=grouped)
    assert after.split.test.tolist() == test
    assert learned(after) == learned(before)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1_000), data=st.data())
def test_changing_a_training_row_does_change_it(seed: int, data: st.DataObject) -> None:
    table = a_table(seed)
    before = train(table, grouped=False)
    position = data.draw(st.sampled_from(before.split.train.tolist()))
    rows = table.to_pylist()
    rows[position]["x"] += 100.0
    after = train(pa.Table.from_pylist(rows, schema=table.schema), grouped=False)
    assert learned(after) != learned(before)
