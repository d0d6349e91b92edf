"""How an artifact's rows are scored: what serves, that every bit is equal, and why nothing faster."""

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from tests.planning import (
    LGBM_VALUE,
    TREES,
    XGB_BINARY,
    XGB_THREE,
    XGB_VALUE,
    Model,
    Planned,
    artifact,
    planned,
    scored_bits,
    training_rows,
    wrapped,
)

from lodestar.core.preprocessor import SimpleScaler, TransformerPreprocessor
from lodestar.core.results import Task
from lodestar.errors import DataError
from lodestar.interface.learning import FeatureMatrix
from lodestar.serving.plan import proven_scorer, row_scorer
from lodestar.serving.plan.encoding import encoder_of
from lodestar.serving.plan.examples import examples
from lodestar.serving.plan.generic import GenericScorer, batch_of
from lodestar.serving.plan.native import NativeScorer
from lodestar.serving.plan.proof import Proof
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

Rows: TypeAlias = pa.Table | pa.RecordBatch
Floats: TypeAlias = type[np.floating[Any]]
SIZES = (1, 2, 7, 400)
OTHERS: tuple[Model, ...] = (
    ("sklearn.linear_model.LogisticRegression", "classification", 2, ()),
    ("sklearn.ensemble.RandomForestClassifier", "classification", 3, (("n_estimators", 4),)),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "regression", 0, (("max_iter", 4),)),
    ("catboost.CatBoostClassifier", "classification", 3, (("iterations", 4),)),
    ("catboost.CatBoostRegressor", "regression", 0, (("iterations", 4),)),
)


def equal_in_every_bit(scorer: RowScorer, served: Planned) -> None:
    rows = [row for row in served.rows if scorer.refusal(row) is None]
    assert len(rows) == len(served.rows)
    for size in SIZES:
        some = rows[-size:]
        assert scored_bits(scorer, some) == served.bits(some)


@pytest.mark.parametrize("model", TREES)
def test_boosted_trees_are_scored_in_machine_code(model: Model) -> None:
    served = artifact(*model)
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert (scorer.name, scorer.reason) == ("native", "")
    equal_in_every_bit(scorer, served)


@pytest.mark.parametrize("model", TREES)
def test_without_machine_code_numpy_serves(model: Model) -> None:
    served = artifact(*model)
    scorer = row_scorer(served.wrapper, served.probe, native=False)
    assert (scorer.name, scorer.reason) == ("numpy", "native: switched off")
    equal_in_every_bit(scorer, served)


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.*lbfgs failed:UserWarning")
def test_other_estimators_are_scored_with_numpy(model: Model) -> None:
    served = artifact(*model)
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.name == "numpy"
    assert scorer.reason.endswith("has no trees that are known")
    equal_in_every_bit(scorer, served)


@pytest.mark.parametrize("name", ["numpy", "generic"])
def test_a_value_that_the_estimator_cannot_compute_with_is_the_rows_mistake(name: str) -> None:
    served = artifact(*OTHERS[1])
    at = served.schema.names.index("amount")
    row = tuple(1e300 if place == at else value for place, value in enumerate(served.rows[0]))
    scorer = proven_scorer(served.wrapper, served.probe, name=name, reason="")
    assert scorer.refusal(row) is None
    with pytest.raises(DataError, match="RandomForestClassifier refuses: Input X contains"):
        scorer.score([served.rows[0], row])
    assert len(scorer.score([served.rows[0]]).predictions.values) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_uplift_of_two_boosters_is_scored_in_machine_code() -> None:
    learner = "causalml.inference.meta.XGBTRegressor"
    options = (("n_estimators", 7), ("max_depth", 3), ("learning_rate", 0.1))
    served = artifact(learner, "causal", 0, options)
    for native, name in ((True, "native"), (False, "numpy")):
        scorer = row_scorer(served.wrapper, served.probe, native=native)
        assert scorer.name == name
        equal_in_every_bit(scorer, served)


@pytest.mark.parametrize("criterion", ["age", "step", "member", "country", "day", "seen"])
@pytest.mark.parametrize("native", [True, False])
def test_every_type_of_criterion_finds_its_group(criterion: str, native: bool) -> None:
    served = artifact(*XGB_BINARY, criterion)
    scorer = row_scorer(served.wrapper, served.probe, native=native)
    assert scorer.name == ("native" if native else "numpy")
    equal_in_every_bit(scorer, served)


