"""`lodestar train`: every shipped recipe, the ways to name and change it, and what it prints."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from tests.conftest import ROOT, SMALL, Lodestar, Trained, edited, outbox

from lodestar.artifact.wrapper import load_wrapper
from lodestar.samples.shop import true_uplift

KEYS = {
    "run_id",
    "run_name",
    "metrics",
    "task_type",
    "model_class_path",
    "tuning",
    "artifact_uri",
    "report",
}


@pytest.mark.parametrize(
    ("recipe", "task", "class_name", "metric", "least"),
    [
        ("breast_cancer", "classification", "XGBClassifier", "roc_auc", 0.97),
        ("digits", "classification", "LogisticRegression", "accuracy", 0.93),
        ("wine", "classification", "RandomForestClassifier", "accuracy", 0.9),
        ("diabetes", "regression", "LGBMRegressor", "r2", 0.3),
    ],
)
def test_a_shipped_recipe_trains_and_learns(
    trained: Callable[..., Trained],
    recipe: str,
    task: str,
    class_name: str,
    metric: str,
    least: float,
) -> None:
    run = trained(recipe)
    assert run.json.keys() >= KEYS
    assert run.json["task_type"] == task
    assert run.json["run_name"].startswith(f"{class_name}_{recipe}_20")
    assert run.json["tuning"]["enabled"] is False
    assert run.json["metrics"][metric] > least
    low, high = run.json["intervals"][metric]
    assert low <= run.json["metrics"][metric] <= high
    assert (run.artifact / "MLmodel").is_file()
    report = (run.project / run.json["report"]).read_text(encoding="utf-8")
    assert run.run_id in report


@pytest.mark.slow
def test_the_uplift_recipe_finds_the_uplift_that_the_shop_was_made_with(
    lodestar: Lodestar, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    run = trained("uplift_model_exp3")
    assert run.json["task_type"] == "causal"
    assert run.json["metrics"].keys() >= {"auuc", "qini", "roc_auc"}
    notes = " ".join(run.json["notes"])
    assert "data/snapshots/uplift_model_exp3.parquet stands in" in notes

    rows = pq.read_table(run.project / "data/snapshots/uplift_model_exp3.parquet").to_pandas()
    held_out = _held_out(rows, run)
    output = outbox(run.project, tmp_path) / "uplift.parquet"
    lodestar(
        "batch-inference", "--run-id", run.run_id, "--output", output, cwd=run.project
    ).succeeded()
    predicted = pq.read_table(output).to_pandas()
    assert len(predicted) == len(rows)
    found = spearmanr(predicted["prediction"].iloc[held_out], true_uplift(rows.iloc[held_out]))
    assert found.statistic > 0.4


def _held_out(rows: pd.DataFrame, run: Trained) -> "list[int]":
    """The rows that training set aside, by the package's own splitter and recipe."""
    from lodestar.core.splitter import Splitter
    from lodestar.settings.recipe import Split

    strata = (rows["grp"] == "treatment").astype(int) * 2 + rows["outcome"]
    splitter = Splitter(Split(), task="causal", timestamp_col="event_timestamp")
    test = splitter.holdout(rows, strata.to_numpy()).test
    assert len(test) == run.json["rows"]["test"]
    return [int(position) for position in test]


def test_the_text_for_people_leaves_stdout_to_programs(lodestar: Lodestar, project: Path) -> None:
    done = lodestar("train", "-r", "wine", *SMALL, cwd=project).succeeded()
    assert done.stdout == ""
    assert "accuracy" in done.stderr
    assert "report.html" in done.stderr
    assert "\x1b" not in done.stderr


def test_set_changes_one_key_of_the_recipe(trained: Callable[..., Trained]) -> None:
    run = trained("wine", *SMALL)
    assert run.json["hyperparameters"]["n_estimators"] == 5
    assert run.json["hyperparameters"]["random_state"] == 42


def test_a_path_names_a_recipe_as_well(lodestar: Lodestar, new_project: Path) -> None:
    (new_project / "experiments").mkdir()
    shutil.copy(new_project / "recipes/wine.yaml", new_project / "experiments/wine_second.yaml")
    done = lodestar(
        *("train", "--recipe-file", "wine_second.yaml", *SMALL, "--json"),
        cwd=new_project / "experiments",
    ).succeeded()
    assert "_wine_second_" in done.json["run_name"]
    # The project is the nearest one above; nothing is written beside the recipe.
    assert (new_project / "mlruns/mlflow.db").is_file()
    assert not (new_project / "experiments/mlruns").exists()


@pytest.mark.parametrize("how", ["option", "variable"])
def test_an_environment_is_laid_over_base(lodestar: Lodestar, project: Path, how: str) -> None:
    (project / "config/lab.yaml").write_text(
        "mlflow:\n  experiment_name: laboratory\n  artifact_root: elsewhere\n", encoding="utf-8"
    )
    option = ("--env", "lab") if how == "option" else ()
    done = lodestar(
        *("train", "-r", "wine", *SMALL, *option, "--json"),
        cwd=project,
        env={"APP_ENV": "lab"} if how == "variable" else None,
    ).succeeded()
    assert done.json["artifact_uri"].startswith("elsewhere/")
    local = lodestar("runs", "list", "--json", cwd=project).succeeded()
    assert local.json["runs"] == []


