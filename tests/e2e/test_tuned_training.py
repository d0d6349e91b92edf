"""`lodestar train` with a search: the blueprint's models, what the artifact keeps, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Lodestar, Trained, edited

from lodestar.errors import SettingsError
from lodestar.factory.recipe import Factory
from lodestar.settings.loading import load_settings

TUNED = (
    *("--set", "config.hyperparameter_tuning.enabled=true"),
    *("--set", "hyperparameter_tuning.enabled=true"),
)
QUICK = (
    *TUNED,
    *("--set", "hyperparameter_tuning.n_trials=8"),
    *("--set", "hyperparameter_tuning.finalists={candidates: 2, splits: 2}"),
)
DEPTH = (
    *("--set", "model.hyperparameters.max_depth={type: int, low: 2, high: 6}"),
    *("--set", "model.hyperparameters.learning_rate=0.1"),
)
ROUNDS = ("--set", "model.hyperparameters.n_estimators=30")
# Trials so short are pruned or not, as the machine is busy or not; these take long enough on any.
LONG = ("--set", "model.hyperparameters.n_estimators=500")


def contents(run: Trained) -> dict[str, Any]:
    """What the artifact says of itself."""
    found: dict[str, Any] = json.loads((run.artifact / "lodestar/contents.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def tuned(trained: Callable[..., Trained]) -> Trained:
    return trained("breast_cancer", *QUICK, *DEPTH, *ROUNDS)


def test_the_run_is_named_by_its_best_score(tuned: Trained) -> None:
    name, score = tuned.json["run_name"], tuned.json["tuning"]["best_score"]
    assert re.fullmatch(
        r"XGBClassifier_breast_cancer_\d{8}_\d{6}_optuna_best_score_\d\.\d{3}", name
    )
    assert name.endswith(f"_{score:.3f}")


def test_the_reports_command_searches_again_where_the_config_has_it_off(tuned: Trained) -> None:
    page = (tuned.project / tuned.json["report"]).read_text("utf-8")
    enabled = "--set config.hyperparameter_tuning.enabled=true"
    assert f"lodestar train --recipe-file breast_cancer {enabled}" in page


def test_the_final_model_has_the_best_parameters_and_the_recipes_fixed_ones(tuned: Trained) -> None:
    given, best = tuned.json["hyperparameters"], tuned.json["tuning"]["best_params"]
    assert list(best) == ["max_depth"]
    assert given["max_depth"] == best["max_depth"]
    assert given["n_estimators"] == 30
    assert "n_jobs" not in given  # the workers' threads are the search's business


def test_the_artifact_keeps_all_that_the_blueprint_lists(tuned: Trained) -> None:
    kept = contents(tuned)["hyperparameter_optimization"]
    assert kept["enabled"] is True
    assert kept["engine"] == "optuna"
    assert kept["best_params"] == tuned.json["tuning"]["best_params"]
    assert kept["best_score"] == tuned.json["tuning"]["best_score"]
    assert kept["total_trials"] == 8 == len(kept["optimization_history"])
    assert kept["pruned_trials"] == tuned.json["tuning"]["pruned"]
    assert kept["completed_trials"] + kept["pruned_trials"] + kept["failed_trials"] == 8
    assert 0 < kept["optimization_time"] < 120
    assert kept["search_space"] == {"max_depth": {"type": "int", "low": 2, "high": 6, "log": False}}
    for number, trial in enumerate(kept["optimization_history"]):
        assert trial["number"] == number
        assert trial["state"] in {"complete", "pruned", "failed"}
        assert 2 <= trial["params"]["max_depth"] <= 6
        assert trial["seconds"] > 0
    assert [len(item["scores"]) for item in kept["finalists"]] == [2, 2]
    parts = kept["best_score_parts"]
    assert parts["mean"] == kept["finalists"][0]["mean"]
    assert parts["mean"] - parts["offset"] + parts["gain"] == pytest.approx(kept["best_score"])
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def test_the_tuned_artifact_verifies_and_its_method_is_told(
    lodestar: Lodestar, tuned: Trained
) -> None:
    lodestar("verify", "--run-id", tuned.run_id, cwd=tuned.project).succeeded()
    method = contents(tuned)["training_methodology"]
    assert "common splits" in method["validation_strategy"]
    assert method["preprocessing_fit_scope"] == "train_only"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_the_same_seed_finds_bitwise_the_same(
    lodestar: Lodestar, trained: Callable[..., Trained], project: Path, workers: int
) -> None:
    jobs = ("--set", f"config.hyperparameter_tuning.parallelization.n_jobs={workers}")
    again = lodestar(
        *("train", "-r", "breast_cancer", *QUICK, *DEPTH, *LONG, *jobs, "--json"), cwd=project
    ).succeeded()
    if workers == 1:
        once = trained("breast_cancer", *QUICK, *DEPTH, *LONG)
        assert again.json["tuning"]["pruned"] == once.json["tuning"]["pruned"] > 0
        assert again.json["tuning"]["best_params"] == once.json["tuning"]["best_params"]
        assert again.json["tuning"]["best_score"] == once.json["tuning"]["best_score"]
        assert again.json["metrics"] == once.json["metrics"]
    else:
        assert again.json["tuning"]["completed"] + again.json["tuning"]["pruned"] == 8


SPACES = {
    "RandomForestClassifier": (
        "wine",
        "sklearn.ensemble.RandomForestClassifier",
        "{n_estimators: {type: int, low: 5, high: 20}, max_depth: {type: int, low: 2, high: 8},"
        " max_features: {type: categorical, choices: [sqrt, log2, null]}}",
        "accuracy",
    ),
    "LogisticRegression": (
        "wine",
        "sklearn.linear_model.LogisticRegression",
        "{C: {type: float, low: 0.001, high: 100, log: true},"
        " penalty: {type: categorical, choices: [l2]},"
        " solver: {type: categorical, choices: [lbfgs, newton-cg]}, max_iter: 500}",
        "log_loss",
    ),
    "XGBClassifier": (
        "breast_cancer",
        "xgboost.XGBClassifier",
        "{learning_rate: {type: float, low: 0.01, high: 0.3, log: true},"
        " n_estimators: {type: int, low: 10, high: 40}, max_depth: {type: int, low: 3, high: 10},"
        " subsample: {type: float, low: 0.5, high: 1.0}}",
        "roc_auc",
    ),
    "LGBMRegressor": (
        "diabetes",
        "lightgbm.LGBMRegressor",
        "{num_leaves: {type: int, low: 4, high: 31}, n_estimators: 20, verbosity: -1,"
        " feature_fraction: {type: float, low: 0.4, high: 1.0}}",
        "rmse",
    ),
    "CatBoostClassifier": (
        "wine",
        "catboost.CatBoostClassifier",
        "{iterations: {type: int, low: 5, high: 20}, depth: {type: int, low: 2, high: 5},"
        " learning_rate: {type: float, low: 0.01, high: 0.3, log: true}}",
        "log_loss",
    ),
    "HistGradientBoostingRegressor": (
        "diabetes",
        "sklearn.ensemble.HistGradientBoostingRegressor",
        "{max_iter: {type: int, low: 10, high: 40},"
        " learning_rate: {type: float, low: 0.01, high: 0.3, log: true}}",
        "r2",
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n != "LGBMRegressor" else []) for n in SPACES],
)
def test_every_model_of_the_blueprint_is_tuned(trained: Callable[..., Trained], name: str) -> None:
    recipe, path, space, metric = SPACES[name]
    run = trained(
        recipe,
        *QUICK,
        *("--set", f"model={{class_path: {path}, hyperparameters: {space}}}"),
        *("--set", f"hyperparameter_tuning.metric={metric}"),
        *("--set", "hyperparameter_tuning.direction=null"),
    )
    tuning = run.json["tuning"]
    assert run.json["run_name"].startswith(f"{name}_{recipe}_")
    assert tuning["completed"] + tuning["pruned"] == 8
    assert tuning["failed"] == 0
    assert tuning["metric"] == metric
    assert tuning["best_params"].keys() <= run.json["hyperparameters"].keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    ["roc_auc", *(pytest.param(other, marks=pytest.mark.faults) for other in ("auuc", "qini"))],
)
def test_the_uplift_model_is_tuned(trained: Callable[..., Trained], metric: str) -> None:
    run = trained(
        "uplift_model_exp3",
        *QUICK,
        *("--set", f"hyperparameter_tuning.metric={metric}"),
        *("--set", "hyperparameter_tuning.n_trials=4"),
        *("--set", "model.hyperparameters.n_estimators={type: int, low: 10, high: 40}"),
    )
    tuning = run.json["tuning"]
    assert tuning["completed"] + tuning["pruned"] == 4
    assert tuning["best_params"].keys() >= {"learning_rate", "n_estimators", "max_depth"}
    assert run.json["task_type"] == "causal"


OFF = ("--set", "hyperparameter_tuning.enabled=false")


@pytest.mark.slow
@pytest.mark.parametrize("given", [(*TUNED[:2], *OFF), TUNED[2:]])
def test_a_search_needs_the_recipe_and_the_config(
    lodestar: Lodestar, project: Path, given: tuple[str, ...]
) -> None:
    default = ("--set", "model.hyperparameters.max_depth={type: int, low: 2, high: 6, default: 4}")
    done = lodestar(
        *("train", "-r", "breast_cancer", *given, *default, *ROUNDS, "--json"), cwd=project
    ).succeeded()
    assert done.json["tuning"]["enabled"] is False
    assert done.json["hyperparameters"]["max_depth"] == 4
    assert "the search is off" in done.stderr
    assert not (project / ".lodestar/studies").exists()


def test_mistakes_in_the_search_are_found_before_any_data_is_read(
    lodestar: Lodestar, project: Path
) -> None:
    (project / "data/breast_cancer.parquet").unlink()
    train = ("train", "-r", "breast_cancer", *QUICK)
    unknown = ("--set", "model.hyperparameters.max_dept={type: int, low: 2, high: 6}")
    lodestar(*train, *unknown, cwd=project).refused(2, "max_dept", "did you mean 'max_depth'")
    upside = ("--set", "model.hyperparameters.max_depth={type: int, low: 6, high: 2}")
    lodestar(*train, *upside, cwd=project).refused(2, "low (6) must be below high (2)")
    wrong = ("--set", "hyperparameter_tuning.direction=minimize")
    lodestar(*train, *DEPTH, *wrong, cwd=project).refused(2, "better when maximized")
    foreign = ("--set", "hyperparameter_tuning.metric=rmse")
    lodestar(*train, *DEPTH, *foreign, cwd=project).refused(2, "no metric 'rmse'")


def refused_before_any_data(sample_project: Path, model: str, *overrides: str) -> str:
    """What the preflight says of a recipe with this model."""
    settings = load_settings(
        sample_project,
        "breast_cancer",
        environment=None,
        overrides=(f"model={model}", *overrides),
        variables={},
    )
    with pytest.raises(SettingsError) as caught:
        Factory(settings.environment, settings.loaded).preflight()
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("xgboost.XGBClassifier", "early_stopping_rounds"),
        ("lightgbm.LGBMClassifier", "early_stopping_round"),
        ("catboost.CatBoostClassifier", "od_wait"),
    ],
)
def test_the_librarys_own_early_stopping_is_refused_and_ours_is_named(
    sample_project: Path, path: str, name: str
) -> None:
    said = refused_before_any_data(
        sample_project, f"{{class_path: {path}, hyperparameters: {{{name}: 5}}}}"
    )
    assert f"{name} needs validation rows inside fit" in said
    assert "hyperparameter_tuning.early_stopping_rounds does it in the trials" in said


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sklearn.ensemble.RandomForestClassifier", "cannot be stopped early"),
        ("catboost.CatBoostClassifier", "CatBoost chooses learning_rate and leaf_estimation"),
    ],
)
def test_early_stopping_is_refused_where_it_cannot_be(
    sample_project: Path, path: str, words: str
) -> None:
    asked = "hyperparameter_tuning.early_stopping_rounds=5"
    assert words in refused_before_any_data(sample_project, f"{{class_path: {path}}}", asked)


STOPPED = (*QUICK, *DEPTH, "--set", "model.hyperparameters.n_estimators=400")


def test_trials_stop_early_and_the_model_gets_the_rounds_that_were_best(
    trained: Callable[..., Trained],
) -> None:
    run = trained(
        "breast_cancer", *STOPPED, "--set", "hyperparameter_tuning.early_stopping_rounds=20"
    )
    best, kept = run.json["tuning"]["best_params"], contents(run)["hyperparameter_optimization"]
    assert best["n_estimators"] < 400
    assert run.json["hyperparameters"] == {**run.json["hyperparameters"], **best}
    winner = kept["finalists"][0]
    trial = kept["optimization_history"][winner["number"]]
    assert trial["rounds"] == best["n_estimators"] == winner["params"]["n_estimators"]
    assert "n_estimators" not in trial["params"]


@pytest.mark.slow
def test_without_a_search_nothing_stops_early_and_a_note_says_so(
    lodestar: Lodestar, project: Path
) -> None:
    asked = ("--set", "hyperparameter_tuning.early_stopping_rounds=20")
    done = lodestar("train", "-r", "breast_cancer", *asked, *ROUNDS, "--json", cwd=project)
    assert done.succeeded().json["hyperparameters"]["n_estimators"] == 30
    assert "all rounds are trained" in done.stderr


def test_a_fixed_value_of_a_wrong_type_is_a_clear_error(lodestar: Lodestar, project: Path) -> None:
    wrong = ("--set", "model.hyperparameters.n_estimators=many")
    train = ("train", "-r", "breast_cancer", *wrong)
    lodestar(*train, cwd=project).refused(2, "XGBClassifier refuses")
    lodestar(*train, *QUICK, *DEPTH, cwd=project).refused(
        3, "every one of the first 5 trials failed", "XGBClassifier refuses"
    )


ENDLESS = (
    *("--set", "config.hyperparameter_tuning.timeout=1"),
    *(
        "--set",
        "model.hyperparameters.n_estimators={type: int, low: 200000, high: 300000}",
    ),
)


def test_a_timeout_that_no_trial_meets_is_an_error_with_the_ways_out(
    lodestar: Lodestar, project: Path
) -> None:
    done = lodestar("train", "-r", "breast_cancer", *QUICK, *ENDLESS, cwd=project)
    done.refused(3, "no trial ended within 1 s", "timeout", "on_timeout: defaults")


@pytest.mark.slow
def test_or_the_recipe_trains_with_its_defaults(lodestar: Lodestar, project: Path) -> None:
    fallback = ("--set", "hyperparameter_tuning.on_timeout=defaults")
    done = lodestar(
        "train", "-r", "breast_cancer", *QUICK, *ENDLESS, *fallback, "--json", cwd=project
    ).succeeded()
    assert done.json["tuning"]["enabled"] is False
    assert "n_estimators" not in done.json["hyperparameters"]
    assert "no trial ended in time: the recipe trains with its defaults" in done.stderr


@pytest.mark.slow
def test_there_is_nothing_to_resume_without_a_search(lodestar: Lodestar, project: Path) -> None:
    train = ("train", "-r", "breast_cancer", *QUICK, *DEPTH, "--resume")
    lodestar(*train, cwd=project).refused(2, "there is no search breast_cancer-", "to resume")


def test_a_finished_search_is_resumed_in_no_time_and_gives_the_same(
    lodestar: Lodestar, tuned: Trained
) -> None:
    done = lodestar(
        *("train", "-r", "breast_cancer", *QUICK, *DEPTH, *ROUNDS, "--resume", "--json"),
        cwd=tuned.project,
    ).succeeded()
    assert done.json["tuning"]["best_params"] == tuned.json["tuning"]["best_params"]
    assert done.json["tuning"]["best_score"] == tuned.json["tuning"]["best_score"]
    assert done.json["tuning"]["n_trials"] == 8
    assert "resumed after 8 of 8 trials" in done.stderr


@pytest.mark.slow
@pytest.mark.faults
def test_other_data_is_another_search(lodestar: Lodestar, project: Path) -> None:
    train = ("train", "-r", "wine", *QUICK)
    space = ("--set", "model.hyperparameters.max_depth={type: int, low: 2, high: 6}", *ROUNDS)
    lodestar(*train, *space, cwd=project).succeeded()
    edited(project / "recipes/wine.yaml", "data/wine.parquet", "data/other.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(project / "data/wine.parquet")
    pq.write_table(table.slice(0, len(table) - 1), project / "data/other.parquet")
    lodestar(*train, *space, "--resume", cwd=project).refused(2, "there is no search wine-")


@pytest.mark.slow
@pytest.mark.parametrize(("times_over", "windows"), [(1, 1), (60, 2)])
def test_rows_split_by_time_are_judged_in_as_many_windows_as_they_are_enough_for(
    lodestar: Lodestar, project: Path, times_over: int, windows: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables([pq.read_table(project / "data/wine.parquet")] * times_over)
    order = pa.array([(number * 37) % len(table) for number in range(len(table))])
    times = pa.compute.add(pa.scalar(1_700_000_000), order).cast(pa.timestamp("s"))
    pq.write_table(table.append_column("event_timestamp", times), project / "data/wine.parquet")
    space = ("--set", "model.hyperparameters.max_depth={type: int, low: 2, high: 6}", *ROUNDS)
    by_time = ("--set", "split={method: time}")
    done = lodestar("train", "-r", "wine", *QUICK, *space, *by_time, "--json", cwd=project)
    tuning = done.succeeded().json["tuning"]
    assert (tuning["best_score_error"] is None) is (windows == 1)
    assert ("too few rows in it to cut them into windows" in done.stderr) is (windows == 1)


@pytest.mark.slow
def test_where_time_is_short_trials_are_drafts_with_larger_steps_and_finalists_are_whole(
    lodestar: Lodestar, project: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(project / "data/breast_cancer.parquet")
    rows = pa.concat_tables([table] * 80)
    # Copies are rows of their own for what counts here, the time that fits take.
    rows = rows.append_column("copy", pa.array([float(row) for row in range(len(rows))]))
    pq.write_table(rows, project / "data/breast_cancer.parquet")
    space = (
        *("--set", "model.hyperparameters.n_estimators={type: int, low: 20, high: 60}"),
        *("--set", "model.hyperparameters.learning_rate={type: float, low: 0.05, high: 0.5}"),
        *("--set", "hyperparameter_tuning.n_trials=2000"),
        *("--set", "config.hyperparameter_tuning.timeout=6"),
    )
    done = lodestar("train", "-r", "breast_cancer", *QUICK, *space, "--json", cwd=project)
    tuning = done.succeeded().json["tuning"]
    assert "fitted on 37% of their rows, in 1/2 of their rounds with larger steps" in done.stderr
    assert 20 <= tuning["best_params"]["n_estimators"] <= 60
    assert 0.05 <= tuning["best_params"]["learning_rate"] <= 0.5
    assert tuning["finalist_share"] is None


@pytest.mark.faults
def test_more_workers_than_cores_are_allowed_and_said(lodestar: Lodestar, project: Path) -> None:
    jobs = ("--set", "config.hyperparameter_tuning.parallelization.n_jobs=2")
    train = ("train", "-r", "breast_cancer", *QUICK, *DEPTH, *ROUNDS, *jobs)
    done = lodestar(*train, cwd=project, under=("taskset", "-c", "0")).succeeded()
    assert "more trials at a time (2) than cores (1)" in done.stderr