@pytest.mark.parametrize(
    ("class_path", "task", "classes", "options", "why"),
    [
        ("xgboost.XGBRegressor", "regression", 0, {"booster": "dart"}, "the booster is dart"),
        (
            "xgboost.XGBRegressor",
            "regression",
            0,
            {"booster": "gblinear"},
            "no plain XGBoost class",
        ),
        (
            "xgboost.XGBRegressor",
            "regression",
            0,
            {"objective": "reg:absoluteerror"},
            "objective is",
        ),
        ("xgboost.XGBClassifier", "classification", 3, {"objective": "multi:softmax"}, "softmax"),
        ("lightgbm.LGBMRegressor", "regression", 0, {"linear_tree": True}, "linear leaves"),
        ("lightgbm.LGBMRegressor", "regression", 0, {"zero_as_missing": True}, "zeros as missing"),
        ("lightgbm.LGBMRegressor", "regression", 0, {"objective": "l2", "reg_sqrt": True}, "sqrt"),
    ],
)
def test_trees_of_another_kind_are_left_to_their_library(
    class_path: str, task: Task, classes: int, options: dict[str, Any], why: str
) -> None:
    served = artifact(class_path, task, classes, (("n_estimators", 3), *options.items()))
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.name == "numpy"
    assert why in scorer.reason
    equal_in_every_bit(scorer, served)


def test_a_booster_that_stopped_early_is_asked_up_to_its_best_round() -> None:
    whole = artifact(*XGB_THREE)
    served = planned(fresh_scaler(), whole.table, *XGB_THREE[:3], {"n_estimators": 6})
    served.wrapper.trained_model.get_booster().set_attr(best_iteration="2")
    assert served.bits(served.rows) != whole.bits(whole.rows)
    for native in (True, False):
        scorer = row_scorer(served.wrapper, served.probe, native=native)
        assert scorer.name == ("native" if native else "numpy")
        equal_in_every_bit(scorer, served)


def test_a_booster_that_takes_another_number_as_missing_is_left_to_xgboost() -> None:
    served = planned(fresh_scaler(), training_rows(400), *XGB_VALUE[:3], {"n_estimators": 3})
    before = served.bits(served.rows)
    served.wrapper.trained_model.missing = 0.0
    assert served.bits(served.rows) != before
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.name == "numpy"
    assert "no plain XGBoost class whose missing values are NaN" in scorer.reason
    equal_in_every_bit(scorer, served)


@pytest.mark.parametrize("intercept", [0.01, 0.1, 0.3, 0.77, 0.999])
def test_an_intercept_becomes_the_margin_that_xgboost_takes(intercept: float) -> None:
    served = artifact(*XGB_BINARY[:3], (("n_estimators", 2), ("base_score", intercept)))
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert (scorer.name, scorer.reason) == ("native", "")
    equal_in_every_bit(scorer, served)


def test_frames_for_a_transformer_are_left_to_the_artifact() -> None:
    table = (
        training_rows(400)
        .select(["age", "amount"])
        .append_column("score", pa.array(np.arange(400.0)))
    )
    table = table.append_column("device", training_rows(400)["device"])
    kind = TransformerPreprocessor(Numbers())
    served = planned(kind, table, *XGB_VALUE[:3], {"n_estimators": 3})
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.name == "generic"
    assert scorer.reason == "numpy: the preprocessor is no SimpleScaler: it takes pandas frames"
    equal_in_every_bit(scorer, served)


