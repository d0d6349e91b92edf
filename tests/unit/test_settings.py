"""From project files to Settings: layers, overrides, and all that is wrong told at once."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lodestar.errors import Problem, SettingsError, UsageError
from lodestar.settings.loading import (
    Settings,
    find_project,
    load_config,
    load_settings,
    parse_context_params,
    recipe_names,
)
from lodestar.settings.recipe import HyperparameterRange, Recipe, SimpleScaler, Transformer

ROOT = Path(__file__).parents[2]
BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow:
  experiment_name: tests
  tracking_uri: ${TRACKING:sqlite:///mlruns/mlflow.db}
  artifact_root: mlruns/artifacts
model:
  allowed_modules: ["*"]
output:
  root: outputs
batch:
  chunk_rows: ${CHUNK_ROWS:1000}
"""
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters:
    max_depth: 3
    learning_rate: {type: float, low: 0.01, high: 0.3, log: true}
loader:
  source_uri: data/x.parquet
data_interface:
  task_type: classification
  target_col: y
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("config", "recipes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config/base.yaml").write_text(BASE)
    (tmp_path / "recipes/first.yaml").write_text(RECIPE)
    return tmp_path.resolve()


def load(project: Path, *overrides: str, env: str | None = None, **variables: str) -> Settings:
    return load_settings(
        project, "first", environment=env, overrides=overrides, variables=variables
    )