def test_main_py_is_the_same_command(sample_project: Path, trained: Callable[..., Trained]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "train", "--recipe-file", "wine", *SMALL, "--json"],
        cwd=sample_project,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said, other = json.loads(done.stdout), trained("wine", *SMALL).json
    assert said.keys() == other.keys()
    assert said["metrics"] == other["metrics"]
    assert said["run_id"] != other["run_id"]


def test_the_same_recipe_and_data_give_the_same_metrics_and_predictions(
    lodestar: Lodestar, sample_project: Path, trained: Callable[..., Trained]
) -> None:
    first = trained("wine", *SMALL)
    done = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=sample_project).succeeded()
    again = Trained(sample_project, done.json)
    assert again.json["metrics"] == first.json["metrics"]
    assert again.json["intervals"] == first.json["intervals"]
    rows = pq.read_table(sample_project / "data/wine.parquet").to_pandas()
    frames = []
    for run in (first, again):
        wrapper, _ = load_wrapper(run.artifact, digest=run.json["artifact_digest"])
        predicted = wrapper.predict(rows)
        assert isinstance(predicted, pd.DataFrame)
        frames.append(predicted)
    pd.testing.assert_frame_equal(frames[0], frames[1], check_exact=True)


def test_another_seed_sets_other_rows_aside(
    lodestar: Lodestar, project: Path, trained: Callable[..., Trained]
) -> None:
    done = lodestar(
        *("train", "-r", "wine", *SMALL, "--set", "split.seed=7", "--json"), cwd=project
    ).succeeded()
    assert done.json["metrics"] != trained("wine", *SMALL).json["metrics"]


SALES = """\
model: {class_path: sklearn.linear_model.LinearRegression}
loader: {source_uri: recipes/sql/loaders/sales.sql}
preprocessor: {name: simple_scaler, params: {exclude_cols: [id]}}
data_interface: {task_type: regression, target_col: amount, entity_keys: [id]}
"""
SALES_SQL = (
    "SELECT id, visits, amount FROM sales WHERE CAST(day AS DATE) >= CAST(:start_date AS DATE)"
)


@pytest.fixture
def sales(new_project: Path) -> Path:
    """A project with a recipe of its own, whose SQL takes a date."""
    days = pd.date_range("2025-01-01", periods=100).strftime("%Y-%m-%d")
    rows = pd.DataFrame({"id": range(100), "day": days, "visits": [i % 7 for i in range(100)]})
    rows["amount"] = rows["visits"] * 2.5 + rows["id"] * 0.01
    rows.to_csv(new_project / "data/sales.csv", index=False)
    (new_project / "recipes/sales.yaml").write_text(SALES, encoding="utf-8")
    (new_project / "recipes/sql/loaders/sales.sql").write_text(SALES_SQL, encoding="utf-8")
    return new_project


def test_context_params_select_the_rows(lodestar: Lodestar, sales: Path) -> None:
    done = lodestar(
        *("train", "-r", "sales", "--context-params", "start_date=2025-02-20", "--json"), cwd=sales
    ).succeeded()
    assert sum(done.json["rows"].values()) == 50
    scored = lodestar(
        *("batch-inference", "--run-id", done.json["run_id"]),
        *("--context-params", "start_date=2025-04-01", "--json"),
        cwd=sales,
    ).succeeded()
    assert scored.json["rows"] == 10


def test_a_missing_an_unknown_and_a_hostile_parameter(lodestar: Lodestar, sales: Path) -> None:
    train = ("train", "-r", "sales")
    lodestar(*train, cwd=sales).refused(2, ":start_date", "--context-params")
    lodestar(*train, "--context-params", "begin=2025-01-01", cwd=sales).refused(2, "start_date")
    lodestar(*train, "--context-params", "start_date=2025-01-01,until=x", cwd=sales).refused(
        2, "no parameter :until", "start_date"
    )
    lodestar(*train, "--context-params", "start_date", cwd=sales).refused(2, "is not name=value")
    # A value is bound, never pasted: SQL in it is a date that cannot be read.
    hostile = "start_date=2025-01-01' OR '1'='1"
    lodestar(*train, "--context-params", hostile, cwd=sales).refused(3, "the SQL fails on the data")
    assert not (sales / "mlruns").exists()


def test_possible_leakage_is_told_and_strict_refuses(lodestar: Lodestar, project: Path) -> None:
    table = pq.read_table(project / "data/wine.parquet").to_pandas()
    table["answer"] = table["cultivar"].str[-1].astype(float)
    table.to_parquet(project / "data/wine.parquet")
    told = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project).succeeded()
    assert any("answer" in finding["what"] for finding in told.json["leakage"]), told.json[
        "leakage"
    ]
    before = lodestar("runs", "list", "--json", cwd=project).json
    lodestar("train", "-r", "wine", *SMALL, "--strict", cwd=project).refused(
        3, "--strict", "answer"
    )
    assert lodestar("runs", "list", "--json", cwd=project).json == before


def test_catboost_trains_as_any_class_does(lodestar: Lodestar, project: Path) -> None:
    pytest.importorskip("catboost")
    edited(
        project / "recipes/wine.yaml",
        "class_path: sklearn.ensemble.RandomForestClassifier",
        "class_path: catboost.CatBoostClassifier",
    )
    edited(project / "recipes/wine.yaml", "    min_samples_leaf: 2\n", "    verbose: 0\n")
    done = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project).succeeded()
    assert done.json["metrics"]["accuracy"] > 0.8
    lodestar("verify", "--run-id", done.json["run_id"], cwd=project).succeeded()
