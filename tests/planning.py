"""Small real artifacts of every library, and rows of plain values, for the tests of scoring plans."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from lodestar.artifact.contents import ArtifactContents, Component
from lodestar.artifact.lock import Lock
from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.fitted import FittedModel
from lodestar.core.models import family_of, import_class
from lodestar.core.outputs import prediction_columns
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Task, Truth
from lodestar.core.roles import Roles, TargetReader
from lodestar.interface.learning import Preprocessor
from lodestar.schema import FrameSchema
from lodestar.serving.plan import rows_of
from lodestar.serving.plan.generic import batch_of
from lodestar.serving.scoring import Row, RowScorer

# Class path, task, how many classes, hyperparameters.
Model: TypeAlias = tuple[str, Task, int, tuple[tuple[str, Any], ...]]
XGB_BINARY: Model = ("xgboost.XGBClassifier", "classification", 2, (("n_estimators", 12),))
XGB_THREE: Model = ("xgboost.XGBClassifier", "classification", 3, (("n_estimators", 6),))
XGB_VALUE: Model = ("xgboost.XGBRegressor", "regression", 0, (("n_estimators", 12),))
LGBM_BINARY: Model = ("lightgbm.LGBMClassifier", "classification", 2, (("n_estimators", 12),))
LGBM_THREE: Model = ("lightgbm.LGBMClassifier", "classification", 3, (("n_estimators", 6),))
LGBM_VALUE: Model = ("lightgbm.LGBMRegressor", "regression", 0, (("n_estimators", 12),))
TREES = (XGB_BINARY, XGB_THREE, XGB_VALUE, LGBM_BINARY, LGBM_THREE, LGBM_VALUE)


@dataclass(frozen=True)
class Planned:
    """An artifact, its probe rows, and the rows that it was trained on."""

    wrapper: PyfuncWrapper
    probe: pa.Table
    table: pa.Table

    @property
    def schema(self) -> FrameSchema:
        return self.wrapper.contents.feature_schema

    @property
    def rows(self) -> list[Row]:
        return rows_of(self.schema, self.table)

    def bits(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the artifact itself says, by its own public way."""
        scored = self.wrapper.score(batch_of(self.schema, rows))
        told = {name: _bits(values) for name, values in scored.predictions.items()}
        return {**told, "unknown": dict(scored.features.unknown)}


@cache
def artifact(
    class_path: str,
    task: Task,
    classes: int,
    hyperparameters: tuple[tuple[str, Any], ...],
    criterion: str | None = None,
) -> Planned:
    """Train on 400 rows, save the estimator and read it back."""
    table = training_rows(400)
    scaler = SimpleScaler(criterion_col=criterion, exclude_cols=("day", "seen"), max_categories=5)
    return planned(scaler, table, class_path, task, classes, dict(hyperparameters))


def planned(
    preprocessor: Preprocessor,
    table: pa.Table,
    class_path: str,
    task: Task,
    classes: int,
    hyperparameters: Mapping[str, Any],
) -> Planned:
    """Train and read back with any preprocessor."""
    truth = truth_of(table, task, classes)
    family = family_of(import_class(class_path, ["*"], where="", methods=()), task)
    preprocessor.fit(table, truth.target)
    estimator = family.build(hyperparameters, seed=1)
    family.fit(estimator, preprocessor.transform(table, dtype=family.dtype), truth)
    with tempfile.TemporaryDirectory() as folder:
        estimator = family.load(Path(folder) / family.save(estimator, Path(folder)))
    fitted = FittedModel(preprocessor, estimator, family, truth.classes)
    return Planned(wrapped(fitted, table, task), table.slice(0, 5), table)


def wrapped(fitted: FittedModel, table: pa.Table, task: Task) -> PyfuncWrapper:
    """An artifact around a fitted model."""
    schema = FrameSchema.of(table)
    contents = ArtifactContents(
        recipe_name="planned",
        recipe_yaml_snapshot="",
        recipe_overrides=(),
        loader_sql_snapshot=None,
        loader_uri_snapshot="data/x.parquet",
        loader_dialect="postgres",
        augmenter_config_snapshot={},
        model_class_path="",
        hyperparameters={},
        trained_model=Component("", fitted.family.name, ""),
        trained_preprocessor=Component("", "", ""),
        roles=Roles(schema.names, (), "y", None, (), None),
        target=TargetReader(task, fitted.classes),
        spine_schema=schema,
        feature_schema=schema,
        target_schema={},
        training_methodology={},
        training_timestamp="",
        model_version="1",
        data_fingerprint={},
        metrics={},
        lock=Lock("", {}, {}),
    )
    return PyfuncWrapper(contents, fitted)


def training_rows(count: int) -> pa.Table:
    """Every type of column, nulls in some, more categories than get a column of their own."""
    draw = np.random.default_rng(11)
    where = np.array([f"land {at}" for at in np.minimum(draw.geometric(0.2, count), 12)])
    moments = draw.integers(0, 4, count) * 86_400_000_000 + 1_700_000_000_000_000
    return pa.table(
        {
            "age": pa.array(draw.integers(18, 90, count)),
            "amount": pa.array(draw.lognormal(3, 2, count)),
            "score": _with_nulls(draw, draw.normal(size=count)),
            "visits": _with_nulls(draw, draw.poisson(3, count)),
            "member": pa.array(draw.random(count) < 0.4),
            "country": _with_nulls(draw, where),
            "device": pa.array(draw.choice(["ios", "android", "Ünlü"], count)),
            "step": _with_nulls(draw, draw.choice([-0.0, 0.0, 0.1, np.nan, 1e20], count)),
            "day": pa.array(draw.integers(19_000, 19_004, count).astype(np.int32), pa.date32()),
            "seen": pa.array(moments, pa.timestamp("us", "UTC")),
        }
    )


def truth_of(table: pa.Table, task: Task, classes: int) -> Truth:
    """A target that depends on several columns."""
    score = np.nan_to_num(table["score"].to_numpy()) + np.log(table["amount"].to_numpy())
    score += 2.0 * np.asarray(table["device"].to_numpy() == "ios", np.float64)
    if task == "regression":
        return Truth(score)
    if task == "causal":
        treatment = np.arange(len(score)) % 2
        return Truth(((score + treatment) > np.median(score)).astype(float), treatment)
    cuts = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return Truth(np.searchsorted(cuts, score), classes=tuple("xyz"[:classes]))


def scored_bits(scorer: RowScorer, rows: Sequence[Row]) -> dict[str, Any]:
    """What a scorer says, in the form of `Planned.bits`."""
    scores = scorer.score(rows)
    told = {name: _bits(v) for name, v in prediction_columns(scores.predictions).items()}
    return {**told, "unknown": dict(scores.unknown)}


def _bits(values: pa.Array) -> tuple[str, Any]:
    if pa.types.is_floating(values.type):
        return str(values.type), values.to_numpy().tobytes()
    return str(values.type), values.to_pylist()


def _with_nulls(draw: np.random.Generator, values: Any) -> pa.Array:  # noqa: ANN401 -- numpy array
    null = draw.random(len(values)) < 0.1
    kept = zip(null, values.tolist(), strict=True)
    return pa.array([None if gone else value for gone, value in kept])