def problems(project: Path, *overrides: str, **variables: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(project, *overrides, **variables)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def recipe_with(project: Path, old: str, new: str) -> list[str]:
    assert old in RECIPE
    (project / "recipes/first.yaml").write_text(RECIPE.replace(old, new))
    return [str(problem) for problem in problems(project)]


def test_a_recipe_and_base_alone_are_local(project: Path) -> None:
    settings = load(project)
    assert settings.environment.name == "local"
    assert settings.environment.project == project
    assert settings.environment.config.batch.chunk_rows == 1000
    assert settings.recipe.model.hyperparameters["max_depth"] == 3
    assert settings.recipe.split.test_size == 0.2
    assert settings.loaded.name == "first"
    assert settings.loaded.text == RECIPE
    assert settings.loaded.where("model", "class_path") == "recipes/first.yaml:2:model.class_path"


def test_the_blueprints_recipe_is_read_as_it_stands() -> None:
    settings = load_settings(ROOT, "uplift_model_exp3", variables={})
    recipe = settings.recipe
    assert recipe.model.class_path == "causalml.inference.meta.XGBTRegressor"
    assert recipe.model.hyperparameters["n_estimators"] == HyperparameterRange(
        type="int", low=50, high=1000
    )
    assert [item.feature_namespace for item in recipe.augmenter.features] == [
        "user_demographics",
        "user_purchase_summary",
        "product_details",
        "session_summary",
    ]
    assert recipe.data_interface.treatment_value == "treatment"
    assert recipe.hyperparameter_tuning.n_trials == 50


@pytest.mark.parametrize("name", recipe_names(ROOT))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_settings(ROOT, name, variables={}).loaded.name == name


def test_all_problems_of_all_files_come_at_once_with_their_places(project: Path) -> None:
    (project / "config/base.yaml").write_text(
        BASE.replace("serving: blocked", "serving: maybe").replace("root: outputs", "rot: outputs")
    )
    text = RECIPE.replace("target_col: y", "target: y").replace("max_depth: 3", "max_depth: !x 3")
    (project / "recipes/first.yaml").write_text(text + "model: {}\n")
    found = problems(project)
    assert {problem.where for problem in found} == {
        "config/base.yaml:1:environment.serving",
        "config/base.yaml:10:output.rot",
        "config/base.yaml:9:output.root",
        "recipes/first.yaml:4:model.hyperparameters.max_depth",
        "recipes/first.yaml:8:data_interface.target_col",
        "recipes/first.yaml:10:data_interface.target",
        "recipes/first.yaml:11",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("target_col: y", "target_coll: y\n  target_col: y", "unknown key 'target_coll'"),
        ("target_col: y", "target_col: 5", "data_interface.target_col: must be text, not a number"),
        ("target_col: y", "target_col: [y]", "data_interface.target_col: must be text, not a list"),
        ("target_col: y", "target_col:", "data_interface.target_col: must be text, not empty"),
        ("target_col: y", "target_col: ''", "data_interface.target_col: "),
        ("task_type: classification", "task_type: clasification", "valid: 'classification', "),
        (
            "loader:\n  source_uri: data/x.parquet",
            "loader: x",
            "loader: must be a mapping, not text",
        ),
        ("loader:\n  source_uri: data/x.parquet\n", "", "the key 'loader' is missing"),
        ("xgboost.XGBClassifier", "XGBClassifier", "not of the form package.module.Class"),
        ("xgboost.XGBClassifier", "os.system('id')", "not of the form package.module.Class"),
        ("xgboost.XGBClassifier", "a..b", "not of the form package.module.Class"),
        ("log: true", "log: 'yes'", "learning_rate.log: must be true or false, not text"),
        ("log: true", "logg: true", "unknown key 'logg'\n  hint: did you mean 'log'?"),
        ("low: 0.01", "low: '0.01'", "learning_rate.low: must be a number, not text"),
        ("low: 0.01", "low: 0.5", "low (0.5) must be below high (0.3)"),
        ("low: 0.01", "low: .nan", "learning_rate.low: should be a finite number"),
        ("high: 0.3", "high: .inf", "learning_rate.high: should be a finite number"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_place(
    project: Path, old: str, new: str, expected: str
) -> None:
    (problem,) = recipe_with(project, old, new)
    assert re.match(r"recipes/first\.yaml:\d+", problem)
    assert expected in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data_interface:\n  task_type: causal\n  target_col: y\n", "needs treatment_col and"),
        (
            "data_interface: {task_type: regression, target_col: y, treatment_col: t}\n",
            "belong to task_type causal",
        ),
        (
            "data_interface: {task_type: regression, target_col: y, positive_class: t}\n",
            "positive_class belongs to task_type classification",
        ),
    ],
)
def test_parts_of_the_data_interface_that_do_not_go_together_are_refused(
    project: Path, text: str, expected: str
) -> None:
    (problem,) = recipe_with(project, RECIPE[RECIPE.index("data_interface") :], text)
    assert expected in problem
    assert problem.startswith("recipes/first.yaml:8:data_interface")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("split: {method: group}", "group and group_col go together"),
        ("split: {group_col: a}", "group and group_col go together"),
        ("split: {gap_seconds: 5}", "gap_seconds belongs to method time"),
        ("split: {method: time, gap_seconds: .inf}", "split.gap_seconds"),
        ("split: {test_size: 1.0}", "split.test_size"),
        ("split: {test_size: 0}", "split.test_size"),
        ("split: {seed: -1}", "split.seed"),
        ("split: {seed: 1.5}", "split.seed: must be a whole number"),
        ("split: {method: randomly}", "split.method: 'randomly' is none of the choices"),
        ("augmenter: {type: feature_store}", "needs a non-empty list of features"),
        ("augmenter: {features: [{feature_namespace: a, features: [b]}]}", "must be feature_store"),
        (
            "augmenter: {type: feature_store, features: [{feature_namespace: a, features: []}]}",
            "augmenter.features.0.features",
        ),
        ("preprocessor: {name: other}", "preprocessor.name: 'other' is none of the choices"),
        ("preprocessor: {class_path: a.B, name: x}", "preprocessor.name: unknown key 'name'"),
        ("preprocessor: {name: simple_scaler, params: {exclude_cols: x}}", "must be a list"),
        ("hyperparameter_tuning: {n_trials: 0}", "hyperparameter_tuning.n_trials"),
        ("hyperparameter_tuning: {enabled: 1}", "must be true or false, not a number"),
        ("hyperparameter_tuning: {direction: up}", "valid: 'maximize' or 'minimize'"),
    ],
)
def test_a_wrong_optional_section_is_told_with_its_place(
    project: Path, section: str, expected: str
) -> None:
    (project / "recipes/first.yaml").write_text(RECIPE + section + "\n")
    (problem,) = problems(project)
    assert expected in str(problem)
    assert problem.where.startswith("recipes/first.yaml:11:")


