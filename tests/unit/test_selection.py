"""What a recipe may say of each feature, and how an artifact keeps it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lodestar.core.features import selection_problems
from lodestar.errors import SettingsError
from lodestar.factory.recipe import Factory
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.settings.loading import load_settings
from lodestar.settings.recipe import FeatureSelection, Recipe

BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow: {experiment_name: t, tracking_uri: "sqlite:///mlruns/m.db", artifact_root: mlruns/a}
model: {allowed_modules: ["*"]}
output: {root: outputs}
"""
RECIPE = """\
model: {{class_path: xgboost.XGBClassifier}}
loader: {{source_uri: data/x.parquet}}
data_interface: {{task_type: classification, target_col: y}}
augmenter:
  type: feature_store
  features:
    - feature_namespace: users
      features:
        - flag
        - {item}
"""
USERS = """\
namespace: users
entity_keys: {user_id: string}
source: {table: users}
features: {flag: bool, age: int, ltv: float, country: string, seen: timestamp}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("config", "recipes", "features"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config/base.yaml").write_text(BASE)
    (tmp_path / "features/users.yaml").write_text(USERS)
    return tmp_path.resolve()


def written(project: Path, item: str) -> Factory:
    (project / "recipes/r.yaml").write_text(RECIPE.format(item=item))
    settings = load_settings(project, "r", variables={})
    return Factory(settings.environment, settings.loaded)


def policies(project: Path, item: str) -> dict[str, Any]:
    """As the artifact keeps them, after the checks that come before any data."""
    factory = written(project, item)
    factory.preflight()
    (kept,) = factory.augmenter_snapshot()["features"]
    assert kept["features"][0] == "flag"
    found: dict[str, Any] = json.loads(json.dumps(kept)).get("policies", {})
    return found


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ("age", {}),
        ("{name: age}", {}),
        ("{name: age, on_missing: as_trained}", {}),
        ("{name: age, on_missing: error}", {"age": {"on_missing": "error"}}),
        ("{name: age, on_missing: null}", {"age": {"on_missing": "null"}}),
        ("{name: age, on_missing: 'null'}", {"age": {"on_missing": "null"}}),
        ("{name: age, on_missing: ~}", {"age": {"on_missing": "null"}}),
        ("{name: age, on_missing: 0}", {"age": {"on_missing": 0}}),
        ("{name: ltv, on_missing: 0}", {"ltv": {"on_missing": 0}}),
        ("{name: ltv, on_missing: -1.5}", {"ltv": {"on_missing": -1.5}}),
        ("{name: country, on_missing: ''}", {"country": {"on_missing": ""}}),
        ("{name: country, on_missing: NULL-land}", {"country": {"on_missing": "NULL-land"}}),
        (
            "{name: seen, on_missing: '2025-01-31T12:00:00+09:00'}",
            {"seen": {"on_missing": "2025-01-31T12:00:00+09:00"}},
        ),
        (
            "{name: seen, on_missing: 2025-01-31T12:00:00Z}",
            {"seen": {"on_missing": "2025-01-31T12:00:00Z"}},
        ),
        ("{name: age, max_age: 2d}", {"age": {"max_age": "2d"}}),
        ("{name: age, max_age: 1500ms}", {"age": {"max_age": "1500ms"}}),
        (
            "{name: age, on_missing: -1, max_age: 48h}",
            {"age": {"on_missing": -1, "max_age": "2d"}},
        ),
    ],
)
def test_what_is_said_beyond_a_name_is_kept_beside_the_names(
    project: Path, item: str, kept: dict[str, Any]
) -> None:
    assert policies(project, item) == kept


def test_true_or_false_can_stand_in_for_a_flag(project: Path) -> None:
    text = RECIPE.replace("- flag", "- {{name: flag, on_missing: false}}").format(item="age")
    (project / "recipes/r.yaml").write_text(text)
    settings = load_settings(project, "r", variables={})
    (kept,) = Factory(settings.environment, settings.loaded).augmenter_snapshot()["features"]
    assert kept["features"] == ["flag", "age"]
    assert kept["policies"] == {"flag": {"on_missing": False}}


def test_an_artifact_s_selection_is_read_back_as_the_recipe_had_it(project: Path) -> None:
    factory = written(project, "{name: age, on_missing: 0, max_age: 2d}")
    (kept,) = factory.augmenter_snapshot()["features"]
    read = FeatureSelection.model_validate(json.loads(json.dumps(kept)))
    assert read == factory._recipe.augmenter.features[0]
    assert read.names == ("flag", "age")
    assert read.ages == {"age": timedelta(days=2)}


def test_an_artifact_from_before_there_were_policies_is_read() -> None:
    old = {"feature_namespace": "users", "features": ["age", "ltv"]}
    read = FeatureSelection.model_validate(old)
    assert (read.names, read.ages, read.plain()) == (("age", "ltv"), {}, old)


@pytest.mark.parametrize(
    ("item", "place", "words"),
    [
        ("{name: age, on_missing: [0]}", "1.on_missing", "as_trained, error, null, or a value"),
        ("{name: age, on_missing: {a: 0}}", "1.on_missing", "as_trained, error, null, or a value"),
        ("{name: ltv, on_missing: .nan}", "1.on_missing", "must be a finite number"),
        ("{name: age, max_age: 2}", "1.max_age", "a duration is a whole number and a unit"),
        ("{name: age, max_age: two days}", "1.max_age", "a duration is a whole number and a unit"),
        ("{name: age, max_ages: 2d}", "1.max_ages", "unknown key 'max_ages'"),
        ("{on_missing: 0}", "1.name", "the key 'name' is missing"),
        ("5", "1", "must be a feature's name, or a mapping"),
        ("[age]", "1", "must be a feature's name, or a mapping"),
    ],
)
def test_what_is_no_policy_is_told_with_its_line_and_key(
    project: Path, item: str, place: str, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        written(project, item)
    (problem,) = caught.value.problems
    assert problem.where == f"recipes/r.yaml:10:augmenter.features.0.features.{place}"
    assert words in problem.what + str(problem.hint)


@pytest.mark.parametrize(
    ("item", "key", "words", "hint"),
    [
        (
            "{name: age, on_missing: 1.5}",
            ".on_missing",
            "1.5 cannot stand in for 'age', which",
            "whole",
        ),
        (
            "{name: age, on_missing: true}",
            ".on_missing",
            "which is int: it is of another type",
            "whole",
        ),
        ("{name: age, on_missing: 9223372036854775808}", ".on_missing", "64 bits", "whole number"),
        ("{name: age, on_missing: as_traned}", ".on_missing", "'as_traned'", "mean 'as_trained'?"),
        (
            "{name: age, on_missing: x-y}",
            ".on_missing",
            "'x-y'",
            "valid: as_trained, error, null",
        ),
        ("{name: ltv, on_missing: false}", ".on_missing", "which is float", "a number"),
        ("{name: country, on_missing: 0}", ".on_missing", "which is string", "a text"),
        ("{name: seen, on_missing: 0}", ".on_missing", "it is no time", "2025-01-31T00:00:00Z"),
        ("{name: seen, on_missing: 2025-01-31}", ".on_missing", "its zone is missing", "zone"),
        ("{name: seen, on_missing: soon}", ".on_missing", "'soon'", "a time with its zone"),
        ("{name: agee, on_missing: 0}", "", "no feature 'agee'", "did you mean 'age'?"),
        ("{name: flag, on_missing: true}", "", "gives the feature 'flag' twice", "once"),
    ],
)
def test_a_value_that_does_not_fit_the_declaration_is_told_before_any_data_is_read(
    project: Path, item: str, key: str, words: str, hint: str
) -> None:
    factory = written(project, item)
    with pytest.raises(SettingsError) as caught:
        factory.preflight()
    (problem,) = caught.value.problems
    assert problem.where == f"recipes/r.yaml:10:augmenter.features.0.features.1{key}"
    assert words in problem.what
    assert hint in str(problem.hint)


@pytest.mark.parametrize(
    "changes",
    [
        {"policies": {"height": {}}},
        {"policies": {"age": 0}},
        {"policies": ["age"]},
        {"features": "age", "policies": {}},
        {"policies": {"age": {"on_mising": 0}}},
    ],
)
def test_policies_that_do_not_belong_to_the_names_are_refused(changes: dict[str, Any]) -> None:
    item = {"feature_namespace": "users", "features": ["age"], **changes}
    with pytest.raises(ValueError, match=r"polic|on_mising"):
        FeatureSelection.model_validate(item)


def test_every_problem_of_a_selection_is_told_at_once() -> None:
    view = FeatureView.model_validate(
        {
            "namespace": "users",
            "entity_keys": {"user_id": "int"},
            "source": {"table": "users"},
            "features": {"age": "int", "ltv": "float"},
        }
    )
    item = {
        "feature_namespace": "users",
        "features": ["age", "ltv"],
        "policies": {"age": {"on_missing": "x"}, "ltv": {"on_missing": "y"}},
    }
    found = selection_problems(
        FeatureCatalog({"users": view}), [FeatureSelection.model_validate(item)]
    )
    assert [problem.inside for problem in found] == [(0, "on_missing"), (1, "on_missing")]


def test_the_json_schema_takes_a_name_alone_and_a_mapping() -> None:
    parts = Recipe.model_json_schema()["$defs"]
    items = parts["FeatureSelection"]["properties"]["features"]["items"]
    assert items["anyOf"] == [{"type": "string"}, {"$ref": "#/$defs/FeatureChoice"}]
    stands_in = parts["FeatureChoice"]["properties"]["on_missing"]
    kinds = {option["type"] for option in stands_in["anyOf"]}
    assert kinds == {"boolean", "integer", "number", "string", "null"}
    assert stands_in["default"] == "as_trained"