class Numbers(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
    """Scales the number columns of a frame and drops the others."""

    def fit(self, frame: pd.DataFrame, target: NDArray[np.float64]) -> "Numbers":
        super().fit(frame[["age", "amount"]], target)
        return self

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = super().transform(frame[["age", "amount"]])
        return scaled


class OneUnitOff(SimpleScaler):
    """The numbers of a scaler, and one that is a single unit in the last place beside them."""

    def transform(self, rows: Rows, *, dtype: Floats = np.float64) -> FeatureMatrix:
        made = super().transform(rows, dtype=dtype)
        data = np.array(made.array())
        data[:, 1] = np.nextafter(data[:, 1], dtype(np.inf))
        return FeatureMatrix(data, made.names, made.unknown)


class Miscounted(SimpleScaler):
    """Counts one unknown category too many."""

    def transform(self, rows: Rows, *, dtype: Floats = np.float64) -> FeatureMatrix:
        made = super().transform(rows, dtype=dtype)
        return FeatureMatrix(made.data, made.names, {"country": 1 + made.unknown.get("country", 0)})


class Choosy(SimpleScaler):
    """Refuses what the scaler that it is takes."""

    def transform(self, rows: Rows, *, dtype: Floats = np.float64) -> FeatureMatrix:
        if "Ünlü" in rows.column("device").to_pylist():
            raise DataError("not this one")
        return super().transform(rows, dtype=dtype)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OneUnitOff, "prediction differs"),
        (Miscounted, "other counts of unknown categories"),
        (Choosy, "an answer instead of DataError"),
    ],
)
def test_a_plan_that_differs_from_the_artifact_is_not_used(
    kind: type[SimpleScaler], words: str
) -> None:
    ridge = "sklearn.linear_model.Ridge"
    trained = planned(fresh_scaler(), training_rows(400), ridge, "regression", 0, {})
    scaler = kind(**dataclasses.asdict(fresh_scaler()))
    scaler.fit(trained.table, np.zeros(400))
    fitted = dataclasses.replace(trained.wrapper.fitted, preprocessor=scaler)
    served = Planned(wrapped(fitted, trained.table, "regression"), trained.probe, trained.table)
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.name == "generic"
    assert "numpy: " in scorer.reason
    assert words in scorer.reason


def fresh_scaler() -> SimpleScaler:
    return SimpleScaler(exclude_cols=("day", "seen"), max_categories=5)


@pytest.mark.parametrize("model", [XGB_BINARY, LGBM_VALUE])
def test_a_compiled_plan_with_one_wrong_number_is_found_out(model: Model) -> None:
    served = artifact(*model)
    fitted = served.wrapper.fitted
    assert isinstance(fitted.preprocessor, SimpleScaler)
    encoder = encoder_of(fitted.preprocessor, served.schema, fitted.family.dtype)
    check = RowCheck(served.schema, encoder)
    right = NativeScorer.of(fitted, encoder, check)
    rows = examples(served.schema, encoder, served.probe, forest=right.model.forest, drawn=500)
    proof = Proof(served.wrapper, rows, check)
    assert proof.refused_in_vain() == ""
    assert proof.difference(right) == ""
    scale = encoder.numbers.scale.copy()
    scale[1] = np.nextafter(scale[1], 0)
    numbers = dataclasses.replace(encoder.numbers, scale=scale)
    wrong = NativeScorer.of(fitted, dataclasses.replace(encoder, numbers=numbers), check)
    assert "differs" in proof.difference(wrong)


def test_a_row_that_is_refused_without_need_is_found_out() -> None:
    served = artifact(*XGB_VALUE)
    check = RowCheck(
        dataclasses.replace(
            served.schema,
            columns=tuple(
                dataclasses.replace(column, nullable=False) for column in served.schema.columns
            ),
        )
    )
    fitted = served.wrapper.fitted
    assert isinstance(fitted.preprocessor, SimpleScaler)
    encoder = encoder_of(fitted.preprocessor, served.schema, fitted.family.dtype)
    rows = examples(served.schema, encoder, served.probe, forest=None, drawn=10)
    found = Proof(served.wrapper, rows, check).refused_in_vain()
    assert found == "a probe row is refused, and the artifact takes it"


@pytest.mark.parametrize("name", ["native", "numpy", "generic"])
def test_what_another_process_has_proven_is_made_again(name: str) -> None:
    served = artifact(*XGB_BINARY)
    scorer = proven_scorer(served.wrapper, served.probe, name=name, reason="because")
    assert (scorer.name, scorer.reason) == (name, "because")
    equal_in_every_bit(scorer, served)


def test_a_batch_has_the_schemas_types_whatever_numbers_came() -> None:
    served = artifact(*XGB_VALUE)
    row = dict(zip(served.schema.names, served.rows[0], strict=True))
    row |= {"age": 30.0, "amount": 3, "visits": True, "score": True}
    batch = batch_of(served.schema, [tuple(row.values())])
    assert batch.schema == served.schema.arrow()
    made = batch.to_pylist()[0]
    assert (made["age"], made["amount"], made["visits"], made["score"]) == (30, 3.0, 1, 1.0)
    scorer = row_scorer(served.wrapper, served.probe, native=True)
    assert scorer.refusal(tuple(row.values())) is None
    assert scored_bits(scorer, [tuple(row.values())]) == served.bits([tuple(row.values())])
    generic = GenericScorer(served.wrapper, RowCheck(served.schema))
    assert scored_bits(generic, [tuple(row.values())]) == served.bits([tuple(row.values())])
