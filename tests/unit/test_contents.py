import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar.artifact.contents import (
    FORMAT_VERSION,
    ArtifactContents,
    Component,
    read_contents,
)
from lodestar.artifact.lock import Lock
from lodestar.core.roles import Roles, TargetReader
from lodestar.errors import ArtifactError
from lodestar.schema import Column, FrameSchema

SCHEMA = FrameSchema(
    (Column("나이", "int", nullable=False), Column("city", "string", nullable=True))
)


def contents(**changes: Any) -> ArtifactContents:  # noqa: ANN401 -- any field
    whole = ArtifactContents(
        recipe_name="first",
        recipe_yaml_snapshot="model: # 🚀\n",
        recipe_overrides=("split.seed=7",),
        loader_sql_snapshot="SELECT 1 AS a",
        loader_uri_snapshot=None,
        loader_dialect="postgres",
        augmenter_config_snapshot={"features": [{"feature_namespace": "u", "features": ["age"]}]},
        model_class_path="xgboost.XGBClassifier",
        hyperparameters={"max_depth": 3, "eta": 0.1, "flag": None, "nested": {"a": [1, 2]}},
        trained_model=Component("xgboost.XGBClassifier", "xgboost", "model.ubj"),
        trained_preprocessor=Component("x.SimpleScaler", "simple_scaler", "preprocessor.json"),
        roles=Roles(("나이", "city"), ("id",), "y", None, ("id",), "event_timestamp"),
        target=TargetReader("classification", ("no", "yes")),
        spine_schema=SCHEMA,
        feature_schema=SCHEMA,
        target_schema={"name": "y", "type": "string"},
        training_methodology={"split": "stratified", "seed": 42},
        training_timestamp="2025-01-01T00:00:00+00:00",
        model_version="1",
        data_fingerprint={"sha256": "abc", "rows": 3},
        metrics={"roc_auc": {"value": 0.1 + 0.2, "low": 0.0, "high": 1.0}},
        lock=Lock("3.11.7", {"numpy": "2.3.0"}, {"numpy": "2.3.0", "six": "1.0"}),
        carried_modules={"team.models": "team/models.py"},
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loader_sql_snapshot": None, "loader_uri_snapshot": "data/x.parquet"},
        {"hyperparameter_optimization": {"n_trials": 50, "best_params": {"eta": 0.1}}},
        {"target": TargetReader("causal", treatment_value="treatment")},
        {"recipe_overrides": (), "carried_modules": {}},
    ],
)
def test_contents_come_back_as_they_were(tmp_path: Path, changes: dict[str, Any]) -> None:
    given = contents(**changes)
    given.write(tmp_path / "contents.json")
    assert read_contents(tmp_path / "contents.json") == given


def test_without_a_search_there_is_no_record_of_one(tmp_path: Path) -> None:
    contents().write(tmp_path / "contents.json")
    value = json.loads((tmp_path / "contents.json").read_text())
    assert "hyperparameter_optimization" not in value
    assert value["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize(
    ("version", "hint"),
    [(FORMAT_VERSION + 1, "upgrade lodestar-ml"), (0, "train again"), (None, "train again")],
)
def test_an_unknown_format_version_is_an_error_with_a_way_on(
    tmp_path: Path, version: int | None, hint: str
) -> None:
    path = tmp_path / "contents.json"
    contents().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with pytest.raises(ArtifactError, match=f"format version {version}") as caught:
        read_contents(path)
    assert hint in str(caught.value)