def test_a_preprocessor_is_the_built_in_one_or_a_class(project: Path) -> None:
    assert isinstance(load(project).recipe.preprocessor, SimpleScaler)
    (project / "recipes/first.yaml").write_text(
        RECIPE
        + "preprocessor: {class_path: sklearn.preprocessing.MinMaxScaler, params: {clip: true}}\n"
    )
    found = load(project).recipe.preprocessor
    assert found == Transformer(
        class_path="sklearn.preprocessing.MinMaxScaler", params={"clip": True}
    )


@pytest.mark.parametrize(
    "value",
    [
        {"type": "float", "low": 0, "high": 1},
        {"type": "float", "low": 0.001, "high": 1, "log": True, "default": 0.1},
        {"type": "float", "low": -1, "high": 1, "step": 0.25},
        {"type": "int", "low": 1, "high": 9, "default": 9},
        {"type": "int", "low": 1, "high": 9, "step": 2},
        {"type": "int", "low": 1, "high": 1024, "log": True},
        {"type": "categorical", "choices": ["a", 1, None, True], "default": "a"},
    ],
)
def test_a_sound_range_is_accepted(value: dict[str, Any]) -> None:
    assert HyperparameterRange.model_validate(value).type == value["type"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"type": "float", "low": 1}, "needs low and high"),
        ({"type": "float", "low": 2, "high": 1}, "must be below"),
        ({"type": "float", "low": 1, "high": 1}, "must be below"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "needs low above 0"),
        ({"type": "float", "low": 0.1, "high": 1, "log": True, "step": 0.1}, "takes no step"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "greater than 0"),
        ({"type": "float", "low": 0, "high": 1, "choices": [1]}, "choices belong to"),
        ({"type": "float", "low": 0.1, "high": 1, "default": 5}, "default must be a number from"),
        ({"type": "float", "low": 0.1, "high": 1, "default": "x"}, "default must be a number"),
        ({"type": "int", "low": 0.5, "high": 3}, "whole numbers"),
        ({"type": "int", "low": 1, "high": 3, "step": 0.5}, "whole numbers"),
        ({"type": "int", "low": 1, "high": 3, "default": 1.5}, "default must be a number"),
        ({"type": "int", "low": 1, "high": float("inf")}, "finite number"),
        ({"type": "categorical"}, "non-empty list of choices"),
        ({"type": "categorical", "choices": []}, "non-empty list of choices"),
        ({"type": "categorical", "choices": ["a"], "low": 1}, "not low, high, log or step"),
        ({"type": "categorical", "choices": ["a"], "default": "b"}, "one of the choices"),
        ({"type": "loguniform", "low": 1, "high": 2}, "'float', 'int' or 'categorical'"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        HyperparameterRange.model_validate(value)


def test_a_mapping_without_a_ranges_keys_is_a_fixed_value(project: Path) -> None:
    settings = load(project, "model.hyperparameters.monotone_constraints={age: 1}")
    assert settings.recipe.model.hyperparameters["monotone_constraints"] == {"age": 1}


def test_not_a_number_is_a_fine_fixed_value(project: Path) -> None:
    missing = load(project, "model.hyperparameters.missing=.nan").recipe.model.hyperparameters
    assert missing["missing"] != missing["missing"]


@pytest.mark.parametrize("env", ["dev", "DEV"])
def test_the_environments_file_lies_over_base(project: Path, env: str) -> None:
    (project / "config/dev.yaml").write_text("output:\n  root: elsewhere\n")
    by_option, by_variable = load(project, env=env), load(project, APP_ENV=env)
    assert by_option.environment.name == by_variable.environment.name == "dev"
    assert by_option.environment.config == by_variable.environment.config
    assert by_option.environment.config.output.root == "elsewhere"
    assert by_option.environment.config.data.root == "data"
    assert load(project, env="local", APP_ENV="dev").environment.config.output.root == "outputs"


def test_a_problem_is_blamed_on_the_file_that_holds_it(project: Path) -> None:
    (project / "config/dev.yaml").write_text("# over base\noutput:\n  root: 5\n")
    (problem,) = problems(project, APP_ENV="dev")
    assert problem.where == "config/dev.yaml:3:output.root"


@pytest.mark.parametrize("name", ["staging", "../base", "..", "/etc/passwd", "a/b", "base\n"])
def test_an_unknown_environment_is_refused_with_those_there_are(project: Path, name: str) -> None:
    (project / "config/dev.yaml").write_text("output: {root: elsewhere}\n")
    with pytest.raises(UsageError, match="environment") as caught:
        load_config(project, name, variables={})
    assert "dev, local" in str(caught.value)


def test_an_override_reaches_recipe_and_config(project: Path) -> None:
    settings = load(
        project, "model.hyperparameters.max_depth=4", "split.seed=7", "config.output.root=there"
    )
    assert settings.recipe.model.hyperparameters["max_depth"] == 4
    assert settings.recipe.split.seed == 7
    assert settings.environment.config.output.root == "there"
    assert settings.loaded.overrides == ("model.hyperparameters.max_depth=4", "split.seed=7")
    assert settings.loaded.text == RECIPE


def test_a_wrong_override_is_blamed_on_the_command_line(project: Path) -> None:
    found = problems(project, "split.sed=7", "config.batch.chunk_rows=many")
    assert [problem.where for problem in found] == [
        "--set config:batch.chunk_rows",
        "--set:split.sed",
    ]


def test_a_section_that_only_an_override_names_is_blamed_on_the_command_line_too(
    project: Path,
) -> None:
    (problem,) = problems(project, "modell.hyperparameters.max_depth=4")
    assert problem.where == "--set:modell"
    assert problem.hint == "did you mean 'model'?"


@pytest.mark.parametrize("item", ["split.seed", "=3", ".seed=3", "split..seed=3", "config.=1"])
def test_an_override_that_is_no_assignment_is_refused(project: Path, item: str) -> None:
    with pytest.raises(UsageError, match="is not key=value"):
        load(project, item)


@pytest.mark.parametrize("value", ["0012345", "1e5", "true", "postgresql://a:b@c/%"])
def test_a_variable_in_a_text_field_stays_text(project: Path, value: str) -> None:
    uri = load(project, TRACKING=value).environment.config.mlflow.tracking_uri
    assert uri.get_secret_value() == value
    assert value not in repr(uri)


def test_a_variable_in_a_numeric_field_becomes_a_number(project: Path) -> None:
    assert load(project, CHUNK_ROWS="0512").environment.config.batch.chunk_rows == 512


@pytest.mark.parametrize("value", ["many", "1e5", "1.5", "true", "1_000", "9" * 5_000])
def test_a_variable_that_is_no_number_where_one_is_needed_is_an_error(
    project: Path, value: str
) -> None:
    (problem,) = problems(project, CHUNK_ROWS=value)
    assert problem.where == "config/base.yaml:12:batch.chunk_rows"
    assert problem.what.startswith("must be a whole number")
    assert value not in problem.what


def test_text_in_a_numeric_field_of_the_file_itself_is_no_number(project: Path) -> None:
    (project / "config/base.yaml").write_text(BASE.replace("${CHUNK_ROWS:1000}", "'1000'"))
    assert problems(project)[0].what == "must be a whole number, not text"


def test_a_missing_variable_is_told_once(project: Path) -> None:
    (project / "config/base.yaml").write_text(BASE.replace(":sqlite:///mlruns/mlflow.db", ""))
    (problem,) = problems(project)
    assert problem.what == "the environment variable TRACKING is not set"
    assert problem.where == "config/base.yaml:5:mlflow.tracking_uri"


def test_a_recipe_takes_no_environment_variables(project: Path) -> None:
    (project / "recipes/first.yaml").write_text(RECIPE.replace("target_col: y", "target_col: ${Y}"))
    assert load(project, Y="secret").recipe.data_interface.target_col == "${Y}"


def test_a_secret_is_never_repeated_in_a_problem(project: Path) -> None:
    (project / "config/base.yaml").write_text(
        BASE.replace("${TRACKING:", "[hunter2, ${TRACKING:") + ""
    )
    text = (project / "config/base.yaml").read_text().replace("mlflow.db}", "mlflow.db}]")
    (project / "config/base.yaml").write_text(text)
    (problem,) = problems(project, TRACKING="hunter2")
    assert "hunter2" not in str(problem)


def test_a_recipe_is_found_by_name_and_by_path(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "recipes")
    for name in (
        "first",
        "first.yaml",
        "recipes/first.yaml",
        "../recipes/first.yaml",
        str(project / "recipes/first.yaml"),
    ):
        assert load_settings(project, name, variables={}).loaded.name == "first"


def test_a_recipe_in_a_folder_below_is_found_by_path(project: Path) -> None:
    (project / "recipes/team").mkdir()
    (project / "recipes/team/second.yaml").write_text(RECIPE)
    assert load_settings(project, "recipes/team/second.yaml", variables={}).loaded.name == "second"


def test_a_recipe_outside_the_project_is_refused(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "evil.yaml"
    outside.write_text(RECIPE)
    (project / "recipes/link.yaml").symlink_to(outside)
    for name in (
        str(outside),
        f"../{outside.parent.name}/evil.yaml",
        "../../../etc/passwd",
        "/etc/passwd",
        "link",
        "recipes/link.yaml",
    ):
        with pytest.raises(UsageError, match="outside the project"):
            load_settings(project, name, variables={})


def test_an_unknown_recipe_is_told_with_the_near_ones(project: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe 'frist'") as caught:
        load_settings(project, "frist", variables={})
    assert "did you mean 'first'?" in str(caught.value)


def test_the_project_is_the_nearest_one_above(project: Path) -> None:
    deep = project / "recipes/sql/loaders"
    deep.mkdir(parents=True)
    assert find_project(deep) == project
    assert find_project(project) == project


def test_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lodestar init"):
        find_project(tmp_path)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        (None, {}),
        ("", {}),
        ("a=1", {"a": "1"}),
        (" a = x y , b=0012,", {"a": "x y", "b": "0012"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
    ],
)
def test_context_params_are_names_and_texts(text: str | None, params: dict[str, str]) -> None:
    assert parse_context_params(text) == params


@pytest.mark.parametrize("text", ["a", "=1", "1a=1", "a b=1", "a=1,a=2", "a.b=1", "a;b=1"])
def test_context_params_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--context-params"):
        parse_context_params(text)


def test_settings_are_frozen(project: Path) -> None:
    recipe: Recipe = load(project).recipe
    with pytest.raises(ValidationError, match="frozen"):
        recipe.split.seed = 3


def test_the_blueprints_monitoring_is_read_as_it_stands(project: Path) -> None:
    (project / "config/watched.yaml").write_text(
        "performance_monitoring:\n"
        "  enabled: true\n"
        "  baseline_metrics:\n"
        "    accuracy: 0.85\n"
        "    precision: 1\n"
        "  alert_thresholds:\n"
        "    improvement_threshold: 0.02  # 2 %\n"
        "    degradation_threshold: -0.01\n",
        encoding="utf-8",
    )
    found = load(project, env="watched").environment.config.performance_monitoring
    assert found.enabled
    assert found.baseline_metrics == {"accuracy": 0.85, "precision": 1.0}
    limits = found.alert_thresholds
    assert (limits.improvement_threshold, limits.degradation_threshold) == (0.02, -0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        "performance_monitoring.alert_thresholds.degradation_threshold=0.01",
        "performance_monitoring.alert_thresholds.improvement_threshold=-0.02",
        "performance_monitoring.baseline_metrics={accuracy: true}",
        "drift.significance=0",
        "drift.unseen=1.5",
        "drift.rows=0",
    ],
)
def test_limits_of_monitoring_that_make_no_sense_are_refused(project: Path, wrong: str) -> None:
    (found,) = problems(project, f"config.{wrong}")
    assert wrong.partition("=")[0].rpartition(".")[2] in found.where
